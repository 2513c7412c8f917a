"""Looks at growing data together err as rarely as one look would."""

import doctest
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrain_assets.promotion import intervals, spending
from retrain_assets.promotion.quantiles import normal_quantile
from retrain_assets.promotion.spending import next_alpha


def levels(fractions: list[float], alpha: float = 0.05) -> list[float]:
    past: list[tuple[float, float]] = []
    for fraction in fractions:
        past.append((fraction, next_alpha(past, fraction, alpha)))
    return [level for _, level in past]


def chance_of_crossing(fractions: list[float], nominal: list[float]) -> float:
    """1 - P(every look stays below its boundary), by scipy's multivariate normal."""
    t = np.array(fractions)
    covariance = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    bounds = [normal_quantile(1 - level) for level in nominal]
    inside = stats.multivariate_normal(np.zeros(len(t)), covariance).cdf(bounds)
    return float(1 - inside)


@pytest.mark.parametrize(
    "fractions", [[1.0], [0.5, 1.0], [4 / 7, 5 / 7, 6 / 7, 1.0], [0.1, 0.35, 0.9]]
)
def test_the_chance_over_all_looks_is_what_may_be_spent(fractions: list[float]) -> None:
    found = chance_of_crossing(fractions, levels(fractions))
    assert found == pytest.approx(0.05 * fractions[-1], abs=2e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_no_look_is_laxer_than_a_single_one_and_all_together_are_not_either(
    at: list[int], alpha: float
) -> None:
    found = levels([n / 50 for n in sorted(at)], alpha)
    assert all(0 < level <= alpha for level in found)
    assert sum(found) >= alpha * max(at) / 50 - 1e-4, (
        "looks are correlated, so that each may spend more"
    )


def test_later_looks_get_more_than_the_union_bound_would_leave_them() -> None:
    found = levels([n / 7 for n in range(4, 8)])
    assert found[0] == pytest.approx(0.05 * 4 / 7)
    assert all(level > 0.05 / 7 for level in found[1:])
    assert all(a <= b for a, b in pairwise(found[1:]))


def test_nothing_is_left_where_the_looks_before_have_spent_it() -> None:
    assert next_alpha([(0.8, 0.04)], 0.5, 0.05) == 0.0
    assert next_alpha([(0.8, 0.04)], 0.5, 0.2) == 0.0, "time does not run backwards"
    assert next_alpha([(0.5, 0.05)], 0.9, 0.05) == 0.0


def test_the_examples_of_the_docstrings_hold() -> None:
    for module in (spending, intervals):
        assert doctest.testmod(module).failed == 0
