"""Pairs of columns that go together differently, while no column by itself changes."""

import doctest

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from retrain_assets.drift import compare, correlation
from retrain_assets.drift.correlation import correlation_changes, normal_scores
from retrain_assets.spec.model import Drift

NAMES = ["a", "b", "c", "d"]


def _normal(seed, rho, n=1500, k=4):
    x = np.random.default_rng(seed).normal(size=(n, k))
    x[:, 1] = rho * x[:, 0] + np.sqrt(1 - rho**2) * x[:, 1]
    return x


def test_the_examples_are_right():
    assert doctest.testmod(correlation).failed == 0


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.3), (0.8, 0.6), (0.5, -0.5)])
def test_a_changed_pair_is_named_with_both_correlations(before, after):
    (found,) = correlation_changes(_normal(1, before), _normal(2, after), NAMES)
    assert (found.first, found.second) == ("a", "b")
    assert (found.before, found.after) == pytest.approx((before, after), abs=0.07)


def test_it_sees_what_no_comparison_by_column_can():
    sides = [
        pa.table(dict(zip(NAMES, _normal(seed, rho).T, strict=True)))
        for seed, rho in ((1, 0), (2, 0.9))
    ]
    report = compare(*sides, Drift(), columns=NAMES, reference_name="before", current_name="after")
    assert report.drifted_features == ()
    assert correlation_changes(_normal(1, 0), _normal(2, 0.9), NAMES)


def test_the_distributions_of_the_columns_do_not_matter():
    before, after = _normal(1, 0.6), _normal(2, 0.6)
    after[:, 0] = np.exp(3 * after[:, 0])
    after[:, 1] = after[:, 1] ** 3 + 40
    assert correlation_changes(before, after, NAMES) == []


def test_a_changed_null_rate_is_no_changed_correlation():
    before, after = _normal(1, 0.8), _normal(2, 0.8)
    after[np.random.default_rng(3).random(len(after)) < 0.6, 0] = np.nan
    assert correlation_changes(before, after, NAMES) == []


def test_constant_and_nearly_empty_columns_are_not_compared():
    before, after = _normal(1, 0.9), _normal(2, 0.0)
    before[:, 0] = 5.0
    after[50:, 2] = np.nan
    assert correlation_changes(before, after, NAMES) == []


def test_one_column_has_no_pairs():
    assert correlation_changes(_normal(1, 0)[:, :1], _normal(2, 0)[:, :1], ["a"]) == []


def test_normal_scores_are_scipys():
    values = np.random.default_rng(0).integers(0, 9, 200).astype(float)
    expected = stats.norm.ppf(stats.rankdata(values) / 201)
    assert normal_scores(values) == pytest.approx(expected - expected.mean(), abs=1e-12)


@pytest.mark.parametrize("heavy", [False, True])
def test_false_alarms_are_rare_also_where_columns_depend_and_have_heavy_tails(heavy):
    """Of 200 tables without drift at alpha 0.01, at most 7: more has a chance of 0.1%."""

    def sample(rng):
        x = rng.normal(size=(400, 6)) + rng.normal(size=(400, 1))
        return x / np.sqrt(rng.chisquare(3, (400, 1))) if heavy else x

    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        alarms += bool(correlation_changes(sample(rng), sample(rng), list("abcdef")))
    assert alarms <= 7
