"""Calendars that run fast: how much of an example's past has "happened" so far.

A clock is a small file under RETRAIN_HOME, so that the processes of one installation agree, and so
that a person sees days arrive.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from retrain_assets.settings import Settings

__all__ = ["Clock"]

_MOST_DAYS_PER_LOOK = 3


@dataclass(frozen=True)
class Clock:
    """The calendar of one example.

    Attributes:
        name: of its file.
        first: first day with data.
        last: last day with data, where the clock stops.
    """

    name: str
    first: date
    last: date

    def pin(self, day: date) -> None:
        """Stop at the end of `day`; whoever pins it moves it by hand."""
        self._write({"day": day.isoformat(), "pinned": "yes"})

    def unpin(self) -> None:
        """Let a pinned clock go on from its day at the next look."""
        clock = self._read()
        if clock is not None:
            self._write({"day": clock["day"]})

    def today(self) -> date | None:
        """The day it stands at, None before its first look."""
        clock = self._read()
        return None if clock is None else date.fromisoformat(clock["day"])

    def through(self, initial_days: int, seconds_per_day: float) -> date:
        """The last day that has happened: `initial_days` at the first look, then one more every
        `seconds_per_day`. A look moves the clock on by three days at most, so that a laptop that
        slept does not wake up to a year of data."""
        now = datetime.now(UTC)
        clock = self._read() or {"day": (self.first + timedelta(days=initial_days - 1)).isoformat()}
        day = date.fromisoformat(clock["day"])
        if "pinned" in clock:
            return day
        at = datetime.fromisoformat(clock["at"]) if "at" in clock else now
        passed = int((now - at).total_seconds() / seconds_per_day)
        if passed or "at" not in clock:
            day = min(day + timedelta(days=min(passed, _MOST_DAYS_PER_LOOK)), self.last)
            self._write({"day": day.isoformat(), "at": now.isoformat()})
        return day

    def days_through(self, day: date) -> list[str]:
        """Keys of the days from the first to `day`."""
        return [
            (self.first + timedelta(days=n)).isoformat() for n in range((day - self.first).days + 1)
        ]

    def _file(self) -> Path:
        return Settings.load().home / f"{self.name}_clock.json"

    def _read(self) -> dict[str, str] | None:
        try:
            clock: dict[str, str] = json.loads(self._file().read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return clock

    def _write(self, clock: dict[str, str]) -> None:
        file = self._file()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(clock), encoding="utf-8")
        temporary.replace(file)
