"""`make demo`: one model's life on real flights, in one process.

Nothing here is scripted to come out a certain way: the demo moves the calendar of the example
source day by day and lets the real sensors, assets, gate, ledger and registry do the rest, as
`dagster dev` would. A second run goes on where the first one stopped.
"""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.examples import flights

if TYPE_CHECKING:
    from retrain_assets.orchestration.local import Executed, LocalLoop
    from retrain_assets.orchestration.platform import Platform
    from retrain_assets.spec.loading import SpecSet

__all__ = ["main"]

_MODEL = "flight_delay"
_FIRST_DAY = date(2013, 3, 1)
_LAST_DAY = date(2013, 12, 31)
_MAX_DAYS = 60


def main() -> int:
    """Run the demo; 0 when a drift-triggered retraining was judged, whatever the verdict."""
    started, cpu = time.perf_counter(), time.process_time()
    _say("retrain-assets demo: will a flight out of New York be late? (real flights of 2013)\n")
    specs, platform, loop = _open()
    day = max(flights.today() or _FIRST_DAY, _FIRST_DAY)
    flights.pin(day)
    try:
        if platform.ledger.champion(_MODEL) is None:
            _first_champion(loop, platform, day)
        else:
            _say(f"Going on after {day}: a champion is there from an earlier run.")
        judged = _days_until_retraining(loop, platform, day)
    finally:
        flights.unpin()
    _finish(loop, platform, specs)
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    _say(f"\nTook {wall:.0f} s ({used:.0f} CPU s). See it all in the Dagster UI:\n\n    make dev\n")
    return 0 if judged else 1


def _open() -> "tuple[SpecSet, Platform, LocalLoop]":
    # Deprecations inside mlflow and the log lines of its database are not for the demo's reader.
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    from retrain_assets.orchestration.build import build_definitions
    from retrain_assets.orchestration.local import LocalLoop
    from retrain_assets.orchestration.platform import Platform
    from retrain_assets.orchestration.status import local_instance
    from retrain_assets.settings import Settings
    from retrain_assets.spec.loading import load_specs

    settings = Settings.load()
    specs = load_specs(Path("model_specs") / f"{_MODEL}.yaml")
    loop = LocalLoop(build_definitions(specs, settings), local_instance(settings))
    return specs, Platform(settings), loop


def _first_champion(loop: "LocalLoop", platform: "Platform", day: date) -> None:
    days = (day - date(2013, 1, 1)).days + 1
    _say(f"1. Ingest the first {days} days, in one run")
    with _progress(platform, days):
        done = loop.tick("arrivals")
    _check(done)
    rows = sum(platform.store.describe(_MODEL, "features", key).rows
               for key in platform.store.partitions(_MODEL, "features"))  # fmt: skip
    _say(f"   {days} days, {rows:,} flights: contract passed, features made, drift measured\n")
    _say("2. Train the first champion")
    done = loop.tick("freshness_sensor")
    _check(done)
    if not done:
        raise SystemExit("no training is due for this data; `make clean` starts the demo again")
    _show_gate(platform, done[-1])


def _days_until_retraining(loop: "LocalLoop", platform: "Platform", day: date) -> bool:
    """Let days arrive until drift has started a retraining; whether it has."""
    _say("\n3. Days arrive, one by one")
    for _ in range(_MAX_DAYS):
        day += timedelta(days=1)
        if day > _LAST_DAY:
            _say("   The year is over: `make clean` starts it again.")
            return False
        flights.pin(day)
        _check(loop.tick("arrivals"))
        _show_day(platform, day)
        retrained = loop.tick("drift_sensor") or loop.tick("freshness_sensor")
        if retrained:
            _check(retrained)
            tags = retrained[-1].request.tags
            _say(f"\n4. Retraining for {retrained[-1].request.partition_key}: "
                 f"{tags['retrain/reason']}")  # fmt: skip
            _show_gate(platform, retrained[-1])
            return True
    _say(f"   No drift in {_MAX_DAYS} days; run the demo again to go on.")
    return False


def _show_day(platform: "Platform", day: date) -> None:
    report = platform.store.read_json(_MODEL, "drift_report", day.isoformat())
    worst = report["features"][0]
    severity = float(worst["severity"])
    bar = ("#" * min(round(severity * 10), 30)).ljust(10, ".")
    text = f"   {day}  {report['verdict']:<9}  {bar:<30}  worst: {worst['feature']} {severity:.1f} x threshold"
    _say(text)


def _show_gate(platform: "Platform", done: "Executed") -> None:
    """The gate's comparison of the candidate that the run built."""
    from retrain_assets.promotion.promote import judge
    from retrain_assets.spec.loading import parse_spec

    spec = parse_spec(Path("model_specs") / f"{_MODEL}.yaml")
    candidate, report, sentence = judge(spec, done.request.partition_key, store=platform.store)
    _say(f"   trained on {candidate.trained_on}, judged on {candidate.holdout} "
         f"({candidate.rows_holdout:,} flights that neither model was trained on)")  # fmt: skip
    for who, value in candidate.scores.items():
        label = {"candidate": f"candidate v{candidate.version}",
                 "champion": f"champion v{candidate.champion_version}"}.get(who, who)  # fmt: skip
        _say(f"     {label:<16} {candidate.metric} {value:.4f}")
    marks = {True: "passed", False: "FAILED", None: "undecided"}
    for criterion in report.criteria:
        if criterion.required:
            _say(f"     {criterion.name:<16} {marks[criterion.passed]:<9} {criterion.summary}")
    verdict = "PROMOTED" if done.success else "REJECTED, the champion stays"
    _say(f"   {verdict}: {sentence}")


def _finish(loop: "LocalLoop", platform: "Platform", specs: "SpecSet") -> None:
    from rich.console import Console

    from retrain_assets.fleet.terminal import status_notes, status_table
    from retrain_assets.orchestration.status import status_rows

    rows = status_rows(loop.instance, platform, specs)
    _say("\nStatus")
    Console(width=None if sys.stdout.isatty() else 160).print(status_table(rows, datetime.now(UTC)))
    for note in status_notes(rows):
        _say(note)
    loop.instance.dispose()


def _check(done: "list[Executed]") -> None:
    for run in done:
        if not run.success and not run.rejected:
            raise SystemExit(f"the run {run.request.run_key} failed:\n{run.error}")


@contextmanager
def _progress(platform: "Platform", days: int) -> "Iterator[None]":
    """Say how many partitions are done, every few seconds, while the block runs."""
    over = threading.Event()

    def report() -> None:
        line = ""
        while not over.wait(1 if sys.stdout.isatty() else 4):
            counts = {
                "raw": len(platform.store.partitions(_MODEL, "raw_data")),
                "features": len(platform.store.partitions(_MODEL, "features")),
                "drift": len(platform.store.json_partitions(_MODEL, "drift_report")),
            }
            new = "   " + ", ".join(f"{name} {n}/{days}" for name, n in counts.items())
            if new != line:
                line = new
                print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
