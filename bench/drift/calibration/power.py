"""Which of the 21 known shifts a tool finds at a number of rows, and which of 29 still columns it
calls drifted.

    python bench/drift/calibration/power.py make --work WORK --rows 1000 --pairs 20
    PYTHON bench/drift/calibration/power.py retrain --work WORK --rows 1000 --pairs 20 --json …

Belongs here: pairs of files of the generator in ../shared/bench/drift, and asking each tool about
them as that benchmark does. Does not: tables (`tables`). Runs in the environment of the tool.
"""

import argparse
import importlib.util
import json
import time
import warnings
from pathlib import Path

SHARED = Path(__file__).parents[4] / "shared" / "bench" / "drift" / "bench_drift_peers.py"


def shared_benchmark(path):
    """The benchmark script as a module."""
    spec = importlib.util.spec_from_file_location("bench_drift_peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(benchmark, folder, rows, pairs):
    """Pairs of files that differ by their seed only; those that are there stay."""
    import numpy

    benchmark.np = numpy
    for seed in range(pairs):
        pair = folder / str(seed)
        if not (pair / "truth.json").exists():
            benchmark.generate(str(pair), rows, seed=100 + seed)


def retrain(thresholds):
    """`retrain drift` with the thresholds of `--effect small` or `large`."""

    def judge(benchmark, reference, current):
        from retrain_assets.drift import compare
        from retrain_assets.drift.columns import open_table
        from retrain_assets.drift.command import _Rules

        tables = open_table(reference), open_table(current)
        report = compare(
            *tables, _Rules(thresholds=thresholds()), columns=tables[0].schema.names,
            reference_name="reference", current_name="current",
        )  # fmt: skip
        return [row.feature for row in report.features if row.drifted]

    return judge


def _small():
    from retrain_assets.drift.command import _SMALL

    return _SMALL


def _large():
    from retrain_assets.drift.command import _Thresholds

    return _Thresholds()


def peer(name):
    """As ../shared/bench/drift asks it: p < 0.05 by hand, evidently's preset, nannyml's majority."""

    def judge(benchmark, reference, current):
        flags, _ = benchmark.WORKERS[name](reference, current, benchmark.Clock())
        return [column for column, flag in flags.items() if flag]

    return judge


def nannyml_any(benchmark, reference, current):
    """A column as soon as one of nannyml's ten chunks alerts."""
    import nannyml
    import pandas

    frames = pandas.read_parquet(reference), pandas.read_parquet(current)
    columns = benchmark.NUM + benchmark.CAT
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=columns, treat_as_categorical=benchmark.CAT
    )
    calculator.fit(frames[0])
    found = calculator.calculate(frames[1]).filter(period="analysis").to_df()
    methods = {name: found[name].columns.get_level_values(0)[0] for name in columns}
    return [name for name in columns if bool(found[name][methods[name]]["alert"].any())]


TOOLS = {
    "retrain": retrain(_small), "retrain-spec": retrain(_large), "scipy": peer("hand"),
    "evidently": peer("evidently"), "nannyml": peer("nannyml"), "nannyml-any": nannyml_any,
}  # fmt: skip


def measured(judge, benchmark, folder, pairs):
    """How often each column was called drifted."""
    truth = json.loads((folder / "0" / "truth.json").read_text())
    found = dict.fromkeys([*truth["drifted"], *truth["stable"]], 0)
    start = time.process_time()
    for seed in range(pairs):
        files = [str(folder / str(seed) / f"{side}.parquet") for side in ("reference", "current")]
        for column in judge(benchmark, *files):
            found[column] += 1
    return {
        "pairs": pairs, "found": found, "drifted": truth["drifted"], "stable": truth["stable"],
        "cpu_seconds": round(time.process_time() - start, 1),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=["make", *TOOLS])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--json")
    parser.add_argument("--shared", type=Path, default=SHARED)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own, hundreds of lines
    benchmark = shared_benchmark(arguments.shared)
    folder = arguments.work / "pairs" / str(arguments.rows)
    if arguments.tool == "make":
        make(benchmark, folder, arguments.rows, arguments.pairs)
        return
    result = {"tool": arguments.tool, "rows": arguments.rows}
    result |= measured(TOOLS[arguments.tool], benchmark, folder, arguments.pairs)
    print(arguments.tool, arguments.rows, result["cpu_seconds"], "CPU s", flush=True)
    with open(arguments.json, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
