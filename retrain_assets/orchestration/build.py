"""`build_definitions`: a folder of specs becomes one Dagster code location.

https://docs.dagster.io/guides/build/projects

Called once per process by `definitions.py`; tests call it with their own specs and settings and get
fresh definitions each time. It imports no heavy library.
"""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dagster as dg

from retrain_assets.fleet.snapshot import specs_digest
from retrain_assets.orchestration.champion_job import champion_job
from retrain_assets.orchestration.executors import executor_of
from retrain_assets.orchestration.factory import model_assets
from retrain_assets.orchestration.fleet_status import fleet_status_asset, fleet_status_sensor
from retrain_assets.orchestration.io import TableIOManager
from retrain_assets.orchestration.on_demand import on_demand_job
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.quarantine import quarantine_assets
from retrain_assets.orchestration.schedules import build_schedules
from retrain_assets.orchestration.sensors import build_sensors
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import BrokenSpec, SpecSet, load_specs
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_definitions"]


def build_definitions(
    specs: SpecSet | Path | str | Sequence[Path | str],
    settings: Settings | None = None,
    *,
    groups: Collection[str] | None = None,
) -> dg.Definitions:
    """All assets, sensors, schedules, resources and jobs of the valid specs, and the quarantine.

    Args:
        specs: loaded specs, or folders and files to load.
        settings: by default the environment's. With `settings.models`, only the assets of these models
            are made, for a process that executes one run of theirs.
        groups: only models of these groups, for several code locations over one folder of specs; a
            model without one is its own group. Broken specs, which have none, are in all of them.

    Raises:
        SpecError: a path does not exist; a broken spec is quarantined instead.
        SettingsError: an unusable setting.
    """
    settings = settings or Settings.load()
    spec_set, specs_key = _loaded(specs, settings)
    models = {
        name: loaded.spec
        for name, loaded in spec_set.models.items()
        if groups is None or (loaded.spec.group or name) in groups
    }
    # Of several code locations over one folder, one shows the whole fleet.
    first = min((one.spec.group or name for name, one in spec_set.models.items()), default=None)
    fleet = [(spec_set, specs_key)] if models and (groups is None or first in groups) else []
    with _collector_paused():
        return _definitions(models, spec_set.broken, fleet, settings)


def _definitions(
    models: Mapping[str, ModelSpec],
    broken: tuple[BrokenSpec, ...],
    fleet: list[tuple[SpecSet, str]],
    settings: Settings,
) -> dg.Definitions:
    """`fleet`: all specs and their digest, where this location is the one that shows them."""
    platform = Platform(settings)
    resources = {"platform": platform, "tables": TableIOManager(platform)}
    if settings.models:
        chosen = [models[name] for name in settings.models if name in models]
        return dg.Definitions(
            assets=[asset for spec in chosen for asset in model_assets(spec)],
            resources=resources,
            executor=executor_of(settings),
        )
    return dg.Definitions(
        assets=[
            *(asset for spec in models.values() for asset in model_assets(spec)),
            *quarantine_assets(broken),
            *(fleet_status_asset(*shown) for shown in fleet),
        ],
        sensors=[
            *build_sensors(models, settings),
            *(fleet_status_sensor(*shown, settings) for shown in fleet),
        ],
        schedules=build_schedules(models, settings),
        jobs=[champion_job(models), on_demand_job(models)] if models else [],
        resources=resources,
        executor=executor_of(settings),
    )


def _loaded(
    specs: SpecSet | Path | str | Sequence[Path | str], settings: Settings
) -> tuple[SpecSet, str]:
    """The specs, and the digest of their files; of specs without files "", which no file has."""
    if isinstance(specs, SpecSet):
        return specs, ""
    paths = [specs] if isinstance(specs, Path | str) else list(specs)
    # The digest first: files that change in between make it an old one, and never a wrong one.
    key = specs_digest(paths)
    return load_specs(paths, cache_folder=settings.home / "cache"), key


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection meanwhile: nothing of what is made for a thousand models is garbage, and
    looking through all of it again and again takes a third of the CPU time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        _freeze()
    finally:
        if was_on:
            gc.enable()


@cache
def _freeze() -> None:
    """The collector leaves alone what is there now, the first time this is called: a code server or a
    run process keeps its first definitions for as long as it lives."""
    gc.freeze()
