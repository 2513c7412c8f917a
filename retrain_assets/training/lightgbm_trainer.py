"""Training a LightGBM model so that the same table and parameters give the same file.

Belongs here: parameters, LightGBM's errors and warnings, importance. Does not: encoding of columns
(`encoding`), windows (`split`), evaluation.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.encoding import (
    Label,
    class_labels,
    drop_null_targets,
    encode_target,
    fit_encoding,
)
from retrain_assets.training.metrics import group_codes
from retrain_assets.training.model import TabularModel, booster_from_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrain_assets.spec.model import Task

__all__ = ["feature_importance", "train_lightgbm"]

_OBJECTIVES = {
    "binary": "binary",
    "multiclass": "multiclass",
    "regression": "regression",
    "ranking": "lambdarank",
}
_ROUNDS = (
    "num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees", "num_round", "num_rounds",
    "nrounds", "num_boost_round", "n_estimators", "max_iter",
)  # fmt: skip
_THREADS = ("num_threads", "num_thread", "nthread", "nthreads", "n_jobs")
_OWNED = {
    **dict.fromkeys(("objective", "objective_type", "app", "application", "loss"), "the task"),
    **dict.fromkeys(("num_class", "num_classes"), "the target's classes"),
    **dict.fromkeys(("seed", "random_seed", "random_state"), "train.seed"),
    **dict.fromkeys(("categorical_feature", "cat_feature", "categorical_column"), "column types"),
    **dict.fromkeys(("verbosity", "verbose"), "the trainer"),
    **dict.fromkeys(("deterministic", "force_row_wise", "force_col_wise"), "the trainer"),
}
_DEFAULT_ROUNDS = 100
_DEFAULT_THREADS = 2


class _Messages:
    """LightGBM's log: into `logging`, and remembered, because only the log tells of a typo."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)
        logging.getLogger("lightgbm").debug(message)

    warning = info


@contextmanager
def _listening() -> "Iterator[_Messages]":
    """Collect LightGBM's messages.

    LightGBM keeps its log callback per thread and sets it in the thread that imports it; elsewhere
    its warnings go to standard output and a misspelt parameter is only reported there.
    """
    import lightgbm

    messages = _Messages()
    lightgbm.register_logger(messages)
    try:
        yield messages
    finally:
        lightgbm.register_logger(_Messages())


def train_lightgbm(
    table: pa.Table,
    *,
    target: str,
    task: "Task",
    feature_columns: Sequence[str],
    params: Mapping[str, Any],
    seed: int,
    group: str | None = None,
    classes: Sequence[Label] | None = None,
) -> TabularModel:
    """Train on the rows of `table` that have a target.

    The result depends on the arguments only: LightGBM runs in its deterministic mode and derives
    every random choice from `seed`.

    Args:
        table: training rows, features and target (and `group`) as columns.
        target: the column to predict.
        task: kind of prediction.
        feature_columns: inputs, in any order.
        params: LightGBM parameters; rounds by any of LightGBM's names (default 100), threads by
            `num_threads` (default 2).
        seed: seed of everything random.
        group: ranking: the column that names each row's group.
        classes: all labels that may occur, where the training rows might lack some; by default
            those that occur.

    Raises:
        TrainingError: no rows, no features, a target that does not fit the task, a parameter that
            LightGBM does not know or refuses, or a failure inside LightGBM.
    """
    labelled, n_dropped = drop_null_targets(table, target)
    if not labelled.num_rows:
        raise TrainingError(
            f"no rows to train on: {table.num_rows} rows, {n_dropped} of them without a value of "
            f"target '{target}'"
        )
    if target in feature_columns:
        raise TrainingError(f"target '{target}' must not be a feature; take it out of the features")
    sizes = None
    if task == "ranking":
        labelled, sizes = _by_group(labelled, group)
    known = _classes(labelled.column(target), target, task, classes)
    y_true = encode_target(labelled.column(target), target=target, task=task, classes=known)
    encoding = fit_encoding(labelled, feature_columns)
    matrix = encoding.matrix(labelled.select(list(feature_columns)).to_pandas())
    settings, rounds = _settings(params, task, known, seed)
    text = _train(matrix, y_true, encoding.categorical, sizes, settings, rounds)
    # From the text, so that the model in memory is the one that will be loaded again.
    booster = booster_from_text(text)
    return TabularModel(booster, encoding, task, target, known, labelled.num_rows, n_dropped)


