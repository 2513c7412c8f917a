"""How often does the gate promote a model that is no better, and how often one that is?

    .venv/bin/python bench/gate/simulate.py [--trials 2000] [--out docs]

Writes the table and text of docs/gate.md and docs/images/gate_simulation.png; about four minutes of
CPU. Every trial draws a holdout and the scores of two models from a known law, and asks
`evaluate_gate`, the rule "candidate > champion", and `mlflow.validate_evaluation_results`. Under the
law of *equal* models both have the same kind of errors, drawn independently on top of shared ones, so
that every promotion is false; nominal: 5%.

Three kinds of holdout:
    rows    400 independent rows (ranking: 150 groups of 8)
    days    28 days of 15 rows (ranking: of 6 groups): each model has better and worse days
    hours   168 hours of 3 rows: what makes an hour good or bad for a model lasts (autoregressive,
            0.6 from hour to hour)
    4 days, 7 days
            few of them, of 30 to 100 rows (ranking: 10 to 33 groups), each of its own size
Rows of days and hours are clustered as the product does it, by `time_blocks`.
"""

import argparse
import logging
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.promotion.gate import GateReport, evaluate_gate
from retrain_assets.promotion.intervals import method_of, time_blocks
from retrain_assets.spec.model import METRICS, Gate

ROOT = Path(__file__).resolve().parents[2]
GATE = Gate(min_rows=50, resamples=400)
BAND = (3.5, 6.5)
MLFLOW_GAIN = 0.01
NOT_HOURLY = ("average_precision", "pinball@0.1", "pinball@0.5", "ndcg@5")
POWER_TRIALS = 300
RATES = ("rows", "days", "hours", "four", "seven")
FEW = {"4 days": 4, "7 days": 7}
PER_TIME = {"rows": 1, "hours": 3}
Array = NDArray[Any]


@dataclass(frozen=True)
class Holdout:
    """Truth and the two models' scores; `units` are the clusters, None where rows are alone."""

    y_true: Array
    candidate: Array
    champion: Array
    groups: Array | None = None
    units: Array | None = None

    def judge(self, metric: str, seed: int, *, clustered: bool = True) -> GateReport:
        return evaluate_gate(
            y_true=self.y_true,
            scores={"candidate": self.candidate, "champion": self.champion},
            groups=self.groups,
            gate=GATE,
            metric=metric,
            seed=seed,
            champion_seen_holdout=False,
            units=self.units if clustered else None,
        )


class Law:
    """Errors of one model: of its own at every row, and of its own at every time."""

    def __init__(self, kind: str, rng: np.random.Generator, *, per_time: int) -> None:
        self.rng, self.kind = rng, kind
        if kind in FEW:
            grouped = per_time == 48  # ranking: whole groups of 8
            low, high, unit = (10, 33, 8) if grouped else (30, 100, 1)
            sizes = unit * rng.integers(low, high, FEW[kind])
            self.times = np.repeat(np.arange(FEW[kind]), sizes)
            return
        count = {"rows": 0, "days": 28, "hours": 168}[kind]
        self.times = np.repeat(np.arange(count), per_time) if count else None

    def own(self, rows: int, columns: int = 1) -> Array:
        error = self.rng.normal(size=(rows, columns))
        if self.times is None:
            return error
        level, scale = (self._effect(columns) for _ in range(2))
        return error * np.exp(0.6 * scale) + 0.7 * level

    def _effect(self, columns: int) -> Array:
        assert self.times is not None
        count = int(self.times[-1]) + 1
        shocks = self.rng.normal(size=(count, columns))
        if self.kind == "hours":
            for hour in range(1, count):
                shocks[hour] = 0.6 * shocks[hour - 1] + 0.8 * shocks[hour]
        return np.asarray(shocks[self.times])

    def units(self) -> Array | None:
        return None if self.times is None else time_blocks(self.times)


def binary(kind: str, rng: np.random.Generator, better: float = 0.0) -> Holdout:
    law = Law(kind, rng, per_time=PER_TIME.get(kind, 15))
    n = 400 if law.times is None else len(law.times)
    signal = rng.normal(size=n)
    y = (rng.random(n) < sigmoid(1.5 * signal - 0.8)).astype(np.int64)
    shared = 1.5 * signal - 0.8 + 0.5 * rng.normal(size=n)
    ours, theirs = (sigmoid(shared + s * law.own(n)[:, 0]) for s in (0.8 * (1 - better), 0.8))
    return Holdout(y, ours, theirs, units=law.units())


