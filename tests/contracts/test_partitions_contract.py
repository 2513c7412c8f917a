"""Partition keys are plain arithmetic here and Dagster's in the UI: both must be the same keys."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from retrain_assets.orchestration.partitions import dagster_partitions, trailing_mapping
from retrain_assets.spec.partitions import PartitionScheme

STARTS = [
    date(2023, 12, 25), date(2023, 12, 31), date(2024, 1, 1), date(2024, 1, 3), date(2024, 1, 31),
    date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 31), date(2024, 10, 27), date(1970, 1, 1),
]  # fmt: skip
SPANS = [0, 1, 6, 7, 28, 30, 60, 400]
NOWS = [
    timedelta(0), timedelta(minutes=59), timedelta(hours=1), timedelta(hours=23, minutes=59),
    timedelta(days=1), timedelta(days=6, hours=23), timedelta(days=7), timedelta(days=13),
    timedelta(days=31), timedelta(days=32, hours=5), timedelta(days=90, microseconds=1),
]  # fmt: skip
EVERY = ["hour", "day", "week", "month"]


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("start", STARTS)
def test_a_finished_scheme_has_dagster_s_keys(every, start):
    for span in SPANS:
        scheme = PartitionScheme(every, start, start + timedelta(days=span))
        theirs = dagster_partitions(scheme).get_partition_keys()
        assert scheme.keys() == list(theirs), scheme


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("start", STARTS)
def test_a_live_scheme_has_dagster_s_keys_at_every_moment(every, start):
    scheme = PartitionScheme(every, start)
    definition = dagster_partitions(scheme)
    for after in NOWS:
        now = datetime(start.year, start.month, start.day, tzinfo=UTC) + after
        assert scheme.keys(now) == list(definition.get_partition_keys(now)), now


@pytest.mark.parametrize("every", EVERY)
def test_windows_are_dagster_s_windows(every):
    scheme = PartitionScheme(every, date(2024, 2, 27), date(2024, 5, 5))
    definition = dagster_partitions(scheme)
    keys = scheme.keys()
    for key in keys:
        ours, theirs = scheme.window(key), definition.time_window_for_partition_key(key)
        assert (ours.start, ours.end) == (theirs.start, theirs.end)
        assert ours.start.utcoffset() == timedelta(0)


@pytest.mark.parametrize("every", EVERY)
def test_no_time_zone_or_clock_change_moves_a_partition(every, monkeypatch):
    import time

    scheme = PartitionScheme(every, date(2024, 3, 25), date(2024, 11, 10))
    before = scheme.keys()
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert scheme.keys() == before == list(dagster_partitions(scheme).get_partition_keys())
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize(("count", "offset"), [(1, 0), (3, 0), (2, -1), (4, -2), (1, -3)])
def test_the_mapping_asks_for_the_same_partitions_as_the_arithmetic(every, count, offset):
    import dagster as dg

    scheme = PartitionScheme(every, date(2024, 1, 29), date(2024, 12, 31))
    definition = dagster_partitions(scheme)
    mapping = trailing_mapping(count, offset)
    for key in (keys := scheme.keys()[:12]):
        upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
            definition.subset_with_partition_keys([key]),
            definition,
            definition,
            current_time=datetime(2025, 6, 1, tzinfo=UTC),
        )
        last = scheme.shift(key, offset)
        expected = scheme.trailing(last, count) if last is not None else []
        assert list(upstream.partitions_subset.get_partition_keys()) == expected, (key, keys)
    assert isinstance(mapping, dg.TimeWindowPartitionMapping)


def test_without_partitions_dagster_has_none_either():
    assert dagster_partitions(None) is None


@pytest.mark.parametrize("every", EVERY)
def test_dagster_s_key_format_is_ours(every):
    scheme = PartitionScheme(every, date(2024, 1, 1))
    assert dagster_partitions(scheme).fmt == scheme.format


@pytest.mark.parametrize("every", EVERY)
def test_consecutive_windows_leave_no_gap(every):
    scheme = PartitionScheme(every, date(2024, 1, 30), date(2024, 6, 3))
    keys = scheme.keys()
    windows = [scheme.window(key) for key in keys]
    assert all(before.end == after.start for before, after in pairwise(windows))