def _train(
    matrix: NDArray[np.float64],
    y_true: NDArray[Any],
    categorical: list[int],
    sizes: NDArray[np.int64] | None,
    settings: dict[str, Any],
    rounds: int,
) -> str:
    """The trained model's text."""
    import lightgbm

    data = lightgbm.Dataset(
        matrix,
        label=y_true,
        group=sizes,
        feature_name=[f"f{i}" for i in range(matrix.shape[1])],
        categorical_feature=categorical,
        params=settings,
        free_raw_data=True,
    )
    with _listening() as messages:
        try:
            booster = lightgbm.train(settings, data, num_boost_round=rounds)
        except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
            raise TrainingError(
                f"LightGBM refused to train: {str(error).strip()}; "
                f"check train.params ({', '.join(f'{k}={v}' for k, v in settings.items())})"
            ) from error
    _check_messages(messages.lines)
    return str(booster.model_to_string(num_iteration=-1))


def _check_messages(lines: Sequence[str]) -> None:
    """Raise for parameters that LightGBM merely warns about and then ignores."""
    ignored = dict.fromkeys(
        line.split("] ")[-1] for line in lines if "Unknown parameter" in line or "ignored" in line
    )
    if ignored:
        raise TrainingError(
            f"train.params: LightGBM ignores some: {'; '.join(ignored)}; "
            "correct the name (https://lightgbm.readthedocs.io/en/latest/Parameters.html)"
        )


def _settings(
    params: Mapping[str, Any], task: "Task", classes: Sequence[Label] | None, seed: int
) -> tuple[dict[str, Any], int]:
    """LightGBM's parameters, and the number of rounds."""
    ours = [f"{name} (set from {_OWNED[name]})" for name in params if name in _OWNED]
    if ours:
        raise TrainingError(f"train.params: these are not yours to set: {', '.join(ours)}")
    rounds = [name for name in params if name in _ROUNDS]
    if len(rounds) > 1:
        raise TrainingError(f"train.params: the same parameter twice: {', '.join(rounds)}")
    count = params[rounds[0]] if rounds else _DEFAULT_ROUNDS
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise TrainingError(f"train.params: {rounds[0]} must be a whole number >= 1, got {count}")
    settings = {name: value for name, value in params.items() if name not in _ROUNDS}
    if not any(name in _THREADS for name in settings):
        settings["num_threads"] = _DEFAULT_THREADS
    settings |= {
        "objective": _OBJECTIVES[task],
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        # Warnings, because an unknown parameter is one; `_Messages` keeps them out of the output.
        "verbosity": 0,
    }
    if task == "multiclass" and classes is not None:
        settings["num_class"] = len(classes)
    return settings, count


def _classes(
    column: pa.ChunkedArray, target: str, task: "Task", classes: Sequence[Label] | None
) -> tuple[Label, ...] | None:
    if task not in ("binary", "multiclass"):
        return None
    found = class_labels(column, target)
    if len(found) < 2:
        raise TrainingError(
            f"target '{target}' is constant in the {len(column)} training rows "
            f"({found[0]!r}); at least 2 classes are needed: take a longer train.window"
        )
    known = found if classes is None else tuple(sorted(classes))
    if task == "binary" and len(known) > 2:
        raise TrainingError(
            f"target '{target}' must have 2 classes for task binary, got {len(known)} "
            f"({', '.join(map(repr, known[:5]))}{', ...' if len(known) > 5 else ''}); "
            "use task: multiclass"
        )
    return known


def _by_group(table: pa.Table, group: str | None) -> tuple[pa.Table, NDArray[np.int64]]:
    """Rows with each group's together, groups and rows otherwise in their order; group sizes."""
    if group is None or group not in table.column_names:
        raise TrainingError(
            f"train.group: ranking needs the column that names each row's group, got {group!r}; "
            f"the table has {', '.join(table.column_names)}"
        )
    codes = group_codes(table.column(group).to_numpy())
    order = np.argsort(codes, kind="stable")
    return table.take(pa.array(order)), np.bincount(codes)


def feature_importance(model: TabularModel) -> dict[str, float]:
    """Each feature's share of the total gain of all splits, largest first.

    The shares sum to 1; all are 0 where the model has no split at all.
    """
    gains = np.asarray(model.booster.feature_importance("gain"), dtype=np.float64)
    shares = gains / (gains.sum() or 1.0)
    order = np.argsort(-shares, kind="stable")
    return {model.encoding.names[i]: float(shares[i]) for i in order}
