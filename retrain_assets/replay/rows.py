"""The labelled rows of a history as models take them, encoded once for all models that agree how.

Belongs here: reading, labels, the inputs of a model. Does not: which model scores what when, metrics.

A replay scores a partition with many models, whose encodings differ in a category now and then. So rows
are read and encoded a block of consecutive partitions at a time, each column once for each way to encode
it, and a model's inputs are put together from these columns.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.data.tables import PARTITION_COLUMN
from retrain_assets.errors import TableError, TrainingError
from retrain_assets.training.encoding import encode_target, has_target
from retrain_assets.training.evaluation import CANDIDATE, Evaluation, ranking_groups

if TYPE_CHECKING:
    import pandas as pd

    from retrain_assets.replay.history import History
    from retrain_assets.training.encoding import ColumnEncoding, Encoding
    from retrain_assets.training.model import TabularModel

__all__ = ["Rows"]

_PARTITIONS = 32
_ROWS = 200_000
"""A block has at most so many partitions, and about so many rows, or one partition."""
_HELD_BLOCKS = 3

FloatArray = NDArray[np.float64]


class Rows:
    """Labelled rows of one history.

    Args:
        history: the partitions.
    """

    def __init__(self, history: "History") -> None:
        self._history = history
        self._blocks: OrderedDict[tuple[str, ...], _Block] = OrderedDict()
        self._size: int | None = None
        self._apart: set[tuple[str, ...]] = set()

    def scored(self, model: "TabularModel", key: str) -> Evaluation | None:
        """A model's scores of a partition's labelled rows, as `candidate`; None without labels.

        Raises:
            TableError: the partition cannot be read.
            TrainingError: the model cannot score its rows.
        """
        keys = self._neighbours(key)
        if keys not in self._apart:
            try:
                return self._block(keys).scored(model, key)
            except (TrainingError, TableError):
                # What is wrong with another partition is said when it comes, to whoever serves then.
                self._apart.add(keys)
        return self._block((key,)).scored(model, key)

    def _neighbours(self, key: str) -> tuple[str, ...]:
        """The partitions of the same block."""
        if self._size is None:
            store, name = self._history.store, self._history.spec.name
            rows = store.read(name, "features", [key], [self._history.spec.target]).num_rows
            self._size = max(1, min(_PARTITIONS, _ROWS // max(rows, 1)))
        start = self._history.index[key] // self._size * self._size
        return self._history.keys[start : start + self._size]

    def _block(self, keys: tuple[str, ...]) -> "_Block":
        if keys not in self._blocks:
            self._blocks[keys] = _Block(self._history, keys)
            while len(self._blocks) > _HELD_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(keys)
        return self._blocks[keys]


class _Block:
    """Rows of consecutive partitions.

    Raises:
        TableError: one of them cannot be read.
        TrainingError: they have no target column.
    """

    def __init__(self, history: "History", keys: Sequence[str]) -> None:
        spec = history.spec
        table = history.store.read_with_partition(spec.name, "features", keys)
        self._spec, self._rows = spec, table.filter(has_target(table, spec.target))
        places = self._rows[PARTITION_COLUMN].combine_chunks().indices.to_numpy()
        ends = np.searchsorted(places, np.arange(len(keys) + 1)).tolist()
        self._places = {
            key: slice(*span) for key, *span in zip(keys, ends[:-1], ends[1:], strict=True)
        }
        self._series: dict[str, pd.Series[Any]] = {}
        self._columns: dict[ColumnEncoding, FloatArray] = {}
        self._targets: dict[Any, NDArray[Any]] = {}

    def scored(self, model: "TabularModel", key: str) -> Evaluation | None:
        here = self._places[key]
        if here.stop == here.start:
            return None
        groups = None
        if model.task == "ranking":
            groups = ranking_groups(
                self._rows.slice(here.start, here.stop - here.start), self._spec.train.group
            )
        scores = model.score(self._inputs(model.encoding, here))
        return Evaluation(
            task=model.task,
            y_true=self._target(model)[here],
            scores={CANDIDATE: scores},
            row_partitions=np.full(len(scores), key, dtype=object),
            groups=groups,
            classes=model.classes,
        )

    def _inputs(self, encoding: "Encoding", here: slice) -> FloatArray:
        """What the model takes, shape (rows, features)."""
        present = set(encoding.present(self._rows.column_names))
        found = np.full((here.stop - here.start, len(encoding.columns)), np.nan)
        for place, column in enumerate(encoding.columns):
            if column.name in present:
                found[:, place] = self._encoded(column)[here]
        return found

    def _encoded(self, column: "ColumnEncoding") -> FloatArray:
        if column not in self._columns:
            self._columns[column] = column.encode(self._raw(column.name))
        return self._columns[column]

    def _raw(self, name: str) -> "pd.Series[Any]":
        """A column as pandas has it; of texts, each distinct one once."""
        if name not in self._series:
            found = self._rows.column(name)
            if pa.types.is_string(found.type) or pa.types.is_large_string(found.type):
                found = found.dictionary_encode()
            self._series[name] = found.to_pandas()
        return self._series[name]

    def _target(self, model: "TabularModel") -> NDArray[Any]:
        way = (model.target, model.task, model.classes)
        if way not in self._targets:
            self._targets[way] = encode_target(
                self._rows.column(model.target), target=model.target, task=model.task,
                classes=model.classes,
            )  # fmt: skip
        return self._targets[way]
