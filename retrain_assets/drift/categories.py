"""Categories of a column: exact counts as long as there are few, lengths and tokens beyond.

Belongs here: counting text and boolean columns in batches, merging. Does not: comparing them.

Up to a limit of distinct values the counts are exact. Beyond it a column is free text or an
identifier, of which nobody wants a table of values: it is kept as rows per length and tokens per
hash bucket. Both forms are functions of the values alone, so merging is exact, and a merged column
is of the second form exactly where the union has more distinct values than the limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.kernels import count_codes, count_text

__all__ = ["MAX_COMPARED", "MAX_STORED", "CategoryCounts"]

Integers = npt.NDArray[np.int64]

MAX_STORED = 1 << 14
"""Distinct values that a stored profile keeps."""

MAX_COMPARED = 1 << 16
"""Distinct values that a comparison of two tables keeps."""

N_LENGTHS = 1024
N_TOKENS = 1024


@dataclass
class CategoryCounts:
    """What a text or boolean column amounts to.

    Attributes:
        limit: distinct values up to which they are kept.
        n: non-null values.
        nulls: null values.
        counts: rows per value; None once there are more than `limit`.
        lengths: then rows per length in characters, the last open, shape (N_LENGTHS,).
        tokens: then whitespace-separated tokens per hash bucket, shape (N_TOKENS,).
    """

    limit: int = MAX_STORED
    n: int = 0
    nulls: int = 0
    counts: dict[str, int] | None = field(default_factory=dict)
    lengths: Integers | None = None
    tokens: Integers | None = None

    def add(self, chunks: Iterable[pa.Array]) -> CategoryCounts:
        """Count further rows; returns itself."""
        held: pa.Array | None = None
        codes = np.zeros(0, dtype=np.int64)
        for chunk in chunks:
            if pa.types.is_null(chunk.type) or not len(chunk):
                self.nulls += len(chunk)
                continue
            encoded = _encoded(chunk)
            if held is None or not encoded.dictionary.equals(held):
                if held is not None:
                    self._take(held, codes)
                held, codes = encoded.dictionary, np.zeros(len(encoded.dictionary), np.int64)
            found = _codes(encoded)
            codes += found
            present = int(found.sum())
            self.n += present
            self.nulls += len(chunk) - present
        if held is not None:
            self._take(held, codes)
        return self

    def _take(self, values: pa.Array, weights: Integers) -> None:
        used = np.flatnonzero(weights)
        if used.size < len(values):
            values, weights = values.take(pa.array(used)), weights[used]
        if values.null_count:  # a dictionary may hold null as a value
            present = np.asarray(values.is_valid())
            lost = int(weights[~present].sum())
            self.n, self.nulls = self.n - lost, self.nulls + lost
            values, weights = values.drop_null(), weights[present]
        if len(values) > self.limit:
            self.overflow()  # before millions of strings become Python objects
        if self.counts is not None:
            counts = self.counts
            for value, weight in zip(values.to_pylist(), weights.tolist(), strict=True):
                counts[value] = counts.get(value, 0) + weight
            if len(counts) > self.limit:
                self.overflow()
            return
        assert self.lengths is not None
        assert self.tokens is not None
        count_text(values, np.ascontiguousarray(weights), self.lengths, self.tokens)

    def overflow(self) -> None:
        """Go over to lengths and tokens."""
        if self.counts is None:
            return
        self.lengths = np.zeros(N_LENGTHS, dtype=np.int64)
        self.tokens = np.zeros(N_TOKENS, dtype=np.int64)
        values = pa.array(list(self.counts), pa.large_string())
        weights = np.array(list(self.counts.values()), dtype=np.int64)
        self.counts = None
        if len(values):
            count_text(values, weights, self.lengths, self.tokens)

    def copy(self) -> CategoryCounts:
        """An independent one."""
        return CategoryCounts(
            self.limit, self.n, self.nulls,
            None if self.counts is None else dict(self.counts),
            None if self.lengths is None else self.lengths.copy(),
            None if self.tokens is None else self.tokens.copy(),
        )  # fmt: skip

    def merged(self, other: CategoryCounts) -> CategoryCounts:
        """The counts of both columns' rows together."""
        result, other = self.copy(), other.copy()
        result.limit = min(self.limit, other.limit)
        result.n, result.nulls = self.n + other.n, self.nulls + other.nulls
        if result.counts is not None and other.counts is not None:
            for value, count in other.counts.items():
                result.counts[value] = result.counts.get(value, 0) + count
            if len(result.counts) > result.limit:
                result.overflow()
            return result
        result.overflow()
        other.overflow()
        assert result.lengths is not None
        assert other.lengths is not None
        assert result.tokens is not None
        assert other.tokens is not None
        result.lengths += other.lengths
        result.tokens += other.tokens
        return result


def _encoded(array: pa.Array) -> Any:
    """As a dictionary array of strings with 32-bit codes."""
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.string())
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    values = array.dictionary
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        values = values.cast(pa.large_string())
    if array.type.index_type != pa.int32() or values is not array.dictionary:
        array = pa.DictionaryArray.from_arrays(array.indices.cast(pa.int32()), values)
    return array


def _codes(array: Any) -> Integers:
    indices = array.indices
    validity, data = indices.buffers()
    codes = np.frombuffer(data, dtype=np.int32)[indices.offset : indices.offset + len(indices)]
    bitmap = None
    if validity is not None and indices.null_count:
        bitmap = np.frombuffer(validity, dtype=np.uint8)
    return count_codes(codes, bitmap, indices.offset, len(array.dictionary))
