"""`decide(evidence, history, now)`: retrain or wait, and why.

Belongs here: the rules. Does not: gathering the evidence, obeying the decision. Sensors, schedules
and the demo all call this one function.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from retrain_assets.spec.model import Retrain
from retrain_assets.spec.types import rough_duration

__all__ = ["Decision", "Evidence", "History", "Trigger", "decide"]

Trigger = Literal["first", "schedule", "drift", "age", "on_demand"]


@dataclass(frozen=True)
class Evidence:
    """What is known about a model at one moment.

    Attributes:
        has_champion: whether any version was ever promoted.
        partitions: how many feature partitions exist; at least 1 for an unpartitioned table.
        needed: fewest partitions from which a candidate can be trained.
        drift_alarm: whether the newest drift report raised the alarm.
        champion_age: newest data's end minus the end of the data the champion was trained for.
        asked: what asks for a retraining from outside: a cron tick or a person.
    """

    has_champion: bool
    partitions: int
    needed: int
    drift_alarm: bool = False
    champion_age: timedelta | None = None
    asked: Literal["schedule", "on_demand"] | None = None


@dataclass(frozen=True)
class History:
    """What was done before.

    Attributes:
        in_flight: a retraining of this model is queued or running.
        last_retraining: end of the data of the latest finished candidate, promoted or not.
    """

    in_flight: bool = False
    last_retraining: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """The outcome.

    Attributes:
        action: `retrain`; `wait`: no reason, or a guard overruled it; `hold`: there is a reason,
            but a retraining is in flight: ask again when it has ended.
        trigger: the trigger that fired, None where none did.
        reasons: plain sentences: why, or why not.
    """

    action: Literal["retrain", "wait", "hold"]
    trigger: Trigger | None
    reasons: tuple[str, ...]


def decide(retrain: Retrain, evidence: Evidence, history: History, now: datetime) -> Decision:
    """Whether to retrain at `now`.

    Triggers in order: on demand, schedule, first champion, drift, age. Guards: enough partitions
    (all triggers), in flight (all but on demand), new data since the last retraining and cool-down
    (first, drift and age).

    Args:
        retrain: the policy of the model's spec.
        evidence: what is known.
        history: what was done.
        now: data time, the end of the newest partition; UTC.
    """
    trigger, reason = _trigger(retrain, evidence)
    if trigger is None:
        return Decision("wait", None, (reason,))
    if evidence.partitions < evidence.needed:
        return Decision(
            "wait",
            trigger,
            (reason, f"but only {evidence.partitions} of {evidence.needed} partitions exist"),
        )
    if trigger == "on_demand":
        return Decision("retrain", trigger, (reason,))
    if history.in_flight:
        return Decision("hold", trigger, (reason, "but a retraining is in flight"))
    if trigger != "schedule" and (guard := _too_soon(retrain, history, now)):
        return Decision("wait", trigger, (reason, guard))
    return Decision("retrain", trigger, (reason,))


def _too_soon(retrain: Retrain, history: History, now: datetime) -> str | None:
    """Why it is too soon after the last retraining, None where it is not."""
    if history.last_retraining is None:
        return None
    since = now - history.last_retraining
    if since <= timedelta(0):
        return "but no data has come since the last retraining"
    if retrain.cooldown is not None and since < retrain.cooldown:
        return (
            f"but the last retraining is {rough_duration(since)} of data ago, less than the "
            f"cool-down of {rough_duration(retrain.cooldown)}"
        )
    return None


def _trigger(retrain: Retrain, evidence: Evidence) -> tuple[Trigger | None, str]:
    """The first trigger that fires, with its reason; or None, and why nothing fires."""
    if evidence.asked == "on_demand":
        return "on_demand", "somebody asked for it"
    if evidence.asked == "schedule":
        return "schedule", f"scheduled at '{retrain.schedule}'"
    if not evidence.has_champion:
        return "first", "there is no champion yet"
    if evidence.drift_alarm and retrain.on_drift:
        return "drift", "the drift alarm is raised"
    age = evidence.champion_age
    if retrain.max_age and age is not None and age > retrain.max_age:
        return "age", (
            f"the champion's data is {rough_duration(age)} old, "
            f"more than {rough_duration(retrain.max_age)}"
        )
    if evidence.drift_alarm:
        return None, "the drift alarm is raised, but retrain.on_drift is off"
    return None, "no trigger fired"
