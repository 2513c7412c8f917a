"""CPU seconds of one tick of each sensor over a generated fleet, on a real sqlite instance with history.

    python bench/fleet/sensors.py [--models 100 1000] [--history 10 100] [--spread]

Daily partitions, metadata as drift reports without pictures have it, for the two assets that sensors read;
for every day one ended monitor run per ten models and two decisions per model, for every ten days a
judged candidate. One model's events go through the instance, the others' are copies of their rows
(`history`). Nothing is executed. A tick is measured after one that has read all: `idle` nothing is new, `one` one
model has a new alarmed report, `quiet` every model has a new report without an alarm, `all` every model has
an alarmed one (its drift sensor suspects the data; `--spread` gives each model a group of its own
instead, so that all may be retrained). Of several ticks that work off the news, the worst.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from orchestration.old_fleet import KEYS, OldFleet

SENSORS = ("arrivals", "drift_sensor", "freshness_sensor", "on_demand_sensor")


def measure(models: int, days: int, *, grouped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        fleet = OldFleet(Path(folder), models, days, grouped=grouped)
        print(f"{models:>6} {days:>4} set up in {time.monotonic() - began:.0f} s")
        for sensor in SENSORS:
            fleet.tick(sensor)  # imports, once per process
            ticks = [fleet.tick(sensor)[0] for _ in range(1 + models // 15)]
            line(models, days, sensor, "first, worst", max(ticks), 0)
        for sensor in SENSORS:
            idle = sorted(fleet.tick(sensor)[0] for _ in range(5))
            line(models, days, sensor, "idle", idle[2], 0)
            print(f"{'':>36}cursor {len(fleet.loop.cursors[sensor] or '') / 1e3:.1f} kB")
        for name, model in (("one, with imports", 0), ("one", 1)):
            fleet.news(fleet.names[model : model + 1], days, alarm=True)
            for sensor in SENSORS:
                line(models, days, sensor, name, *fleet.tick(sensor))
        for name, day in (("quiet", days + 1), ("all", days + 2)):
            fleet.news(fleet.names, day, alarm=name == "all")
            KEYS.append(fleet.key_of(day))
            for sensor in SENSORS:
                ticks = [fleet.tick(sensor) for _ in range(1 + models // 15)]
                line(models, days, sensor, f"{name}, worst", *max(ticks))
                print(f"{'':>36}sum of {len(ticks)} ticks {sum(t for t, _ in ticks):8.2f}")
        fleet.instance.dispose()


def line(models: int, days: int, sensor: str, what: str, seconds: float, requests: int) -> None:
    print(f"{models:>6} {days:>4} {sensor:<18} {what:<20} {seconds:8.3f} {requests:>4}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--history", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--spread", action="store_true")
    asked = parser.parse_args()
    print(f"{'models':>6} {'days':>4} {'sensor':<18} {'new':<20} {'CPU s':>8} {'runs':>4}")
    for models in asked.models:
        for days in asked.history:
            measure(models, days, grouped=not asked.spread)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"peak_mb": peak, "at": datetime.now(UTC).isoformat(timespec="seconds")}))


if __name__ == "__main__":
    main()
