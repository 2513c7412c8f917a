"""Partition arithmetic, on the days where it could go wrong."""

from datetime import UTC, date, datetime, timedelta

import pytest

from retrain_assets.spec.partitions import PartitionScheme


def _at(*moment):
    return datetime(*moment, tzinfo=UTC)


def test_hours_have_minutes_in_their_keys_and_end_with_the_last_day():
    scheme = PartitionScheme("hour", date(2024, 2, 29), date(2024, 2, 29))
    assert scheme.keys() == [f"2024-02-29-{hour:02d}:00" for hour in range(24)]


def test_weeks_begin_on_the_first_monday_at_or_after_the_start():
    assert PartitionScheme("week", date(2024, 1, 1)).first == _at(2024, 1, 1)
    assert PartitionScheme("week", date(2024, 1, 2)).first == _at(2024, 1, 8)
    assert PartitionScheme("week", date(2024, 1, 7)).first == _at(2024, 1, 8)


def test_months_begin_on_the_first_of_a_month_at_or_after_the_start():
    assert PartitionScheme("month", date(2024, 1, 1)).first == _at(2024, 1, 1)
    assert PartitionScheme("month", date(2024, 12, 2)).first == _at(2025, 1, 1)


def test_a_week_or_month_that_the_end_cuts_is_no_partition():
    assert PartitionScheme("week", date(2024, 1, 1), date(2024, 1, 13)).keys() == ["2024-01-01"]
    assert PartitionScheme("month", date(2024, 1, 1), date(2024, 2, 28)).keys() == ["2024-01-01"]
    assert len(PartitionScheme("month", date(2024, 1, 1), date(2024, 2, 29)).keys()) == 2


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (_at(2023, 12, 1), []),
        (_at(2024, 1, 1), []),
        (_at(2024, 1, 1, 23, 59, 59, 999999), []),
        (_at(2024, 1, 2), ["2024-01-01"]),
        (_at(2024, 1, 3, 12), ["2024-01-01", "2024-01-02"]),
    ],
)
def test_a_partition_exists_from_the_moment_it_has_ended(now, expected):
    assert PartitionScheme("day", date(2024, 1, 1)).keys(now) == expected


def test_the_moment_may_be_in_any_time_zone():
    from zoneinfo import ZoneInfo

    now = datetime(2024, 1, 2, 0, 30, tzinfo=ZoneInfo("Europe/Paris"))  # 23:30 UTC on the 1st
    assert PartitionScheme("day", date(2024, 1, 1)).keys(now) == []


@pytest.mark.parametrize(
    ("every", "key", "end"),
    [
        ("hour", "2024-02-29-23:00", _at(2024, 3, 1)),
        ("day", "2024-02-29", _at(2024, 3, 1)),
        ("week", "2024-02-26", _at(2024, 3, 4)),
        ("month", "2024-12-01", _at(2025, 1, 1)),
    ],
)
def test_a_window_ends_where_the_next_begins(every, key, end):
    scheme = PartitionScheme(every, date(2024, 1, 1))
    window = scheme.window(key)
    assert (window.key, window.end) == (key, end)
    assert scheme.window(scheme.shift(key, 1)).start == end


@pytest.mark.parametrize(
    ("every", "key"),
    [
        ("day", "2024-1-1"), ("day", "2024-01-01-00:00"), ("day", "yesterday"), ("day", ""),
        ("day", "2023-12-31"), ("day", "2024-12-01"), ("day", "9999-12-31"), ("hour", "2024-01-01"),
        ("hour", "2024-01-01-00:30"), ("week", "2024-01-02"), ("month", "2024-01-02"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_partition_is_refused_by_name(every, key):
    scheme = PartitionScheme(every, date(2024, 1, 1), date(2024, 11, 30))
    with pytest.raises(ValueError, match="partition") as caught:
        scheme.window(key)
    assert repr(key) in str(caught.value)


def test_before_the_first_partition_there_is_none():
    scheme = PartitionScheme("month", date(2024, 1, 1))
    assert scheme.shift("2024-03-01", -2) == "2024-01-01"
    assert scheme.shift("2024-03-01", -3) is None
    assert scheme.shift("2024-03-01", -1_000_000) is None  # years before Christ
    assert scheme.trailing("2024-03-01", 100_000) == ["2024-01-01", "2024-02-01", "2024-03-01"]


def test_nothing_lies_between_a_later_and_an_earlier_key():
    scheme = PartitionScheme("day", date(2024, 1, 1))
    assert scheme.between("2024-01-03", "2024-01-02") == []
    assert scheme.between("2024-01-03", "2024-01-03") == ["2024-01-03"]


def test_runs_are_neighbours_up_to_the_limit():
    scheme = PartitionScheme("day", date(2024, 1, 1))
    days = scheme.keys(_at(2024, 1, 1) + timedelta(days=7))
    assert scheme.runs(days[:3] + days[4:], 2) == [days[:2], [days[2]], days[4:6], [days[6]]]
    assert scheme.runs([], 5) == []
