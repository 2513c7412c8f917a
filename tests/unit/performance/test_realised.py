"""Realised performance: values, intervals, and what the data cannot tell."""

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import realised
from retrain_assets.training.metrics import get_metric

BINARY = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1")
REGRESSION = ("mae", "rmse", "mape", "r2", "pinball@0.9")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def binary(rng, n, positive=0.4):
    """Calibrated scores and labels of a model with a ROC AUC of about 0.8."""
    truth = (rng.random(n) < positive).astype(int)
    signal = rng.normal(1.2 * truth, 1)
    logit = 1.2 * signal - 0.72 + np.log(positive / (1 - positive))
    return truth, 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("metric", BINARY)
def test_the_value_is_the_metrics_and_lies_within_its_interval(rng, metric):
    truth, scores = binary(rng, 500)
    found = realised(metric, truth, scores, partition="2024-01-01")
    assert found.value == get_metric(metric).evaluate(truth, scores)
    assert found.low < found.value < found.high
    assert (found.kind, found.partition, found.n, found.decided) == (
        "realised", "2024-01-01", 500, True,
    )  # fmt: skip


@pytest.mark.parametrize("metric", REGRESSION)
def test_regression_metrics_have_intervals_too(rng, metric):
    truth = rng.normal(10, 2, 400)
    found = realised(metric, truth, truth + rng.normal(0, 1, 400))
    assert found.low < found.value < found.high


@pytest.mark.parametrize("metric", BINARY)
def test_the_bounds_cover_the_truth_about_as_often_as_they_say(rng, metric):
    truth, scores = binary(rng, 300_000)
    real = get_metric(metric).evaluate(truth, scores)
    rows = rng.integers(0, len(truth), size=(300, 300))
    found = [realised(metric, truth[i], scores[i]) for i in rows]
    for share in (
        np.mean([one.low <= real for one in found]),
        np.mean([one.high >= real for one in found]),
    ):
        assert 0.90 <= share <= 0.99


def test_clusters_of_alike_rows_widen_the_interval(rng):
    truth, scores = binary(rng, 60)
    many, clusters = np.repeat(truth, 20), np.repeat(np.arange(60), 20)
    alone = realised("log_loss", many, np.repeat(scores, 20))
    together = realised("log_loss", many, np.repeat(scores, 20), clusters=clusters)
    assert together.value == alone.value
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_ranking_counts_groups(rng):
    groups = np.repeat(np.arange(40), 5)
    found = realised("ndcg@5", rng.integers(0, 3, 200), rng.random(200), groups=groups)
    assert found.n == 40
    assert found.decided


@pytest.mark.parametrize(
    ("metric", "truth", "scores", "problem"),
    [
        ("accuracy", [1, 0] * 10, [0.9, 0.1] * 10, "20 units are fewer than the 30"),
        ("roc_auc", [1] * 50, [0.9] * 50, "y_true holds one class only"),
        ("roc_auc", [1] * 3 + [0] * 50, [0.9] * 3 + [0.1] * 50, "3 rows of class 1"),
        ("f1", [1] * 3 + [0] * 50, [0.9] * 53, "3 rows of the rarer class"),
        ("f1", [1] * 20 + [0] * 50, [0.1] * 70, "f1 is 0, at the end of its range"),
        ("r2", [1.0] * 50, [1.0] * 50, "y_true is constant"),
    ],
)
def test_what_the_data_cannot_tell_is_undecided_with_its_reason(metric, truth, scores, problem):
    found = realised(metric, truth, scores)
    assert not found.decided
    assert found.low is None
    assert problem in found.problem
    assert problem in str(found)


def test_a_perfect_accuracy_still_has_a_lower_bound():
    found = realised("accuracy", [1, 0] * 50, [0.9, 0.1] * 50)
    assert 0.95 < found.low < found.value == found.high == 1.0


def test_malformed_input_is_an_error_not_an_undecided_result():
    with pytest.raises(TrainingError, match="y_true must be 0 or 1"):
        realised("roc_auc", [2, 0], [0.1, 0.2])
    with pytest.raises(TrainingError, match="'auc' is not a metric"):
        realised("auc", [1, 0], [0.1, 0.2])


def test_a_performance_refuses_numbers_that_are_none():
    arguments = {
        "metric": "mae", "direction": "minimize", "kind": "realised", "partition": None,
        "value": 1.0, "se": 0.1, "low": 0.8, "high": 1.2, "confidence": 0.95, "n": 50,
        "method": "t",
    }  # fmt: skip
    assert Performance(**arguments).decided
    with pytest.raises(ValueError, match="finite"):
        Performance(**arguments | {"se": float("nan")})
    with pytest.raises(ValueError, match="all its numbers"):
        Performance(**arguments | {"low": None})
