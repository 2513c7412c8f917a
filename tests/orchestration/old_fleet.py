"""A fleet with champions, reports, runs and decisions of many days, and what is new in it, in seconds.

Belongs here: what happened to the models. Does not: how it gets into the databases so fast (`history`). For
tests of how much a tick reads, and for bench/fleet/sensors.py.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from orchestration.history import copy_days, copy_ledger, copy_models, copy_runs, give_to_runs

from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.keys import Tag, asset_key, monitor_keys
from retrain_assets.orchestration.local import LocalLoop
from retrain_assets.orchestration.platform import Platform
from retrain_assets.performance.measured import Performance, compact
from retrain_assets.policy.record import Entry
from retrain_assets.promotion.decisions import Judgement
from retrain_assets.promotion.ledger import Candidate
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import LoadedSpec, SpecSet
from retrain_assets.spec.model import ModelSpec

STAGES = ("features", "drift_report")
KEYS: list[str] = []
"""Partitions that the source has."""
SERVED = [
    Performance("roc_auc", "maximize", "realised", None, 0.8, 0.01, 0.78, 0.82, 0.95, 1000, "exact")
] * 60


def available(**_: Any) -> list[str]:
    """The source that all models share."""
    return KEYS


@dataclass(frozen=True)
class Calendar:
    """So many days of history, three more to come, and the last of these was yesterday."""

    days: int

    def __call__(self, day: int) -> str:
        return (date.today() - timedelta(days=self.days + 3 - day)).isoformat()


def spec(n: int, start: str, *, grouped: bool) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": f"m{n:04d}",
            "group": "fleet" if grouped else f"g{n:04d}",
            "partitions": {"every": "day", "start": start},
            "source": {"python": "builtins:print", "available": f"{__name__}:available"},
            "target": "y",
            "task": "binary",
            "train": {"window": 3, "min_window": 2, "holdout": 1},
            "retrain": {"max_age": "365d"},
        }
    )


def report(alarm: bool) -> dict[str, Any]:
    """Metadata as large as that of a report without pictures."""
    return {
        "alarm": alarm, "verdict": "drifted" if alarm else "stable", "drift_score": 0.4,
        "reference": "champion v1", "fingerprint": "0" * 64,
        "report": dg.MetadataValue.md("x" * 2_000), "heat_map": dg.MetadataValue.md("x" * 2_000),
        "evidence": dg.MetadataValue.json({"champion": "1", "performance": compact(SERVED)}),
    }  # fmt: skip


def event(instance: dg.DagsterInstance, name: str, stage: str, key: str, alarm: bool) -> None:
    values = report(alarm) if stage == "drift_report" else {"fingerprint": "0" * 64}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key(name, stage), partition=key, metadata=values)
    )


def ended_runs(instance: dg.DagsterInstance, names: list[str], key: str) -> dict[str, str]:
    """One monitor run for each ten models, over; by model the run's id."""
    runs: dict[str, str] = {}
    for start in range(0, len(names), 10):
        some = names[start : start + 10]
        run = instance.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                run_id=str(uuid.uuid4()),
                asset_selection=frozenset(k for name in some for k in monitor_keys(name)),
                status=dg.DagsterRunStatus.SUCCESS,
                tags={
                    Tag.KIND: "monitor",
                    Tag.QUEUE: f"monitor:{some[0]}",
                    "dagster/partition": key,
                },
            )
        )
        runs |= dict.fromkeys(some, run.run_id)
    return runs


class OldFleet:
    """A fleet with a champion each, and a loop over its sensors."""

    def __init__(self, folder: Path, models: int, days: int, *, grouped: bool) -> None:
        self.home = folder / "dagster"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        settings = Settings.load(home=folder / "retrain")
        self.key_of = key_of = Calendar(days)
        specs = [spec(n, key_of(0), grouped=grouped) for n in range(models)]
        self.names = [one.name for one in specs]
        loaded = {one.name: LoadedSpec(one, folder) for one in specs}
        self.loop = LocalLoop(build_definitions(SpecSet(loaded, ()), settings), self.instance)
        self.platform = Platform(settings)
        KEYS[:] = [key_of(day) for day in range(days)]
        first, *others = self.names
        self.last_event = 0
        for stage in STAGES:
            event(self.instance, first, stage, key_of(0), alarm=False)
        copy_days(self.home, key_of(0), KEYS[1:-1])
        for stage in STAGES:
            event(self.instance, first, stage, key_of(days - 1), alarm=False)
        self.last_event = copy_models(self.home, first, others)
        self.decided(first, days)
        copy_ledger(settings.home / "ledger.db", first, others)
        ended_runs(self.instance, self.names, key_of(days - 1))
        copy_runs(self.home, days - 1)

    def decided(self, name: str, days: int) -> None:
        """Promotions, decisions and judgements of so many days."""
        now, evidence = datetime.now(UTC), {"evidence": "x" * 800}
        self.platform.ledger.promote(
            Candidate(name, "1", "run", "data", self.key_of(days - 1), "roc_auc", 0.8),
            expected_champion=None, actor="bench", reason="bench", evidence={},
        )  # fmt: skip
        self.platform.decisions.record(
            [
                Entry(name, f"{n:>032}", now, now, self.key_of(n // 2), "wait", None,
                      ("nothing is new",), evidence)
                for n in range(2 * days)
            ]
        )  # fmt: skip
        for n in range(9, days, 10):
            self.platform.decisions.record_judgement(
                Judgement(name, f"run {n}", f"{2 * n:>032}", self.key_of(n), "1", "", "promote",
                          "fine", None, 1.0, now)
            )  # fmt: skip

    def news(self, names: list[str], day: int, *, alarm: bool) -> None:
        """A new partition of these models and its run."""
        first, *others = names
        for stage in STAGES:
            event(self.instance, first, stage, self.key_of(day), alarm=alarm)
        before, self.last_event = (
            self.last_event,
            copy_models(self.home, first, others, after=self.last_event),
        )
        store = self.platform.store
        for name in names:
            if not store.partitions(name, "features"):
                store.write(name, "features", self.key_of(day - 1), pa.table({"y": [0, 1]}))
            store.write(name, "features", self.key_of(day), pa.table({"y": [0, 1]}))
        runs = ended_runs(self.instance, names, self.key_of(day))
        give_to_runs(self.home, runs, after=before)

    def tick(self, sensor: str) -> tuple[float, int]:
        """CPU seconds of one tick, and how many runs it requests."""
        began = time.process_time()
        requests = self.loop.evaluate(sensor)
        return time.process_time() - began, len(requests)
