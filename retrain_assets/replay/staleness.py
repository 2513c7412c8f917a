"""Loss of a model by its age, and the age from which on it matters.

Belongs here: the curve and the suggestion, from values of several models on the same partitions. Does
not: training or scoring.

A model of age a is compared with the youngest model whose value is known on the same partition, since
partitions differ in how hard they are. The excess loss of all models whose age falls into the same span is averaged,
first over the partitions of a model, then over models; the interval is Student's t over models, which
are taken as independent (they overlap in training rows and partitions, so it is somewhat too narrow).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrain_assets.promotion.quantiles import t_quantile

__all__ = ["MATTERS", "MIN_MODELS", "Age", "staleness_curve", "suggested_age"]

MIN_MODELS = 4
"""Fewest models of an age for an interval."""

MATTERS = 0.01
"""Share of the fresh models' value that is worth a retraining."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Age:
    """Models of one span of ages.

    Attributes:
        first, last: ages in partitions; 1 is the partition after that a model was trained for.
        loss: excess over the youngest model on the same partitions, in the metric's unit; positive
            is worse.
        low, high: one-sided bounds at 95% each; None with fewer than `MIN_MODELS` models.
        models: how many.
    """

    first: int
    last: int
    loss: float
    low: float | None
    high: float | None
    models: int


def staleness_curve(
    values: NDArray[np.float64], weights: NDArray[np.float64], starts: NDArray[np.int64], span: int
) -> list[Age]:
    """Excess loss by age.

    Args:
        values: of each model on each partition, larger is better, shape (models, partitions); nan
            where there is none, or it is not known.
        weights: of each partition, shape (partitions,).
        starts: the first partition that each model could serve, ascending, shape (models,).
        span: ages that are joined to one.

    Returns:
        Spans for which there is any model, youngest first.
    """
    models, partitions = values.shape
    known = np.isfinite(values) & (starts[:, None] <= np.arange(partitions))
    newest = models - 1 - np.argmax(known[::-1], axis=0)
    fresh = np.where(known.any(axis=0), values[newest, np.arange(partitions)], np.nan)
    spans: list[list[float]] = [[] for _ in range(-(-partitions // span))]
    for model in range(models):
        served = np.arange(starts[model], partitions)
        excess = fresh[served] - values[model, served]
        bins = (served - starts[model]) // span
        for place in np.unique(bins):
            there = (bins == place) & np.isfinite(excess) & (weights[served] > 0)
            if there.any():
                mean = np.average(excess[there], weights=weights[served][there])
                spans[place].append(float(mean))
    return [
        _age(place * span + 1, (place + 1) * span, found)
        for place, found in enumerate(spans)
        if found
    ]


def _age(first: int, last: int, losses: Sequence[float]) -> Age:
    count, mean = len(losses), float(np.mean(losses))
    if count < MIN_MODELS:
        return Age(first, last, mean, None, None, count)
    se = float(np.std(losses, ddof=1)) / count**0.5
    reach = t_quantile(_CONFIDENCE, count - 1) * se
    return Age(first, last, mean, mean - reach, mean + reach, count)


def suggested_age(curve: Sequence[Age], amount: float) -> int | None:
    """The largest age in partitions before the excess loss is shown to be above `amount`.

    The span after must say the same where it can be judged: one of many spans is above by chance.

    >>> spans = [Age(1, 7, 0.0, -0.01, 0.01, 9), Age(8, 14, 0.05, 0.03, 0.07, 8),
    ...          Age(15, 21, 0.06, 0.04, 0.08, 7)]
    >>> suggested_age(spans, 0.01), suggested_age(spans, 0.05)
    (7, None)
    """
    judged = [age for age in curve if age.low is not None]
    for place, age in enumerate(judged):
        both = judged[place : place + 2]
        if all(one.low is not None and one.low > amount for one in both) and age.first > 1:
            return age.first - 1
    return None