def multiclass(kind: str, rng: np.random.Generator, better: float = 0.0) -> Holdout:
    law = Law(kind, rng, per_time=PER_TIME.get(kind, 15))
    n = 400 if law.times is None else len(law.times)
    logits = rng.normal(size=(n, 3)) * 1.5
    chances = softmax(logits)
    y = (rng.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    ours, theirs = (softmax(logits + s * law.own(n, 3)) for s in (0.8 * (1 - better), 0.8))
    return Holdout(y, ours, theirs, units=law.units())


def regression(kind: str, rng: np.random.Generator, better: float = 0.0) -> Holdout:
    law = Law(kind, rng, per_time=PER_TIME.get(kind, 15))
    n = 400 if law.times is None else len(law.times)
    y = np.exp(2 + 0.5 * rng.normal(size=n))
    shared = y + rng.normal(size=n)
    ours, theirs = (shared + s * law.own(n)[:, 0] for s in (1 - better, 1.0))
    return Holdout(y, ours, theirs, units=law.units())


def ranking(kind: str, rng: np.random.Generator, better: float = 0.0) -> Holdout:
    law = Law(kind, rng, per_time={"rows": 1, "hours": 24}.get(kind, 48))
    n = 1200 if law.times is None else len(law.times)
    relevance = rng.integers(0, 3, n)
    shared = relevance + 0.5 * rng.normal(size=n)
    ours, theirs = (shared + s * law.own(n)[:, 0] for s in (1 - better, 1.0))
    return Holdout(relevance, ours, theirs, groups=np.arange(n) // 8, units=law.units())


LAWS: dict[str, Callable[..., Holdout]] = {
    "binary": binary,
    "multiclass": multiclass,
    "regression": regression,
    "ranking": ranking,
}


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def mlflow_promotes(report: GateReport) -> bool:
    """Whether MLflow's validation passes for a candidate that must be 1% better."""
    from mlflow import validate_evaluation_results
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    threshold = MetricThreshold(
        min_relative_change=MLFLOW_GAIN, greater_is_better=report.direction == "maximize"
    )
    results = [
        EvaluationResult(metrics={report.metric: value}, artifacts={})
        for value in (report.candidate, report.champion)
    ]
    try:
        validate_evaluation_results({report.metric: threshold}, *results)
    except ModelValidationFailedException:
        return False
    return True


def shares(verdicts: list[tuple[float, ...]]) -> list[float]:
    """Percent of trials in which each rule promotes."""
    return [100 * float(share) for share in np.mean(verdicts, axis=0)]


def promoted_either_way(report: GateReport) -> float:
    """Share of the two equal models that the gate promotes over the other.

    Exchanging them mirrors the bounds exactly (a property test holds that), so that one report
    is two trials.
    """
    if report.gain_low is None or report.gain_high is None:
        return 0.0
    assert (report.decision == "promote") == (report.gain_low > 0)
    return ((report.gain_low > 0) + (report.gain_high < 0)) / 2


def false_promotions(
    task: str, metrics: Sequence[str], kind: str, trials: int
) -> dict[str, list[float]]:
    """Percent promoted of equal models by metric, the same holdouts for all metrics.

    rows: gate, plain rule, MLflow; days: gate, and the gate without clusters where that costs no
    bootstrap; hours: gate.
    """
    verdicts: dict[str, list[tuple[float, ...]]] = {metric: [] for metric in metrics}
    for trial in range(trials):
        holdout = LAWS[task](kind, np.random.default_rng([trial, len(task), len(kind)]))
        for metric in metrics:
            report = holdout.judge(metric, trial)
            assert report.gain is not None
            found = [promoted_either_way(report)]
            if kind == "rows":
                found += [report.gain > 0, mlflow_promotes(report)]
            elif kind == "days" and method_of(metric) != "bootstrap":
                found.append(promoted_either_way(holdout.judge(metric, trial, clustered=False)))
            verdicts[metric].append(tuple(found))
    return {metric: shares(found) for metric, found in verdicts.items()}


def power_curve(task: str, metric: str, trials: int) -> tuple[list[float], list[list[float]]]:
    """Mean true gain and percent promoted by the three rules, as the candidate's errors shrink."""
    gains, found = [], []
    for better in (-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8):
        verdicts, gain = [], []
        for trial in range(trials):
            rng = np.random.default_rng([trial, round(100 * (better + 1)), len(metric)])
            report = LAWS[task]("rows", rng, better).judge(metric, trial)
            assert report.gain is not None
            gain.append(report.gain)
            promoted = report.decision == "promote"
            verdicts.append((promoted, report.gain > 0, mlflow_promotes(report)))
        gains.append(float(np.mean(gain)))
        found.append(shares(verdicts))
    return gains, found


def draw(rows: list[dict[str, Any]], curves: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rules = {"gate": "#1f6f8b", "candidate > champion": "#c2571a", "MLflow, 1% better": "#8a8a8a"}
    figure, axes = plt.subplots(
        1, 1 + len(curves), figsize=(5 + 3.2 * len(curves), 5.2),
        width_ratios=[1.5] + [1] * len(curves), layout="constrained",
    )  # fmt: skip
    left = axes[0]
    places = np.arange(len(rows))[::-1]
    for number, (rule, colour) in enumerate(rules.items()):
        left.plot([r["rows"][number] for r in rows], places, "o", color=colour, label=rule)
    hollow = {"mfc": "none", "color": rules["gate"], "label": "gate, rows alike within days"}
    left.plot([r["days"][0] for r in rows], places, "D", **hollow)
    left.axvspan(*BAND, color=rules["gate"], alpha=0.15, lw=0)
    left.set_yticks(places, [r["label"] for r in rows], fontsize=8)
    left.set_xlim(0, 60)
    left.set_xlabel("% of trials")
    left.set_title("Promotions of an equal model", fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncol=4, fontsize=8)
    for axis, (metric, (gains, found)) in zip(axes[1:], curves.items(), strict=True):
        for number, (_, colour) in enumerate(rules.items()):
            axis.plot(gains, [f[number] for f in found], "o-", ms=3, color=colour)
        axis.axvline(0, color="0.8", lw=0.8)
        axis.axhline(5, color="0.8", lw=0.8)
        axis.set_ylim(-2, 102)
        axis.set_xlabel(f"true gain in {metric}")
        axis.set_title(f"% promoted, {metric}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| metric | method | gate, rows | gate, days | gate, hours | gate, 4 days | gate, 7 days "
        "| days, rows drawn alone | candidate > champion | MLflow, 1% better |",
        "|---|---|" + "---:|" * 8,
    ]
    for row in rows:
        alone = f"{row['alone'][0]:.1f}" if row["alone"] else ""
        hours = f"{row['hours'][0]:.1f}" if row["hours"] else ""
        cells = [row["label"], method_of(row["metric"]), f"{row['rows'][0]:.1f}",
                 f"{row['days'][0]:.1f}", hours, f"{row['four'][0]:.1f}",
                 f"{row['seven'][0]:.1f}", alone, f"{row['rows'][1]:.1f}",
                 f"{row['rows'][2]:.1f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", help="one metric, printed and not written")
    options = parser.parse_args()
    quiet = logging.getLogger("mlflow.models.evaluation.validation")
    quiet.setLevel(logging.ERROR)  # else two lines for each trial
    rows = []
    for task, all_metrics in METRICS.items():
        metrics = [metric for metric in all_metrics if options.only in (None, metric)]
        plain = false_promotions(task, metrics, "rows", options.trials)
        days = false_promotions(task, metrics, "days", options.trials)
        lasting = [metric for metric in metrics if metric not in NOT_HOURLY]
        hours = false_promotions(task, lasting, "hours", options.trials)
        four, seven = (false_promotions(task, metrics, kind, options.trials) for kind in FEW)
        for metric in metrics:
            label = f"{metric} ({task})" if metric in ("log_loss", "accuracy") else metric
            rows.append({"label": label, "metric": metric, "rows": plain[metric],
                         "days": days[metric][:1], "alone": days[metric][1:],
                         "hours": hours.get(metric, []), "four": four[metric],
                         "seven": seven[metric]})  # fmt: skip
            print(rows[-1], flush=True)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU", flush=True)
    if options.only:
        return
    curves = {
        metric: power_curve(task, metric, min(POWER_TRIALS, options.trials))
        for task, metric in (("binary", "roc_auc"), ("regression", "mae"), ("ranking", "ndcg@10"))
    }
    draw(rows, curves, options.out / "images" / "gate_simulation.png")
    used = resource.getrusage(resource.RUSAGE_SELF)
    write(options.out / "gate.md", rows, curves, options.trials, used.ru_utime + used.ru_stime)


BEGIN, END = "<!-- made by bench/gate/simulate.py -->", "<!-- end of the simulation -->"


def write(
    path: Path, rows: list[dict[str, Any]], curves: dict[str, Any], trials: int, seconds: float
) -> None:
    """The simulation's part of the page, between its two marks."""
    rates = [row[kind][0] for row in rows for kind in RATES if row[kind]]
    outside = sum(not BAND[0] <= rate <= BAND[1] for rate in rates)
    error = 100 * (0.05 * 0.95 / (2 * trials)) ** 0.5  # each trial counts both ways
    powers = ["| metric | true gain | gate | candidate > champion | MLflow, 1% better |",
              "|---|---:|---:|---:|---:|"]  # fmt: skip
    for metric, (gains, found) in curves.items():
        for gain, shares_ in zip(gains, found, strict=True):
            numbers = " | ".join(f"{share:.0f}" for share in shares_)
            powers.append(f"| {metric} | {gain:+.4f} | {numbers} |")
    lowest, highest = min(rates), max(rates)
    text = "\n".join(
        [
            BEGIN,
            "",
            f"Of {len(rates)} rates below, {outside} lie outside {BAND[0]}% to {BAND[1]}%; they "
            f"range from {lowest:.1f}% to {highest:.1f}% ({trials:,} trials each, either "
            f"model as the candidate; standard error of a rate {error:.2f}%; {seconds:.0f} s of CPU).",
            "",
            "![False promotions and power](images/gate_simulation.png)",
            "",
            "**Percent of equal models that are promoted.** Nominal: 5.",
            "",
            table(rows),
            "",
            "**Percent promoted by true gain**, 400 rows (ranking: 150 groups).",
            "",
            *powers,
            "",
            END,
        ]
    )
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{text}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
