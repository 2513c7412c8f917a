"""What each trained model makes of each partition, computed at most once.

Belongs here: scores of labelled rows, the metric's value on a partition, the gate's verdict on two
trainings. Does not: when they are asked for, what was known when (`evidence`).
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.data.tables import PARTITION_COLUMN
from retrain_assets.errors import TableError, TrainingError
from retrain_assets.promotion.promote import judge_evaluation
from retrain_assets.training.evaluation import (
    CANDIDATE,
    CHAMPION,
    check_same_classes,
    score_labelled,
)
from retrain_assets.training.metrics import Metric, get_metric

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.replay.history import History
    from retrain_assets.replay.memo import Memo
    from retrain_assets.replay.trainings import Trained
    from retrain_assets.spec.model import ModelSpec
    from retrain_assets.training.evaluation import Evaluation
    from retrain_assets.training.model import TabularModel

__all__ = ["Scores", "replayed_spec", "value_on"]

_HELD_BYTES = 256 << 20
_HELD_MODELS = 64
_AHEAD = 8
"""At most so many partitions are scored in one pass when the first of them comes, as many as the model has
served already: who serves mostly goes on serving, and a pass costs little less for one partition."""
_CHUNK = 32
"""Partitions that hindsight's models are scored on in one pass."""


def replayed_spec(spec: "ModelSpec") -> "ModelSpec":
    """The spec with what replay cannot judge left out of its gate: latency and approval.

    Milliseconds on this machine today say nothing of then, and nobody can be asked about the past.
    """
    budgets = spec.gate.budgets
    if budgets is not None:
        budgets = (
            budgets.model_copy(update={"row_ms": None, "batch_ms": None})
            if budgets.size_bytes is not None
            else None
        )
    gate = spec.gate.model_copy(update={"budgets": budgets, "approval": "auto"})
    return spec.model_copy(update={"gate": gate})


def value_on(metric: Metric, evaluation: "Evaluation | None") -> tuple[float | None, int]:
    """The metric of the candidate and how many rows (ranking: groups) it is from; None: no value."""
    if evaluation is None:
        return None, 0
    units = metric.n_units(evaluation.y_true, groups=evaluation.groups)
    resampler = metric.resampler(
        evaluation.y_true, evaluation.scores[CANDIDATE], groups=evaluation.groups
    )
    value = float(resampler(np.ones((1, units)))[0])
    return (value, units) if np.isfinite(value) else (None, units)


def _by_partition(whole: "Evaluation", keys: Sequence[str]) -> "Iterator[Evaluation | None]":
    """The rows of each partition, None where it has no label.

    Args:
        whole: in the order of `keys`, with the place of each row's partition for `row_partitions`.
        keys: partitions.
    """
    places = whole.row_partitions.astype(np.int64)
    ends = np.searchsorted(places, np.arange(len(keys) + 1))
    for key, start, end in zip(keys, ends[:-1], ends[1:], strict=True):
        here = slice(int(start), int(end))
        yield (
            replace(
                whole,
                y_true=whole.y_true[here],
                scores={name: score[here] for name, score in whole.scores.items()},
                row_partitions=np.full(int(end - start), key, dtype=object),
                groups=None if whole.groups is None else whole.groups[here],
                columns={},
            )
            if end > start
            else None
        )


def _held_out(trained: "Trained") -> "Iterator[Evaluation | None]":
    """A model's scores of its own holdout, by partition."""
    whole, keys = trained.holdout(), trained.holdout_keys
    place = {key: at for at, key in enumerate(keys)}
    return _by_partition(
        replace(
            whole,
            scores={CANDIDATE: whole.scores[CANDIDATE]},
            row_partitions=np.array([place[key] for key in whole.row_partitions]),
        ),
        keys,
    )


