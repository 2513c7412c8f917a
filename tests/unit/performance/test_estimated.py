"""Estimated performance: right without concept drift, blind to it, and honest about both."""

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.performance.calibration import ISOTONIC_ROWS, fit_calibration
from retrain_assets.performance.confidence import ConfidenceEstimator, expected_metric
from retrain_assets.performance.folds import fold_codes
from retrain_assets.performance.losses import LossEstimator, row_losses
from retrain_assets.performance.realised import realised
from retrain_assets.training.metrics import get_metric

BINARY = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1")


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def world(rng, n, shift=0.0, flip=False):
    """Labels and the scores of an overconfident model; `shift` moves the features."""
    x = rng.normal(shift, 1, n)
    chance = 1 / (1 + np.exp(-1.5 * x + 0.5))
    if flip:
        chance = 1 - chance
    truth = (rng.random(n) < chance).astype(int)
    return truth, 1 / (1 + np.exp(-3 * x + 0.5))


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [ISOTONIC_ROWS - 1, 20_000])
def test_calibrated_chances_come_true(rng, n):
    truth, score = world(rng, n)
    calibration = fit_calibration(truth, score)
    assert calibration.method == ("isotonic" if n >= ISOTONIC_ROWS else "platt")
    new_truth, new_score = world(rng, 50_000)
    chances = calibration(new_score)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        band = (chances >= low) & (chances < high)
        assert abs(chances[band].mean() - new_truth[band].mean()) < 0.04


def test_isotonic_chances_never_fall_with_the_score_and_platts_are_finite_when_separated(rng):
    truth, score = world(rng, 3000)
    grid = np.linspace(0, 1, 500)
    assert np.all(np.diff(fit_calibration(truth, score)(grid)) >= 0)
    separated = fit_calibration(np.repeat([0, 1], 50), np.repeat([0.1, 0.9], 50))
    chances = separated(np.array([0.0, 0.1, 0.9, 1.0]))
    assert np.all((chances >= 0) & (chances <= 1))
    assert chances[1] < 0.05 < 0.95 < chances[2]


def test_equal_scores_are_calibrated_to_the_share_of_positives():
    truth = np.array([1] * 60 + [0] * 240)
    assert fit_calibration(truth, np.full(300, 0.7))(np.array([0.7])) == pytest.approx(
        0.2, abs=0.01
    )


# -- the expected metric --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", BINARY)
def test_the_expected_metric_is_the_mean_over_labels_drawn_from_the_chances(rng, metric):
    score = rng.random(80).round(2)  # with ties
    chances = np.clip(score**1.5, 0.02, 0.98)
    draws = [
        get_metric(metric).evaluate((rng.random(80) < chances).astype(int), score)
        for _ in range(4000)
    ]
    se = np.std(draws) / np.sqrt(len(draws))
    # A ratio of expectations is off by O(1/n) of the metric.
    assert expected_metric(metric, score, chances) == pytest.approx(
        np.mean(draws), abs=4 * se + 0.004
    )


def test_without_doubt_the_expected_metric_is_the_realised_one(rng):
    truth, score = world(rng, 200)
    for metric in BINARY:
        expected = expected_metric(metric, score, truth.astype(float))
        assert expected == pytest.approx(get_metric(metric).evaluate(truth, score))


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "f1_macro"])
def test_several_classes_are_expected_as_two_are(rng, metric):
    chances = rng.dirichlet([1, 2, 3], size=200)
    labels = [np.array([rng.choice(3, p=row) for row in chances]) for _ in range(200)]
    draws = [get_metric(metric).evaluate(truth, chances) for truth in labels]
    assert expected_metric(metric, chances, chances) == pytest.approx(np.mean(draws), abs=0.01)


# -- confidence-based estimation ------------------------------------------------------------------


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_estimates_are_right_under_covariate_shift_and_their_intervals_hold(rng, metric, shift):
    holdout = world(rng, 6000)
    estimator = ConfidenceEstimator.fit(metric, *holdout)
    inside, errors = 0, []
    for _ in range(40):
        truth, score = world(rng, 500, shift)
        estimate, real = estimator.estimate(score), get_metric(metric).evaluate(truth, score)
        errors.append(estimate.value - real)
        inside += estimate.low <= real <= estimate.high
    assert abs(np.mean(errors)) < 0.02
    assert inside >= 32, "nominally 90% of 40"


def test_labels_that_flip_are_invisible_to_the_estimate_and_seen_when_realised(rng):
    estimator = ConfidenceEstimator.fit("roc_auc", *world(rng, 3000))
    truth, score = world(rng, 1000, flip=True)
    assert estimator.estimate(score).low > 0.75
    assert realised("roc_auc", truth, score).high < 0.3


def test_days_that_differ_widen_the_interval(rng):
    days = np.repeat(np.arange(14), 300)
    same = world(rng, len(days))
    # On every second day the model is wrong about another third of the labels.
    wrong = (days % 2 == 1) & (rng.random(len(days)) < 0.33)
    differing = np.where(wrong, 1 - same[0], same[0])
    widths = []
    for truth in (same[0], differing):
        estimator = ConfidenceEstimator.fit("accuracy", truth, same[1], days)
        estimate = estimator.estimate(world(rng, 300)[1])
        widths.append(estimate.high - estimate.low)
    assert widths[1] > 2 * widths[0]


