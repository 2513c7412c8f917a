"""How often does the guard call an equal model worse, and how soon a worse one?

    .venv/bin/python bench/gate/guard.py [--trials 1000]

Writes the guard's table in docs/gate.md; about six minutes of CPU. The laws are those of simulate.py:
days of 15 rows (ranking: of 6 groups) on which each model is better or worse as a whole, and hours
whose quality lasts. Every trial is one guard period with a look after each completed block, from the
fourth on, as `promotion.guard` takes them. Nominal: 5% over the whole period. Beside it the same looks
without a correction, each at 5%, and the share of models with larger errors that are found out, with
the mean share of the period that this takes.
"""

import argparse
import resource
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import simulate
from simulate import GATE, LAWS, METRICS, ROOT, Holdout

from retrain_assets.promotion.gate import paired_gain
from retrain_assets.promotion.intervals import MIN_CLUSTERS, GainInterval, block_length
from retrain_assets.promotion.quantiles import t_quantile
from retrain_assets.promotion.spending import next_alpha

ALPHA, WORSE = 0.05, -0.6
FEW_GROUPS = GATE.model_copy(update={"min_rows": 20})  # ranking: four days have 24 groups
LONG = ("roc_auc", "log_loss", "mae", "ndcg@10")
PERIODS = {"7 days": 7, "28 days": 28, "168 hours": 168}
BEGIN, END = "<!-- made by bench/gate/guard.py -->", "<!-- end of the guard -->"


class Law(simulate.Law):
    """The guard period: seven or 28 days, or a week of hours."""

    count = 7

    def __init__(self, kind: str, rng: np.random.Generator, *, per_time: int) -> None:
        self.rng, self.kind = rng, "hours" if kind == "hours" else "days"
        self.times = np.repeat(np.arange(self.count), per_time)


def blocks_of(times: Any, count: int) -> Any:
    """Block of each row, as the guard cuts its period."""
    length = block_length(count)
    return np.minimum(times // length, count // length - 1)


@cache
def levels(count: int) -> list[tuple[int, float]]:
    """Looks of a period of `count` blocks: blocks so far, and level."""
    past: list[tuple[float, float]] = []
    for through in range(MIN_CLUSTERS, count + 1):
        past.append((through / count, next_alpha(past, through / count, ALPHA)))
    return [(round(fraction * count), level) for fraction, level in past]


def look(holdout: Holdout, blocks: Any, through: int, metric: str, alpha: float) -> GainInterval:
    """The comparison of all rows of the first `through` blocks."""
    rows = blocks < through
    groups = None if holdout.groups is None else holdout.groups[rows]
    return paired_gain(
        y_true=holdout.y_true[rows],
        scores={"candidate": holdout.candidate[rows], "champion": holdout.champion[rows]},
        groups=groups, units=blocks[rows], gate=FEW_GROUPS, metric=metric, seed=0, alpha=alpha,
    )  # fmt: skip


def watched(holdout: Holdout, blocks: Any, metric: str) -> tuple[float, float, float]:
    """Share of either model called worse: by the guard, by looks at 5% each; and when (nan: never).

    Exchanging equal models mirrors the bounds, so that one period is two trials.
    """
    count = int(blocks.max()) + 1
    found = {"guard": [False, False], "naive": [False, False]}
    when = np.nan
    for through, level in levels(count):
        interval = look(holdout, blocks, through, metric, level)
        if interval.low is None or interval.high is None:
            continue
        reach = t_quantile(1 - ALPHA, interval.dof) * interval.se
        bounds = {
            "guard": (interval.low, interval.high),
            "naive": (interval.gain - reach, interval.gain + reach),
        }
        for rule, (low, high) in bounds.items():
            found[rule] = [found[rule][0] or high < 0, found[rule][1] or low > 0]
        if found["guard"][0] and np.isnan(when):
            when = through / count
    return float(np.mean(found["guard"])), float(np.mean(found["naive"])), when


def rates(task: str, metric: str, period: str, trials: int) -> list[str]:
    """Cells of the table: guard, naive, found out, when."""
    Law.count = PERIODS[period]
    simulate.Law = Law  # type: ignore[misc]
    kind = "hours" if period.endswith("hours") else "days"
    equal, worse = [], []
    for trial in range(trials):
        rng = np.random.default_rng([trial, len(metric), Law.count])
        holdout = LAWS[task](kind, rng)
        blocks = blocks_of(_times(holdout, task, kind), Law.count)
        equal.append(watched(holdout, blocks, metric)[:2])
        if trial < trials // 4:
            worse.append(watched(LAWS[task](kind, rng, WORSE), blocks, metric)[2])
    guard, naive = 100 * np.mean(equal, axis=0)
    found = 100 * np.mean(np.isfinite(worse))
    when = 100 * float(np.nanmean(worse)) if found else np.nan
    return [f"{guard:.1f}", f"{naive:.1f}", f"{found:.0f}", f"{when:.0f}"]


def _times(holdout: Holdout, task: str, kind: str) -> Any:
    return np.arange(len(holdout.y_true)) // (len(holdout.y_true) // Law.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", help="one metric, printed and not written")
    options = parser.parse_args()
    lines = [
        "| metric | period | equal model: guard | equal model: looks at 5% each | worse model found "
        "| after % of the period |",
        "|---|---|---:|---:|---:|---:|",
    ]
    guards = []
    for task, metrics in METRICS.items():
        for metric in metrics:
            if options.only not in (None, metric):
                continue
            for period in PERIODS if metric in LONG else ("7 days",):
                cells = rates(task, metric, period, options.trials)
                guards.append(float(cells[0]))
                label = f"{metric} ({task})" if metric in ("log_loss", "accuracy") else metric
                lines.append(f"| {' | '.join([label, period, *cells])} |")
                print(lines[-1], flush=True)
    if options.only:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    error = 100 * (0.05 * 0.95 / (2 * options.trials)) ** 0.5
    text = (
        f"Percent of {options.trials:,} guard periods (either of the equal models as the promoted one; "
        f"nominal 5, standard error {error:.2f}; the guard's rates range from {min(guards):.1f} to "
        f"{max(guards):.1f}; {used.ru_utime + used.ru_stime:.0f} s of CPU). A worse model has errors of "
        "its own that are 1.6 times as large."
    )
    path = options.out / "gate.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page = "\n".join([BEGIN, "", text, "", *lines, "", END])
    path.write_text(f"{before}{page}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
