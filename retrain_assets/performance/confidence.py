"""Estimated performance of a classifier on rows without labels, from how sure it is of them.

Belongs here: confidence-based performance estimation. Does not: calibration itself (`calibration`),
regression (`losses`).

The idea: a calibrated classifier that says 0.8 is right about 80% of such rows, so its scores alone
tell what its metrics will be. With c_i the calibrated chance of the positive class of row i, a row
counts as c_i of a positive and 1 - c_i of a negative, and the metric of that expected sample is

    accuracy, brier, log_loss   mean over i of  c_i loss(1, s_i) + (1 - c_i) loss(0, s_i)
    f1                          2 TP / (2 TP + FP + FN), with TP = sum of c_i over the rows that are
                                predicted positive, and so on: the expected confusion matrix
    roc_auc                     sum over i != j of c_i (1 - c_j) ([s_i > s_j] + [s_i = s_j] / 2)
                                over sum over i != j of c_i (1 - c_j)
    average_precision           (1 / sum c) sum over i of c_i (1 + sum over j != i with s_j >= s_i
                                of c_j) / #{j: s_j >= s_i}

which is exact in expectation for the first row (and multiclass log_loss, accuracy) and a ratio of
expectations, off by O(1/n), for the others. Sources: Garg et al., "Leveraging unlabeled data to
predict out-of-distribution performance", ICLR 2022 (average confidence); NannyML's CBPE; Kivimäki
et al., "Confidence-based estimators for predictive performance in model monitoring", JAIR 2025.

What it assumes: **no concept drift**. The chance of a label given the features must be what it was
on the holdout, so that the calibration still holds; rows may come from other regions of the feature
space (covariate shift), as far as the score keeps meaning the same there. Labels that flip while the
features stay are invisible to it: only realised performance sees them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.performance.calibration import Calibration, fit_calibration
from retrain_assets.performance.folds import MIN_FOLDS, fold_codes, model_variance, parts
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import clipped, realised, undecided
from retrain_assets.promotion.intervals import MIN_UNITS
from retrain_assets.promotion.quantiles import t_quantile
from retrain_assets.training.metrics import get_metric

__all__ = ["MIN_HOLDOUT_ROWS", "ConfidenceEstimator"]

FloatArray = NDArray[np.float64]

MIN_HOLDOUT_ROWS = 200
"""Fewest rows with labels to calibrate on: Platt scaling's two parameters and a check of them."""

_MAX_FOLDS = 20
_DRAWS = 5
_METHOD = "confidence-based"


