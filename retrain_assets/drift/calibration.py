"""Thresholds from what the reference does by itself: its partitions against one another.

Belongs here: how far each statistic goes between partitions of a reference that nobody calls
drifted. Does not: the decision (`verdict`).

A week differs from a year by its season, and no textbook threshold knows how much. Each partition of
the reference is compared with all the others together, as a current partition would be. A feature's
threshold is then never below what one more such partition exceeds with a probability of 1% over all
features and effects together: the upper prediction limit of those sizes (mean + t sd sqrt(1 + 1/k), k
partitions; its width is the uncertainty of few partitions), at least their maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, pi, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

from retrain_assets.drift.verdict import DriftRule, measure_all
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from retrain_assets.drift.measure import Measured
    from retrain_assets.drift.profile import TableProfile

__all__ = ["MIN_PARTITIONS", "Calibration", "calibrate", "prediction_limit", "t_quantile"]

MIN_PARTITIONS = 8
MAX_PARTITIONS = 30
FALSE_ALARMS = 0.01
"""Probability that any effect of any feature of one more partition exceeds its limit."""


@dataclass(frozen=True)
class Calibration:
    """What is usual between partitions of a reference.

    Attributes:
        partitions: how many it was measured on.
        limits: per feature and effect, the least threshold.
        usual: per feature and effect, the mean size.
    """

    partitions: int
    limits: Mapping[str, Mapping[str, float]]
    usual: Mapping[str, Mapping[str, float]]

    def usual_of(self, feature: str) -> dict[str, float]:
        """Mean size per effect, empty for a feature that was not measured."""
        return dict(self.usual.get(feature, {}))

    def applied(self, measured: Measured) -> Measured:
        """The column with its thresholds raised, and told how often its usual size an effect is."""
        limits = self.limits.get(measured.feature, {})
        usual = self.usual.get(measured.feature, {})
        tests = []
        for test in measured.tests:
            effects = []
            for effect in test.effects:
                threshold = max(effect.threshold, limits.get(effect.name, 0.0))
                phrase, size = effect.phrase, usual.get(effect.name, 0.0)
                if size > 0 and effect.size >= 2 * size:
                    phrase += f", {effect.size / size:.0f}× its usual variation"
                effects.append(effect._replace(threshold=threshold, phrase=phrase))
            tests.append(replace(test, effects=tuple(effects)))
        return replace(measured, tests=tests)


def calibrate(
    partitions: Sequence[TableProfile], spec: DriftRule, columns: Sequence[str]
) -> Calibration:
    """Measure every partition against all the others.

    Args:
        partitions: profiles of the reference's partitions on the same grids, at least
            MIN_PARTITIONS; of more than MAX_PARTITIONS evenly spaced ones are taken.
        spec: the rule that current partitions will be judged by.
        columns: the features.

    Raises:
        DriftError: too few partitions, or profiles that do not merge.
    """
    if len(partitions) < MIN_PARTITIONS:
        raise DriftError(
            f"calibration: needs at least {MIN_PARTITIONS} partitions of the reference, got "
            f"{len(partitions)}; compare without calibration until there are more"
        )
    step = len(partitions) / min(len(partitions), MAX_PARTITIONS)
    chosen = [partitions[int(i * step)] for i in range(min(len(partitions), MAX_PARTITIONS))]
    sizes: dict[str, dict[str, list[float]]] = {}
    for partition, others in zip(chosen, _all_others(chosen), strict=True):
        for column in measure_all(others, partition, spec, columns):
            found = sizes.setdefault(column.feature, {})
            largest: dict[str, float] = {}
            for test in column.tests:
                for effect in test.effects:
                    largest[effect.name] = max(effect.size, largest.get(effect.name, 0.0))
            for name, size in largest.items():
                found.setdefault(name, []).append(size)
    limits, usual = {}, {}
    level = FALSE_ALARMS / max(1, sum(len(effects) for effects in sizes.values()))
    for feature, effects in sizes.items():
        # An effect that some partitions lack (no nulls, say) is 0 there.
        filled = {key: [*x, *[0.0] * (len(chosen) - len(x))] for key, x in effects.items()}
        limits[feature] = {key: prediction_limit(values, level) for key, values in filled.items()}
        usual[feature] = {key: sum(values) / len(values) for key, values in filled.items()}
    return Calibration(len(chosen), limits, usual)


def _all_others(partitions: Sequence[TableProfile]) -> list[TableProfile]:
    """For each partition the merge of all the others; 3 k merges instead of k squared."""
    after = [partitions[-1]]
    for partition in reversed(partitions[1:-1]):
        after.append(partition.merged(after[-1]))
    after.reverse()
    others, before = [after[0]], partitions[0]
    for place in range(1, len(partitions)):
        last = place == len(partitions) - 1
        others.append(before if last else before.merged(after[place]))
        before = before.merged(partitions[place])
    return others


def prediction_limit(sizes: Sequence[float], level: float = 0.01) -> float:
    """The size that one more observation exceeds with probability `level`, at least the largest seen.

    mean + t sd sqrt(1 + 1/k), t being Student's quantile with k - 1 degrees of freedom; k >= 2.

    Source: Whitmore, "Prediction limits for a univariate normal observation", 1986.

    >>> round(prediction_limit([1, 2, 3, 4, 5, 6, 7, 8]), 2)
    12.29
    """
    k = len(sizes)
    if k < 2:
        raise DriftError(f"prediction limit: needs at least 2 sizes, got {k}")
    mean = sum(sizes) / k
    deviation = sqrt(sum((size - mean) ** 2 for size in sizes) / (k - 1))
    return max(*sizes, mean + t_quantile(level, k - 1) * deviation * sqrt(1 + 1 / k))


def t_quantile(tail: float, dof: int) -> float:
    """The value that Student's t exceeds with probability `tail` in (0, 0.5), dof >= 3.

    Source: Hill, "Algorithm 396: Student's t-quantiles", 1970; six digits.

    >>> round(t_quantile(0.01, 7), 4)
    2.998
    """
    n, both = float(dof), 2 * tail
    a = 1 / (n - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * sqrt(a * pi / 2) * n
    x = d * both
    y = x ** (2 / n)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail)
        y = x * x
        if n < 5:
            c += 0.3 * (n - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = expm1(a * y * y)
    else:
        y = (
            (1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1
        ) * (n + 1) / (n + 2) + 1 / y
    return sqrt(n * y)
