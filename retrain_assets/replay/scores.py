"""What each trained model makes of each partition, computed at most once.

Belongs here: scores of labelled rows, the metric's value on a partition, the gate's verdict on two
trainings. Does not: when they are asked for, what was known when (`evidence`).
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.promotion.promote import judge_evaluation
from retrain_assets.promotion.standing import Standings
from retrain_assets.replay.rows import Rows
from retrain_assets.training.evaluation import (
    CANDIDATE,
    CHAMPION,
    check_same_classes,
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


def _held_out(trained: "Trained") -> "Iterator[tuple[str, Evaluation | None]]":
    """A model's scores of its own holdout, by partition."""
    whole = trained.holdout()
    for key in trained.holdout_keys:
        here = whole.row_partitions == key
        if not here.any():
            yield key, None
            continue
        yield (
            key,
            replace(
                whole,
                y_true=whole.y_true[here],
                scores={CANDIDATE: whole.scores[CANDIDATE][here]},
                row_partitions=whole.row_partitions[here],
                groups=None if whole.groups is None else whole.groups[here],
                columns={},
            ),
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
        self._rows = Rows(history)
        self._standings = Standings()

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
            if key in trained.holdout_keys:
                # Scored already, by the training.
                self._hold(trained, _held_out(trained))
            else:
                self._hold(trained, [(key, self._rows.scored(self.model(trained), key))])
        return self._evaluations[place]

    def _hold(self, trained: "Trained", found: "Iterable[tuple[str, Evaluation | None]]") -> None:
        """Keep what was scored, and forget the oldest beyond what may be held."""
        new = {(trained.fingerprint, key): one for key, one in found}
        new = {place: one for place, one in new.items() if place not in self._evaluations}
        self._evaluations |= new
        self._bytes += sum(one.scores[CANDIDATE].nbytes for one in new.values() if one is not None)
        while self._bytes > _HELD_BYTES and len(self._evaluations) > len(new):
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
        for place, key in enumerate(keys):
            for row, trained in enumerate(models):
                if key > trained.partition:
                    value, _ = self.value(trained, key)
                    found[row, place] = np.nan if value is None else value
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
            standings=self._standings,
        )
        return {"decision": report.decision, "gain": report.gain, "gain_low": report.gain_low}

    def _on_holdout(self, candidate: "Trained", champion: "Trained") -> NDArray[np.float64]:
        """The champion's scores of the candidate's holdout rows."""
        found = [self.evaluation(champion, key) for key in candidate.holdout_keys]
        return np.concatenate([one.scores[CANDIDATE] for one in found if one is not None])