@dataclass(frozen=True, eq=False)
class ConfidenceEstimator:
    """A calibration of the champion, with what it was off by on parts of its holdout.

    Attributes:
        metric: name of the metric that is estimated.
        calibrations: of each class; one for a binary model.
        holdout: the realised performance on the holdout.
        model_variance: variance of the estimate's error beyond sampling (`folds.model_variance`).
        folds: parts of the holdout that it was found on.
        problem: why nothing can be estimated, "" where it can.
    """

    metric: str
    calibrations: tuple[Calibration, ...]
    holdout: Performance | None
    model_variance: float
    folds: int
    problem: str = ""

    @classmethod
    def fit(
        cls, metric: str, y_true: ArrayLike, y_score: ArrayLike, partitions: ArrayLike | None = None
    ) -> "ConfidenceEstimator":
        """Calibrate on the champion's holdout, which it was not trained on.

        Args:
            metric: name of a metric of task binary or multiclass.
            y_true: class index of each row, in time order, shape (n,).
            y_score: the champion's probabilities, shape (n,), multiclass (n, k).
            partitions: partition of each row, shape (n,).

        Returns:
            With `problem` below `MIN_HOLDOUT_ROWS` rows, where a class does not occur, or where
            fewer than `folds.MIN_FOLDS` parts of the holdout could be compared.

        Raises:
            TrainingError: malformed input, or a metric of another task.
        """
        rule = get_metric(metric)
        if rule.is_regression or rule.needs_groups:
            raise TrainingError(
                f"{metric}: confidence-based estimation is for classifiers, whose scores are "
                "chances; use performance.losses for a regression, realised performance for ranking"
            )
        truth, scores = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
        whole = realised(metric, truth, scores)
        if len(truth) < MIN_HOLDOUT_ROWS:
            return cls._unfit(
                metric, f"{len(truth)} holdout rows are fewer than {MIN_HOLDOUT_ROWS}"
            )
        if whole.se is None:
            return cls._unfit(metric, f"on the holdout: {whole.problem}")
        calibrations = _calibrate(truth, scores)
        if calibrations is None:
            return cls._unfit(metric, "a class does not occur in the holdout")
        found = _tried(metric, truth, scores, fold_codes(len(truth), partitions, _MAX_FOLDS))
        variance = model_variance(*found)
        if variance is None:
            return cls._unfit(
                metric,
                f"only {len(found[0])} of at least {MIN_FOLDS} parts of the holdout could be compared",
            )
        # A calibration cannot know its level better than the holdout does.
        return cls(metric, calibrations, whole, max(variance, whole.se**2), len(found[0]))

    @classmethod
    def _unfit(cls, metric: str, problem: str) -> "ConfidenceEstimator":
        return cls(metric, (), None, 0.0, 0, problem)

    def estimate(
        self,
        y_score: ArrayLike,
        *,
        partition: str | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Performance:
        """The metric that labels would show on these rows, under no concept drift.

        The interval is Student's t with folds - 1 degrees of freedom around the estimate, with

            se^2 = sampling variance + model variance

        The sampling variance is that of the realised metric (`realised`), averaged over five draws
        of the labels from their chances; the model variance is what the estimate was off by on parts
        of the holdout that it had not seen, and at least the holdout's own sampling variance.

        Args:
            y_score: the champion's scores, shape (n,), multiclass (n, k).
            partition: key, for the record.
            confidence: of each bound alone.
            seed: of the draws, on which only the width of the interval depends.

        Returns:
            Undecided below 30 rows, or where the estimator has a `problem`.
        """
        rule = get_metric(self.metric)
        scores = np.asarray(y_score, dtype=np.float64)
        n = len(scores)

        def unknown(value: float | None, problem: str) -> Performance:
            return undecided(rule, "estimated", partition, value, n, confidence, problem)

        if self.problem:
            return unknown(None, self.problem)
        if n < MIN_UNITS:
            return unknown(None, f"{n} rows are fewer than {MIN_UNITS}")
        chances = _chances(self.calibrations, scores)
        value = expected_metric(self.metric, scores, chances)
        if not math.isfinite(value):
            return unknown(None, rule.undefined_when)
        sampling = _sampling_variance(self.metric, scores, chances, seed)
        if sampling is None:
            return unknown(value, "too few rows of a class are expected")
        se = math.sqrt(sampling + self.model_variance)
        reach = t_quantile(confidence, self.folds - 1) * se
        return Performance(
            self.metric, rule.direction, "estimated", partition, value, se,
            clipped(rule, value - reach), clipped(rule, value + reach), confidence, n,
            f"{_METHOD} ({self.calibrations[0].method})",
        )  # fmt: skip


def expected_metric(metric: str, scores: FloatArray, chances: FloatArray) -> float:
    """The metric of the expected sample (see the module); nan where it is undefined.

    Args:
        metric: name.
        scores: the model's own scores, shape (n,), multiclass (n, k).
        chances: calibrated chances, of the same shape.

    >>> expected_metric("accuracy", np.array([0.9, 0.2]), np.array([0.8, 0.3]))
    0.75
    """
    weights = chances.T.ravel() if chances.ndim == 2 else np.concatenate([1 - chances, chances])
    classes = chances.shape[1] if chances.ndim == 2 else 2
    truth = np.repeat(np.arange(classes), len(scores))
    repeated = np.concatenate([scores] * classes)
    value = float(get_metric(metric).resampler(truth, repeated)(weights[None, :])[0])
    # A row is never compared with itself: what the expected sample pairs it with is taken out.
    if metric == "roc_auc":
        itself = float(np.sum(chances * (1 - chances)))
        pairs = float(chances.sum() * (1 - chances).sum())
        return (value * pairs - itself / 2) / (pairs - itself) if pairs > itself else math.nan
    if metric == "average_precision":
        ascending = np.sort(scores)
        at_or_above = len(scores) - np.searchsorted(ascending, scores, side="left")
        return value + float(np.sum(chances * (1 - chances) / at_or_above) / chances.sum())
    return value


def _calibrate(truth: NDArray[Any], scores: FloatArray) -> tuple[Calibration, ...] | None:
    """One class against the others, for each class; None where one does not occur."""
    if scores.ndim == 1:
        pairs = [(truth == 1, scores)]
    else:
        pairs = [(truth == label, scores[:, label]) for label in range(scores.shape[1])]
    if any(is_class.all() or not is_class.any() for is_class, _ in pairs):
        return None
    return tuple(fit_calibration(is_class.astype(np.int64), score) for is_class, score in pairs)


def _chances(calibrations: tuple[Calibration, ...], scores: FloatArray) -> FloatArray:
    """Calibrated chances; of several classes scaled to sum 1 (Zadrozny & Elkan 2002)."""
    if scores.ndim == 1:
        return calibrations[0](scores)
    raw = np.stack([one(scores[:, label]) for label, one in enumerate(calibrations)], axis=1)
    total = raw.sum(axis=1, keepdims=True)
    # Where no class is deemed possible the model's own chances stand.
    return np.where(total > 0, raw / np.where(total > 0, total, 1), scores)


def _tried(
    metric: str, truth: NDArray[Any], scores: FloatArray, codes: NDArray[np.int64]
) -> tuple[list[float], list[float], list[float]]:
    """Estimate, realised value and its sampling variance on each part, calibrated on the others.

    Parts without all that the metric or a calibration needs are left out.
    """
    estimates, values, variances = [], [], []
    for part in parts(codes):
        calibrations = _calibrate(truth[~part], scores[~part])
        known = realised(metric, truth[part], scores[part])
        if calibrations is None or known.value is None or known.se is None:
            continue
        estimate = expected_metric(metric, scores[part], _chances(calibrations, scores[part]))
        if math.isfinite(estimate):
            estimates.append(estimate)
            values.append(known.value)
            variances.append(known.se**2)
    return estimates, values, variances


def _sampling_variance(
    metric: str, scores: FloatArray, chances: FloatArray, seed: int
) -> float | None:
    rng = np.random.default_rng(seed)
    cumulated = np.cumsum(chances, axis=1) if chances.ndim == 2 else None
    variances = []
    for _ in range(_DRAWS):
        draw = rng.random(len(scores))
        if cumulated is None:
            truth = (draw < chances).astype(np.int64)
        else:
            above = draw[:, None] >= cumulated[:, :-1]
            truth = above.sum(axis=1)
        se = realised(metric, truth, scores).se
        if se is not None:
            variances.append(se**2)
    return float(np.mean(variances)) if variances else None
