"""OpenStack Swift with its S3 interface, in one process: `/usr/bin/python3 swift_server.py ADDRESS PORT FOLDER`.

Runs under Debian's interpreter, which has Swift (packages swift-proxy, -account, -container and -object);
nothing of this project is imported here. One replica, no caches, users by tempauth; objects lie below
FOLDER. The access key is `retrain:tests`. Prints `ready` when it answers.
"""

import os
import sys
import time as clock

import eventlet
import eventlet.wsgi
from swift.account.server import AccountController
from swift.common import utils
from swift.common.middleware import slo, tempauth
from swift.common.middleware.s3api import s3api
from swift.common.ring import RingBuilder
from swift.container.server import ContainerController
from swift.obj.server import ObjectController
from swift.proxy.server import Application

ACCOUNT, USER, SECRET = "retrain", "tests", "Correct-Horse-7"


def main(address: str, port: int, folder: str) -> None:
    eventlet.patcher.monkey_patch(all=False, socket=True, select=True, time=True)
    devices = os.path.join(folder, "devices")
    os.makedirs(os.path.join(devices, "disk"))
    conf = {
        "devices": devices, "mount_check": "false", "swift_dir": folder, "fallocate_reserve": "0",
        "disable_fallocate": "true", "log_level": "WARNING",
        # One thread does all of it and waits for the disk too: with Swift's half a second a busy machine
        # loses a connection to itself, and the bucket "does not exist" for a moment.
        "conn_timeout": "20", "node_timeout": "60", "recoverable_node_timeout": "60",
        "error_suppression_limit": "1000",
        # What is known to be there stays known; asked again each minute, a bucket whose database is
        # waiting for the disk "does not exist".
        "recheck_account_existence": "86400", "recheck_container_existence": "86400",
    }  # fmt: skip
    # The listening sockets come first: the rings hold their ports.
    storage = {
        "account": AccountController, "container": ContainerController, "object": ObjectController
    }  # fmt: skip
    sockets = {name: eventlet.listen(("127.0.0.1", 0)) for name in storage}
    for name, listening in sockets.items():
        builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        builder.add_dev(
            {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "device": "disk",
             "port": listening.getsockname()[1], "weight": 1.0, "replication_ip": "127.0.0.1",
             "replication_port": listening.getsockname()[1]}
        )  # fmt: skip
        builder.rebalance()
        builder.get_ring().save(os.path.join(folder, f"{name}.ring.gz"))
    logger = utils.get_logger(conf, log_route="swift")
    for name, controller in storage.items():
        eventlet.spawn(serve, sockets[name], controller({**conf, "bind_port": "0"}, logger))
    eventlet.spawn(serve, eventlet.listen((address, port), backlog=256), proxy(conf, logger))
    print("ready", flush=True)
    while True:
        eventlet.sleep(3600)


def proxy(conf: dict, logger) -> object:
    app = Application(
        {**conf, "account_autocreate": "true", "allow_account_management": "true"}, logger
    )
    user = {f"user_{ACCOUNT}_{USER}": f"{SECRET} .admin"}
    for factory, options in (
        (slo.filter_factory, {}),
        (tempauth.filter_factory, user),
        (s3api.filter_factory, {"s3_acl": "false", "location": "us-east-1"}),
    ):
        app = factory(conf, **options)(app)
    return cached(app)


class Cache:
    """What memcached is to Swift, in this process: tempauth keeps its users' accounts there."""

    def __init__(self) -> None:
        self.values: dict = {}

    def get(self, key, raise_on_error=False):
        value, until = self.values.get(key, (None, 0.0))
        return value if _now() < until else None

    def set(self, key, value, time=0, **_options) -> None:
        self.values[key] = (value, _now() + time if time else float("inf"))

    def delete(self, key, server_key=None) -> None:
        self.values.pop(key, None)

    def incr(self, key, delta=1, time=0) -> int:
        value = (self.get(key) or 0) + delta
        self.set(key, value, time)
        return value


def _now() -> float:
    return clock.time()


def cached(app):
    cache = Cache()

    def with_cache(env, start_response):
        return app({**env, "swift.cache": cache}, start_response)

    return with_cache


def serve(listening, app) -> None:
    with open(os.devnull, "w") as quiet:
        eventlet.wsgi.server(listening, app, log=quiet, debug=False, minimum_chunk_size=8192)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
