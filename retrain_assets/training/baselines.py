"""Trivial predictions that a model must beat to be worth serving.

Belongs here: constants, and the last known value of each entity. Does not: anything with
parameters, and the decision what to do when a baseline wins (the gate).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.encoding import Label, drop_null_targets, encode_target

__all__ = ["baseline_predictions"]

FloatArray = NDArray[np.float64]


def baseline_predictions(
    train: pa.Table,
    holdout: pa.Table,
    *,
    target: str,
    task: str,
    entity: Sequence[str],
    last: pa.Table | None,
    classes: Sequence[Label] | None = None,
) -> dict[str, FloatArray]:
    """Scores for the rows of `holdout`, by the name of the baseline.

    `majority` (classification): the class shares of the training rows. `mean` (otherwise): the mean
    target of the training rows. `last_value`: the same over the rows of `last`, of each row's own
    entity where `last` has it and of all rows otherwise.

    Args:
        train: training rows.
        holdout: rows to predict, features and entity columns; the target is not read.
        target: column that is predicted.
        task: kind of prediction.
        entity: columns that name the thing predicted, () for none; a null is an entity of its own.
        last: rows of the last training partition. None, or no row with a target: no `last_value`.
        classes: labels of a classification.

    Returns:
        Arrays of shape (rows,), for multiclass (rows, classes); binary: probability of the last
        class.

    Raises:
        TrainingError: no training row has a target, a bad target, or no such entity column.
    """
    overall = _values(train, target, task, classes)
    if not len(overall):
        raise TrainingError(f"baselines: no training row has a value of target '{target}'")
    constant = np.tile(overall.mean(axis=0), (holdout.num_rows, 1))
    scores = {"majority" if classes else "mean": _shaped(constant, task)}
    if last is None:
        return scores
    known, _ = drop_null_targets(last, target)
    if known.num_rows:
        values = _values(known, target, task, classes)
        scores["last_value"] = _shaped(_by_entity(known, values, holdout, entity), task)
    return scores


def _values(
    table: pa.Table, target: str, task: str, classes: Sequence[Label] | None
) -> NDArray[np.float64]:
    """What a baseline averages: one-hot classes (n, k), or the number (n, 1)."""
    labelled, _ = drop_null_targets(table, target)
    encoded = encode_target(labelled.column(target), target=target, task=task, classes=classes)
    if not classes:
        return encoded[:, None].astype(np.float64)
    return np.asarray(np.eye(len(classes))[encoded])


def _shaped(scores: FloatArray, task: str) -> FloatArray:
    return scores if task == "multiclass" else scores[:, -1]


def _by_entity(
    last: pa.Table, values: FloatArray, holdout: pa.Table, entity: Sequence[str]
) -> FloatArray:
    """Mean of `values` over each holdout row's entity in `last`, over all where it is not there."""
    overall = np.tile(values.mean(axis=0), (holdout.num_rows, 1))
    if not entity:
        return overall
    absent = [n for n in entity if n not in last.column_names or n not in holdout.column_names]
    if absent:
        raise TrainingError(
            f"train.entity: {', '.join(absent)} not in the feature table; "
            f"its columns are {', '.join(holdout.column_names)}"
        )
    import pandas as pd

    names = list(entity)
    both = pd.concat(
        [last.select(names).to_pandas(), holdout.select(names).to_pandas()], ignore_index=True
    )
    codes = both.groupby(names, dropna=False, sort=False, observed=True).ngroup().to_numpy()
    known, asked = codes[: last.num_rows], codes[last.num_rows :]
    counts = np.bincount(known, minlength=codes.max() + 1)[asked]
    sums = np.stack(
        [np.bincount(known, column, minlength=codes.max() + 1)[asked] for column in values.T],
        axis=1,
    )
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], overall)
