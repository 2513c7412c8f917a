"""Four ways to bound a gain that is no mean, on equal and on unequal models.

    .venv/bin/python bench/gate/methods.py [--trials 500]

Writes the comparison in docs/gate.md. Student's t (`intervals.linear`), the expanded percentiles that
the gate takes (`intervals.bootstrap`), BCa (Efron 1987, with the same expansion) and the studentised
bootstrap (with the influence of the whole sample). Each bound should miss the true gain in 5% of
trials, on either side.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulate import LAWS, ROOT

from retrain_assets.promotion.intervals import bootstrap, linear
from retrain_assets.promotion.quantiles import normal_cdf, normal_quantile, t_quantile
from retrain_assets.training.metrics import Metric, get_metric

ALPHA, RESAMPLES = 0.05, 400
BEGIN, END = "<!-- made by bench/gate/methods.py -->", "<!-- end of the comparison -->"
CASES = (
    ("binary", "average_precision"),
    ("regression", "r2"),
    ("binary", "f1"),
    ("multiclass", "f1_macro"),
)
Array = NDArray[Any]


def bca(gain: float, gains: Array, sums: Array) -> tuple[float, float]:
    """Efron's bounds, the normal quantile expanded as in `intervals.bootstrap`."""
    drawn, ordered = len(sums), np.sort(gains)
    below = np.searchsorted(ordered, gain, "left") + np.searchsorted(ordered, gain, "right")
    bias = normal_quantile(min(max(below / (2 * len(gains)), 1e-3), 1 - 1e-3))
    acceleration = float(np.sum(sums**3)) / (6 * float(sums @ sums) ** 1.5)
    reach = math.sqrt(drawn / (drawn - 1)) * t_quantile(1 - ALPHA, drawn - 1)
    found = []
    for sign in (-1, 1):
        shifted = bias + sign * reach
        level = normal_cdf(bias + shifted / (1 - acceleration * shifted))
        found.append(float(ordered[min(int(level * len(ordered)), len(ordered) - 1)]))
    return found[0], found[1]


def studentised(
    gain: float, gains: Array, sums: Array, weights: Array, rows: int
) -> tuple[float, float]:
    """Bounds from the law of (resampled gain - gain) / (its standard error)."""
    drawn = len(sums)
    scale = math.sqrt(drawn / (drawn - 1)) / rows
    mean = weights @ sums / drawn
    error = np.sqrt(np.maximum(weights @ sums**2 - drawn * mean**2, 1e-300)) * scale
    law = np.sort((gains - gain) / error)
    rank = int(ALPHA * (len(law) + 1))
    own = math.sqrt(float(sums @ sums)) * scale
    return gain - float(law[-rank]) * own, gain - float(law[rank - 1]) * own


def values(metric: Metric, task: str, kind: str, better: float, seed: list[int]) -> tuple[Any, ...]:
    holdout = LAWS[task](kind, np.random.default_rng(seed), better)
    y, scores = holdout.y_true, (holdout.candidate, holdout.champion)
    return holdout, y, scores, metric.gain(*(metric.evaluate(y, score) for score in scores))


def misses(
    metric: Metric, task: str, kind: str, better: float, trials: int
) -> list[tuple[float, float]]:
    """Percent of trials in which the lower, and the upper, bound is on the wrong side."""
    true = 0.0
    if better:
        true = float(np.mean([values(metric, task, kind, better, [t, 99])[3] for t in range(4000)]))
    found = []
    for trial in range(trials):
        holdout, y, scores, gain = values(metric, task, kind, better, [trial, 7])
        influence = metric.gain(*(metric.influence(y, score) for score in scores))
        codes = holdout.units
        sums = influence if codes is None else np.bincount(codes, influence)
        drawn = len(sums)
        rng = np.random.default_rng([trial, 8])
        weights = rng.multinomial(drawn, np.full(drawn, 1 / drawn), RESAMPLES).astype(float)
        of_row = weights if codes is None else weights[:, codes]
        gains = metric.gain(*(metric.resampled(y, score, of_row) for score in scores))
        plain = linear(gain, influence, ALPHA, codes=codes)
        expanded = bootstrap(gain, gains, influence, ALPHA, codes=codes)
        bounds = (
            (plain.low, plain.high),
            (expanded.low, expanded.high),
            bca(gain, gains, sums),
            studentised(gain, gains, sums, weights, len(influence)),
        )
        found.append([(low > true, high < true) for low, high in bounds])
    return [(100 * low, 100 * high) for low, high in np.mean(found, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gate.md")
    options = parser.parse_args()
    lines = [
        f"Percent of {options.trials} trials in which the lower / the upper bound misses the true "
        f"gain (nominal 5 / 5; standard error {100 * (0.0475 / options.trials) ** 0.5:.1f}).",
        "",
        "| metric | holdout | models | Student's t | expanded percentiles | BCa | studentised |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for task, name in CASES:
        for kind, better in (("rows", 0.0), ("days", 0.0), ("rows", 0.6)):
            rates = misses(get_metric(name), task, kind, better, options.trials)
            cells = [name, kind, "unequal" if better else "equal"]
            cells += [f"{low:.1f} / {high:.1f}" for low, high in rates]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    before, _, rest = options.out.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join([BEGIN, "", *lines, "", END])
    options.out.write_text(f"{before}{text}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
