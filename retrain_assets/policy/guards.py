"""What holds a retraining back although there is a reason, each a pure function.

Belongs here: whether a guard holds, and what would end it. Does not: reasons to retrain
(`conditions`), which guard applies to what (`decide`).
"""

from datetime import datetime, timedelta
from typing import Literal

from retrain_assets.policy.evidence import Evidence, History, PastRun
from retrain_assets.spec.model import Retrain
from retrain_assets.spec.types import rough_duration

__all__ = [
    "GuardName",
    "backoff",
    "bad_data",
    "budget",
    "cooldown",
    "enough_data",
    "in_flight",
    "new_data",
    "suspect_data",
]

GuardName = Literal[
    "enough_data",
    "in_flight",
    "bad_data",
    "suspect_data",
    "new_data",
    "cooldown",
    "backoff",
    "budget",
]

WEEK = timedelta(days=7)


def enough_data(evidence: Evidence) -> str | None:
    """Too few partitions to train on at all."""
    if evidence.partitions >= evidence.needed:
        return None
    return f"but only {evidence.partitions} of {evidence.needed} partitions exist"


def in_flight(history: History) -> str | None:
    """Another retraining of the model is queued or running."""
    return "but a retraining is in flight" if history.in_flight else None


def bad_data(evidence: Evidence) -> str | None:
    """The newest data is broken: that is no drift, and nothing to learn from."""
    if not evidence.bad_data:
        return None
    return f"but the newest data is bad ({evidence.bad_data}); it must be mended first"


def suspect_data(history: History) -> str | None:
    """Many models drifted together, which tells of the data rather than of the world."""
    return f"but {history.suspect_data}" if history.suspect_data else None


def new_data(retrain: Retrain, evidence: Evidence, history: History, now: datetime) -> str | None:
    """The same data would give the same model, and a little more much the same."""
    if history.last_retraining is None:
        return None
    if now <= history.last_retraining:
        return "but no data has come since the last retraining"
    new, least = evidence.new_partitions, retrain.min_new_partitions
    if new is None or new >= least:
        return None
    return (
        f"but only {new} new partitions have come since the last retraining; "
        f"min_new_partitions is {least}, {least - new} more"
    )


def cooldown(retrain: Retrain, history: History, now: datetime) -> str | None:
    """The last retraining was a short time ago."""
    last, length = history.last_retraining, retrain.cooldown
    if last is None or length is None or now - last >= length:
        return None
    since = max(now - last, timedelta(0))
    return (
        f"but the last retraining is {rough_duration(since)} of data ago, less than the "
        f"cool-down of {rough_duration(length)}, {_ends(last, length)}"
    )


def backoff(retrain: Retrain, history: History, now: datetime) -> str | None:
    """Candidates were rejected one after the other: the wait doubles with each.

    After r rejections it lasts min(first * 2^(r - 1), at_most), from the last candidate's data on.
    """
    rule, rejections, last = retrain.backoff, history.rejections, history.last_retraining
    if rule is None or not rejections or last is None:
        return None
    # 2^40 times a second is longer than any spec's at_most; without a limit it would overflow.
    seconds = rule.first.total_seconds() * 2.0 ** min(rejections - 1, 40)
    wait = timedelta(seconds=min(seconds, rule.at_most.total_seconds()))
    if now - last >= wait:
        return None
    candidates = "candidate was" if rejections == 1 else f"{rejections} candidates were"
    return (
        f"but the last {candidates} rejected: back-off of {rough_duration(wait)}, "
        f"{_ends(last, wait)}"
    )


def budget(retrain: Retrain, history: History) -> str | None:
    """What may be used up in 7 days is used up."""
    rule = retrain.budget
    if rule is None or history.runs is None:
        return None
    recent = sorted((run for run in history.runs if run.ago < WEEK), key=lambda run: -run.ago)
    spent = sum(run.compute_seconds for run in recent)
    held = []
    if rule.runs_per_week is not None and len(recent) >= rule.runs_per_week:
        frees = recent[len(recent) - rule.runs_per_week]
        held.append((frees, f"{len(recent)} of {rule.runs_per_week} retrainings"))
    allowed = rule.compute_seconds_per_week
    if allowed is not None and spent >= allowed:
        held.append(
            (_frees(recent, spent - allowed), f"{spent:.0f} of {allowed:.0f} compute seconds")
        )
    if not held:
        return None
    wait = max(WEEK - run.ago for run, _ in held)
    used = " and ".join(text for _, text in held)
    return f"but the budget of 7 days is used up ({used}); it frees in {rough_duration(wait)}"


def _frees(oldest_first: list[PastRun], too_much: float) -> PastRun:
    """The run after whose leaving less than the budget is spent."""
    gone = 0.0
    for run in oldest_first:
        gone += run.compute_seconds
        if gone > too_much:
            return run
    return oldest_first[-1]


def _ends(last: datetime, length: timedelta) -> str:
    until = last + length
    whole_day = until.hour == until.minute == until.second == 0
    return f"which ends with data up to {until:{'%Y-%m-%d' if whole_day else '%Y-%m-%d %H:%M'}}"
