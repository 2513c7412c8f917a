"""What a champion's holdout says of it, and its performance on one partition held against that.

Belongs here: the expected level, the estimator that is fitted on the holdout once per champion, the
choice between realised and estimated; all pure, so that the live system and replay give `decide` the
same evidence. Does not: metrics and intervals (`realised`, `confidence`, `losses`), files (`served`).
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.performance.calibration import Calibration
from retrain_assets.performance.confidence import ConfidenceEstimator
from retrain_assets.performance.losses import LossEstimator, why_not
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import realised, undecided
from retrain_assets.promotion.intervals import time_blocks
from retrain_assets.training.evaluation import CANDIDATE
from retrain_assets.training.metrics import get_metric

if TYPE_CHECKING:
    from retrain_assets.training.evaluation import Evaluation
    from retrain_assets.training.model import TabularModel

__all__ = ["Level", "fit_level", "level_document", "level_of_document", "performance_on"]


@dataclass(frozen=True, eq=False)
class Level:
    """What a champion is held to, and how its performance is estimated without labels.

    Attributes:
        expected: its performance on its own holdout.
        estimator: None where `problem` says why nothing is estimated.
        problem: "" where there is an estimator (which may have a problem of its own).
    """

    expected: Performance
    estimator: ConfidenceEstimator | LossEstimator | None
    problem: str = ""


def fit_level(
    metric: str, holdout: "Evaluation", features: pa.Table | None = None, *, seed: int = 0
) -> Level:
    """The level of the model that was the candidate of `holdout`.

    Whole partitions are the sample of the expected level where there are enough of them
    (`time_blocks`), as in the gate.

    Args:
        metric: `gate.metric`.
        holdout: truth and scores, from when the model was a candidate.
        features: the feature columns of the same rows, for a regression; None where they are gone.
        seed: of the model of a regression's losses.

    Raises:
        TrainingError: a metric that does not fit the scores.
    """
    rule = get_metric(metric)
    scores = holdout.scores[CANDIDATE]
    # A ranking's units are groups, which may lie in several partitions.
    clusters = None if holdout.groups is not None else time_blocks(holdout.row_partitions)
    expected = realised(metric, holdout.y_true, scores, groups=holdout.groups, clusters=clusters)
    if problem := why_not(metric):
        return Level(expected, None, problem)
    partitions = holdout.row_partitions
    if not rule.is_regression:
        fitted = ConfidenceEstimator.fit(metric, holdout.y_true, scores, partitions)
        return Level(expected, fitted)
    if features is None or features.num_rows != len(scores):
        return Level(expected, None, "the features of the champion's holdout are gone")
    losses = LossEstimator.fit(
        metric, holdout.y_true, scores, features, partitions=partitions, seed=seed
    )
    return Level(expected, losses)


def performance_on(
    metric: str,
    level: Level,
    partition: str,
    *,
    y_score: NDArray[np.float64],
    y_true: NDArray[Any] | None,
    groups: NDArray[Any] | None = None,
    features: pa.Table | None = None,
) -> Performance:
    """The champion's performance on one partition: realised where its labels are there, else estimated.

    Args:
        metric: `gate.metric`.
        level: of the champion.
        partition: key.
        y_score: the champion's scores, shape (n,), multiclass (n, k).
        y_true: truth as metrics take it, nan (or None) where a label is missing, shape (n,); None
            while labels are not due.
        groups: ranking: group of each row, shape (n,).
        features: feature columns of the rows, for the estimate of a regression.

    Raises:
        TrainingError: malformed input.
    """
    if y_true is not None:
        known = np.isfinite(np.asarray(y_true, dtype=np.float64))
        if known.any():
            truth = np.asarray(y_true)[known]
            if not get_metric(metric).is_regression:
                truth = truth.astype(np.int64)
            return realised(
                metric, truth, y_score[known], partition=partition,
                groups=None if groups is None else groups[known],
            )  # fmt: skip
    if level.estimator is None:
        rule = get_metric(metric)
        return undecided(rule, "estimated", partition, None, len(y_score), 0.95, level.problem)
    if isinstance(level.estimator, ConfidenceEstimator):
        return level.estimator.estimate(y_score, partition=partition)
    if features is None:
        raise TrainingError(f"{metric} on {partition}: an estimate needs the features of the rows")
    return level.estimator.estimate(y_score, features, partition=partition)


def level_document(metric: str, level: Level) -> dict[str, Any]:
    """The level as JSON; the model of a regression's losses is left out (`LossEstimator.model`)."""
    document: dict[str, Any] = {
        "metric": metric, "expected": asdict(level.expected), "problem": level.problem,
    }  # fmt: skip
    found = level.estimator
    if isinstance(found, ConfidenceEstimator):
        document["confidence"] = {
            "calibrations": [
                {"method": one.method, "x": one.x.tolist(), "y": one.y.tolist()}
                for one in found.calibrations
            ],
            "holdout": None if found.holdout is None else asdict(found.holdout),
            "model_variance": found.model_variance,
            "folds": found.folds,
            "problem": found.problem,
        }
    elif found is not None:
        document["losses"] = {
            "model_variance": found.model_variance,
            "residual_variance": found.residual_variance,
            "folds": found.folds,
            "problem": found.problem,
        }
    return document


def level_of_document(document: dict[str, Any], losses: "TabularModel | None" = None) -> Level:
    """The level that `level_document` wrote, with the model of a regression's losses."""
    metric, expected = document["metric"], Performance(**document["expected"])
    if (found := document.get("confidence")) is not None:
        calibrations = tuple(
            Calibration(one["method"], np.asarray(one["x"], float), np.asarray(one["y"], float))
            for one in found.pop("calibrations")
        )
        holdout = found.pop("holdout")
        estimator = ConfidenceEstimator(
            metric, calibrations, Performance(**holdout) if holdout else None, **found
        )
        return Level(expected, estimator, document["problem"])
    if (found := document.get("losses")) is not None:
        return Level(expected, LossEstimator(metric, losses, **found), document["problem"])
    return Level(expected, None, document["problem"])
