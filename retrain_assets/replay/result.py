"""What a replay found: figures by policy, paired intervals, and which policy to take.

Belongs here: arithmetic over what walks served, and the recommendation. Does not: walking, drawing.

A policy's metric is the mean of the metric over the partitions that all policies served, weighted by
rows; two policies are compared by the weighted mean of their differences on the same partitions, with
a cluster-robust t interval over blocks of partitions (`promotion.intervals.time_blocks`).

The recommendation. Where `retrain.cost` has prices, the least total cost wins; otherwise the best metric.
Of the policies that are not shown (95%, one-sided) to lose more than 1% of the metric against that one,
the one with the fewest retrainings is recommended. "Not shown" is no proof of being as good; the bound of
the difference is given, so that the reader sees what a longer history might show.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.promotion.intervals import linear, time_blocks

if TYPE_CHECKING:
    from retrain_assets.promotion.intervals import GainInterval
    from retrain_assets.replay.staleness import Age
    from retrain_assets.replay.walk import Walk
    from retrain_assets.spec.model import Cost, Retrain

__all__ = [
    "PolicyResult",
    "Recommendation",
    "Result",
    "paired",
    "recommend",
    "served_values",
    "spec_lines",
    "summed",
]

_ALPHA = 0.05
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PolicyResult:
    """One policy's figures.

    Attributes:
        name: of the policy; `random` is the mean over its draws.
        value: the metric, see the module.
        retrainings: after the first champion, promoted or not.
        promotions: of these.
        wrong: promotions whose model was worse than the one it replaced over the first partitions that
            it served, `JUDGED_PARTITIONS` at most.
        failed: retrainings that gave no candidate.
        seconds: CPU seconds of its trainings, the first model's included.
        gain, gain_low, gain_high: over `never`, in the metric's unit, positive is better; bounds at
            95% each, None where the partitions do not bear any.
        cost: of retrainings and of metric lost against `never`; None without prices.
        spec: the lines of `retrain:`, None where there are none to paste.
        triggers: how many retrainings each trigger started.
    """

    name: str
    value: float
    retrainings: float
    promotions: float
    wrong: float
    failed: float
    seconds: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    cost: float | None
    spec: str | None
    triggers: dict[str, float]


@dataclass(frozen=True)
class Recommendation:
    """Which policy, and why.

    Attributes:
        policy: its name.
        reason: in plain words.
        spec: lines to paste.
    """

    policy: str
    reason: str
    spec: str


@dataclass(frozen=True)
class Result:
    """What a replay found.

    Attributes:
        model, metric, direction: whose, and by what.
        first, last: the partitions that were served and scored.
        partitions, rows: how many (ranking: groups for rows).
        policies: in the order of the table.
        oracle: (retrainings, metric) of hindsight, for each count.
        baseline: the no-change prediction on the same partitions, None where it has no value.
        staleness: excess loss by age of a model, in partitions.
        max_age: suggested, in partitions; None where age is not shown to matter.
        matters: the excess loss that the suggestion goes by.
        recommendation: None with fewer than two policies to choose from.
        trainings: distinct models that were trained.
        training_seconds: CPU seconds of these.
        notes: what a reader of the numbers must know.
    """

    model: str
    metric: str
    direction: str
    first: str
    last: str
    partitions: int
    rows: int
    policies: tuple[PolicyResult, ...]
    oracle: tuple[tuple[int, float], ...]
    baseline: float | None
    staleness: "tuple[Age, ...]"
    max_age: int | None
    matters: float
    recommendation: Recommendation | None
    trainings: int
    training_seconds: float
    notes: tuple[str, ...] = ()

    def policy(self, name: str) -> PolicyResult:
        """The policy with this name; KeyError where it was not replayed."""
        return {one.name: one for one in self.policies}[name]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def paired(
    ours: FloatArray, theirs: FloatArray, weights: FloatArray, partitions: Sequence[str]
) -> "GainInterval | None":
    """The weighted mean difference on the same partitions, with bounds at 95% each.

    Args:
        ours, theirs: values, larger is better, shape (partitions,); nan where there is none.
        weights: of each partition.
        partitions: their keys, in time order.

    Returns:
        None where no partition has both.
    """
    both = np.isfinite(ours) & np.isfinite(theirs) & (weights > 0)
    if not both.any():
        return None
    difference, weight = (ours - theirs)[both], weights[both]
    mean = float(np.average(difference, weights=weight))
    influence = weight * (difference - mean) / weight.mean()
    keys = [key for key, is_there in zip(partitions, both, strict=True) if is_there]
    return linear(mean, influence, _ALPHA, codes=time_blocks(keys), method="paired over blocks")


def summed(
    name: str,
    walks: "Sequence[Walk]",
    never: FloatArray,
    weights: FloatArray,
    keys: Sequence[str],
    sign: float,
    cost: "Cost | None",
) -> tuple[PolicyResult, FloatArray]:
    """The figures of one policy, of several draws their mean, and its values by partition.

    Args:
        name: of the policy.
        walks: one, or several draws.
        never: values of `never`, times `sign`, shape (partitions,).
        weights: rows of each partition.
        keys: the partitions that count.
        sign: 1 where larger is better, -1 where smaller is.
        cost: prices, if any.
    """
    values = np.mean([served_values(walk, keys, sign) for walk in walks], axis=0)
    gain = paired(values, never, weights, keys)
    later = [walk.later for walk in walks]
    counts = [len(found) for found in later]
    known = np.isfinite(values)
    value = float(sign * np.average(values[known], weights=weights[known]))
    price = None
    if cost is not None:
        rows = np.ones(len(keys)) if cost.per == "partition" else weights / 1000
        lost = float(np.nansum(rows * (never - values)))
        price = cost.retraining * float(np.mean(counts)) + cost.per_unit_loss * lost
    triggers: dict[str, float] = {}
    for one in (one for found in later for one in found):
        triggers[one.trigger] = triggers.get(one.trigger, 0.0) + 1 / len(walks)
    return PolicyResult(
        name=name,
        value=value,
        retrainings=float(np.mean(counts)),
        promotions=_mean_of(later, "promoted"),
        wrong=float(np.mean([_wrong(walk, sign) for walk in walks])),
        failed=_mean_of(later, "failed"),
        seconds=float(np.mean([sum(one.seconds for one in walk.retrainings) for walk in walks])),
        gain=0.0 if gain is None else gain.gain,
        gain_low=None if gain is None else gain.low,
        gain_high=None if gain is None else gain.high,
        cost=price,
        spec=None if name == "random" else spec_lines(walks[0].policy.retrain),
        triggers=triggers,
    ), values


def served_values(walk: "Walk", keys: Sequence[str], sign: float) -> FloatArray:
    """The values that a policy served, times `sign`; nan where there is none."""
    found = {one.partition: one.value for one in walk.served}
    return np.array([np.nan if (value := found.get(key)) is None else sign * value for key in keys])


def _mean_of(retrainings: Sequence[Sequence[Any]], outcome: str) -> float:
    return float(np.mean([sum(one.outcome == outcome for one in found) for found in retrainings]))


def _wrong(walk: "Walk", sign: float) -> int:
    """Promotions that were worse than what they replaced, over the first partitions they served."""
    periods: dict[str, list[tuple[float, float]]] = {}
    for one in walk.served:
        if one.value is not None and one.before is not None:
            gained = sign * (one.value - one.before)
            periods.setdefault(one.fingerprint, []).append((gained, one.rows))
    return sum(sum(gain * rows for gain, rows in period) < 0 for period in periods.values())


def spec_lines(retrain: "Retrain") -> str:
    """The `retrain:` section as YAML, without defaults."""
    import yaml

    document = retrain.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.safe_dump({"retrain": document}, sort_keys=False, default_flow_style=None)
    return text.strip()


def recommend(
    policies: Sequence[PolicyResult],
    values: dict[str, FloatArray],
    weights: FloatArray,
    keys: Sequence[str],
    matters: float,
) -> Recommendation | None:
    """The policy to take; the rule is in the module's docstring.

    Args:
        policies: with their figures.
        values: of each policy by partition, larger is better.
        weights, keys: of the partitions.
        matters: how much of the metric may be lost for fewer retrainings.
    """
    offered = [one for one in policies if one.spec is not None]
    if len(offered) < 2:
        return None
    priced = [one for one in offered if one.cost is not None]
    if priced:
        best = min(priced, key=lambda one: (one.cost, one.retrainings))
        reason = (
            f"{best.name} costs least: {best.cost:+.4g} against never, with "
            f"{best.retrainings:g} retrainings"
        )
        return Recommendation(best.name, reason, best.spec or "")
    best = max(offered, key=lambda one: (one.gain, -one.retrainings))
    differences = {
        one.name: paired(values[one.name], values[best.name], weights, keys) for one in offered
    }
    as_good = [
        one for one in offered if one is best or _may_be_as_good(differences[one.name], matters)
    ]
    taken = min(as_good, key=lambda one: (one.retrainings, -one.gain))
    if taken is best:
        others = f"every policy with fewer retrainings is shown to lose more than {matters:.3g}"
        if not any(one.retrainings < best.retrainings for one in offered):
            others = "no policy retrains less"
        reason = f"{best.name} served best, and {others}"
    else:
        found = differences[taken.name]
        assert found is not None
        bound = "" if found.low is None else f", at worst {found.low:+.4g} at 95%"
        reason = (
            f"{best.name} served best with {best.retrainings:g} retrainings, but {taken.name} with "
            f"{taken.retrainings:g} is not shown to lose more than {matters:.3g} "
            f"({found.gain:+.4g}{bound})"
        )
    return Recommendation(taken.name, reason, taken.spec or "")


def _may_be_as_good(difference: "GainInterval | None", matters: float) -> bool:
    return difference is not None and difference.high is not None and difference.high >= -matters
