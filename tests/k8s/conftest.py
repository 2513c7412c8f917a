"""Fixtures of the cluster tests: the cluster, and one deployment that a module's tests share."""

from collections.abc import Iterator

import pytest
from k8s.backing import ObjectStore, Postgres
from k8s.cluster import Cluster, Deployment


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster whose node has the image of this checkout."""
    if why := Cluster.missing():
        pytest.skip(why)
    with Cluster.running() as cluster:
        cluster.import_image()
        yield cluster


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[Postgres]:
    server = Postgres(cluster.host)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def object_store(cluster: Cluster) -> Iterator[ObjectStore]:
    server = ObjectStore(cluster.host)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def deployed(
    cluster: Cluster, postgres: Postgres, object_store: ObjectStore
) -> Iterator[Deployment]:
    """Webserver, daemon, code location and MLflow server, ready; every sensor is off."""
    deployment = Deployment(
        cluster, "retrain-test", 77, postgres, object_store, {"RETRAIN_AUTOMATION": "false"}
    )
    try:
        deployment.apply()
        yield deployment
    finally:
        deployment.remove()
