"""Formulas against scipy, published values and cases worked out by hand."""

import doctest
from importlib import import_module
from math import inf, log, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from retrain_assets.drift import statistics
from retrain_assets.errors import DriftError


@pytest.mark.parametrize("name", ["statistics", "report", "verdict", "render"])
def test_the_examples_in_the_docstrings_are_true(name):
    assert doctest.testmod(import_module(f"retrain_assets.drift.{name}")).failed == 0


def test_every_statistic_has_an_example_and_a_source():
    for name in statistics.__all__:
        documented = getattr(statistics, name).__doc__
        if name[0].islower() and name != "unseen_share":
            assert ">>>" in documented, name
            assert "Source:" in documented, name


@pytest.mark.parametrize(("n", "m", "method"), [(40, 25, "exact"), (3000, 2000, "asymp")])
def test_ks_agrees_with_scipy_and_is_exact_only_where_that_is_cheap(n, m, method):
    rng = np.random.default_rng(7)
    reference, current = rng.normal(size=n), rng.normal(0.1, size=m)
    found = statistics.kolmogorov_smirnov(reference, current)
    expected = stats.ks_2samp(reference, current, method=method)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-12)
    if method == "exact":
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    else:  # scipy corrects the limit law for the size, here it is conservative
        limit = stats.kstwobign.sf(found.statistic * np.sqrt(n * m / (n + m)))
        assert found.p_value == pytest.approx(limit, rel=1e-9)
        assert expected.pvalue <= found.p_value <= 1.1 * expected.pvalue


@pytest.mark.parametrize("n", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("m", [1, 3, 5, 8, 31])
def test_ks_of_tiny_samples_is_a_probability_at_every_distance(n, m):
    reference = np.arange(float(n))
    for shift in range(n + 1):
        found = statistics.kolmogorov_smirnov(reference, reference[0] + shift + np.arange(m) / m)
        exact = stats.ks_2samp([0.0] * n, [1.0] * m, method="exact").pvalue
        assert exact - 1e-12 <= found.p_value <= 1


def test_ks_takes_infinities_as_extreme_values():
    assert statistics.kolmogorov_smirnov([0, 1, 2, inf], [0, 1, 2, -inf]).statistic == 0.25
    assert statistics.kolmogorov_smirnov([inf] * 9, [inf] * 7).statistic == 0


def test_wasserstein_of_a_shift_is_the_shift_at_any_offset():
    values = np.arange(100.0)
    for offset in (0.0, 1.7e9, -1e12):
        distance = statistics.wasserstein(values + offset, values + offset + 3)
        assert distance == pytest.approx(3, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (400, 80)])
def test_noise_formulas_are_what_sampling_alone_produces(n, m):
    """Monte Carlo: the documented expected values, within the simulation's error."""
    rng = np.random.default_rng(1)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    ks, w, noise, psi, v = [], [], [], [], []
    for _ in range(800):
        a, b = rng.normal(size=n), rng.normal(size=m)
        pooled = np.sort(np.concatenate([a, b]))
        gap = np.abs(
            np.searchsorted(np.sort(a), pooled, "right") / n
            - np.searchsorted(np.sort(b), pooled, "right") / m
        )
        ks.append(gap.max() ** 2)
        w.append(float(np.sum(gap[:-1] * np.diff(pooled))))
        noise.append(statistics.wasserstein_noise(a, b))
        psi.append(statistics.psi(*statistics.decile_counts(a, b)))
        tables = rng.multinomial(n, shares), rng.multinomial(m, shares)
        v.append(statistics.cramers_v(*tables) ** 2)
    assert np.mean(ks) == pytest.approx(statistics.ks_noise(n, m) ** 2, rel=0.15)
    assert np.mean(w) == pytest.approx(np.mean(noise), rel=0.08)
    assert np.mean(psi) == pytest.approx(statistics.psi_noise(10, n, m), rel=0.1)
    assert np.mean(v) == pytest.approx(statistics.cramers_v_noise(4, n, m) ** 2, rel=0.1)


def test_decile_bins_hold_equal_shares_of_a_reference_without_ties():
    reference = np.random.default_rng(0).permutation(1000).astype(float)
    in_reference, in_current = statistics.decile_counts(reference, [-5.0, 999.0, 5000.0])
    assert in_reference.tolist() == [100] * 10
    assert in_current.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_a_frequent_value_is_a_bin_of_its_own():
    reference = [0.0] * 60 + [float(i) for i in range(1, 41)]
    in_reference, in_current = statistics.decile_counts(reference, [0.0, 0.5, -1.0, 40.0])
    assert in_reference.tolist() == [60, 10, 10, 10, 10]
    assert in_current.tolist() == [1, 2, 0, 0, 1]


def test_a_constant_reference_sees_a_changed_constant():
    same = statistics.decile_counts([3.25] * 50, [3.25] * 40)
    moved = statistics.decile_counts([3.25] * 50, [3.5] * 40)
    assert statistics.psi(*same) == 0
    assert [side.tolist() for side in moved] == [[50, 0], [0, 40]]
    assert statistics.psi(*moved) > 5


def test_decile_bins_count_infinities_and_every_value_once():
    in_reference, in_current = statistics.decile_counts(
        [-inf, *range(98), inf], [inf, inf, -inf, 50]
    )
    assert in_reference.sum() == 100
    assert in_current.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]


