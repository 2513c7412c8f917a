"""Sending messages through Apprise, bounded in time and without leaking a URL.

Belongs here: from a target's name to deliveries. Does not: what a message says (`message`).

A target `ops` stands for the Apprise URLs in `RETRAIN_ALERT_OPS` (several are separated by spaces or
commas). Such URLs hold webhook tokens and passwords, so nothing that Apprise or its HTTP library
says about one is passed on: errors are made of the service's name and the HTTP status, and the
libraries' log records are dropped while they send.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain_assets.alerts.message import Message

if TYPE_CHECKING:
    import apprise

__all__ = ["Delivery", "send", "target_variable"]

_TIMEOUT_SECONDS = 10.0
_SOCKET_SECONDS = 4.0
_LOGGERS = ("apprise", "requests", "urllib3", "urllib3.connectionpool", "urllib3.util.retry")

_records: ContextVar[list[str] | None] = ContextVar("retrain_alert_records", default=None)
"""Log messages of the sending in progress; None outside of one."""


@dataclass(frozen=True)
class Delivery:
    """What became of a message at one target.

    Attributes:
        target: name of the target.
        delivered: every service of the target has accepted the message.
        error: why not, without any part of a URL; None if delivered.
    """

    target: str
    delivered: bool
    error: str | None = None


def target_variable(target: str) -> str:
    """Environment variable with the Apprise URLs of a target.

    >>> target_variable("ops")
    'RETRAIN_ALERT_OPS'
    """
    return f"RETRAIN_ALERT_{target.upper()}"


class _Withhold(logging.Filter):
    """Keeps log records of a sending from every handler, since they quote URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        records = _records.get()
        if records is None:
            return True
        records.append(record.getMessage())
        return False


_WITHHOLD = _Withhold()


@contextlib.contextmanager
def _withheld() -> Iterator[list[str]]:
    """Within, in this context and the threads that inherit it, libraries log into the list."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_WITHHOLD)  # adding it again changes nothing
    records: list[str] = []
    token = _records.set(records)
    try:
        yield records
    finally:
        _records.reset(token)


def _services(urls: str) -> tuple[list[apprise.NotifyBase], bool]:
    """The services that the URLs name, and whether every URL was understood."""
    import apprise

    # Apprise's own limit works through threads that keep the process alive; ours does not.
    manager = apprise.Apprise(asset=apprise.AppriseAsset(service_timeout=0))
    with warnings.catch_warnings():
        # The first URL loads the plug-ins, of which the one for mail imports a deprecated module.
        warnings.filterwarnings("ignore", "'imghdr' is deprecated", DeprecationWarning)
        complete = manager.add(urls)
    services = list(manager)
    for service in services:
        service.socket_connect_timeout = min(service.socket_connect_timeout, _SOCKET_SECONDS)
        service.socket_read_timeout = min(service.socket_read_timeout, _SOCKET_SECONDS)
    return services, complete


def _refusal(records: Sequence[str]) -> str:
    for record in records:
        if status := re.search(r"\berror=(\d{3})\b", record):
            return f"answered HTTP {status[1]}"
    if any("onnection error" in record for record in records):
        return "could not be reached, or broke off"
    return "did not accept the message"


class _Sending(threading.Thread):
    """One message on its way to one service.

    A daemon thread: a service that drips its answer for ever cannot keep this process alive.
    """

    def __init__(self, service: apprise.NotifyBase, message: Message) -> None:
        super().__init__(name="retrain-alert", daemon=True)
        self.service = service
        self.message = message
        self.problem: str | None = f"did not answer within {_TIMEOUT_SECONDS:g} seconds"

    def run(self) -> None:
        import apprise

        with _withheld() as records:
            # A manager for one service gives it the conversions of Markdown and of lengths.
            manager = apprise.Apprise(asset=self.service.asset)
            manager.add(self.service)
            try:
                accepted = manager.notify(
                    title=self.message.subject(),
                    body=self.message.markdown(),
                    body_format=apprise.NotifyFormat.MARKDOWN,
                    notify_type=apprise.NotifyType(self.message.severity),
                )
            except Exception as error:  # noqa: BLE001
                # Apprise's services are plug-ins, and an alert must never fail what it reports on.
                self.problem = f"failed with {type(error).__name__}"
            else:
                self.problem = None if accepted else _refusal(records)


def _delivery(target: str, complete: bool, sendings: Sequence[_Sending]) -> Delivery:
    variable = target_variable(target)
    problems = [] if complete else [f"{variable} holds something that is not an Apprise URL"]
    for sending in sendings:
        # Read once: the thread may still finish.
        problem = sending.problem
        if problem is not None:
            problems.append(f"{sending.service.service_name} {problem}")
    if not problems:
        return Delivery(target, True)
    return Delivery(
        target, False, f"alert target {target}: {'; '.join(problems)}; check {variable}"
    )


def send(message: Message, targets: Sequence[str]) -> list[Delivery]:
    """Send `message` to every target, all at the same time.

    Never raises because of a target: what went wrong is in the deliveries, for the caller to log
    or show. Returns after about ten seconds at the latest, whatever the targets do.

    Args:
        message: what to send.
        targets: names of targets; `ops` reads RETRAIN_ALERT_OPS.

    Returns:
        One delivery per target, in order.
    """
    started: dict[str, tuple[bool, list[_Sending]]] = {}
    for target in dict.fromkeys(targets):
        urls = os.environ.get(target_variable(target), "").strip()
        if not urls:
            continue
        with _withheld():
            services, complete = _services(urls)
        started[target] = complete, [_Sending(service, message) for service in services]
    sendings = [sending for _, group in started.values() for sending in group]
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    for sending in sendings:
        sending.start()
    for sending in sendings:
        sending.join(max(0.0, deadline - time.monotonic()))
    return [
        _delivery(target, *started[target])
        if target in started
        else Delivery(
            target,
            False,
            f"alert target {target}: environment variable {target_variable(target)} is not set; "
            "set it to an Apprise URL, for example mailtos://... or slack://...",
        )
        for target in targets
    ]