class Scores:
    """Scores of one history's models.

    Args:
        history: the partitions.
        memo: what is known already.
    """

    def __init__(self, history: "History", memo: "Memo") -> None:
        self._history, self._memo = history, memo
        self.metric = get_metric(history.spec.metric)
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._evaluations: OrderedDict[tuple[str, str], Evaluation | None] = OrderedDict()
        self._models: OrderedDict[str, TabularModel] = OrderedDict()
        self._bytes = 0
        self._passes: Counter[str] = Counter()

    @property
    def spec(self) -> "ModelSpec":
        """The model."""
        return self._history.spec

    def table(self, key: str) -> "pa.Table":
        """The rows of a partition."""
        if key not in self._tables:
            history = self._history
            self._tables[key] = history.store.read(history.spec.name, "features", [key])
            while len(self._tables) > max(64, 2 * int(history.spec.train.holdout)):
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def evaluation(self, trained: "Trained", key: str) -> "Evaluation | None":
        """A model's scores of a partition's labelled rows, as `candidate`; None without labels.

        Raises:
            TrainingError: the model cannot score the rows.
        """
        place = (trained.fingerprint, key)
        if place not in self._evaluations:
            at = self._history.index[key]
            ahead = min(1 << self._passes[trained.fingerprint], _AHEAD)
            self._passes[trained.fingerprint] += 1
            try:
                self._score(trained, self._history.keys[at : at + ahead])
            except (TrainingError, TableError):
                # What is wrong with a later partition is said when it comes, to whoever serves then.
                self._score(trained, [key])
        return self._evaluations[place]

    def _score(self, trained: "Trained", keys: Sequence[str]) -> None:
        """Scores of several partitions, as far as they are not held, in one pass over their rows."""
        keys = [key for key in keys if (trained.fingerprint, key) not in self._evaluations]
        if not set(trained.holdout_keys).isdisjoint(keys):
            # Scored already, by the training.
            self._hold(trained, trained.holdout_keys, _held_out(trained))
            keys = [key for key in keys if key not in trained.holdout_keys]
        if not keys:
            return
        spec = self._history.spec
        table = self._history.store.read_with_partition(spec.name, "features", keys)
        places = table[PARTITION_COLUMN].combine_chunks().indices.to_numpy()
        whole = score_labelled(
            self.model(trained), None, table.drop_columns([PARTITION_COLUMN]),
            group=spec.train.group, row_partitions=places,
        )  # fmt: skip
        parts = [None] * len(keys) if whole is None else _by_partition(whole, keys)
        self._hold(trained, keys, parts)

    def _hold(
        self, trained: "Trained", keys: Sequence[str], parts: "Iterable[Evaluation | None]"
    ) -> None:
        """Keep what was scored, and forget the oldest beyond what may be held."""
        for key, found in zip(keys, parts, strict=True):
            self._evaluations[trained.fingerprint, key] = found
            self._bytes += 0 if found is None else found.scores[CANDIDATE].nbytes
        while self._bytes > _HELD_BYTES and len(self._evaluations) > len(keys):
            _, old = self._evaluations.popitem(last=False)
            self._bytes -= 0 if old is None else old.scores[CANDIDATE].nbytes

    def model(self, trained: "Trained") -> "TabularModel":
        """The loaded model; the last used ones are kept."""
        if trained.fingerprint not in self._models:
            self._models[trained.fingerprint] = trained.load()
            while len(self._models) > _HELD_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(trained.fingerprint)
        return self._models[trained.fingerprint]

    def value(self, trained: "Trained", key: str) -> tuple[float | None, int]:
        """The model's metric on a partition, and how many rows it is from."""
        value, n = self._memo.get(
            "value",
            self._made_from(trained, key),
            lambda: list(value_on(self.metric, self.evaluation(trained, key))),
        )
        return value, n

    def values(self, models: "Sequence[Trained]", keys: Sequence[str]) -> NDArray[np.float64]:
        """The metric of each model on the partitions after its own; nan elsewhere and where undefined.

        Returns:
            Shape (models, partitions).
        """
        found = np.full((len(models), len(keys)), np.nan)
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            for row, trained in enumerate(models):
                later = [key for key in chunk if key > trained.partition]
                self._score(
                    trained,
                    [
                        k
                        for k in later
                        if not self._memo.knows("value", self._made_from(trained, k))
                    ],
                )
                for key in later:
                    value, _ = self.value(trained, key)
                    if value is not None:
                        found[row, start + chunk.index(key)] = value
        return found

    def _made_from(self, trained: "Trained", key: str) -> list[str]:
        return [trained.fingerprint, self._history.fingerprints[key], self.metric.name]

    def verdict(self, candidate: "Trained", champion: "Trained | None") -> dict[str, Any]:
        """The gate's verdict on a candidate: `decision` and `gain`.

        Raises:
            TrainingError: the two cannot be compared.
        """
        spec = self._history.spec
        rival = None if champion is None else champion.fingerprint
        settings = spec.section_hash("gate", "task", "train")
        made_from = [candidate.fingerprint, rival, settings, self.metric.name]
        found: dict[str, Any] = self._memo.get(
            "gate", made_from, lambda: self._judged(candidate, champion)
        )
        return found

    def _judged(self, candidate: "Trained", champion: "Trained | None") -> dict[str, Any]:
        evaluation = candidate.holdout()
        saw = False
        if champion is not None:
            check_same_classes(evaluation.classes, self.model(champion).classes)
            scores = dict(evaluation.scores)
            ours = {
                CANDIDATE: scores.pop(CANDIDATE),
                CHAMPION: self._on_holdout(candidate, champion),
            }
            evaluation = replace(evaluation, scores={**ours, **scores})
            saw = champion.train_keys[-1] >= candidate.holdout_keys[0]
        report = judge_evaluation(
            self._history.spec,
            evaluation,
            champion_saw_holdout=saw,
            measured={"size_bytes": float(candidate.size_bytes)},
        )
        return {"decision": report.decision, "gain": report.gain, "gain_low": report.gain_low}

    def _on_holdout(self, candidate: "Trained", champion: "Trained") -> NDArray[np.float64]:
        """The champion's scores of the candidate's holdout rows."""
        self._score(champion, candidate.holdout_keys)
        found = [self.evaluation(champion, key) for key in candidate.holdout_keys]
        return np.concatenate([one.scores[CANDIDATE] for one in found if one is not None])
