"""Stored profiles: small, mergeable without loss, refused when damaged, distances certified."""

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import DriftReport, TableProfile, build_profile, compare
from retrain_assets.drift.categories import MAX_STORED
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.profile import MAX_ENTRIES, NumericProfile
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Drift


def _profile(columns, like=None):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    return build_profile(ArrowSource(table), like=like)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def _mixed(rng, n):
    return pa.table(
        {
            "normal": rng.normal(size=n),
            "tail": rng.standard_cauchy(n),
            "amounts": np.where(rng.random(n) < 0.4, 0, rng.gamma(2, 9, n)),
            "nulls": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.2),
            "count": rng.poisson(3, n),
            "when": pa.array(rng.integers(0, 10**9, n), pa.timestamp("s")),
            "text": rng.choice(["a", "b", "c"], n),
            "flag": rng.random(n) < 0.1,
            "identifier": [f"id {i}" for i in rng.integers(0, 10**12, n)],
            "infinite": np.where(rng.random(n) < 0.1, np.inf, rng.normal(size=n)),
        }
    )


def _assert_equal(a, b):
    """All counts bit for bit; sums up to rounding."""
    assert (a.rows, a.columns.keys()) == (b.rows, b.columns.keys())
    for name, mine in a.columns.items():
        theirs = b.columns[name]
        if not isinstance(mine, NumericProfile):
            assert (mine.counted.counts, mine.n, mine.nulls) == (
                theirs.counted.counts, theirs.n, theirs.nulls,
            )  # fmt: skip
            for key in ("lengths", "tokens"):
                sides = getattr(mine.counted, key), getattr(theirs.counted, key)
                assert np.array_equal(*sides) or sides == (None, None)
            continue
        for key in ("n", "nulls", "infinite", "level", "low", "high", "grid"):
            assert getattr(mine, key) == getattr(theirs, key), (name, key)
        for key in ("cells", "ranks", "counts", "atom_counts"):
            assert np.array_equal(getattr(mine, key), getattr(theirs, key)), (name, key)
        assert mine.sum == pytest.approx(theirs.sum, rel=1e-9, abs=1e-6)
        assert mine.sum_squares == pytest.approx(theirs.sum_squares, rel=1e-9)
        assert np.allclose(mine.sums, theirs.sums, rtol=1e-9, atol=1e-6 * mine.grid.scale)


def test_a_merge_is_the_profile_of_the_rows_together_in_any_order(rng):
    tables = [_mixed(rng, n) for n in (30_000, 1, 12_000)]
    first = _profile(tables[0])
    a, b, c = (_profile(table, like=first) for table in tables)
    together = _profile(pa.concat_tables(tables), like=first)
    _assert_equal(a.merged(b).merged(c), together)
    _assert_equal(a.merged(b.merged(c)), together)
    _assert_equal(c.merged(a).merged(b), together)


def test_text_with_too_many_values_merges_exactly_across_the_limit(rng):
    half = MAX_STORED // 2 + 1
    tables = [
        pa.table({"x": [f"key {i}" for i in range(k * half, (k + 1) * half)]}) for k in range(3)
    ]
    a, b, c = (_profile(table) for table in tables)
    assert a.columns["x"].counted.counts is not None
    assert a.merged(b).columns["x"].counted.counts is None
    _assert_equal(a.merged(b).merged(c), _profile(pa.concat_tables(tables)))
    _assert_equal(a.merged(b.merged(c)), _profile(pa.concat_tables(tables)))


def test_a_profile_is_read_back_unchanged(rng):
    profile = _profile(_mixed(rng, 5000))
    read = TableProfile.from_bytes(profile.to_bytes())
    _assert_equal(read, profile)
    assert read.to_bytes() == profile.to_bytes()


@pytest.mark.parametrize("n", [100, 10_000, 1_000_000])
def test_a_numeric_column_takes_at_most_20_kilobytes(rng, n):
    for values in (
        rng.normal(size=n), rng.standard_cauchy(n), rng.lognormal(0, 3, n),
        np.round(rng.lognormal(size=n), 2), rng.integers(-(2**62), 2**62, n),
    ):  # fmt: skip
        profile = _profile({"x": values})
        assert profile.columns["x"].cells.size <= MAX_ENTRIES
        assert len(profile.to_bytes()) <= 20 * 1024


