"""Prediction drift and label drift: what the champion says now, and what came true.

Belongs here: which columns these are, labels that are still to come, the words, and the one call that
makes every optional section of a report. Does not: how a column is compared (`measure`, `verdict`),
nor how a model is loaded: the caller passes its scores as a function.

Scores and labels are compared by the engine and the thresholds of the features, each by itself (their
p-values are not corrected for the features' tests). They are evidence and count neither in the share
of drifted features nor in the verdict: features, scores and labels move together, and counting one
cause three times would make `share_of_features` mean something else for a model with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.report import FeatureDrift, Sections
from retrain_assets.drift.verdict import Comparable, DriftRule, compare_alone
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from retrain_assets.drift.multivariate import Usual
    from retrain_assets.spec.model import ModelSpec

__all__ = ["SCORE", "Predict", "extra_drift", "label_drift", "prediction_drift", "score_columns"]

SCORE = "__score__"
"""The champion's score of a row; one column per class of a multiclass model begins with it."""

Predict: TypeAlias = Callable[[pa.Table], npt.NDArray[np.float64]]


def extra_drift(
    spec: ModelSpec,
    reference: pa.Table,
    current: pa.Table,
    predict: Predict | None,
    columns: Sequence[str],
    usual: Usual | None = None,
) -> Sections:
    """Everything that a report holds beside its features; add it with `DriftReport.completed`.

    Args:
        spec: `drift` says what is computed, `target` which column the label is.
        reference: rows that the champion was trained on (a sample will do), with its scores where
            they are known (`score_columns`).
        current: the rows to judge.
        predict: the champion's scores of a table, shape (n,) or (n, classes) in the order of the
            score columns; called only where the reference has scores and there are enough rows.
        columns: the watched features.
        usual: what windows of the reference do, see `multivariate.usual_separability`.

    Raises:
        DriftError: as `multivariate.compare_jointly`, or scores that do not fit the reference's.
    """
    rule = spec.drift.multivariate
    joint = None
    if rule is not None:
        from retrain_assets.drift.multivariate import compare_jointly

        joint = compare_jointly(
            ArrowSource(reference), ArrowSource(current), rule,
            columns=[name for name in columns if name not in spec.drift.exclude],
            min_rows=spec.drift.min_rows, usual=usual,
        )  # fmt: skip
    prediction: tuple[FeatureDrift, ...] = ()
    enough = min(reference.num_rows, current.num_rows) >= spec.drift.min_rows
    if predict is not None and score_columns(reference) and enough:
        prediction = prediction_drift(reference, predict(current), spec.drift)
    label = None
    if spec.target in reference.column_names and reference.num_rows and current.num_rows:
        label = label_drift(reference, current, spec.drift, spec.target)
    return Sections(joint, prediction, label)


def score_columns(reference: pa.Table) -> list[str]:
    """The columns of `reference` that hold the champion's scores, in the order of the classes."""
    return [name for name in reference.column_names if name.startswith(SCORE)]


def prediction_drift(
    reference: pa.Table, scores: npt.NDArray[np.float64], rule: DriftRule
) -> tuple[FeatureDrift, ...]:
    """The champion's scores on current rows against those on its training rows, one row per class.

    Training rows score a little further apart than others, since the model has seen them; the
    thresholds are effect sizes and must be above that, as they are for every default.

    Args:
        reference: with its score columns.
        scores: shape (n,), or (n, k) for k score columns.
        rule: minimum rows, alpha, thresholds.

    Raises:
        DriftError: another number of classes.
    """
    names = score_columns(reference)
    found = scores.reshape(len(scores), -1)
    if found.shape[1] != len(names):
        raise DriftError(
            f"prediction drift: the champion gives {found.shape[1]} scores per row, its training "
            f"rows have {len(names)} ({', '.join(names)}); materialize candidate_model again"
        )
    rows = []
    for place, name in enumerate(names):
        shown = f"score {name.removeprefix(SCORE)}".rstrip()
        before = pa.table({shown: reference.column(name)})
        row = compare_alone(before, pa.table({shown: found[:, place]}), rule, shown)
        rows.append(_told(row, f"the champion's {shown} moved"))
    return tuple(rows)


def label_drift(
    reference: Comparable, current: Comparable, rule: DriftRule, target: str
) -> FeatureDrift:
    """The target on current rows against the reference's.

    Rows without a label are left out on both sides: labels of a partition may come later. With
    fewer than `min_rows` labels on a side nothing is judged, and the row says so.

    Args:
        reference: a table, a file, or a stored profile.
        current: likewise.
        rule: minimum rows, alpha, thresholds.
        target: its column.

    Raises:
        DriftError: the column is on neither side, or cannot be compared.
    """
    row = compare_alone(reference, current, rule, target)
    if row.drifted:
        return _told(row, f"the target `{target}` moved")
    if not row.n_current:
        return replace(row, reasons=(f"labels of `{target}` are not there yet",))
    if min(row.n_reference, row.n_current) < rule.min_rows:
        few = (
            f"`{target}`: {row.n_reference:,} and {row.n_current:,} labels, "
            f"{rule.min_rows:,} are needed on either side"
        )
        return replace(row, reasons=(few,))
    return row


def _told(row: FeatureDrift, what: str) -> FeatureDrift:
    """With reasons that can stand among those of features."""
    prefix = f"`{row.feature}`: "
    return replace(
        row, reasons=tuple(f"{what}: {reason.removeprefix(prefix)}" for reason in row.reasons)
    )
