"""`decide(retrain, evidence, history, now)`: retrain or wait, and why.

Belongs here: the order of triggers and which guard applies to which. Does not: each condition
(`conditions`) and guard (`guards`), gathering the evidence, obeying the decision. Sensors, schedules,
the demo and replay all call this one function.

Triggers:

    on_demand, schedule, first   start a retraining by themselves
    follow_up                    likewise, once for each champion that an answer to a change gave
    drift, performance, cost,    the conditions of the spec: one of them, all, or `at_least` so many,
      age, new_data, change      as `retrain.combine` says

Guards, and whom they hold back:

    enough_data                        everybody
    in_flight, bad_data, budget        all but a person
    suspect_data                       drift
    new_data, cooldown, backoff        the first champion, follow-ups and the conditions; where
                                       `change` fired, new_data does not ask for any: the same data
                                       gives another model

What is recorded of a decision: `record`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from retrain_assets.policy import guards
from retrain_assets.policy.conditions import Condition, ConditionName, evaluate
from retrain_assets.policy.evidence import Evidence, History
from retrain_assets.policy.guards import GuardName
from retrain_assets.spec.model import Retrain

__all__ = ["Decision", "Trigger", "decide"]

Trigger = Literal["on_demand", "schedule", "first", "follow_up"] | ConditionName

_ANSWERS: tuple[Trigger, ...] = ("drift", "performance", "cost", "follow_up")
"""What starts a retraining because the world has changed."""


@dataclass(frozen=True)
class Decision:
    """The outcome.

    Attributes:
        action: `retrain`; `wait`: no reason, or a guard overruled it; `hold`: there is a reason,
            but a retraining is in flight or the data is suspected: ask again when that has ended.
        trigger: the first trigger that fired in the order of the module, None where none did or too
            few conditions hold.
        reasons: plain sentences: what fired, with its numbers; then, each beginning with "but", what
            holds it back and what would end that; where nothing fired, why each condition does not
            hold.
        fired: all triggers that fired, in order.
        held: the guards that hold it back, in order.
    """

    action: Literal["retrain", "wait", "hold"]
    trigger: Trigger | None
    reasons: tuple[str, ...]
    fired: tuple[Trigger, ...] = ()
    held: tuple[GuardName, ...] = ()


def decide(retrain: Retrain, evidence: Evidence, history: History, now: datetime) -> Decision:
    """Whether to retrain at `now`. Pure and total: no input raises.

    Args:
        retrain: the policy of the model's spec.
        evidence: what is known.
        history: what was done.
        now: data time, the end of the newest partition; UTC.
    """
    conditions = evaluate(retrain, evidence)
    alone = _alone(retrain, evidence)
    held_conditions = [one for one in conditions if one.holds]
    fired: tuple[Trigger, ...] = (
        *(name for name, _ in alone),
        *(one.name for one in held_conditions),
    )
    reasons = [*(reason for _, reason in alone), *(one.reason for one in held_conditions)]
    needed = retrain.conditions_needed
    if not alone and len(held_conditions) < needed:
        return Decision("wait", None, _too_few(retrain, evidence, conditions, needed), fired)
    trigger = fired[0]
    held = _held(retrain, evidence, history, now, fired)
    names = tuple(name for name, _ in held)
    texts = (*reasons, *(text for _, text in held))
    if not held:
        return Decision("retrain", trigger, texts, fired)
    # What passes by itself is asked again; but no run brings data that is not there.
    passing = "in_flight" in names or "suspect_data" in names
    action: Literal["hold", "wait"] = "hold" if passing and "enough_data" not in names else "wait"
    return Decision(action, trigger, texts, fired, names)


def _alone(retrain: Retrain, evidence: Evidence) -> list[tuple[Trigger, str]]:
    """Triggers that start a retraining whatever the conditions say."""
    found: list[tuple[Trigger, str]] = []
    if evidence.asked == "on_demand":
        found.append(("on_demand", "somebody asked for it"))
    if evidence.asked == "schedule":
        found.append(("schedule", f"scheduled at '{retrain.schedule}'"))
    if not evidence.has_champion:
        found.append(("first", "there is no champion yet"))
    if (reason := _follow_up(retrain, evidence)) is not None:
        found.append(("follow_up", reason))
    return found


def _follow_up(retrain: Retrain, evidence: Evidence) -> str | None:
    """The window of the model that answered a change lay on both sides of it, mostly on the old one, and
    its own holdout is no measure of what is possible now: nothing else would ever retrain it.
    """
    after, new = retrain.follow_up, evidence.new_partitions
    if after is None or new is None or new < after or evidence.promoted_by not in _ANSWERS:
        return None
    return (
        f"{new} partitions have come since '{evidence.promoted_by}' brought the champion "
        f"(follow_up {after}), which has learned from both sides of a change"
    )


def _too_few(
    retrain: Retrain, evidence: Evidence, conditions: list[Condition], needed: int
) -> tuple[str, ...]:
    """Why the conditions do not start a retraining."""
    held = [one.reason for one in conditions if one.holds]
    others = [one.reason for one in conditions if not one.holds]
    if evidence.drift_alarm and not retrain.on_drift:
        others.append("the drift alarm is raised, but retrain.on_drift is off")
    if held:
        return (*held, f"but only {len(held)} of {needed} conditions that are needed hold", *others)
    return ("no trigger fired", *others)


def _held(
    retrain: Retrain,
    evidence: Evidence,
    history: History,
    now: datetime,
    fired: tuple[Trigger, ...],
) -> list[tuple[GuardName, str]]:
    """The guards that hold the first trigger back, with what would end them."""
    trigger = fired[0]
    found: list[tuple[GuardName, str | None]] = [("enough_data", guards.enough_data(evidence))]
    if trigger != "on_demand":
        found += [
            ("in_flight", guards.in_flight(history)),
            ("bad_data", guards.bad_data(evidence)),
        ]
    if trigger == "drift":
        found.append(("suspect_data", guards.suspect_data(history)))
    if trigger not in ("on_demand", "schedule"):
        if "change" not in fired:
            found.append(("new_data", guards.new_data(retrain, evidence, history, now)))
        found += [
            ("cooldown", guards.cooldown(retrain, history, now)),
            ("backoff", guards.backoff(retrain, history, now)),
        ]
    if trigger != "on_demand":
        found.append(("budget", guards.budget(retrain, history)))
    return [(name, text) for name, text in found if text is not None]
