"""The sections of a partition's report beside its features: which rows they are made from.

Belongs here: reading rows where profiles do not do, scores of the champion, and what is usual between
windows of the reference, kept. Does not: how any of it is measured (`multivariate`, `outcomes`).

The label needs no rows: both profiles hold the target. Rows of the current side are read, at most
`SAMPLE_ROWS`, only where `drift.multivariate` is given: the champion's scores are kept by partition.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.outcomes import (
    Predict,
    label_drift,
    prediction_drift,
    score_columns,
    unscorable,
)
from retrain_assets.drift.profile import TableProfile
from retrain_assets.drift.reference import (
    SAMPLE_ROWS,
    Reference,
    load_sample,
    sample_rows,
    watched_columns,
)
from retrain_assets.drift.report import FeatureDrift, MultivariateDrift, Sections
from retrain_assets.errors import TrainingError

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.drift.multivariate import Usual
    from retrain_assets.spec.model import ModelSpec

__all__ = ["SectionsOf"]

_USUAL = "usual_separability"


class SectionsOf:
    """Sections of partitions that are compared with one reference, whose rows are read once.

    Args:
        spec: the model.
        store: feature partitions, the sample of the reference.
        reference: what is compared with.
        existing: keys of all stored feature partitions.
        predict: the champion's scores of feature partitions, shape (n,) or (n, classes); None
            without one. It is called only where the scores of its training rows are known.
    """

    def __init__(
        self,
        spec: ModelSpec,
        store: TableStore,
        reference: Reference,
        existing: Collection[str],
        predict: Predict | None,
    ) -> None:
        self._spec, self._store, self._reference = spec, store, reference
        self._existing = set(existing)
        self._predict = predict if spec.drift.prediction else None

    def window(self, keys: Sequence[str | None], current: TableProfile) -> Sections:
        """The sections of the feature partitions `keys`, whose profile is `current`."""
        prediction: tuple[FeatureDrift, ...] = ()
        joint: MultivariateDrift | None = None
        if self._predict is not None and self._has_scores and self._enough(current):
            prediction = self._scored(keys, current.rows, self._predict)
        if self._spec.drift.multivariate is not None:
            joint = self._compared(self._read(keys, current.rows))
        return Sections(joint, prediction, self._label(current))

    def _scored(
        self, keys: Sequence[str | None], rows: int, predict: Predict
    ) -> tuple[FeatureDrift, ...]:
        try:
            scores = predict(keys)
        except TrainingError as error:
            # A feature of another kind than in training: drift, and no reason to have no report.
            return (unscorable(self._rows, rows, str(error)),)
        return prediction_drift(self._rows, scores, self._spec.drift)

    def _label(self, current: TableProfile) -> FeatureDrift | None:
        if self._spec.target not in self._reference.profile.columns:
            return None
        return label_drift(self._reference.profile, current, self._spec.drift, self._spec.target)

    def _compared(self, rows: pa.Table) -> MultivariateDrift:
        from retrain_assets.drift.multivariate import compare_jointly

        rule = self._spec.drift.multivariate
        assert rule is not None
        return compare_jointly(
            ArrowSource(self._rows), ArrowSource(rows), rule, columns=self._columns,
            min_rows=self._spec.drift.min_rows, usual=self._usual,
        )  # fmt: skip

    def _enough(self, current: TableProfile) -> bool:
        return bool(min(self._rows.num_rows, current.rows) >= self._spec.drift.min_rows)

    @property
    def _columns(self) -> list[str]:
        return watched_columns(self._spec, list(self._reference.profile.columns))

    @property
    def _has_scores(self) -> bool:
        return bool(self._reference.fingerprint) and bool(score_columns(self._rows))

    @cached_property
    def _rows(self) -> pa.Table:
        """A sample of the reference, with scores of a champion; empty where it is gone."""
        store, model, reference = self._store, self._spec.name, self._reference
        if reference.fingerprint and store.exists(model, "reference", reference.fingerprint):
            return load_sample(store, model, reference.fingerprint)
        if reference.partitions and self._existing.issuperset(reference.partitions):
            return self._read(reference.partitions, reference.profile.rows)
        return pa.table({})

    def _read(self, keys: Sequence[str | None], rows: int) -> pa.Table:
        """Feature partitions, of more than `SAMPLE_ROWS` rows in all a sample in proportion."""
        store, model = self._store, self._spec.name
        if rows <= SAMPLE_ROWS:
            return store.read(model, "features", keys)
        parts = [
            sample_rows(part, max(1, SAMPLE_ROWS * part.num_rows // rows))
            for part in store.read_each(model, "features", keys)
        ]
        return pa.concat_tables(parts, promote_options="permissive")

    @cached_property
    def _usual(self) -> Usual | None:
        """What windows of the reference do; measured once for a reference and these settings."""
        from retrain_assets.drift.multivariate import Usual

        partitions, drift = self._reference.partitions, self._spec.drift
        rule = drift.multivariate
        assert rule is not None
        if not drift.calibrate or not partitions or not self._existing.issuperset(partitions):
            return None
        settings = [*partitions, *self._columns, drift.window, rule.rows, drift.min_rows]
        content = json.dumps(settings).encode() + self._reference.profile.to_bytes()
        key = hashlib.sha256(content).hexdigest()[:32]
        if self._store.json_exists(self._spec.name, _USUAL, key):
            stored = self._store.read_json(self._spec.name, _USUAL, key)
        else:
            found = self._measured_usual(partitions)
            stored = None if found is None else asdict(found)
            self._store.write_json(self._spec.name, _USUAL, key, stored)
        return None if stored is None else Usual(**stored)

    def _measured_usual(self, partitions: Sequence[str]) -> Usual | None:
        from retrain_assets.drift.multivariate import usual_separability

        drift = self._spec.drift
        assert drift.multivariate is not None
        table = self._store.read_with_partition(self._spec.name, "features", list(partitions))
        return usual_separability(
            table, table["__partition__"].to_pylist(), drift.window, drift.multivariate,
            columns=self._columns, min_rows=drift.min_rows,
        )  # fmt: skip
