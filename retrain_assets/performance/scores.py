"""The champion's scores of feature partitions, each computed once and kept.

Belongs here: scoring a partition beside its labels, the stored table, a sample in proportion for drift
of the predictions. Does not: what the scores are worth (`level`), how a model is loaded, scores of a
guarded pair (`promotion.guard`).

Of a large partition a sample of `MAX_ROWS` rows (ranking: whole groups) is scored, so that a monitor run
costs the same however large the partitions are.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.encoding import encode_target, has_target
from retrain_assets.training.evaluation import score_array

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.spec.model import ModelSpec
    from retrain_assets.training.model import TabularModel

__all__ = ["MAX_ROWS", "ChampionScores", "PartitionScores", "score_partition"]

_HELD = 64

FloatArray = NDArray[np.float64]

MAX_ROWS = 20_000
"""Rows of a partition that are scored; an interval of 20,000 rows is narrower than any bound asked."""


@dataclass(frozen=True, eq=False)
class PartitionScores:
    """The champion's scores of rows of one partition.

    Attributes:
        y_score: shape (n,), multiclass (n, k).
        y_true: truth as metrics take it, nan where the label is missing, shape (n,).
        groups: ranking: group of each row, shape (n,).
        rows: of the whole partition, at least n.
        problem: why the labels cannot be used, "" where they can.
    """

    y_score: FloatArray
    y_true: FloatArray
    groups: NDArray[Any] | None
    rows: int
    problem: str = ""

    @property
    def has_labels(self) -> bool:
        """Whether any row has a label."""
        return bool(np.isfinite(self.y_true).any())

    def to_table(self) -> pa.Table:
        """One row per score; what is said of the whole partition stands in every row."""
        n, flat = len(self.y_score), pa.array(np.ascontiguousarray(self.y_score).reshape(-1))
        columns = {
            "y_true": pa.array(self.y_true),
            "score": flat
            if self.y_score.ndim == 1
            else pa.FixedSizeListArray.from_arrays(flat, self.y_score.shape[1]),
            "rows": pa.array(np.full(n, self.rows)),
            "problem": pa.array([self.problem] * n, pa.string()),
        }
        if self.groups is not None:
            columns["group"] = pa.array(self.groups)
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> "PartitionScores":
        """What `to_table` wrote."""
        empty = table.num_rows == 0
        return cls(
            y_score=np.empty(0) if empty else score_array(table["score"]),
            y_true=table["y_true"].to_numpy(),
            groups=table["group"].to_numpy() if "group" in table.column_names else None,
            rows=0 if empty else table["rows"][0].as_py(),
            problem="" if empty else table["problem"][0].as_py(),
        )


def score_partition(
    model: "TabularModel", rows: pa.Table, *, group: str | None = None
) -> PartitionScores:
    """Score at most `MAX_ROWS` rows of a partition.

    Args:
        model: the champion.
        rows: the feature partition, with or without its target.
        group: ranking: the column that names each row's group.

    Raises:
        TrainingError: a feature is of another kind than in training.
    """
    groups = group if model.task == "ranking" and group in rows.column_names else None
    sample = _sample(rows, groups)
    names = [name for name in model.encoding.names if name in sample.column_names]
    scores = np.empty(0)
    if sample.num_rows:  # LightGBM takes no empty frame
        scores = model.predict(sample.select(names).to_pandas())
    truth, problem = np.full(sample.num_rows, np.nan), ""
    if model.target in sample.column_names:
        known = has_target(sample, model.target)
        try:
            truth[known.to_numpy()] = encode_target(
                sample.filter(known)[model.target], target=model.target, task=model.task,
                classes=model.classes,
            )  # fmt: skip
        except TrainingError as error:
            problem = str(error)  # a class that the champion does not know, for one
    return PartitionScores(
        y_score=scores,
        y_true=truth,
        groups=None if groups is None else np.asarray(sample[groups].to_numpy()),
        rows=rows.num_rows,
        problem=problem,
    )


def _sample(rows: pa.Table, group: str | None) -> pa.Table:
    """At most `MAX_ROWS` rows in their order, the same of the same rows; of a ranking whole groups."""
    if rows.num_rows <= MAX_ROWS:
        return rows
    rng = np.random.default_rng(0)
    if group is None:
        return rows.take(pa.array(np.sort(rng.choice(rows.num_rows, MAX_ROWS, replace=False))))
    _, codes, counts = np.unique(rows[group].to_numpy(), return_inverse=True, return_counts=True)
    order = rng.permutation(len(counts))
    kept = order[np.cumsum(counts[order]) <= MAX_ROWS]
    return rows.filter(pa.array(np.isin(codes, kept)))


class ChampionScores:
    """Scores of one champion by partition: from the store where they are there, else computed.

    Args:
        spec: the model.
        store: feature partitions and scores.
        fingerprint: of the champion's training, under which its scores are kept.
        load: the champion; called once, and only where something has to be scored.
        renewed: partitions whose features were written since they were scored last.
    """

    def __init__(
        self,
        spec: "ModelSpec",
        store: "TableStore",
        fingerprint: str,
        load: Callable[[], "TabularModel"],
        renewed: Collection[str | None] = (),
    ) -> None:
        self._spec, self._store, self._load = spec, store, load
        self._table = f"scores_{fingerprint[:32]}"
        self._renewed = set(renewed)
        self._known: dict[str | None, PartitionScores] = {}

    @cached_property
    def _model(self) -> "TabularModel":
        return self._load()

    def _read(self, partition: str | None) -> pa.Table:
        return self._store.read(self._spec.name, "features", [partition])

    def of(self, partition: str | None) -> PartitionScores:
        """Scores of one partition; those of the last `_HELD` stay in memory.

        Raises:
            TrainingError: the champion cannot score it.
            TableError: the partition is missing.
        """
        if partition not in self._known:
            name = self._spec.name
            fresh = partition in self._renewed
            if not fresh and self._store.exists(name, self._table, partition):
                table = self._store.read(name, self._table, [partition])
                self._known[partition] = PartitionScores.from_table(table)
            else:
                rows = self._read(partition)
                found = score_partition(self._model, rows, group=self._spec.train.group)
                self._store.write(name, self._table, partition, found.to_table())
                self._known[partition] = found
                self._renewed.discard(partition)
            while len(self._known) > _HELD:
                self._known.pop(next(iter(self._known)))
        return self._known[partition]

    def forget(self, partition: str) -> None:
        """Score a partition anew when it is asked for: its labels have come, say."""
        self._known.pop(partition, None)
        self._renewed.add(partition)

    def columns(self, rows: pa.Table) -> pa.Table:
        """The champion's feature columns of `rows`, as far as they are there."""
        return rows.select([n for n in self._model.encoding.names if n in rows.column_names])

    def features(self, partition: str) -> pa.Table:
        """The champion's feature columns of the rows that `of` has scored."""
        return self.columns(_sample(self._read(partition), None))

    def window(self, partitions: Sequence[str | None]) -> FloatArray:
        """Scores of a window, of each partition in proportion to its rows, at most `MAX_ROWS` in all.

        Shape (n,) or (n, k).
        """
        found = [one for one in map(self.of, partitions) if one.rows]
        total = sum(one.rows for one in found)
        return np.concatenate(
            [one.y_score[_stretch(len(one.y_score), one.rows, total)] for one in found]
        )


def _stretch(n: int, rows: int, total: int) -> NDArray[np.int64]:
    """Places of a partition's share of a window, evenly spread."""
    share = n if total <= MAX_ROWS else min(n, max(1, MAX_ROWS * rows // total))
    return np.arange(share, dtype=np.int64) * n // max(share, 1)
