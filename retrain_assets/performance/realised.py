"""Realised performance: stored scores of the champion against the labels that have come since.

Belongs here: the interval of one model's metric on one sample. Does not: the metrics themselves
(`training.metrics`), the interval of a difference (`promotion.intervals`, whose bounds are used).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.performance.measured import Kind, Performance
from retrain_assets.promotion.intervals import (
    MIN_CLASS,
    MIN_UNITS,
    GainInterval,
    delong,
    linear,
)
from retrain_assets.promotion.quantiles import normal_quantile, t_quantile
from retrain_assets.training.metrics import Metric, get_metric

__all__ = ["clipped", "realised", "undecided", "wilson"]

_UNBOUNDED = ("r2",)
_AT_MOST_ONE = ("brier",)
_LOGIT = ("roc_auc", "average_precision", "f1", "f1_macro")
_OF_ONE_CLASS = ("average_precision", "f1")


def realised(
    metric: str,
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    partition: str | None = None,
    groups: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Performance:
    """The metric on rows with labels, between two one-sided bounds.

    Method of the bounds: DeLong for `roc_auc`, Wilson's score interval for `accuracy`, and for all
    others Student's t around the value with the standard error of the influence function (the
    infinitesimal jackknife, see `Metric.influence`); for means that is the plain t interval. With
    `clusters` all of them become cluster-robust (`promotion.intervals.linear`). For roc_auc,
    average_precision, f1 and f1_macro the t is taken on the logit scale, on which they are less
    skewed near 0 and 1 (Pepe, *The Statistical Evaluation of Medical Tests*, 2003, section 5.2.5).
    Unlike the gate this takes no bootstrap: it is computed for every partition of every model, and
    nothing is promoted on it (measured coverage: bench/performance).

    Args:
        metric: name; shapes of truth and scores as in `training.metrics`.
        y_true: labels, shape (n,).
        y_score: the champion's scores, shape (n,), multiclass (n, k).
        partition: key of the partition, for the record.
        groups: ranking: group of each row, shape (n,).
        clusters: what makes rows alike (customer, hour; `promotion.intervals.time_blocks` for
            several partitions), shape (n,), ranking (groups,); None: rows are drawn alone. Within
            one partition of an autocorrelated series bounds without clusters are too narrow.
        confidence: of each bound alone.

    Returns:
        Undecided (with `problem`) where the metric has no value, below 30 rows (groups), 10
        clusters or, for roc_auc, average_precision and f1, 5 rows of a class.

    Raises:
        TrainingError: malformed input, or no such metric.

    >>> found = realised("accuracy", [1, 0] * 50, [0.9, 0.2] * 45 + [0.1, 0.8] * 5)
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.9, 0.84, 0.939)
    """
    rule = get_metric(metric)
    truth = np.asarray(y_true)
    units = rule.n_units(truth, groups=groups)
    value = float(rule.resampler(truth, y_score, groups=groups)(np.ones((1, units)))[0])
    if not math.isfinite(value):
        return undecided(rule, "realised", partition, None, units, confidence, rule.undefined_when)
    rarest = min(int(np.sum(truth == 1)), int(np.sum(truth == 0)))
    if metric in _OF_ONE_CLASS and rarest < MIN_CLASS:
        problem = f"{rarest} rows of the rarer class are fewer than {MIN_CLASS}"
        return undecided(rule, "realised", partition, value, units, confidence, problem)
    influence = rule.influence(truth, y_score, groups=groups)
    interval = _interval(rule, truth, value, influence, clusters, 1 - confidence)
    return _performance(rule, "realised", partition, units, confidence, interval)


def _interval(
    metric: Metric,
    truth: NDArray[Any],
    value: float,
    influence: NDArray[np.float64],
    clusters: ArrayLike | None,
    alpha: float,
) -> GainInterval:
    if clusters is not None:
        _, codes = np.unique(np.asarray(clusters), return_inverse=True)
        return linear(
            value, influence, alpha, codes=codes.astype(np.int64), method="cluster-robust t"
        )
    if metric.name == "roc_auc":
        return delong(value, influence, truth.astype(np.int64), alpha)
    if metric.name == "accuracy":
        return wilson(value, len(truth), alpha)
    return linear(value, influence, alpha, method="infinitesimal jackknife, t")


def wilson(share: float, n: int, alpha: float) -> GainInterval:
    """Wilson's score interval of a share, whose bounds stay in [0, 1] and differ from the share
    also where it is 0 or 1 (Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 1927).

    Args:
        share: hits over n.
        n: rows; below `MIN_UNITS` there is no interval.
        alpha: 1 - confidence of each bound.

    >>> found = wilson(1.0, 100, 0.05)
    >>> round(found.low, 4), found.high
    (0.9737, 1.0)
    """
    if n < MIN_UNITS:
        problem = f"{n} units are fewer than the {MIN_UNITS} that a bound needs"
        return GainInterval(share, None, None, math.nan, math.nan, "Wilson", n, problem)
    z = normal_quantile(1 - alpha)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return GainInterval(
        share,
        max(middle - reach, 0.0),
        min(middle + reach, 1.0),
        reach / z,  # not 0 at a share of 0 or 1, where the sample's own deviation is
        math.inf,
        "Wilson",
        n,
    )


def _performance(
    metric: Metric,
    kind: Kind,
    partition: str | None,
    n: int,
    confidence: float,
    interval: GainInterval,
) -> Performance:
    if interval.low is None or interval.high is None:
        return undecided(metric, kind, partition, interval.gain, n, confidence, interval.problem)
    low, high = interval.low, interval.high
    if metric.name in _LOGIT:
        if not 0 < interval.gain < 1:
            problem = f"{metric.name} is {interval.gain:g}, at the end of its range"
            return undecided(metric, kind, partition, interval.gain, n, confidence, problem)
        low, high = _on_logits(interval.gain, interval.se, t_quantile(confidence, interval.dof))
    return Performance(
        metric.name, metric.direction, kind, partition, interval.gain, interval.se,
        clipped(metric, low), clipped(metric, high), confidence, n, interval.method,
    )  # fmt: skip


def _on_logits(value: float, se: float, quantile: float) -> tuple[float, float]:
    """Bounds of a share between 0 and 1 by the delta method on log(v / (1 - v))."""
    middle, reach = math.log(value / (1 - value)), quantile * se / (value * (1 - value))
    low, high = (0.5 * (1 + math.tanh(0.5 * (middle + s * reach))) for s in (-1, 1))
    return low, high


def undecided(
    metric: Metric,
    kind: Kind,
    partition: str | None,
    value: float | None,
    n: int,
    confidence: float,
    problem: str,
) -> Performance:
    """A performance that the data cannot tell, with the reason."""
    return Performance(
        metric.name, metric.direction, kind, partition, value, None, None, None, confidence, n,
        "none", problem,
    )  # fmt: skip


def clipped(metric: Metric, bound: float) -> float:
    """A bound within the values that the metric can take."""
    if metric.name in _UNBOUNDED:
        return min(bound, 1.0)
    if metric.direction == "maximize" or metric.name in _AT_MOST_ONE:
        return min(max(bound, 0.0), 1.0)
    return max(bound, 0.0)
