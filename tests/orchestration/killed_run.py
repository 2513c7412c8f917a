"""A retraining that is killed at a chosen point: `python -m orchestration.killed_run FOLDER POINT KEY`.

Everything is real but one method of one object, which kills the process instead of returning.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
from orchestration.harness import World

from retrain_assets.data.tables import TableStore
from retrain_assets.promotion.ledger import Ledger, Promotion
from retrain_assets.promotion.registry import MlflowRegistry, ModelVersion


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class KilledStore(TableStore):
    """Killed when the candidate is trained and evaluated, before it is registered."""

    def write(self, model: str, table: str, *arguments: Any) -> Any:
        if table == "reference":
            die()
        return super().write(model, table, *arguments)


class KilledRegistry(MlflowRegistry):
    """Killed when the version is registered, before anybody has written down that it is."""

    def log_candidate(self, *arguments: Any, **keywords: Any) -> ModelVersion:
        super().log_candidate(*arguments, **keywords)
        die()


class KilledLedger(Ledger):
    """Killed when the promotion is in the ledger, before the registry's aliases follow."""

    def promote(self, *arguments: Any, **keywords: Any) -> Promotion:
        super().promote(*arguments, **keywords)
        die()


def main(folder: Path, point: str, partition: str) -> None:
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        world = World(folder, instance)
        settings = world.settings
        platform: Any = (world.loop.definitions.resources or {})["platform"]
        match point:
            case "before registration":
                platform.store = KilledStore(settings.storage)
            case "after registration":
                platform.registry = KilledRegistry(settings.mlflow_uri, settings.mlflow_artifacts)
            case "after promotion":
                platform.ledger = KilledLedger(settings.ledger_url)
        world.retrain(partition)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