def test_several_classes_are_estimated(rng):
    def sample(n):
        chances = rng.dirichlet([0.6, 0.6, 0.6], size=n)
        truth = (rng.random((n, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
        flat = chances**0.5
        return truth, flat / flat.sum(axis=1, keepdims=True)

    estimator = ConfidenceEstimator.fit("log_loss", *sample(4000))
    truth, scores = sample(2000)
    estimate = estimator.estimate(scores)
    assert estimate.low <= get_metric("log_loss").evaluate(truth, scores) <= estimate.high


@pytest.mark.parametrize(
    ("truth", "score", "problem"),
    [
        ([0, 1] * 50, [0.2, 0.8] * 50, "100 holdout rows are fewer than 200"),
        ([0] * 300, [0.2] * 300, "on the holdout: y_true holds one class only"),
        ([1] * 20 + [0] * 380, [0.6] * 20 + [0.2] * 379 + [0.7],
         "only 0 of at least 5 parts of the holdout"),
    ],
)  # fmt: skip
def test_a_holdout_that_bears_no_estimate_is_a_problem_not_a_number(truth, score, problem):
    estimator = ConfidenceEstimator.fit("roc_auc", truth, score)
    assert problem in estimator.problem
    estimate = estimator.estimate(np.full(100, 0.3))
    assert (estimate.value, estimate.decided, estimate.problem) == (None, False, estimator.problem)


def test_few_rows_are_undecided_and_the_estimate_does_not_depend_on_the_seed(rng):
    estimator = ConfidenceEstimator.fit("roc_auc", *world(rng, 2000))
    score = world(rng, 500)[1]
    assert estimator.estimate(score[:29]).problem == "29 rows are fewer than 30"
    one, other = (estimator.estimate(score, seed=seed) for seed in (1, 2))
    assert one.value == other.value
    assert estimator.estimate(score, seed=1) == one


def test_metrics_of_other_tasks_are_refused():
    with pytest.raises(TrainingError, match="for classifiers"):
        ConfidenceEstimator.fit("mae", [1.0] * 300, [1.0] * 300)
    with pytest.raises(TrainingError, match="not the mean of a loss"):
        LossEstimator.fit("roc_auc", [1] * 300, [0.5] * 300, pa.table({"x": [0] * 300}))


# -- direct loss estimation -----------------------------------------------------------------------


def noisy(rng, n, far=0.3):
    """Targets whose noise grows with a feature; `far` is the share of its noisy end."""
    x = np.where(rng.random(n) < far, rng.uniform(1, 2, n), rng.uniform(0, 1, n))
    kind = np.where(x > 1.5, "wild", "tame")
    prediction = 2 * x
    truth = prediction + 10 + rng.normal(0, 0.2 + x, n)
    return truth, prediction + 10, pa.table({"x": x, "kind": kind})


@pytest.mark.parametrize("metric", ["mae", "rmse", "pinball@0.9"])
def test_a_shift_to_noisy_rows_is_foreseen(rng, metric):
    estimator = LossEstimator.fit(metric, *noisy(rng, 4000), seed=1)
    before = get_metric(metric).evaluate(*noisy(rng, 20_000)[:2])
    truth, score, features = noisy(rng, 2000, far=0.9)
    real = get_metric(metric).evaluate(truth, score)
    estimate = estimator.estimate(score, features)
    assert estimate.low <= real <= estimate.high
    assert abs(estimate.value - real) < 0.3 * abs(before - real)


def test_what_cannot_be_estimated_says_why(rng):
    truth, score, features = noisy(rng, 300)
    for metric, words in (("r2", "variance of the target"), ("ndcg@5", "ranking scores")):
        estimate = LossEstimator.fit(metric, truth, score, features).estimate(score, features)
        assert not estimate.decided
        assert words in estimate.problem
    short = LossEstimator.fit("mae", truth[:100], score[:100], features.slice(0, 100))
    assert short.problem == "100 holdout rows are fewer than 200"
    estimator = LossEstimator.fit("mae", truth, score, features)
    assert "29 rows" in estimator.estimate(score[:29], features.slice(0, 29)).problem
    with pytest.raises(TrainingError, match="a row for each of the 30 predictions, got 29"):
        estimator.estimate(score[:30], features.slice(0, 29))


def test_row_losses_have_the_metric_as_their_mean(rng):
    truth, score, _ = noisy(rng, 500)
    for metric in ("mae", "mape", "pinball@0.1"):
        mean = row_losses(metric, truth, score).mean()
        assert mean == pytest.approx(get_metric(metric).evaluate(truth, score))
    root = np.sqrt(row_losses("rmse", truth, score).mean())
    assert root == pytest.approx(get_metric("rmse").evaluate(truth, score))


# -- parts of the holdout -------------------------------------------------------------------------


def test_parts_are_partitions_neighbours_together_or_stretches_of_rows():
    days = np.repeat([f"2024-01-{day:02}" for day in range(1, 15)], 10)
    assert fold_codes(140, days, 20).max() == 13
    codes = fold_codes(140, days, 7)
    assert np.array_equal(codes, np.repeat(np.arange(7), 20))
    assert np.bincount(fold_codes(100, None, 10)).tolist() == [10] * 10
    assert fold_codes(100, ["a"] * 100, 10).max() == 9
