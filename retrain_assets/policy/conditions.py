"""Conditions of the data and the champion that are a reason to retrain, each a pure function.

Belongs here: whether one condition holds, with its numbers in words. Does not: how conditions combine
(`decide`), what holds a retraining back (`guards`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrain_assets.performance.measured import Performance
from retrain_assets.policy.cost import staleness_cost
from retrain_assets.policy.evidence import Evidence
from retrain_assets.spec.model import OnPerformance, Retrain
from retrain_assets.spec.types import rough_duration

__all__ = ["Condition", "ConditionName", "evaluate"]

ConditionName = Literal["drift", "performance", "cost", "age", "new_data", "change"]


@dataclass(frozen=True)
class Condition:
    """One condition at one moment.

    Attributes:
        name: as in `Retrain.conditions`.
        holds: None where the evidence is unknown.
        reason: why, why not, or what is unknown; a plain sentence with its numbers.
    """

    name: ConditionName
    holds: bool | None
    reason: str


def evaluate(retrain: Retrain, evidence: Evidence) -> list[Condition]:
    """The conditions that the policy has on, in the order of `Retrain.conditions`."""
    return [
        Condition(name, *rule(retrain, evidence))
        for name, rule in _RULES.items()
        if name in retrain.conditions
    ]


_Found = tuple[bool | None, str]


def _drift(retrain: Retrain, evidence: Evidence) -> _Found:
    if evidence.drift_alarm is None:
        return None, "drift is not known"
    score = evidence.drift_score
    shown = "" if score is None else f" (score {score:.2f})"
    if not evidence.drift_alarm:
        return False, f"no drift alarm{shown}"
    if retrain.min_drift_score > 0:
        if score is None:
            return None, "the drift alarm is raised, but its score is not known"
        if score < retrain.min_drift_score:
            return False, (
                f"the drift alarm is raised, but its score {score:.2f} is below "
                f"min_drift_score {retrain.min_drift_score:g}"
            )
    if not retrain.needs_prediction_drift:
        return True, f"the drift alarm is raised{shown}"
    if evidence.prediction_drift is None:
        return None, "the drift alarm is raised, but drift of the predictions is not known"
    if not evidence.prediction_drift:
        return False, "the drift alarm is raised, but the champion's predictions have not drifted"
    return True, f"the drift alarm is raised{shown} and the champion's predictions have drifted"


def _performance(retrain: Retrain, evidence: Evidence) -> _Found:
    rule = retrain.on_performance
    if rule is None:
        return False, "performance is not asked for"
    realised = [one for one in evidence.performance if one.decided and one.kind == "realised"]
    usable = [one for one in evidence.performance if one.decided] if rule.estimate else realised
    if not usable:
        return None, "the champion's performance is not known yet"
    expected = evidence.expected
    if rule.floor is None and (expected is None or not expected.decided):
        return None, "the champion's performance on its holdout is not known"
    found = _Beyond.among(usable, rule, expected)
    # An estimate may start a retraining and never prevent one: it cannot see that labels have come to
    # mean something else, so it must not push a realised value out of the last n.
    alone = _Beyond.among(realised, rule, expected)
    if len(found.beyond) < rule.at_least <= len(alone.beyond):
        found = alone
    enough = len(found.beyond) >= rule.at_least
    bound, shown = _bound_text(rule, expected), str((found.beyond or found.looked_at)[-1])
    if rule.of_last == 1:
        return enough, f"{shown} is {'' if enough else 'not shown to be '}beyond {bound}"
    kind = "" if found is not alone else " realised"
    count = f"{len(found.beyond)} of the last {len(found.looked_at)}{kind} partitions are beyond {bound}"
    return enough, f"{count}{'' if enough else f', {rule.at_least} are asked for'}; {shown}"


@dataclass(frozen=True)
class _Beyond:
    """The last partitions that a rule looks at, and those of them that break its bound."""

    looked_at: Sequence[Performance]
    beyond: Sequence[Performance]

    @classmethod
    def among(
        cls, known: Sequence[Performance], rule: OnPerformance, expected: Performance | None
    ) -> "_Beyond":
        looked_at = known[-rule.of_last :]
        return cls(looked_at, [one for one in looked_at if _is_beyond(one, rule, expected)])


def _is_beyond(one: Performance, rule: OnPerformance, expected: Performance | None) -> bool:
    """Whether even the best value that the interval allows breaks the bound."""
    best = one.high if one.direction == "maximize" else one.low
    if one.value is None or best is None:
        return False
    sign = 1 if one.direction == "maximize" else -1
    if rule.floor is not None and sign * best < sign * rule.floor:
        return True
    if rule.max_drop is None or expected is None or expected.value is None:
        return False
    worst = expected.low if one.direction == "maximize" else expected.high
    if worst is None:
        return False
    # Interval of a difference from the intervals of its two sides (Zou & Donner, "Construction of
    # confidence limits about effect measures", Statistics in Medicine 2008).
    reach = math.hypot(best - one.value, expected.value - worst)
    return sign * (expected.value - one.value) - reach > rule.max_drop


def _bound_text(rule: OnPerformance, expected: Performance | None) -> str:
    bounds = [] if rule.floor is None else [f"the floor {rule.floor:g}"]
    if rule.max_drop is not None and expected is not None and expected.value is not None:
        bounds.append(
            f"the holdout's {expected.value:.4g} less max_drop {rule.max_drop:g}"
            if expected.direction == "maximize"
            else f"the holdout's {expected.value:.4g} and max_drop {rule.max_drop:g}"
        )
    return " or ".join(bounds)


def _cost(retrain: Retrain, evidence: Evidence) -> _Found:
    cost, expected = retrain.cost, evidence.expected
    if cost is None:
        return False, "cost is not asked for"
    since = evidence.performance
    if evidence.new_partitions is not None:
        since = since[max(len(since) - evidence.new_partitions, 0) :]
    found = staleness_cost(cost, since, expected) if expected is not None else None
    if found is None:
        return (
            None,
            "the cost of not retraining is not known: no performance, or none on the holdout",
        )
    holds = found.exceeds(cost.retraining)
    text = (
        f"not retraining has cost {found.lost:.4g} and the next partition {found.forecast:.4g} more, "
        f"{'above' if found.lost + found.forecast > cost.retraining else 'not above'} the "
        f"{cost.retraining:.4g} of a retraining"
    )
    if found.lost + found.forecast > cost.retraining and not found.shown:
        text += ", but the loss does not stand out from noise"
    return holds, text


def _age(retrain: Retrain, evidence: Evidence) -> _Found:
    age, bound = evidence.champion_age, retrain.max_age
    if bound is None or age is None:
        return None, "the champion's age is not known"
    holds = age > bound
    return holds, (
        f"the champion's data is {rough_duration(age)} old, "
        f"{'more' if holds else 'not more'} than {rough_duration(bound)}"
    )


def _new_data(retrain: Retrain, evidence: Evidence) -> _Found:
    new, bound = evidence.new_partitions, retrain.on_new_partitions
    if bound is None or new is None:
        return None, "how many partitions are new is not known"
    return (
        new >= bound,
        f"{new} new partitions since the last retraining (on_new_partitions {bound})",
    )


def _change(retrain: Retrain, evidence: Evidence) -> _Found:
    if evidence.changed is None:
        return None, "whether code or spec changed is not known"
    if evidence.changed:
        return True, "features, target, task or train changed since the last retraining"
    return False, "code and spec are those of the last retraining"


_RULES: Mapping[ConditionName, Callable[[Retrain, Evidence], _Found]] = {
    "drift": _drift,
    "performance": _performance,
    "cost": _cost,
    "age": _age,
    "new_data": _new_data,
    "change": _change,
}
