"""Evidence as the live system would have had it when a partition came.

Belongs here: verdicts of the drift engine, performance of a champion from the labels that had arrived by
then (`train.label_delay`), estimates for the partitions after. Does not: any statistic.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.drift.reference import (
    ChampionReference,
    Reference,
    first_window,
    load_reference,
    sample_rows,
    store_reference,
    with_scores,
)
from retrain_assets.drift.sections import SectionsOf
from retrain_assets.drift.stored import load_profiles, merge_profiles
from retrain_assets.drift.watch import compare_window, window_keys
from retrain_assets.errors import DriftError, TableError
from retrain_assets.performance.level import Level, fit_level, performance_on
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import undecided
from retrain_assets.performance.served import SPAN
from retrain_assets.training.encoding import has_target
from retrain_assets.training.evaluation import CANDIDATE

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.drift.profile import TableProfile
    from retrain_assets.replay.history import History
    from retrain_assets.replay.memo import Memo
    from retrain_assets.replay.scores import Scores
    from retrain_assets.replay.trainings import Trained

__all__ = ["EvidenceOf"]

_AHEAD = 16
"""Profiles that are read in one pass."""


class EvidenceOf:
    """Evidence about the champions of one history.

    Args:
        history: the partitions; references of champions are written to its store.
        scores: of the models.
        memo: what is known already.
    """

    def __init__(self, history: "History", scores: "Scores", memo: "Memo") -> None:
        self._history, self._scores, self._memo = history, scores, memo
        self._references: dict[str, tuple[Reference, SectionsOf | None]] = {}
        self._levels: dict[str, Level] = {}
        self._currents: dict[str, TableProfile] = {}
        self._window: tuple[tuple[str, ...], TableProfile] | None = None
        self._known: dict[tuple[str, str, str], Performance] = {}

    # -- drift ------------------------------------------------------------------------------------

    def reference_name(self, champion: "Trained") -> str:
        """What a report of this champion is measured against; reports of another start anew."""
        if self._history.spec.drift.against == "first_window":
            return "first window"
        return champion.fingerprint

    def drift(self, champion: "Trained", key: str) -> dict[str, Any]:
        """The drift report of a partition: `verdict`, `score`, `prediction_drift`.

        Raises:
            DriftError, TableError: columns that cannot be compared, partitions that are damaged.
        """
        spec = self._history.spec
        window = window_keys(spec, key, self._history.until(key))
        made_from = [
            self.reference_name(champion),
            self._history.keys[0],
            [self._history.fingerprints[one] for one in window],
            spec.section_hash("drift", "target", "train"),
            spec.retrain.needs_prediction_drift,
        ]
        found: dict[str, Any] = self._memo.get(
            "drift", made_from, lambda: self._compared(champion, key, window)
        )
        return found

    def _compared(self, champion: "Trained", key: str, window: Sequence[str]) -> dict[str, Any]:
        spec, first = self._history.spec, self._history.keys[: self._history.spec.min_window]
        if spec.drift.against == "first_window" and window[0] <= first[-1]:
            return {"verdict": "undecided", "score": None, "prediction_drift": None}
        reference, sections = self._reference(champion, key)
        report, _ = compare_window(
            spec, key, window, reference, sections, self._current(window),
            pictures=False,
        )  # fmt: skip
        moved = [row.drifted for row in report.prediction]
        return {
            "verdict": report.verdict,
            "score": report.score if math.isfinite(report.score) else None,
            "prediction_drift": any(moved) if moved else None,
        }

    def _current(self, window: Sequence[str]) -> "TableProfile":
        """The window's profile; the last one is kept, since most champions are compared with it."""
        if self._window is None or self._window[0] != tuple(window):
            for key in window:
                if key not in self._currents:
                    self._load_profiles(key)
            merged = merge_profiles([self._currents[key] for key in window])
            self._window = tuple(window), merged
        return self._window[1]

    def _load_profiles(self, key: str) -> None:
        """Profiles of a partition and, in the same pass, of the next ones."""
        history = self._history
        at = history.index[key]
        keys = history.keys[at : at + _AHEAD]
        try:
            found = load_profiles(history.store, history.spec.name, keys)
        except (DriftError, TableError):
            # What is wrong with a later partition is said when it comes.
            keys = (key,)
            found = load_profiles(history.store, history.spec.name, keys)
        self._currents |= zip(keys, found, strict=True)

    def _reference(self, champion: "Trained", key: str) -> tuple[Reference, SectionsOf | None]:
        name = self.reference_name(champion)
        if name not in self._references:
            self._references[name] = self._made_reference(champion, key)
        return self._references[name]

    def _made_reference(self, champion: "Trained", key: str) -> tuple[Reference, SectionsOf | None]:
        history, spec = self._history, self._history.spec
        if spec.drift.against == "first_window":
            first = first_window(spec, history.store, history.keys[: spec.min_window])
            return first, SectionsOf(spec, history.store, first, history.keys, None)
        rows = history.store.read(spec.name, "features", champion.train_keys)
        sample = sample_rows(rows)
        predict = None
        if spec.retrain.needs_prediction_drift:
            sample = with_scores(sample, self._predicted(champion, sample), self._classes(champion))

            def predict(keys: Sequence[str | None]) -> NDArray[np.float64]:
                tables = [self._scores.table(key) for key in keys if key is not None]
                return np.concatenate([self._predicted(champion, table) for table in tables])

        store_reference(
            spec, history.store, champion.fingerprint, rows=rows,
            partitions=champion.train_keys, sample=sample, importance=champion.importance,
        )  # fmt: skip
        reference = load_reference(
            spec,
            history.store,
            ChampionReference(champion.partition, champion.fingerprint),
            history.until(key),
        )
        if predict is None and spec.drift.multivariate is None:
            return reference, None
        return reference, SectionsOf(spec, history.store, reference, history.keys, predict)

    # -- performance ------------------------------------------------------------------------------

    def expected(self, champion: "Trained") -> Performance:
        """The champion's performance on its own holdout."""
        return self._level(champion).expected

    def performance(
        self, champion: "Trained", key: str, *, estimate: bool, last: int | None
    ) -> tuple[Performance, ...]:
        """Of each partition after the champion's holdout up to `key`, oldest first.

        Args:
            champion: the model that serves.
            key: the newest partition.
            estimate: whether partitions whose labels have not come by `key` are estimated.
            last: how many of the newest realised ones are wanted; None for all.
        """
        history = self._history
        labelled = history.scheme.shift(key, -history.spec.train.label_delay)
        after = [one for one in history.until(key) if one > champion.holdout_keys[-1]]
        due = [one for one in after if labelled is not None and one <= labelled][-SPAN:]
        found: list[Performance] = []
        known = 0
        for one in reversed(due):
            found.append(self._one(champion, one, "realised", estimate))
            known += found[-1].decided and found[-1].kind == "realised"
            if last is not None and known >= last:
                break
        waiting = after[len(after) - sum(one > (labelled or "") for one in after) :]
        return (
            *reversed(found),
            *(self._one(champion, one, "estimated", estimate) for one in waiting),
        )

    def _one(self, champion: "Trained", key: str, kind: str, estimate: bool) -> Performance:
        metric = self._scores.metric
        if kind == "realised":
            # Labels may be missing although they are due: the estimate stands in, as it does live.
            _, rows = self._scores.value(champion, key)
            kind = "realised" if rows else "estimated"
        if kind == "estimated" and not estimate:
            return undecided(metric, "estimated", key, None, 0, 0.95, "labels have not come")
        place = (champion.fingerprint, key, kind)
        if place not in self._known:
            compute = self._realised if kind == "realised" else self._estimated
            made_from = [champion.fingerprint, self._history.fingerprints[key], metric.name]
            found = self._memo.get(kind, made_from, lambda: asdict(compute(champion, key)))
            self._known[place] = Performance(**found)
        return self._known[place]

    def _realised(self, champion: "Trained", key: str) -> Performance:
        found = self._scores.evaluation(champion, key)
        assert found is not None, "it has labels"
        return performance_on(
            self._scores.metric.name,
            self._level(champion),
            key,
            y_score=found.scores[CANDIDATE],
            y_true=found.y_true,
            groups=found.groups,
        )

    def _estimated(self, champion: "Trained", key: str) -> Performance:
        table = self._scores.table(key)
        return performance_on(
            self._scores.metric.name,
            self._level(champion),
            key,
            y_score=self._predicted(champion, table),
            y_true=None,
            features=self._columns(champion, table),
        )

    def _level(self, champion: "Trained") -> Level:
        if champion.fingerprint not in self._levels:
            spec, features = self._history.spec, None
            if self._scores.metric.is_regression:
                rows = self._history.store.read(spec.name, "features", champion.holdout_keys)
                features = self._columns(champion, rows.filter(has_target(rows, spec.target)))
            self._levels[champion.fingerprint] = fit_level(
                spec.metric, champion.holdout(), features, seed=spec.train.seed
            )
        return self._levels[champion.fingerprint]

    # -- a champion -------------------------------------------------------------------------------

    def _columns(self, champion: "Trained", rows: "pa.Table") -> "pa.Table":
        names = self._scores.model(champion).encoding.names
        return rows.select([name for name in names if name in rows.column_names])

    def _predicted(self, champion: "Trained", rows: "pa.Table") -> NDArray[np.float64]:
        return self._scores.model(champion).predict(self._columns(champion, rows).to_pandas())

    def _classes(self, champion: "Trained") -> Sequence[Any] | None:
        return self._scores.model(champion).classes
