"""Estimated performance of a regression on rows without labels, from a model of its errors.

Belongs here: direct loss estimation. Does not: classification (`confidence`).

The idea: a second, small model learns from the champion's holdout how large the champion's loss is,
given the features and the prediction; its mean prediction on new rows estimates the metric there.

    mae, mape, pinball@q   mean of the predicted loss
    rmse                   square root of the mean of the predicted squared error
    r2                     not estimated: it needs the variance of a target that has not been seen

Source: NannyML's direct loss estimation; the older idea of a model of a model's error is
Heskes, "Practical confidence and prediction intervals", NIPS 1996. Ranking metrics are not estimated
at all: scores that only compare within a group say nothing of the relevance that will be found.

What it assumes: **no concept drift**. The loss given features and prediction must be what it was on
the holdout. Rows where the holdout had none get the loss of its nearest leaves, not more; labels that
change while the features stay are invisible. Only realised performance sees them.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.performance.folds import MIN_FOLDS, fold_codes, model_variance, parts
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import clipped, undecided
from retrain_assets.promotion.intervals import MIN_UNITS
from retrain_assets.promotion.quantiles import t_quantile
from retrain_assets.training.metrics import get_metric

if TYPE_CHECKING:
    from retrain_assets.training.model import TabularModel

__all__ = ["MIN_HOLDOUT_ROWS", "LossEstimator", "row_losses", "why_not"]

FloatArray = NDArray[np.float64]

MIN_HOLDOUT_ROWS = 200
"""Fewest rows with labels that a model of the loss is fitted on."""

_MAX_FOLDS = 6
_LOSS, _PREDICTION = "__loss__", "__prediction__"
# Small on purpose: the loss is noisier than the target, and seven of these are fitted.
_PARAMS = {
    "num_leaves": 15,
    "n_estimators": 50,
    "learning_rate": 0.08,
    "min_child_samples": 20,
    "num_threads": 1,  # a small model: threads would wait for one another
}


def why_not(metric: str) -> str:
    """Why a metric cannot be estimated without labels, "" where it can."""
    rule = get_metric(metric)
    if rule.needs_groups:
        return "ranking scores do not say how relevant a row is, so nothing is estimated"
    if metric == "r2":
        return "r2 needs the variance of the target, which only labels show"
    return ""


def row_losses(metric: str, y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """The loss of each row whose mean is the metric, shape (n,); rmse: the squared error.

    Raises:
        TrainingError: the metric is no mean of losses of a regression, or undefined on these rows.

    >>> row_losses("pinball@0.9", [2.0, 2.0], [1.0, 3.0]).round(3).tolist()
    [0.9, 0.1]
    """
    rule = get_metric(metric)
    if not rule.is_regression or metric == "r2":
        raise TrainingError(f"{metric} is not the mean of a loss of each row of a regression")
    truth, scores = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    if metric == "rmse":
        return np.asarray((truth - scores) ** 2)
    # The influence of a mean is its deviation from it.
    return rule.influence(truth, scores) + rule.evaluate(truth, scores)


@dataclass(frozen=True, eq=False)
class LossEstimator:
    """A model of the champion's loss, with what it was off by on parts of the holdout.

    Attributes:
        metric: name of the metric that is estimated.
        model: predicts the loss of a row; None with a `problem`.
        model_variance: variance of the mean loss's error beyond sampling.
        residual_variance: variance of a row's loss around its prediction.
        folds: parts of the holdout that both were found on.
        problem: why nothing can be estimated, "" where it can.
    """

    metric: str
    model: "TabularModel | None"
    model_variance: float
    residual_variance: float
    folds: int
    problem: str = ""

    @classmethod
    def fit(
        cls,
        metric: str,
        y_true: ArrayLike,
        y_score: ArrayLike,
        features: pa.Table,
        *,
        partitions: ArrayLike | None = None,
        seed: int = 0,
    ) -> "LossEstimator":
        """Fit on the champion's holdout, which it was not trained on.

        Args:
            metric: name of a metric of task regression.
            y_true: targets in time order, shape (n,).
            y_score: the champion's predictions, shape (n,).
            features: the champion's feature columns, n rows.
            partitions: partition of each row, shape (n,).
            seed: of the model.

        Returns:
            With `problem` for metrics that are not estimated (`why_not`), and below
            `MIN_HOLDOUT_ROWS` rows.

        Raises:
            TrainingError: malformed input, or a metric of a classification.
        """
        if reason := why_not(metric):
            return cls(metric, None, 0.0, 0.0, 0, reason)
        losses = row_losses(metric, y_true, y_score)
        if len(losses) < MIN_HOLDOUT_ROWS:
            problem = f"{len(losses)} holdout rows are fewer than {MIN_HOLDOUT_ROWS}"
            return cls(metric, None, 0.0, 0.0, 0, problem)
        rows = _rows(features, np.asarray(y_score, dtype=np.float64))
        unseen = np.empty(len(losses))
        estimates, values, variances = [], [], []
        for part in parts(fold_codes(len(losses), partitions, _MAX_FOLDS)):
            fitted = _fit(rows.filter(pa.array(~part)), losses[~part], seed)
            unseen[part] = _predicted(fitted, rows.filter(pa.array(part)))
            estimates.append(float(unseen[part].mean()))
            values.append(float(losses[part].mean()))
            variances.append(float(losses[part].var()) / int(part.sum()))
        variance = model_variance(estimates, values, variances)
        if variance is None:
            problem = f"the holdout has fewer than {MIN_FOLDS} parts"
            return cls(metric, None, 0.0, 0.0, 0, problem)
        floor = float(losses.var()) / len(losses)
        return cls(
            metric,
            _fit(rows, losses, seed),
            max(variance, floor),
            float(np.mean((losses - unseen) ** 2)),
            len(estimates),
        )

    def estimate(
        self,
        y_score: ArrayLike,
        features: pa.Table,
        *,
        partition: str | None = None,
        confidence: float = 0.95,
    ) -> Performance:
        """The metric that labels would show on these rows, under no concept drift.

        The interval is Student's t with folds - 1 degrees of freedom, with

            se^2 = (variance of the predicted losses + residual variance) / n + model variance

        for the mean loss, and by the delta method for rmse.

        Args:
            y_score: the champion's predictions, shape (n,).
            features: the same rows' feature columns.
            partition: key, for the record.
            confidence: of each bound alone.

        Returns:
            Undecided below 30 rows, or where the estimator has a `problem`.
        """
        rule, scores = get_metric(self.metric), np.asarray(y_score, dtype=np.float64)
        n = len(scores)
        problem = self.problem or (n < MIN_UNITS and f"{n} rows are fewer than {MIN_UNITS}") or ""
        if self.model is None or problem:
            return undecided(rule, "estimated", partition, None, n, confidence, problem)
        losses = _predicted(self.model, _rows(features, scores))
        mean = float(losses.mean())
        se = math.sqrt((float(losses.var()) + self.residual_variance) / n + self.model_variance)
        if self.metric == "rmse":
            root = math.sqrt(mean)
            # se / (2 root), held finite where no error is expected at all.
            mean, se = root, se / (root + math.sqrt(mean + se))
        reach = t_quantile(confidence, self.folds - 1) * se
        return Performance(
            self.metric, rule.direction, "estimated", partition, mean, se,
            clipped(rule, mean - reach), clipped(rule, mean + reach), confidence, n,
            "direct loss estimation",
        )  # fmt: skip


def _rows(features: pa.Table, scores: FloatArray) -> pa.Table:
    if features.num_rows != len(scores):
        raise TrainingError(
            f"features must have a row for each of the {len(scores)} predictions, got "
            f"{features.num_rows}"
        )
    return features.append_column(_PREDICTION, pa.array(scores))


def _fit(rows: pa.Table, losses: FloatArray, seed: int) -> "TabularModel":
    from retrain_assets.training.lightgbm_trainer import train_lightgbm

    params: dict[str, Any] = dict(_PARAMS)
    return train_lightgbm(
        rows.append_column(_LOSS, pa.array(losses)),
        target=_LOSS,
        task="regression",
        feature_columns=rows.column_names,
        params=params,
        seed=seed,
    )


def _predicted(model: "TabularModel", rows: pa.Table) -> FloatArray:
    """Predicted losses; none is negative."""
    return np.maximum(model.predict(rows.to_pandas()), 0.0)
