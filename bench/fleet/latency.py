"""Seconds from a drift report to the first step of the retraining that it asks for, by sensor, with 50 models.

    python bench/fleet/latency.py [--events 9] [--part alone|all]

A real `dagster dev` over the project of the end-to-end test (tests/e2e/fleet_of_50.py): the repository's own
dagster.yaml, all sensors on, all 50 with champions. An event is a day on which one model drifts; `alone` that
day comes for this model only, `all` for all fifty at once, whose five monitor runs keep the machine busy in the
meantime. Each event begins when nothing runs. Printed are the median and the range of the whole and of its parts:

    request  report materialized -> retraining in the run queue: the sensor daemon's loop is 5 s long
    process  in the queue -> the run's own process says that it starts: dequeue, imports, definitions
    step     that -> its first step

and the share of the processors that was in use over all events, whoever used it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from e2e.dev_server import DevServer  # noqa: E402
from e2e.fleet_of_50 import MODELS, Calendar, write_project  # noqa: E402

from retrain_assets.orchestration.keys import Tag, asset_key  # noqa: E402
from retrain_assets.promotion.ledger import Ledger  # noqa: E402

FIRST_DAYS = 3


@dataclass(frozen=True)
class Latency:
    """Seconds."""

    request: float
    process: float
    step: float

    @property
    def whole(self) -> float:
        return self.request + self.process + self.step


def busy_seconds() -> float:
    """Processor seconds that were not idle since the machine started."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(map(int, fields[:8])) - idle) / os.sysconf("SC_CLK_TCK")


def quiet(instance: dg.DagsterInstance) -> bool | None:
    going_on = dg.RunsFilter(
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
        ]
    )
    return True if instance.get_runs_count(going_on) == 0 else None


def first_champions(server: DevServer, instance: dg.DagsterInstance, calendar: Calendar) -> None:
    calendar.say(FIRST_DAYS)
    ledger = Ledger(f"sqlite:///{server.home / 'ledger.db'}")
    server.wait_for(
        "all champions", lambda: True if len(ledger.champions()) == len(MODELS) else None, 3000
    )
    server.wait_for("the end of all runs", lambda: quiet(instance), 900)


def measured(server: DevServer, instance: dg.DagsterInstance, model: str) -> Latency:
    """The event of `model`, when its retraining has begun."""
    of_model = dg.RunsFilter(tags={Tag.trigger(model): "drift"})
    one_alone = dg.RunsFilter(tags={Tag.MODEL: model, Tag.TRIGGER: "drift"})

    def begun() -> tuple[dg.RunRecord, float] | None:
        for record in [*instance.get_run_records(of_model), *instance.get_run_records(one_alone)]:
            steps = instance.get_records_for_run(
                record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_START
            ).records
            if steps:
                return record, min(one.timestamp for one in steps)
        return None

    record, step = server.wait_for(f"the retraining of {model}", begun, 900)
    report = instance.fetch_materializations(asset_key(model, "drift_report"), limit=1).records[0]
    created, started = record.create_timestamp.timestamp(), record.start_time
    assert started is not None
    return Latency(created - report.timestamp, started - created, step - started)


def events(
    server: DevServer, instance: dg.DagsterInstance, models: list[str], say: Callable[[str], None]
) -> list[Latency]:
    """One event after the other; `say` makes a model's event happen."""
    found = []
    for model in models:
        say(model)
        found.append(measured(server, instance, model))
        server.wait_for("the end of all runs", lambda: quiet(instance), 900)
    return found


def table(name: str, found: list[Latency]) -> None:
    print(f"{name}, {len(found)} events, seconds: median (least to most)")
    for part in ("request", "process", "step", "whole"):
        values = [getattr(one, part) for one in found]
        middle, least, most = statistics.median(values), min(values), max(values)
        print(f"  {part:8} {middle:5.1f} ({least:.1f} to {most:.1f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=9)
    parser.add_argument("--part", choices=["alone", "all", "both"], default="both")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retrain-latency-") as name:
        folder = Path(name)
        calendar = write_project(folder)
        server = DevServer.start(folder)
        try:
            server.wait_until_ready()
            with dg.DagsterInstance.from_config(str(server.home / "dagster")) as instance:
                measure(server, instance, calendar, asked.events, asked.part)
        finally:
            server.stop()
            server.kill()


def measure(
    server: DevServer, instance: dg.DagsterInstance, calendar: Calendar, wanted: int, part: str
) -> None:
    began = time.monotonic()
    first_champions(server, instance, calendar)
    print(f"first champions of {len(MODELS)}: {time.monotonic() - began:.0f} s", flush=True)
    began, used = time.monotonic(), busy_seconds()
    days, drifts, alone = FIRST_DAYS, dict[str, list[int]](), dict[str, int]()

    def for_one(model: str) -> None:
        drifts[model], alone[model] = [days + 1], days + 1
        calendar.say(days, drifts, alone)

    if part != "all":
        table("alone", events(server, instance, list(MODELS[:wanted]), for_one))

    def for_all(model: str) -> None:
        nonlocal days
        days += 1
        drifts[model] = [days]
        calendar.say(days, drifts)

    # The first day for all is news to those only that have not had it alone.
    if part != "alone":
        table("all", events(server, instance, list(MODELS[-wanted:]), for_all))
    share = (busy_seconds() - used) / (time.monotonic() - began) / (os.cpu_count() or 1)
    print(f"processors in use: {share:.0%} of {os.cpu_count()}")


if __name__ == "__main__":
    main()
