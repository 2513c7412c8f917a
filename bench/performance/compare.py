"""Estimated performance against what was realised, on real streams, beside NannyML's estimators.

    .venv/bin/python bench/performance/compare.py --elec2 ../shared/data/elec2.csv.gz \
        [--nannyml OTHER_VENV/bin/python] [--out report.md]

Every four weeks (eight on Elec2) a model is trained on 46 days, calibrated on the 14 days after, and its
performance estimated on each stretch of the four weeks that follow: weeks of Elec2 (336 rows), days of
flights (about 900). The table has, per metric, the mean absolute error against the realised value of
the estimate, of NannyML's and of "as on the holdout", and how often the estimate's interval (two bounds
of 95% each, so nominally 90%) holds the realised value. NannyML runs in its own environment, on the same
holdouts and scores.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from retrain_assets.performance.confidence import ConfidenceEstimator
from retrain_assets.performance.losses import LossEstimator
from retrain_assets.performance.realised import realised
from retrain_assets.training.lightgbm_trainer import train_lightgbm

TRAIN, HOLDOUT, AFTER = 46, 14, 28
BINARY = ("roc_auc", "average_precision", "accuracy", "f1", "brier", "log_loss")
REGRESSION = ("mae", "rmse")


@dataclass(frozen=True)
class Stream:
    """Rows in time order, each with its day, counted from 0."""

    name: str
    task: Any
    table: pa.Table
    target: str
    day: np.ndarray
    step: int
    stretch: int

    @property
    def features(self) -> list[str]:
        return [name for name in self.table.column_names if name != self.target]

    def days(self, first: int, count: int) -> pa.Table:
        return self.table.filter(pa.array((self.day >= first) & (self.day < first + count)))


def elec2(path: Path) -> Stream:
    table = csv.read_csv(path)
    day = np.arange(table.num_rows) // 48
    return Stream("elec2", "binary", table, "class", day, 56, 7)


def flights() -> Iterator[Stream]:
    from retrain_assets.examples.flights import _year

    year = _year()
    year = year.filter(pc.is_valid(year["arr_delay"])).sort_by("time_hour")
    day = pc.day_of_year(year["time_hour"]).to_numpy() - 1
    common = {name: year[name] for name in ("carrier", "origin", "dest", "distance", "hour")}
    common["weekday"] = pc.day_of_week(year["time_hour"])
    late = pc.greater(year["arr_delay"], 15)
    yield Stream("flights: late", "binary", pa.table({**common, "y": late}), "y", day, 28, 1)
    minutes = {**common, "y": year["air_time"]}
    yield Stream("flights: air time", "regression", pa.table(minutes), "y", day, 28, 1)


def scored(stream: Stream, model: Any, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    truth = table[stream.target].to_numpy().astype(np.float64)
    if stream.task == "binary":
        truth = truth.astype(np.int64)
    return truth, model.predict(table.select(stream.features).to_pandas())


def walk(stream: Stream, folder: Path) -> list[dict[str, Any]]:
    """One row per origin, stretch and metric; holdouts and scores are left in `folder`."""
    rows: list[dict[str, Any]] = []
    last = int(stream.day.max()) - TRAIN - HOLDOUT - AFTER
    for origin in range(0, last, stream.step):
        train = stream.days(origin, TRAIN)
        model = train_lightgbm(
            train, target=stream.target, task=stream.task, feature_columns=stream.features,
            params={"num_leaves": 31, "n_estimators": 100, "num_threads": 1}, seed=0,
        )  # fmt: skip
        start = origin + TRAIN
        holdout = stream.days(start, HOLDOUT)
        days = stream.day[(stream.day >= start) & (stream.day < start + HOLDOUT)]
        truth, score = scored(stream, model, holdout)
        metrics = BINARY if stream.task == "binary" else REGRESSION
        began = time.process_time()
        known = {metric: realised(metric, truth, score).value for metric in metrics}
        estimators: dict[str, Any] = {
            metric: ConfidenceEstimator.fit(metric, truth, score, days)
            if stream.task == "binary"
            else LossEstimator.fit(
                metric, truth, score, holdout.select(stream.features), partitions=days
            )
            for metric in metrics
        }
        seconds = time.process_time() - began
        exported = [_export(stream, holdout, truth, score, days - start)]
        for number in range(AFTER // stream.stretch):
            table = stream.days(start + HOLDOUT + number * stream.stretch, stream.stretch)
            if not table.num_rows:
                continue
            truth, score = scored(stream, model, table)
            exported.append(_export(stream, table, truth, score, np.full(len(truth), 100 + number)))
            for metric in metrics:
                began = time.process_time()
                features = () if stream.task == "binary" else (table.select(stream.features),)
                found = estimators[metric].estimate(score, *features)
                seconds += time.process_time() - began
                real = realised(metric, truth, score)
                if found.decided and real.value is not None:
                    rows.append(
                        {
                            "stream": stream.name, "origin": origin, "chunk": 100 + number,
                            "metric": metric, "real": real.value, "estimate": found.value,
                            "holdout": known[metric], "width": found.high - found.low,
                            "inside": found.low <= real.value <= found.high,
                        }
                    )  # fmt: skip
        name = stream.name.replace(": ", "_").replace(" ", "_")
        pq.write_table(pa.concat_tables(exported), folder / f"{name}-{origin}.parquet")
        print(f"{stream.name} day {origin}: {seconds:.1f} CPU s", flush=True)
    return rows


def _export(
    stream: Stream, table: pa.Table, truth: np.ndarray, score: np.ndarray, chunk: np.ndarray
) -> pa.Table:
    kept = table.select(stream.features) if stream.task == "regression" else pa.table({})
    columns = {name: kept[name] for name in kept.column_names}
    return pa.table({**columns, "__y": truth, "__score": score, "__chunk": chunk})


def report(rows: list[dict[str, Any]], nannyml: dict[str, float]) -> str:
    lines = [
        "| stream | metric | stretches | mean abs. error | NannyML | as on the holdout | "
        "interval holds | mean width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stream, metric in dict.fromkeys((row["stream"], row["metric"]) for row in rows):
        own = [row for row in rows if (row["stream"], row["metric"]) == (stream, metric)]
        real = np.array([row["real"] for row in own])
        ours = np.abs(np.array([row["estimate"] for row in own]) - real).mean()
        naive = np.abs(np.array([row["holdout"] for row in own]) - real).mean()
        keys = [f"{stream}|{row['origin']}|{row['chunk']}|{metric}" for row in own]
        theirs = [abs(nannyml[k] - r) for k, r in zip(keys, real, strict=True) if k in nannyml]
        shown = f"{np.mean(theirs):.4f}" if len(theirs) == len(own) else "–"
        lines.append(
            f"| {stream} | {metric} | {len(own)} | {ours:.4f} | {shown} | {naive:.4f} | "
            f"{np.mean([row['inside'] for row in own]):.0%} | "
            f"{np.mean([row['width'] for row in own]):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elec2", type=Path)
    parser.add_argument("--nannyml", type=Path, help="Python of an environment with nannyml")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    streams = [*([elec2(arguments.elec2)] if arguments.elec2 else []), *flights()]
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for stream in streams for row in walk(stream, Path(folder))]
        theirs: dict[str, float] = {}
        if arguments.nannyml:
            script = Path(__file__).with_name("nannyml_estimates.py")
            for stream in streams:
                name = stream.name.replace(": ", "_").replace(" ", "_")
                done = subprocess.run(
                    [arguments.nannyml, script, folder, name, stream.task],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                found = json.loads(done.stdout.splitlines()[-1])
                theirs |= {f"{stream.name}|{key}": value for key, value in found.items()}
    text = report(rows, theirs)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
