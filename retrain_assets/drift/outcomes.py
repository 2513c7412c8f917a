"""Prediction drift and label drift: what the champion says now, and what came true.

Belongs here: which columns these are, labels that are still to come, the words. Does not: how a column
is compared (`measure`, `verdict`), which rows (`sections`), how a model is loaded: its scores come as a
function.

Scores and labels are compared by the engine and the thresholds of the features, each by itself (their
p-values are not corrected for the features' tests). They are evidence and count neither in the share
of drifted features nor in the verdict: features, scores and labels move together, and counting one
cause three times would make `share_of_features` mean something else for a model with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.reference import SCORE
from retrain_assets.drift.report import FeatureDrift
from retrain_assets.drift.verdict import Comparable, DriftRule, compare_alone
from retrain_assets.errors import DriftError

__all__ = ["Predict", "label_drift", "prediction_drift", "score_columns", "unscorable"]

Predict: TypeAlias = Callable[[Sequence[str | None]], npt.NDArray[np.float64]]
"""The champion's scores of feature partitions: of all their rows, or of a sample in proportion."""


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


def unscorable(reference: pa.Table, rows: int, problem: str) -> FeatureDrift:
    """The row of a champion that cannot score the current `rows`: the plainest prediction drift."""
    return FeatureDrift(
        feature="score", kind="numeric", n_reference=reference.num_rows, n_current=0, drifted=True,
        severity=inf, p_value=None, p_adjusted=None, statistics={},
        reasons=(f"the champion cannot score the {rows:,} current rows: {problem}",),
    )  # fmt: skip


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
