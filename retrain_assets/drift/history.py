"""Drift over time: the reports of many partitions as one matrix, feature by partition.

Belongs here: reading stored reports back in one call, which features are shown, and in which order.
Does not: drawing (`pictures`), deciding (`verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.report import DriftReport, FeatureDrift, ReportSummary, Verdict
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.spec.model import ModelSpec

__all__ = ["DriftHistory", "drift_history", "followed_features", "read_history"]

CEILING = 10.0
"""Severities are shown up to here; what lies beyond would flatten everything else."""

_AT_ONCE = 20


@dataclass(frozen=True, eq=False)
class DriftHistory:
    """k features over n partitions.

    Attributes:
        partitions: n keys, oldest first.
        features: k names, the one that drifted most often first.
        severity: shape (k, n), see `FeatureDrift.severity`, clipped to `CEILING`; NaN where there
            is no report, or the report does not have the feature.
        drifted: shape (k, n), whether the feature drifted.
        verdicts: n verdicts, None where there is no report.
        references: n names of what was compared with, None where there is no report.
        n_left_out: features beyond the k.
        scores: n drift scores in [0, 1], None where there is no report.
    """

    partitions: tuple[str, ...]
    features: tuple[str, ...]
    severity: npt.NDArray[np.float64]
    drifted: npt.NDArray[np.bool_]
    verdicts: tuple[Verdict | None, ...]
    references: tuple[str | None, ...]
    n_left_out: int
    scores: tuple[float | None, ...]


def drift_history(
    reports: Mapping[str, ReportSummary], partitions: Sequence[str], limit: int = 30
) -> DriftHistory:
    """Line reports up by partition.

    Args:
        reports: by partition; any number of `partitions` may be without one.
        partitions: the keys to show, oldest first; those before the first report are left out.
        limit: most features; ordered by drifted partitions, then mean severity, then name.

    Raises:
        DriftError: `limit` is below 1.
    """
    if limit < 1:
        raise DriftError(f"limit: must be >= 1, got {limit}")
    first = next((i for i, key in enumerate(partitions) if key in reports), len(partitions))
    shown = tuple(partitions[first:])
    found = [reports.get(key) for key in shown]
    names = sorted({name for report in found if report is not None for name in report.severity})
    place = {name: i for i, name in enumerate(names)}
    severity = np.full((len(names), len(shown)), np.nan)
    drifted = np.zeros(severity.shape, dtype=bool)
    for column, report in enumerate(found):
        if report is not None:
            rows = [place[name] for name in report.severity]
            severity[rows, column] = np.minimum(list(report.severity.values()), CEILING)
            drifted[[place[name] for name in report.drifted], column] = True
    mean = np.nansum(severity, axis=1) / np.maximum(1, np.isfinite(severity).sum(axis=1))
    # Sorting is stable, and the names are in order already.
    order = np.lexsort((-mean, -drifted.sum(axis=1)))[:limit]
    return DriftHistory(
        partitions=shown,
        features=tuple(names[i] for i in order),
        severity=severity[order],
        drifted=drifted[order],
        verdicts=tuple(None if report is None else report.verdict for report in found),
        references=tuple(None if report is None else report.reference for report in found),
        n_left_out=len(names) - len(order),
        scores=tuple(None if report is None else report.score for report in found),
    )


def read_history(
    spec: ModelSpec, partition: str, store: TableStore, n_partitions: int = 60
) -> DriftHistory:
    """The stored reports of the `n_partitions` partitions that end with `partition`.

    They are read many at a time, and of each no more is kept than its severities.

    Raises:
        TableError, DriftError: a stored report cannot be read.
    """
    assert spec.scheme is not None, "a model without partitions has no history"
    keys = spec.scheme.trailing(partition, n_partitions)
    reports = {}
    for start in range(0, len(keys), _AT_ONCE):
        batch = keys[start : start + _AT_ONCE]
        for key, document in store.read_many_json(spec.name, "drift_report", batch).items():
            reports[key] = ReportSummary.from_document(document)
    return drift_history(reports, keys)


def followed_features(report: DriftReport, limit: int = 10) -> tuple[FeatureDrift, ...]:
    """The features whose severity is plotted from partition to partition.

    The most important ones to the champion, which change only with it; without importance the first
    by name. The worst features would be others every day, and no line would go on.
    """
    rows = sorted(report.features, key=lambda row: (-(row.importance or 0.0), row.feature))
    return tuple(rows[:limit])
