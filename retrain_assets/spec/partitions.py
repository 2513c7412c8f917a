"""Time partitions as plain arithmetic: keys, windows, neighbours. All times are UTC.

Belongs here: what a partition key means. Does not: how an orchestrator represents it; a contract
test holds these keys equal to Dagster's time-window partitions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

__all__ = ["Every", "PartitionScheme", "Window"]

Every = Literal["hour", "day", "week", "month"]

_FORMATS: dict[str, str] = {
    "hour": "%Y-%m-%d-%H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m-%d",
}
_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


@dataclass(frozen=True)
class Window:
    """The half-open interval [start, end) in UTC that one partition covers."""

    key: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class PartitionScheme:
    """The partitions of one model: consecutive hours, days, weeks (from Monday) or months.

    Attributes:
        every: the length of one partition.
        start: the first day; rounded up to the first whole week or month.
        end: the last day that may have partitions (inclusive), None for no end.

    >>> scheme = PartitionScheme("day", date(2013, 1, 1), date(2013, 1, 3))
    >>> scheme.keys()
    ['2013-01-01', '2013-01-02', '2013-01-03']
    >>> scheme.shift("2013-01-03", -2)
    '2013-01-01'
    """

    every: Every
    start: date
    end: date | None = None

    @property
    def first(self) -> datetime:
        """Start of the first partition."""
        day = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        if self.every == "week" and day.weekday():
            return day + timedelta(days=7 - day.weekday())
        if self.every == "month" and day.day > 1:
            return self._advance(day.replace(day=1), 1)
        return day

    @property
    def stop(self) -> datetime | None:
        """End of the last partition; None where partitions go on for ever.

        A week or month that `end` cuts is no partition. Without a whole one, the same as `first`.
        """
        if self.end is None:
            return None
        after = datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC)
        after += timedelta(days=1)
        return self._advance(self.first, self._index(after)) if after > self.first else self.first

    @property
    def format(self) -> str:
        """`strftime` format of a key, the same as Dagster's."""
        return _FORMATS[self.every]

    def _advance(self, moment: datetime, n: int) -> datetime:
        if self.every != "month":
            return moment + n * _STEPS[self.every]
        months = moment.year * 12 + moment.month - 1 + n
        return moment.replace(year=months // 12, month=months % 12 + 1)

    def _index(self, moment: datetime) -> int:
        """Number of whole partitions from the first partition's start to `moment` (floor)."""
        if self.every == "month":
            first = self.first
            months = (moment.year - first.year) * 12 + moment.month - first.month
            at = self._advance(first, months)
            return months if moment >= at else months - 1
        return (moment - self.first) // _STEPS[self.every]

    def parse(self, key: str) -> datetime:
        """Start of the partition `key`.

        Raises:
            ValueError: the key is malformed, before the first or after the last partition.
        """
        form = f"{self.format} ({self.every} partitions)"
        try:
            start = datetime.strptime(key, self.format).replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"{key!r} is not a partition key of the form {form}") from None
        if self.key_of(start) != key:  # such as 2024-1-1, which would be a second name of a day
            raise ValueError(f"{key!r} is not a partition key of the form {form}")
        if start < self.first or (self.stop is not None and start >= self.stop):
            raise ValueError(f"partition {key!r} is outside {self.start} to {self.end or 'now'}")
        if self._advance(self.first, self._index(start)) != start:
            raise ValueError(f"partition {key!r} does not begin a {self.every}")
        return start

    def key_of(self, start: datetime) -> str:
        """The key of the partition that starts at `start`."""
        return start.strftime(self.format)

    def window(self, key: str) -> Window:
        """The interval that `key` covers; raises ValueError as `parse` does."""
        start = self.parse(key)
        return Window(key, start, self._advance(start, 1))

    def keys(self, now: datetime | None = None) -> list[str]:
        """Keys of all partitions that have ended at `now` (default: the present), oldest first."""
        now = now or datetime.now(UTC)
        until = now if self.stop is None else min(now, self.stop)
        n = self._index(until) if until > self.first else 0
        return [self.key_of(self._advance(self.first, i)) for i in range(n)]

    def shift(self, key: str, n: int) -> str | None:
        """The key `n` partitions later (earlier if negative), None before the first partition."""
        index = self._index(self.parse(key)) + n
        return None if index < 0 else self.key_of(self._advance(self.first, index))

    def trailing(self, key: str, n: int) -> list[str]:
        """The `n` keys that end with `key`, oldest first; fewer at the beginning."""
        last = self._index(self.parse(key))
        return [
            self.key_of(self._advance(self.first, i)) for i in range(max(last - n + 1, 0), last + 1)
        ]

    def between(self, first: str, last: str) -> list[str]:
        """All keys from `first` to `last`, both included."""
        start, stop = self._index(self.parse(first)), self._index(self.parse(last))
        return [self.key_of(self._advance(self.first, i)) for i in range(start, stop + 1)]

    def runs(self, keys: Sequence[str], limit: int) -> list[list[str]]:
        """Group sorted keys into runs of neighbours, each at most `limit` long."""
        groups: list[list[str]] = []
        previous: int | None = None
        for key in keys:
            index = self._index(self.parse(key))
            if previous is not None and index == previous + 1 and len(groups[-1]) < limit:
                groups[-1].append(key)
            else:
                groups.append([key])
            previous = index
        return groups
