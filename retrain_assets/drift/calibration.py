"""Thresholds from what the reference does by itself: its partitions against one another.

Belongs here: how far each statistic goes between partitions of a reference that nobody calls
drifted. Does not: the decision (`verdict`), where profiles are kept (`stored`).

A week differs from a year by its season, and no textbook threshold knows how much. Partitions of the
reference are therefore compared as a current one would be, in two ways: each with all the others
together, and each of the later two thirds with those before it, which is what will happen to a
current partition and is further where neighbours resemble one another. An effect's threshold is then
never below the larger of the two upper prediction limits: the size that one more such partition
exceeds with a probability of 1% over all features and effects together.

The limits are those of gamma variables. Without drift PSI is a weighted sum of squares of normal
variables, the distances are roots of such sums, and a cube root makes such a sum nearly normal
(Wilson and Hilferty 1931; as a prediction limit Krishnamoorthy, Mathew and Mukherjee 2008). Limits
of the sizes themselves were exceeded by 13% of partitions of an autocorrelated stream, these by
under 1% (bench/drift/calibration). Few partitions make wide limits: their width is how little is
known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import expm1, pi, sqrt
from random import Random
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

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
    """Measure partitions of a reference against its others.

    Args:
        partitions: profiles of the reference's partitions on the same grids, oldest first, at least
            MIN_PARTITIONS; of more than MAX_PARTITIONS one of each stretch of time is taken, at
            random (evenly spaced ones might all be Mondays) with a fixed seed.
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
    chosen = _thinned(partitions)
    ways: dict[str, tuple[_Sizes, _Sizes]] = {}
    for column in columns:
        # One column at a time: merges of all columns would be many times the profiles.
        alone = [replace(each, columns={column: each.columns[column]}) for each in chosen]
        ways[column] = _sizes(alone, spec, column)
    level = FALSE_ALARMS / max(1, sum(len(apart) for apart, _ in ways.values()))
    limits, usual = {}, {}
    for column, (apart, onward) in ways.items():
        limits[column] = {
            name: max(
                prediction_limit(sizes, level, _POWERS.get(name, _DISTANCE))
                for sizes in (apart[name], onward[name])
            )
            for name in apart
        }
        usual[column] = {name: sum(sizes) / len(sizes) for name, sizes in apart.items()}
    return Calibration(len(chosen), limits, usual)


def _thinned(partitions: Sequence[TableProfile]) -> list[TableProfile]:
    if len(partitions) <= MAX_PARTITIONS:
        return list(partitions)
    random, n = Random(0), len(partitions)
    edges = [i * n // MAX_PARTITIONS for i in range(MAX_PARTITIONS + 1)]
    return [partitions[random.randrange(*stretch)] for stretch in pairwise(edges)]


_Sizes: TypeAlias = dict[str, list[float]]


def _sizes(
    partitions: Sequence[TableProfile], spec: DriftRule, column: str
) -> tuple[_Sizes, _Sizes]:
    """Sizes per effect: of each partition against all others, of later ones against those before."""
    before, others = _before_and_others(partitions)
    first = len(partitions) // 3
    apart = [_effects(*pair, spec, column) for pair in zip(others, partitions, strict=True)]
    pairs = zip(before[first:], partitions[first:], strict=True)
    onward = [_effects(*pair, spec, column) for pair in pairs]
    names = dict.fromkeys(name for found in (*apart, *onward) for name in found)
    # An effect that some partitions lack (no nulls, say) is 0 there.
    apart_of, onward_of = (
        {name: [found.get(name, 0.0) for found in way] for name in names} for way in (apart, onward)
    )
    return apart_of, onward_of


def _effects(
    reference: TableProfile, current: TableProfile, spec: DriftRule, column: str
) -> dict[str, float]:
    """Size per effect; of an effect that two tests have, the larger."""
    sizes: dict[str, float] = {}
    for measured in measure_all(reference, current, spec, [column]):
        for test in measured.tests:
            for effect in test.effects:
                sizes[effect.name] = max(min(effect.size, _LARGEST), sizes.get(effect.name, 0.0))
    return sizes


def _before_and_others(
    partitions: Sequence[TableProfile],
) -> tuple[list[TableProfile], list[TableProfile]]:
    """Merges of all before each partition (of the first: itself), and of all but each.

    3 k merges instead of k squared.
    """
    before = [partitions[0]]
    for partition in partitions[:-1]:
        before.append(partition if len(before) == 1 else before[-1].merged(partition))
    after = [partitions[-1]]
    for partition in reversed(partitions[1:-1]):
        after.append(partition.merged(after[-1]))
    after.reverse()
    inner = [past.merged(rest) for past, rest in zip(before[1:-1], after[1:], strict=True)]
    return before, [after[0], *inner, before[-1]]


_LARGEST = 1e9
"""Standard deviations, say; beyond any threshold, and its powers are still numbers."""

_QUADRATIC, _DISTANCE = 1 / 3, 2 / 3
_POWERS = {"psi": _QUADRATIC}


def prediction_limit(sizes: Sequence[float], level: float, power: float = _QUADRATIC) -> float:
    """The size that one more observation exceeds with probability `level`, at least the largest seen.

    (mean + t sd sqrt(1 + 1/k)) ** (1 / power) with mean and sd of sizes ** power, t being Student's
    quantile with k - 1 degrees of freedom.

    Args:
        sizes: k >= 2 values >= 0 of a gamma variable, or of its root.
        level: in (0, 0.5).
        power: 1/3 for a gamma variable, 2/3 for its root.

    Source: Krishnamoorthy, Mathew, Mukherjee, "Normal-based methods for a gamma distribution:
    prediction and tolerance intervals and stress-strength reliability", 2008.

    >>> round(prediction_limit([1, 2, 3, 4, 5, 6, 7, 8], 0.01), 2)
    19.2
    """
    k = len(sizes)
    if k < 2:
        raise DriftError(f"prediction limit: needs at least 2 sizes, got {k}")
    roots = [size**power for size in sizes]
    mean = sum(roots) / k
    deviation = sqrt(sum((root - mean) ** 2 for root in roots) / (k - 1))
    limit = mean + t_quantile(level, k - 1) * deviation * sqrt(1 + 1 / k)
    return float(max(*sizes, limit ** (1 / power)))


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