def test_psi_is_its_formula_with_half_a_row_added():
    p, q = np.array([10.5, 30.5]) / 41, np.array([20.5, 5.5]) / 26
    assert statistics.psi([10, 30], [20, 5]) == pytest.approx(np.sum((p - q) * np.log(p / q)))
    assert statistics.psi([100, 0], [0, 100]) == pytest.approx(2 * (100 / 101) * log(201))


def test_chi_square_agrees_with_scipy_without_yates():
    table = [[10, 30, 5], [25, 22, 9]]
    found = statistics.chi_square([*table[0], 0], [*table[1], 0])
    expected = stats.chi2_contingency(table, correction=False)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert (found.dof, found.p_value) == (2, pytest.approx(expected.pvalue, rel=1e-12))
    assert statistics.chi_square([5], [9]) == (0.0, 0, 1.0)


def test_cramers_v_is_the_usual_one_for_equal_sizes_and_does_not_shrink_for_unequal_ones():
    reference, current = np.array([60, 25, 15]), np.array([40, 35, 25])
    usual = sqrt(stats.chi2_contingency([reference, current]).statistic / 200)
    assert statistics.cramers_v(reference, current) == pytest.approx(usual)
    assert statistics.cramers_v(reference * 1000, current) == pytest.approx(usual)
    assert statistics.cramers_v([9, 0], [0, 4]) == 1


def test_rare_categories_are_grouped_with_neighbours_until_each_group_expects_five():
    rng = np.random.default_rng(3)
    totals = rng.integers(1, 40, 500)
    for share in (0.5, 0.1, 0.01):
        groups = statistics.group_rare(totals, share)
        sizes = np.bincount(groups, weights=totals)
        assert sizes.min() * share >= 5
        assert set(groups) == set(range(groups.max() + 1))
        assert sizes.sum() == totals.sum()


@pytest.mark.parametrize(
    ("totals", "groups"), [([1, 1], [0, 0]), ([50, 1], [0, 0]), ([50, 60], [0, 1]), ([3], [0])]
)
def test_too_few_rare_rows_join_what_there_is(totals, groups):
    assert statistics.group_rare(totals, 0.5).tolist() == groups


def test_two_proportions_is_fishers_exact_test():
    expected = stats.fisher_exact([[3, 12], [97, 88]]).pvalue
    assert statistics.two_proportions(3, 100, 12, 100) == pytest.approx(expected)
    assert statistics.two_proportions(0, 50, 0, 70) == 1


def test_new_identifiers_are_expected_and_new_labels_are_not():
    identifiers = np.concatenate([np.ones(1000), np.zeros(1000)])
    assert statistics.unseen_share(identifiers, identifiers[::-1]) == 1
    assert statistics.expected_unseen(identifiers) == 1
    assert statistics.unseen_p_value(identifiers, identifiers[::-1]) > 0.2
    assert statistics.expected_unseen([150, 150, 0]) == 0
    assert statistics.unseen_p_value([150, 150, 0], [140, 140, 20]) < 1e-5


@pytest.mark.parametrize(("n", "m", "t"), [(200, 200, 3), (1000, 100, 1), (50, 400, 6)])
def test_the_unseen_p_value_of_one_new_category_is_its_exact_probability(n, m, t):
    exact = float(np.exp(np.sum(np.log((m - np.arange(t)) / (n + m - np.arange(t))))))
    assert statistics.unseen_p_value([n, 0], [m - t, t]) == pytest.approx(exact, rel=1e-3)


def test_the_unseen_p_value_holds_its_level_without_drift():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        reference = np.bincount(rng.zipf(1.5, 200) % 300, minlength=300)
        current = np.bincount(rng.zipf(1.5, 150) % 300, minlength=300)
        hits += statistics.unseen_p_value(reference, current) < 0.05
    assert hits / 300 <= 0.05


def test_benjamini_hochberg_agrees_with_scipy_and_keeps_the_order_given():
    p_values = np.random.default_rng(2).random(30) ** 3
    expected = stats.false_discovery_control(p_values, method="bh")
    assert statistics.benjamini_hochberg(p_values) == pytest.approx(expected)
    assert statistics.benjamini_hochberg([]).size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.kolmogorov_smirnov([], [1]), "reference: must be a 1-D sample of at"),
        (lambda: statistics.kolmogorov_smirnov([1], [nan]), "current: must not contain NaN"),
        (lambda: statistics.wasserstein([1], [inf]), "current: must be finite, got an infinity"),
        (lambda: statistics.decile_counts([1], [1], 1), "n_bins: must be >= 2, got 1"),
        (lambda: statistics.psi([1, 2], [1]), r"equally long, got \(2,\) and \(1,\)"),
        (lambda: statistics.psi([0, 0], [1, 2]), "each side needs at least one row, got 0"),
        (lambda: statistics.cramers_v([1, -1], [1, 2]), "counts: each must be >= 0"),
        (lambda: statistics.two_proportions(0, 0, 1, 2), "each must be >= 1, got 0 and 2"),
        (lambda: statistics.benjamini_hochberg([0.5, nan]), r"each must be in \[0, 1\], got nan"),
    ],
)
def test_bad_input_is_refused_with_the_rule_and_the_value(call, message):
    with pytest.raises(DriftError, match=message):
        call()
