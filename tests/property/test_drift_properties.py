"""What must hold for any data: zero on identical samples, symmetry, bounds, monotony."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrain_assets.drift import (
    DriftReport,
    TableProfile,
    alarm,
    build_profile,
    compare,
    statistics,
)  # fmt: skip
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.exact import compare_numbers
from retrain_assets.drift.kernels import Values
from retrain_assets.drift.profile import NumericProfile
from retrain_assets.spec.model import Alarm, Drift

FINITE = st.floats(-1e100, 1e100)
SAMPLES = st.lists(st.one_of(st.integers(-3, 3).map(float), FINITE), min_size=1, max_size=60)
EXTREMES = st.lists(st.floats(allow_nan=False), min_size=1, max_size=60)
PAIRS = st.integers(1, 12).flatmap(
    lambda k: st.tuples(
        *[st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any) for _ in range(2)]
    )
)
CELLS = st.one_of(
    st.lists(st.one_of(st.none(), st.floats()), max_size=60).map(
        lambda x: pa.array(x, pa.float64())
    ),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=60).map(
        lambda x: pa.array(x, pa.int64())
    ),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=60).map(
        lambda x: pa.array(x, pa.string())
    ),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=60).map(
        lambda x: pa.array(x, pa.bool_())
    ),
)


@given(EXTREMES)
def test_distances_of_a_sample_from_itself_are_zero(sample):
    assert statistics.kolmogorov_smirnov(sample, sample) == (0, 1)
    assert statistics.psi(*statistics.decile_counts(sample, sample)) == 0


@given(PAIRS)
def test_distances_of_counts_from_themselves_are_zero(pair):
    counts = pair[0]
    assert statistics.psi(counts, counts) == 0
    assert statistics.cramers_v(counts, counts) == 0
    assert statistics.chi_square(counts, counts).statistic == pytest.approx(0, abs=1e-9)
    assert statistics.unseen_share(counts, counts) == 0
    assert statistics.unseen_p_value(counts, counts) == 1


@given(EXTREMES, EXTREMES)
def test_ks_is_symmetric_bounded_and_blind_to_increasing_transforms(reference, current):
    found = statistics.kolmogorov_smirnov(reference, current)
    assert found == pytest.approx(statistics.kolmogorov_smirnov(current, reference))
    assert 0 <= found.statistic <= 1
    assert 0 <= found.p_value <= 1
    ranks = np.unique(np.concatenate([reference, current]), return_inverse=True)[1]
    ranked = statistics.kolmogorov_smirnov(ranks[: len(reference)], ranks[len(reference) :])
    assert ranked.statistic == found.statistic


@given(SAMPLES, SAMPLES)
def test_wasserstein_is_symmetric_and_at_most_the_range(reference, current):
    distance = statistics.wasserstein(reference, current)
    assert distance == pytest.approx(statistics.wasserstein(current, reference))
    both = np.array(reference + current)
    assert 0 <= distance <= np.ptp(both) * (1 + 1e-9)
    assert statistics.wasserstein_noise(reference, current) >= 0


@given(EXTREMES, EXTREMES, st.integers(2, 20))
def test_every_value_falls_into_exactly_one_bin(reference, current, n_bins):
    in_reference, in_current = statistics.decile_counts(reference, current, n_bins)
    assert in_reference.sum() == len(reference)
    assert in_current.sum() == len(current)
    assert np.all(in_reference + in_current > 0)


@given(PAIRS)
def test_distances_of_counts_are_symmetric_and_bounded(pair):
    a, b = pair
    assert statistics.psi(a, b) == pytest.approx(statistics.psi(b, a))
    assert statistics.cramers_v(a, b) == pytest.approx(statistics.cramers_v(b, a))
    assert statistics.chi_square(a, b) == pytest.approx(statistics.chi_square(b, a))
    assert statistics.psi(a, b) >= -1e-12
    assert 0 <= statistics.cramers_v(a, b) <= 1
    assert 0 <= statistics.chi_square(a, b).statistic <= (sum(a) + sum(b)) * (1 + 1e-9)
    assert 0 <= statistics.unseen_share(a, b) <= 1
    assert 0 < statistics.unseen_p_value(a, b) <= 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.floats(0.01, 0.5))
def test_groups_of_rare_categories_are_complete_and_large_enough(totals, share):
    groups = statistics.group_rare(totals, share)
    sizes = np.bincount(groups, weights=totals)
    assert np.all(sizes > 0)
    assert sizes.sum() == sum(totals)
    assert sizes.size == 1 or sizes.min() * share >= 5 * (1 - 1e-9)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_adjusted_p_values_keep_the_order_and_never_fall(p_values):
    adjusted = statistics.benjamini_hochberg(p_values)
    assert np.all(adjusted >= p_values)
    assert np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.data())
def test_a_smaller_p_value_never_raises_an_adjusted_one(p_values, data):
    index = data.draw(st.integers(0, len(p_values) - 1))
    smaller = [*p_values]
    smaller[index] *= data.draw(st.floats(0, 1))
    before = statistics.benjamini_hochberg(p_values)
    assert np.all(statistics.benjamini_hochberg(smaller) <= before)


@given(CELLS, CELLS)
def test_any_two_columns_give_a_bounded_report_that_survives_json(reference, current):
    report = compare(
        pa.table({"x": reference}), pa.table({"x": current}), Drift(min_rows=10), columns=["x"],
        reference_name="a", current_name="b",
    )  # fmt: skip
    few = min(len(reference), len(current)) < 10
    assert (report.verdict == "undecided") == few
    assert 0 <= report.score <= 1
    assert 0 <= report.share_drifted <= 1
    assert all(row.severity >= 1 for row in report.features if row.drifted)
    assert DriftReport.from_json(report.to_json()) == report


@given(CELLS)
def test_a_table_never_drifts_from_itself(column):
    table = pa.table({"x": column})
    report = compare(
        table, table, Drift(min_rows=10), columns=["x"], reference_name="a", current_name="b"
    )
    assert report.verdict == ("undecided" if len(column) < 10 else "stable")
    assert (report.score, report.features[0].drifted) == (0, False)


COLUMNS = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=True), min_size=1, max_size=50),
    st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 1)), min_size=1, max_size=50),
    st.lists(st.floats(-1, 1).map(lambda x: 1.7e9 + x), min_size=1, max_size=50),
)


def _pieces(sample, dtype=np.float64):
    return lambda: [Values(np.array(sample, dtype=dtype))]


@given(COLUMNS, COLUMNS, st.booleans())
def test_two_passes_give_the_ranks_of_a_full_sort(reference, current, shared):
    current = current + reference[: len(current)] if shared else current
    found = compare_numbers(_pieces(reference), _pieces(current))
    exact = statistics.kolmogorov_smirnov(reference, current)
    assert found.ks[0] == pytest.approx(exact.statistic, abs=1e-12)
    bins = statistics.decile_counts(reference, current)
    assert sorted(zip(*map(list, found.bins), strict=True)) == sorted(
        zip(*map(list, bins), strict=True)
    )
    low, high = min(reference), max(reference)
    assert found.outside == pytest.approx(np.mean([not low <= x <= high for x in current]))


@given(SAMPLES, SAMPLES)
def test_two_passes_give_the_wasserstein_distance_of_a_full_sort(reference, current):
    found = compare_numbers(_pieces(reference), _pieces(current))
    exact = statistics.wasserstein(reference, current)
    slack = 1e-12 * max(map(abs, reference + current))
    assert found.wasserstein[0] == pytest.approx(exact, rel=1e-9, abs=slack)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
)
def test_whole_numbers_of_any_size_have_exact_ranks(reference, current):
    current = current + reference[:5]
    found = compare_numbers(_pieces(reference, np.int64), _pieces(current, np.int64))
    ranks = np.unique(np.array(reference + current, dtype=np.int64), return_inverse=True)[1]
    exact = statistics.kolmogorov_smirnov(ranks[: len(reference)], ranks[len(reference) :])
    assert found.ks[0] == pytest.approx(exact.statistic, abs=1e-12)


@given(st.lists(CELLS, min_size=3, max_size=3))
@example([pa.array(values, pa.float64()) for values in ([9e307], [9e307], [0.0, 1.0])])
def test_merging_profiles_is_associative_and_gives_the_profile_of_the_rows(columns):
    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        return  # another type is another column
    tables = [pa.table({"x": column}) for column in columns]
    whole = pa.concat_tables(tables)
    like = build_profile(ArrowSource(whole))
    a, b, c = (build_profile(ArrowSource(table), like=like) for table in tables)
    for merged in (a.merged(b).merged(c), a.merged(b.merged(c))):
        mine, theirs = merged.columns["x"], like.columns["x"]
        assert (merged.rows, mine.n, mine.nulls) == (like.rows, theirs.n, theirs.nulls)
        if isinstance(mine, NumericProfile):
            for key in ("cells", "ranks", "counts", "atom_counts"):
                assert np.array_equal(getattr(mine, key), getattr(theirs, key))
            assert (mine.level, mine.low, mine.high) == (theirs.level, theirs.low, theirs.high)
        else:
            assert mine.counted.counts == theirs.counted.counts
        assert TableProfile.from_bytes(merged.to_bytes()).to_bytes() == merged.to_bytes()


@given(st.lists(st.sampled_from(["stable", "undecided", "drifted"]), max_size=8), st.data())
def test_more_drift_never_silences_an_alarm(verdicts, data):
    of_last = data.draw(st.integers(1, 8))
    rule = Alarm(of_last=of_last, at_least=data.draw(st.integers(1, of_last)))
    worse = [data.draw(st.sampled_from([verdict, "drifted"])) for verdict in verdicts]
    assert alarm(verdicts, rule) <= alarm(worse, rule)
