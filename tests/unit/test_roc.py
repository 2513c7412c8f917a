"""The AUC that gate and drift share, against scikit-learn and against all pairs."""

import doctest

import numpy as np
import pytest
import sklearn.metrics

from retrain_assets import roc


def _sample(seed, n=300, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    scores = rng.normal(truth * 0.7, 1)
    return truth, np.round(scores) if ties else scores


def test_the_examples_are_right():
    assert doctest.testmod(roc).failed == 0


@pytest.mark.parametrize("ties", [False, True])
def test_the_mean_placement_of_either_class_is_the_auc(ties):
    truth, scores = _sample(1, ties=ties)
    found = roc.placements(truth, scores)
    expected = sklearn.metrics.roc_auc_score(truth, scores)
    assert found[truth == 1].mean() == pytest.approx(expected, abs=1e-12)
    assert found[truth == 0].mean() == pytest.approx(expected, abs=1e-12)


def test_delongs_variance_is_that_of_all_pairs():
    truth, scores = _sample(2, n=60, ties=True)
    positive, negative = scores[truth == 1], scores[truth == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    expected = wins.mean(axis=1).var(ddof=1) / len(positive)
    expected += wins.mean(axis=0).var(ddof=1) / len(negative)
    variance, _ = roc.delong_variance(roc.auc_influence(truth, scores), truth)
    assert variance == pytest.approx(expected, rel=1e-12)


def test_a_perfect_ranking_has_no_variance():
    truth = np.repeat([0, 1], 20)
    assert roc.delong_variance(roc.auc_influence(truth, truth * 1.0), truth) == (0.0, 38.0)
