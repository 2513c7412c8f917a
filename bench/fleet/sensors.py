"""CPU seconds of one tick of each sensor over a generated fleet, on a real sqlite instance with history.

    python bench/fleet/sensors.py [--models 1000] [--history 3 30]

Five assets a model, daily partitions, metadata as drift reports without pictures have it, for the two assets that
sensors read. The first and the last partition of each through the instance, those between as copies of their
rows, and for every partition one ended monitor run per ten models. Nothing is executed. A tick is
measured after one that has read all: `idle` nothing is new, `one` one model has a new alarmed report,
`all` every model has (its drift sensor suspects the data; `spread` gives each model a group of its own
instead, so that all may be retrained).
"""

import argparse
import json
import resource
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.keys import Tag, asset_key, monitor_keys
from retrain_assets.orchestration.local import LocalLoop
from retrain_assets.orchestration.platform import Platform
from retrain_assets.performance.measured import Performance, compact
from retrain_assets.promotion.ledger import Candidate
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import LoadedSpec, SpecSet
from retrain_assets.spec.model import ModelSpec

SENSORS = ("arrivals", "drift_sensor", "freshness_sensor", "on_demand_sensor")
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
    """So many days of history, two more to come, and the last of these was yesterday."""

    days: int

    def __call__(self, day: int) -> str:
        return (date.today() - timedelta(days=self.days + 2 - day)).isoformat()


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


def copy_history(home: Path, key_of: Calendar) -> None:
    """Rows of the partitions between the first and the last: the same events with other keys."""
    with sqlite3.connect(home / "history" / "runs" / "index.db") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(event_logs)")]
        columns.remove("id")
        chosen = ", ".join("?" if name == "partition" else name for name in columns)
        for day in range(1, key_of.days - 1):
            database.execute(
                f"INSERT INTO event_logs ({', '.join(columns)}) SELECT {chosen} FROM event_logs "
                "WHERE partition = ?",
                (key_of(day), key_of(0)),
            )


def ended_runs(loop: LocalLoop, names: list[str], key: str) -> None:
    """One monitor run for each ten models, over."""
    job = loop.definitions.resolve_implicit_global_asset_job_def()
    for start in range(0, len(names), 10):
        keys = [k for name in names[start : start + 10] for k in monitor_keys(name)]
        run = loop.instance.create_run_for_job(
            job,
            asset_selection=frozenset(keys),
            tags={Tag.KIND: "monitor", "dagster/partition": key},
        )
        loop.instance.report_run_canceled(run)


def copy_runs(home: Path, days: int) -> None:
    """As many ended runs for every further day, long ago."""
    with sqlite3.connect(home / "history" / "runs.db") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
        columns.remove("id")
        long_ago = str(datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None))
        for day in range(days):
            values = {
                "run_id": f"run_id || '-{day}'",
                "update_timestamp": f"'{long_ago}'",
                "create_timestamp": f"'{long_ago}'",
            }
            chosen = ", ".join(values.get(name, name) for name in columns)
            database.execute(
                f"INSERT INTO runs ({', '.join(columns)}) SELECT {chosen} FROM runs "
                "WHERE length(run_id) = 36"
            )


class Fleet:
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
        for name in self.names:
            for stage in STAGES:
                event(self.instance, name, stage, key_of(0), alarm=False)
            self.promoted(name, key_of(days - 1))
        copy_history(self.home, key_of)
        for name in self.names:
            for stage in STAGES:
                event(self.instance, name, stage, key_of(days - 1), alarm=False)
        ended_runs(self.loop, self.names, key_of(days - 1))
        copy_runs(self.home, days)

    def promoted(self, name: str, key: str) -> None:
        self.platform.ledger.promote(
            Candidate(name, "1", "run", "data", key, "roc_auc", 0.8),
            expected_champion=None, actor="bench", reason="bench", evidence={},
        )  # fmt: skip

    def news(self, names: list[str], day: int) -> None:
        """A new partition of these models with an alarmed report, and its run."""
        key_of = self.key_of
        for name in names:
            self.platform.store.write(name, "features", key_of(day), pa.table({"y": [0, 1]}))
            self.platform.store.write(name, "features", key_of(day - 1), pa.table({"y": [0, 1]}))
            for stage in ("features", "drift_report"):
                event(self.instance, name, stage, key_of(day), alarm=True)
        ended_runs(self.loop, names, key_of(day))

    def tick(self, sensor: str) -> tuple[float, int]:
        """CPU seconds of one tick, and how many runs it requests."""
        began = time.process_time()
        requests = self.loop.evaluate(sensor)
        return time.process_time() - began, len(requests)


def measure(models: int, days: int, *, grouped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), models, days, grouped=grouped)
        for sensor in SENSORS:
            first = [fleet.tick(sensor)[0] for _ in range(1 + models // 200)]
            line(models, days, sensor, "first", max(first), 0)
        for sensor in SENSORS:
            idle = sorted(fleet.tick(sensor)[0] for _ in range(5))
            line(models, days, sensor, "idle", idle[2], 0)
        fleet.news(fleet.names[:1], days)
        for sensor in SENSORS:
            line(models, days, sensor, "one", *fleet.tick(sensor))
        fleet.news(fleet.names, days + 1)
        KEYS.extend((fleet.key_of(days), fleet.key_of(days + 1)))
        for sensor in SENSORS:
            ticks = [fleet.tick(sensor) for _ in range(1 + models // 40)]
            name = "all" if grouped else "all, spread"
            line(models, days, sensor, f"{name}, worst", *max(ticks))
            print(f"{'':>36}sum of {len(ticks)} ticks {sum(t for t, _ in ticks):8.2f}")
        fleet.instance.dispose()


def line(models: int, days: int, sensor: str, what: str, seconds: float, requests: int) -> None:
    print(f"{models:>6} {days:>4} {sensor:<18} {what:<20} {seconds:8.3f} {requests:>4}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--history", type=int, nargs="+", default=[3, 30])
    parser.add_argument("--spread", action="store_true")
    asked = parser.parse_args()
    print(f"{'models':>6} {'days':>4} {'sensor':<18} {'new':<20} {'CPU s':>8} {'runs':>4}")
    for days in asked.history:
        measure(asked.models, days, grouped=not asked.spread)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"peak_mb": peak, "at": datetime.now(UTC).isoformat(timespec="seconds")}))


if __name__ == "__main__":
    main()
