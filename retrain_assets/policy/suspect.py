"""Many models that drift together: is it the world, or the data that all of them are fed?

Belongs here: the rule, pure. Does not: gathering which models report what, holding runs, telling people.

One cause behind many alarms, such as a broken upstream table, is far likelier than as many changes of
the world that happen to begin in the same hour; and a model that is trained on broken data is worse than
one that is not retrained. A group is suspected when, within `window`, at least `models` of its models
began to raise the alarm and they are at least `share` of those that reported. It stays suspected
while that holds for alarms that last, whenever they began; for `hold` at most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["Reported", "SuspectRule", "Suspicion", "suspected"]


@dataclass(frozen=True)
class SuspectRule:
    """The bounds.

    Attributes:
        models: fewest alarms.
        share: least part of the models that reported, in (0, 1].
        window: within which they begin.
        hold: after which the suspicion lapses.
    """

    models: int = 10
    share: float = 0.5
    window: timedelta = timedelta(hours=1)
    hold: timedelta = timedelta(hours=24)


@dataclass(frozen=True)
class Reported:
    """The newest drift report of a model.

    Attributes:
        at: when it came.
        alarm_began: when the first report of the alarm that it raises came; None without an alarm.
    """

    at: datetime
    alarm_began: datetime | None


@dataclass(frozen=True)
class Suspicion:
    """A group whose data is suspected, with the numbers of the moment when that began."""

    since: datetime
    alarmed: int
    reported: int


def suspected(
    rule: SuspectRule, reports: Iterable[Reported], now: datetime, before: Suspicion | None = None
) -> Suspicion | None:
    """The suspicion about a group now.

    Args:
        reports: the newest report of each of its models, those left out whose alarm was answered.
        before: the suspicion so far. One that goes on is returned as it is, so that whoever acts
            on it can tell.

    >>> noon = datetime(2024, 1, 1, 12)
    >>> alarms = [Reported(noon, noon)] * 12
    >>> suspected(SuspectRule(), [*alarms, *[Reported(noon, None)] * 12], noon).alarmed
    12
    >>> suspected(SuspectRule(), [*alarms, *[Reported(noon, None)] * 13], noon)
    """
    if before is None:
        since = now - rule.window
        recent = [one for one in reports if one.at >= since]
        alarmed = sum(one.alarm_began is not None and one.alarm_began >= since for one in recent)
        return Suspicion(now, alarmed, len(recent)) if _many(rule, alarmed, len(recent)) else None
    if now - before.since >= rule.hold:
        return None
    concerned = [one for one in reports if one.at >= before.since - rule.window]
    alarmed = sum(one.alarm_began is not None for one in concerned)
    return before if _many(rule, alarmed, len(concerned)) else None


def _many(rule: SuspectRule, alarmed: int, reported: int) -> bool:
    return alarmed >= rule.models and alarmed >= rule.share * reported