def test_anything_else_is_refused_and_named(rng):
    data = _profile({"x": rng.normal(size=50)}).to_bytes()
    with pytest.raises(DriftError, match=r"p\.profile: not a profile, begins with b'PAR1'"):
        TableProfile.from_bytes(b"PAR1" + data[4:], "p.profile")
    for damaged in (data[:4], data[:10], data[:-3], data[:40] + b"\0" * 10 + data[50:]):
        with pytest.raises(DriftError, match="damaged profile"):
            TableProfile.from_bytes(damaged)


def test_a_later_version_is_refused_with_a_remedy(rng, monkeypatch):
    from retrain_assets.drift import profile

    monkeypatch.setattr(profile, "VERSION", 2)
    data = _profile({"x": [1.0]}).to_bytes()
    monkeypatch.undo()
    with pytest.raises(DriftError, match="version must be 1, got 2; build it again"):
        TableProfile.from_bytes(data)


def test_profiles_of_other_grids_or_columns_do_not_merge(rng):
    a, b = _profile({"x": rng.normal(size=100)}), _profile({"x": rng.normal(5, 1, 100)})
    with pytest.raises(
        DriftError, match=r"'x': profiles merge where they have the same grid.*like="
    ):
        a.merged(b)
    with pytest.raises(DriftError, match="'y': is in one of the two profiles only"):
        a.merged(_profile({"y": [1.0]}))
    with pytest.raises(DriftError, match="'x': is number in one profile and text in the other"):
        a.merged(_profile({"x": ["a"]}))


def _reports(rng, reference, current):
    tables = pa.table(reference), pa.table(current)
    profiles = _profile(tables[0]), _profile(tables[1])
    like = _profile(tables[1], like=profiles[0])
    found = []
    for sides in (tables, (profiles[0], tables[1]), (profiles[0], like), profiles,
                  (tables[0], profiles[1])):  # fmt: skip
        report = compare(
            *sides, Drift(), columns=tables[0].column_names, reference_name="a", current_name="b"
        )
        assert DriftReport.from_json(report.to_json()) == report
        found.append(report)
    return found


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.3, 30.0])
@pytest.mark.parametrize("kind", ["normal", "tail", "amounts", "count", "offset", "infinite"])
def test_the_exact_distances_lie_in_the_certified_intervals(rng, kind, shift):
    make = {
        "normal": lambda n: rng.normal(size=n),
        "tail": lambda n: rng.standard_cauchy(n),
        "amounts": lambda n: np.where(rng.random(n) < 0.4, 0, rng.gamma(2, 9, n)),
        "count": lambda n: rng.poisson(3, n),
        "offset": lambda n: rng.normal(size=n) + 1.7e9,
        "infinite": lambda n: np.where(rng.random(n) < 0.1, np.inf, rng.normal(size=n)),
    }[kind]
    exact, *others = _reports(rng, {"x": make(20_000)}, {"x": make(15_000) + shift})
    truth = exact.features[0].statistics
    assert exact.exact
    for place, report in enumerate(others):
        found = report.features[0].statistics
        assert not report.exact
        assert found["ks"] - 1e-12 <= truth["ks"] <= found["ks_high"] + 1e-12
        slack = 1e-9 * (abs(truth["mean_reference"]) + truth["wasserstein"])
        low, high = found["wasserstein"], found["wasserstein_high"]
        assert low - slack <= truth["wasserstein"] <= high + slack
        if place in (0, 1, 3):  # on one grid the interval is narrow
            assert found["ks_high"] - found["ks"] < 0.002
        assert report.verdict == exact.verdict
        assert found["null_rate_change"] == truth["null_rate_change"]


def test_categories_of_profiles_are_exact(rng):
    sides = [
        {"x": rng.choice(list("abcd"), 3000)},
        {"x": [*rng.choice(list("abcd"), 2900, p=[0.4, 0.4, 0.1, 0.1]), *["e"] * 100]},
    ]
    exact, *others = _reports(rng, *sides)
    for report in others:
        assert report.features == exact.features


def test_a_profile_without_rows_is_undecided_and_merges():
    empty = _profile(pa.table({"x": pa.array([], pa.float64()), "t": pa.array([], pa.string())}))
    full = _profile({"x": [1.0] * 200, "t": ["a"] * 200}, like=empty)
    report = compare(empty, full, Drift(), columns=["x", "t"], reference_name="a", current_name="b")
    assert report.verdict == "undecided"
    _assert_equal(empty.merged(full), full)
    assert TableProfile.from_bytes(empty.to_bytes()).rows == 0
