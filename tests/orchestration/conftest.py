"""Worlds on an instance in memory, and on one in files that several processes can share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from orchestration.harness import World

from retrain_assets.promotion.registry import MlflowRegistry


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow 3.17 uses a SQLAlchemy option that SQLAlchemy 2.1 deprecates."""
    here = Path(__file__).parent
    mark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(mark)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one costs more than most tests here."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert MlflowRegistry(f"sqlite:///{path}").all_aliases() == {}
    return path


@pytest.fixture
def folder(tmp_path: Path, empty_mlflow: Path) -> Path:
    """A folder whose `home` has an MLflow database."""
    (tmp_path / "home").mkdir()
    shutil.copyfile(empty_mlflow, tmp_path / "home" / "mlflow.db")
    return tmp_path


@pytest.fixture
def world(folder: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(folder, instance)


@pytest.fixture
def stored_world(folder: Path) -> Iterator[World]:
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield World(folder, instance)
