"""`build_definitions`: a folder of specs becomes one Dagster code location.

https://docs.dagster.io/guides/build/projects

Called once per process by `definitions.py`; tests call it with their own specs and settings and get
fresh definitions each time. It imports no heavy library.
"""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from retrain_assets.orchestration.champion_job import champion_job
from retrain_assets.orchestration.executors import executor_of
from retrain_assets.orchestration.factory import model_assets
from retrain_assets.orchestration.io import TableIOManager
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.quarantine import quarantine_assets
from retrain_assets.orchestration.schedules import build_schedules
from retrain_assets.orchestration.sensors import build_sensors
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import SpecSet, load_specs

__all__ = ["build_definitions"]


def build_definitions(
    specs: SpecSet | Path | str | Sequence[Path | str], settings: Settings | None = None
) -> dg.Definitions:
    """All assets, sensors, schedules, resources and the job `change_champion` of the valid specs, and the quarantine.

    Args:
        specs: loaded specs, or folders and files to load.
        settings: by default the environment's.

    Raises:
        SpecError: a path does not exist; a broken spec is quarantined instead.
        SettingsError: an unusable setting.
    """
    settings = settings or Settings.load()
    spec_set = specs if isinstance(specs, SpecSet) else load_specs(specs)
    models = {name: loaded.spec for name, loaded in spec_set.models.items()}
    platform = Platform(settings)
    return dg.Definitions(
        assets=[
            *(asset for spec in models.values() for asset in model_assets(spec)),
            *quarantine_assets(spec_set.broken),
        ],
        sensors=build_sensors(models, settings),
        schedules=build_schedules(models, settings),
        jobs=[champion_job(models)] if models else [],
        resources={"platform": platform, "tables": TableIOManager(platform)},
        executor=executor_of(settings),
    )
