"""Partition arithmetic: laws that hold for every scheme, key and number."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.spec.partitions import PartitionScheme

_FROM, _TO = datetime(1950, 1, 1), datetime(2150, 1, 1)
_unhurried = settings(deadline=None)  # the machine is shared
_every = st.sampled_from(["hour", "day", "week", "month"])
_schemes = st.builds(
    PartitionScheme, _every, st.dates(date(1900, 1, 1), date(2190, 1, 1)), st.none()
)
_STEPS = {
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7),
    "month": timedelta(days=28),
}  # fmt: skip


@st.composite
def _scheme_and_key(draw):
    scheme = draw(_schemes)
    number = draw(st.integers(0, 50_000 if scheme.every == "hour" else 2_000))
    key = scheme.shift(scheme.key_of(scheme.first), number)
    return scheme, key, number


@_unhurried
@given(_scheme_and_key(), st.integers(-60_000, 5_000))
def test_shifting_there_and_back_is_where_one_was(case, n):
    scheme, key, number = case
    there = scheme.shift(key, n)
    assert (there is None) == (number + n < 0)
    if there is not None:
        assert scheme.shift(there, -n) == key
        assert (there > key) == (n > 0)


@_unhurried
@given(_scheme_and_key(), st.integers(-50, 50), st.integers(0, 50))
def test_two_shifts_are_one_shift(case, a, b):
    scheme, key, _ = case
    middle = scheme.shift(key, a)
    if middle is not None:
        assert scheme.shift(middle, b) == scheme.shift(key, a + b)


@_unhurried
@given(_scheme_and_key())
def test_keys_sort_as_their_windows_and_windows_touch(case):
    scheme, key, _ = case
    window, following = scheme.window(key), scheme.window(scheme.shift(key, 1))
    assert window.end == following.start
    assert window.start < window.end
    assert key < following.key
    assert window.end - window.start >= _STEPS[scheme.every]
    assert scheme.key_of(window.start) == key


@_unhurried
@given(_scheme_and_key(), st.integers(1, 400))
def test_trailing_keys_end_with_the_key_and_are_neighbours(case, n):
    scheme, key, number = case
    keys = scheme.trailing(key, n)
    assert keys[-1] == key
    assert len(keys) == min(n, number + 1)
    assert all(scheme.shift(a, 1) == b for a, b in pairwise(keys))


@_unhurried
@given(_scheme_and_key(), st.integers(0, 300))
def test_between_counts_both_ends_and_is_trailing_read_the_other_way(case, n):
    scheme, key, _ = case
    last = scheme.shift(key, n)
    keys = scheme.between(key, last)
    assert (keys[0], keys[-1], len(keys)) == (key, last, n + 1)
    assert keys == scheme.trailing(last, n + 1)


@_unhurried
@given(_scheme_and_key(), st.sets(st.integers(0, 60), max_size=40), st.integers(1, 10))
def test_runs_keep_every_key_once_in_order_and_are_as_long_as_they_may(case, offsets, limit):
    scheme, key, _ = case
    keys = [scheme.shift(key, offset) for offset in sorted(offsets)]
    runs = scheme.runs(keys, limit)
    assert [k for run in runs for k in run] == keys
    for run in runs:
        assert 1 <= len(run) <= limit
        assert run == scheme.between(run[0], run[-1])
    for before, after in pairwise(runs):
        assert len(before) == limit or scheme.shift(before[-1], 1) != after[0]


@_unhurried
@given(
    st.builds(PartitionScheme, _every, st.dates(date(2000, 1, 1), date(2000, 12, 31)), st.none()),
    st.datetimes(datetime(1999, 12, 1), datetime(2001, 3, 1), timezones=st.just(UTC)),
)
def test_exactly_the_partitions_that_have_ended_exist(scheme, now):
    keys = scheme.keys(now)
    if keys:
        assert keys[0] == scheme.key_of(scheme.first)
        assert scheme.window(keys[-1]).end <= now
        following = scheme.shift(keys[-1], 1)
    else:
        following = scheme.key_of(scheme.first)
    assert scheme.window(following).end > now


@_unhurried
@given(
    _every, st.dates(date(2000, 1, 1), date(2001, 1, 1)), st.integers(0, 100), st.integers(0, 200)
)
def test_an_end_only_takes_partitions_away(every, start, span, days):
    end = start + timedelta(days=span)
    now = datetime(start.year, start.month, start.day, tzinfo=UTC) + timedelta(days=days)
    finite, live = PartitionScheme(every, start, end), PartitionScheme(every, start)
    keys = finite.keys(now)
    assert keys == live.keys(now)[: len(keys)]
    assert keys == live.keys(min(now, finite.stop))
    assert all(finite.window(key).end <= finite.stop for key in keys)


@_unhurried
@given(
    _every,
    st.text(max_size=20) | st.from_regex(r"20[0-3]\d-\d\d?-\d\d?(-\d\d:00)?", fullmatch=True),
)
def test_any_text_is_a_key_or_is_refused_by_name(every, text):
    scheme = PartitionScheme(every, date(2020, 1, 1), date(2020, 3, 31))
    if text in scheme.keys(datetime(2022, 1, 1, tzinfo=UTC)):
        assert scheme.window(text).key == text
        return
    with pytest.raises(ValueError, match="partition") as caught:
        scheme.window(text)
    assert repr(text) in str(caught.value)


@_unhurried
@given(_every, st.datetimes(_FROM, _TO, timezones=st.just(UTC)))
def test_a_moment_inside_a_partition_is_no_key_of_it(every, moment):
    scheme = PartitionScheme(every, date(1950, 1, 1))
    key = scheme.key_of(moment)
    if scheme.every == "day":
        assert scheme.window(key).start <= moment < scheme.window(key).end
    elif (moment.minute if every == "hour" else moment.weekday() if every == "week" else
          moment.day - 1):  # fmt: skip
        with pytest.raises(ValueError, match="does not begin"):
            scheme.window(key)
