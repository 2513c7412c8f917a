"""Fixtures of the cluster tests: one cluster and one deployment, which all of them share."""

from collections.abc import Iterator

import pytest
from k8s.backing import ObjectStore, Postgres
from k8s.cluster import ROOT, Cluster, Deployment


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """A cluster, without an image of ours."""
    if why := Cluster.missing():
        pytest.skip(why)
    with Cluster.running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster) -> Cluster:
    """A cluster whose node has the image of this checkout."""
    bare_cluster.import_image()
    return bare_cluster


@pytest.fixture
def undisturbed(bare_cluster: Cluster) -> Iterator[None]:
    """Nodes that no other test disturbs meanwhile."""
    with bare_cluster.undisturbed():
        yield


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
    """Everything, ready, with the example `flight_delay` alone; every sensor is off."""
    specs = {
        path: (ROOT / "model_specs" / path).read_text(encoding="utf-8")
        for path in ("flight_delay.yaml", "features/flight_delay.sql")
    }
    deployment = Deployment(
        cluster, "retrain-test", 77, postgres, object_store, {"RETRAIN_AUTOMATION": "false"}, specs
    )
    try:
        deployment.apply()
        yield deployment
    finally:
        deployment.remove()
