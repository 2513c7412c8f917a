"""False alarms on streams without drift, and power on known shifts: one command, one table.

    python bench/drift/calibration/calibrate.py [--reports 400] [--json out.json]

Every report compares a current partition with a reference from the same process. A false alarm is a
report whose verdict is `drifted` by the defaults of a spec; for the small-effect rule of `retrain
drift` (any proven change) it is one with any flagged column. Streams: independent normal columns,
autocorrelated ones, a weekly season, heavy tails, many categories, few rows. Where neighbouring
rows depend on one another no test of independent rows holds: there the thresholds are calibrated on
12 partitions of the reference, which is what `--calibrate` is for, and both figures are given.
"""

import argparse
import json

import numpy as np
import pyarrow as pa

from retrain_assets.drift import build_profile, calibrate, compare
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.command import _SMALL, _Rules
from retrain_assets.spec.model import Drift

PARTITIONS = 12


def independent(rng, n, k):
    return pa.table({f"x{i}": rng.normal(size=n) for i in range(8)})


def autocorrelated(rng, n, k):
    noise = rng.normal(size=(n, 8))
    for t in range(1, n):
        noise[t] += 0.95 * noise[t - 1]
    return pa.table({f"x{i}": noise[:, i] for i in range(8)})


def weekly(rng, n, k):
    level = 0.4 * np.sin(2 * np.pi * k / 7)
    return pa.table({f"x{i}": rng.normal(level * (i % 2), 1, n) for i in range(8)})


def heavy_tailed(rng, n, k):
    columns = {f"c{i}": rng.standard_cauchy(n) for i in range(4)}
    return pa.table(columns | {f"p{i}": rng.pareto(1.2, n) for i in range(4)})


def high_cardinality(rng, n, k):
    return pa.table(
        {f"s{i}": [f"v{j}" for j in rng.zipf(1.3, n) % (1000 * (i + 1))] for i in range(4)}
        | {"id": [f"id {j}" for j in rng.integers(0, 10**12, n)]}
    )


def small(rng, n, k):
    return independent(rng, 100, k)


STREAMS = {f.__name__: f for f in (independent, autocorrelated, weekly, heavy_tailed,
                                   high_cardinality, small)}  # fmt: skip


def false_alarms(make, reports, n=1000, seed=1):
    """Shares of reports that call a stream without drift drifted: spec, spec calibrated, small."""
    spec, rules = Drift(), _Rules(thresholds=_SMALL)
    alarms = np.zeros(4, dtype=int)
    done = 0
    rng = np.random.default_rng(seed)
    while done < reports:
        parts = [make(rng, n, k) for k in range(PARTITIONS)]
        first = build_profile(ArrowSource(pa.concat_tables(parts)))
        profiles = [build_profile(ArrowSource(part), like=first) for part in parts]
        columns = parts[0].column_names
        spec_calibration = calibrate(profiles, spec, columns)
        small_calibration = calibrate(profiles, rules, columns)
        for k in range(20):
            current = make(rng, n, k + PARTITIONS)
            options = {"columns": columns, "reference_name": "a", "current_name": "b"}
            for place, (rule, calibration) in enumerate(
                [(spec, None), (spec, spec_calibration), (rules, None), (rules, small_calibration)]
            ):
                report = compare(first, current, rule, calibration=calibration, **options)
                alarms[place] += report.verdict == "drifted"
            done += 1
    return (alarms / done).tolist(), done


SHIFTS = {
    "mean + 0.05 sd": lambda rng, n: rng.normal(0.05, 1, n),
    "mean + 0.1 sd": lambda rng, n: rng.normal(0.1, 1, n),
    "mean + 0.2 sd": lambda rng, n: rng.normal(0.2, 1, n),
    "mean + 0.5 sd": lambda rng, n: rng.normal(0.5, 1, n),
    "sd x 1.1": lambda rng, n: rng.normal(0, 1.1, n),
    "sd x 1.25": lambda rng, n: rng.normal(0, 1.25, n),
    "sd x 2": lambda rng, n: rng.normal(0, 2, n),
}


def power(n, repeats, seed=2):
    """Share of reports that flag each shifted column, among 20 columns that do not move."""
    rng = np.random.default_rng(seed)
    rules = _Rules(thresholds=_SMALL)
    found = dict.fromkeys(SHIFTS, 0)
    for _ in range(repeats):
        still = {f"q{i}": rng.normal(size=n) for i in range(20)}
        still_now = {f"q{i}": rng.normal(size=n) for i in range(20)}
        reference = pa.table(still | {name: rng.normal(size=n) for name in SHIFTS})
        current = pa.table(still_now | {name: make(rng, n) for name, make in SHIFTS.items()})
        report = compare(
            reference, current, rules, columns=reference.column_names, reference_name="a",
            current_name="b",
        )  # fmt: skip
        for name in SHIFTS:
            found[name] += name in report.drifted_features
    return {name: count / repeats for name, count in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    result = {"false_alarms": {}, "power": {}}
    print("| stream | spec | spec, calibrated | any change | any change, calibrated | reports |")
    print("|---|---|---|---|---|---|")
    for name, make in STREAMS.items():
        rates, done = false_alarms(make, arguments.reports)
        result["false_alarms"][name] = rates
        print(f"| {name} | {' | '.join(f'{rate:.1%}' for rate in rates)} | {done} |", flush=True)
    print("\n| shift | n = 100 | 1,000 | 10,000 | 100,000 |\n|---|---|---|---|---|")
    sizes = {100: 1, 1000: 1, 10_000: 0.5, 100_000: 0.15}
    found = {n: power(n, max(4, int(arguments.repeats * part))) for n, part in sizes.items()}
    result["power"] = found
    for name in SHIFTS:
        print(f"| {name} | {' | '.join(f'{found[n][name]:.0%}' for n in found)} |")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
