"""The time-ordered split: which rows train a candidate and which judge it.

Belongs here: arithmetic over partition keys and row order. Does not: reading tables, and anything
random: a shuffled split leaks the future into training.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.spec.partitions import PartitionScheme

if TYPE_CHECKING:
    from retrain_assets.spec.model import Train

__all__ = ["WindowPlan", "plan_window", "split_rows", "time_split"]


@dataclass(frozen=True)
class WindowPlan:
    """The partitions of one training, each oldest first.

    Attributes:
        train_keys: partitions to train on; all before the first of `holdout_keys`.
        holdout_keys: partitions to judge on.
        missing_keys: partitions of the window that do not exist.
    """

    train_keys: tuple[str, ...]
    holdout_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Every partition that is read, oldest first."""
        return self.train_keys + self.holdout_keys


def time_split(keys: Sequence[str], *, holdout: int) -> tuple[list[str], list[str]]:
    """Cut keys that are in time order into (training, the last `holdout`).

    Raises:
        TrainingError: nothing would be left to train on, or holdout is below 1.

    >>> time_split(["2024-01-01", "2024-01-02", "2024-01-03"], holdout=1)
    (['2024-01-01', '2024-01-02'], ['2024-01-03'])
    """
    if not 1 <= holdout < len(keys):
        raise TrainingError(
            f"train.holdout: must be at least 1 and below the {len(keys)} partitions of the "
            f"window, got {holdout}; set a longer train.window or wait for more partitions"
        )
    return list(keys[:-holdout]), list(keys[-holdout:])


def plan_window(
    scheme: PartitionScheme, key: str, train: "Train", min_window: int, existing: Collection[str]
) -> WindowPlan:
    """The partitions that a candidate for partition `key` is trained and judged on.

    The window is the `train.window` partitions that end `train.label_delay` before `key`; its last
    `train.holdout` are the holdout. The cut does not depend on what exists, so a partition that
    arrives late changes its own side only. Partitions that do not exist are left out while at least
    `min_window` of the window exist, one of them in the holdout and one before it.

    Args:
        scheme: the model's partitions.
        key: the partition that the candidate is for.
        train: the spec's training section.
        min_window: `ModelSpec.min_window`.
        existing: keys of the feature partitions that exist; others may be among them.

    Raises:
        TrainingError: `key` is no partition, or too few partitions exist; names the missing ones.
    """
    if train.window is None:
        raise TrainingError("train.window: required with partitions, got none")
    try:
        last = scheme.shift(key, -train.label_delay)
    except ValueError as error:
        raise TrainingError(f"cannot train for partition '{key}': {error}") from error
    if last is None:
        raise TrainingError(
            f"cannot train for partition '{key}': its window ends {train.label_delay} partitions "
            f"earlier (train.label_delay), before the first partition; choose a later partition"
        )
    window = scheme.trailing(last, train.window)
    train_keys, holdout_keys = time_split(window, holdout=int(train.holdout))
    present = set(existing)
    missing = tuple(k for k in window if k not in present)
    plan = WindowPlan(
        tuple(k for k in train_keys if k in present),
        tuple(k for k in holdout_keys if k in present),
        missing,
    )
    _check_enough(plan, key, window, min_window)
    return plan


def _check_enough(plan: WindowPlan, key: str, window: Sequence[str], min_window: int) -> None:
    span = f"window {window[0]} to {window[-1]} of partition '{key}'"
    remedy = f"missing: {_listed(plan.missing_keys)}; materialize features for them"
    if not plan.missing_keys:
        remedy = "the data does not begin early enough; choose a later partition"
    if len(plan.keys) < min_window:
        raise TrainingError(
            f"{span}: at least {min_window} partitions must exist (train.min_window), "
            f"got {len(plan.keys)}; {remedy}"
        )
    for keys, part in ((plan.holdout_keys, "holdout"), (plan.train_keys, "training")):
        if not keys:
            raise TrainingError(f"{span}: no {part} partition exists; {remedy}")


def _listed(keys: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def split_rows(
    n_rows: int, holdout: float, order: NDArray[Any] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut the rows of one table into (training, holdout) positions, both in time order.

    Args:
        n_rows: rows of the table.
        holdout: share of the rows that is held out, between 0 and 1.
        order: sort key of each row, shape (n_rows,); None for the table's own order. Rows of equal
            key never fall on both sides: the cut moves to the nearest change of the key (the
            earlier of two equally near ones).

    Raises:
        TrainingError: a side would be empty, or `order` has nulls or another length.

    >>> split_rows(4, 0.5, np.array([3, 1, 1, 1]))
    (array([1, 2, 3]), array([0]))
    """
    if not 0 < holdout < 1:
        raise TrainingError(f"train.holdout: must be a share between 0 and 1, got {holdout:g}")
    if n_rows < 2:
        raise TrainingError(f"at least 2 rows are needed to hold some out, got {n_rows}")
    cut = min(max(n_rows - round(n_rows * holdout), 1), n_rows - 1)
    if order is None:
        rows = np.arange(n_rows)
        return rows[:cut], rows[cut:]
    if order.shape != (n_rows,):
        raise TrainingError(f"train.time_column: needs {n_rows} values, got shape {order.shape}")
    nulls = int(np.sum(order == None if order.dtype == object else order != order))  # noqa: E711
    if nulls:
        raise TrainingError(
            f"train.time_column: every row needs a value, got {nulls} nulls in {n_rows} rows; "
            "drop these rows in the feature transform"
        )
    rows = np.argsort(order, kind="stable")
    changes = np.flatnonzero(order[rows][1:] != order[rows][:-1]) + 1
    if not len(changes):
        raise TrainingError(
            f"train.time_column: all {n_rows} rows have the value {order[0]}, so no row is later "
            "than another; choose a column that orders the rows"
        )
    cut = int(changes[np.argmin(np.abs(changes - cut))])
    return rows[:cut], rows[cut:]
