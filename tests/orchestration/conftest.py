"""Worlds with an ephemeral instance."""

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
