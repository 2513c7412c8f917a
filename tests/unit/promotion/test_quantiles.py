"""Own quantiles against scipy's."""

import numpy as np
import pytest
from scipy import stats

from retrain_assets.promotion.quantiles import (
    binomial_mid_p,
    normal_cdf,
    normal_quantile,
    t_cdf,
    t_quantile,
)

PROBABILITIES = [1e-9, 1e-4, 0.001, 0.025, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999, 1 - 1e-6]


@pytest.mark.parametrize("p", PROBABILITIES)
def test_normal(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-10, abs=1e-12)
    assert normal_cdf(normal_quantile(p)) == pytest.approx(p, rel=1e-9)
    assert normal_quantile(0.25) == -normal_quantile(0.75)


@pytest.mark.parametrize("dof", [1, 1.5, 2, 3.7, 9, 13, 30, 299, 12345.6, 1e6, 1e9, np.inf])
def test_student(dof: float) -> None:
    reference = stats.norm if np.isinf(dof) else stats.t(dof)
    for p in PROBABILITIES:
        assert t_quantile(p, dof) == pytest.approx(float(reference.ppf(p)), rel=1e-7, abs=1e-10)
    for x in (-40, -3, -0.5, 0, 0.1, 2.5):
        assert t_cdf(x, dof) == pytest.approx(float(reference.cdf(x)), rel=1e-7, abs=1e-300)
    assert t_quantile(0.25, dof) == -t_quantile(0.75, dof)


def test_probabilities_0_and_1_are_infinitely_far() -> None:
    assert normal_quantile(0) == t_quantile(0, 5) == -np.inf
    assert normal_quantile(1) == t_quantile(1, 5) == np.inf


@pytest.mark.parametrize("trials", [0, 1, 8, 50, 3000])
def test_binomial(trials: int) -> None:
    for hits in {0, trials // 2, trials}:
        law = stats.binom(trials, 0.5)
        expected = law.sf(hits) + law.pmf(hits) / 2
        assert binomial_mid_p(hits, trials) == pytest.approx(expected, rel=1e-9)
