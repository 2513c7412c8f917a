"""Worlds on an instance in memory, and on one in files that several processes can share."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from orchestration.harness import World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow 3.17 uses a SQLAlchemy option that SQLAlchemy 2.1 deprecates."""
    here = Path(__file__).parent
    mark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(mark)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


@pytest.fixture
def stored_world(tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield World(tmp_path, instance)
