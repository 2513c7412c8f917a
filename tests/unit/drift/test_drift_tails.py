"""P-values of our own against scipy's."""

import doctest

import numpy as np
import pytest
from scipy import stats

from retrain_assets.drift import calibration, tails


def test_the_examples_in_the_docstrings_are_true():
    for module in (tails, calibration):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("x", np.linspace(0.05, 6, 60))
def test_the_kolmogorov_tail(x):
    assert tails.kolmogorov_tail(x) == pytest.approx(stats.kstwobign.sf(x), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 9), (30, 30), (17, 120), (200, 150)])
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_the_exact_smirnov_tail(n, m, shift):
    rng = np.random.default_rng(n * m)
    sides = rng.normal(size=n), rng.normal(shift, size=m)
    expected = stats.ks_2samp(*sides, method="exact")
    found = tails.smirnov_exact(float(expected.statistic), n, m)
    assert found == pytest.approx(expected.pvalue, rel=1e-8)


@pytest.mark.parametrize("dof", [1, 2, 5, 40, 999, 20_000])
@pytest.mark.parametrize("ratio", [0.5, 0.95, 1.0, 1.02, 1.2, 3.0])
def test_the_chi_square_tail(dof, ratio):
    expected = stats.chi2.sf(dof * ratio, dof)
    assert tails.chi_square_tail(dof * ratio, dof) == pytest.approx(expected, rel=1e-7, abs=1e-300)


@pytest.mark.parametrize("sizes", [(8, 11), (300, 300), (5000, 70), (10**6, 10**6)])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.1, 0.12), (0.5, 0.4), (0.001, 0.0)])
def test_fishers_exact_test(sizes, shares):
    counts = [round(n * share) for n, share in zip(sizes, shares, strict=True)]
    table = [counts, [n - k for n, k in zip(sizes, counts, strict=True)]]
    expected = stats.fisher_exact(table).pvalue
    found = tails.fisher_two_sided(counts[0], sizes[0], counts[1], sizes[1])
    if expected > 1e-250:
        assert found == pytest.approx(expected, rel=1e-6)
    else:
        assert found < 1e-150
