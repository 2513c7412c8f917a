"""The two loops that every numeric value goes through, compiled where possible, else in numpy.

Belongs here: counting a column on a grid, gathering the values of chosen entries, and finding the
compiled library. Does not: what to count or gather (`exact`, `profile`).

The compiled form is `_kernels.c`, built when the package is installed on a machine with a C
compiler (`hatch_build.py`); no compiler is needed to install. Both forms give the same counts and
gathered values, bit for bit, and the same sums up to rounding. `RETRAIN_DRIFT_KERNELS=numpy` turns
the compiled form off.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.grid import BITS, Grid

__all__ = [
    "GATHER", "MINUS", "PLUS", "SUM_SHIFT", "Counts", "Values", "compiled", "count_codes",
    "count_text", "count_values", "distances", "gather_values",
]  # fmt: skip

GATHER, PLUS, MINUS = 1, 2, 4
"""Actions of `gather_values`, per entry."""

SUM_SHIFT = BITS - 6
"""Sums are kept per 2**SUM_SHIFT cells."""

_FLUSH_ROWS = 2**31


@dataclass(frozen=True)
class Values:
    """A piece of a column: numbers and which of them are null.

    Attributes:
        numbers: shape (n,), float64, float32, int64 or int32, contiguous; anything where null.
        bitmap: Arrow's validity bits (1 is valid), None where nothing is null.
        offset: bit of `bitmap` that belongs to `numbers[0]`.
    """

    numbers: npt.NDArray[Any]
    bitmap: npt.NDArray[np.uint8] | None = None
    offset: int = 0

    def present(self) -> npt.NDArray[Any]:
        """The numbers that are not null; NaN stays."""
        if self.bitmap is None:
            return self.numbers
        start = self.offset // 8
        stop = (self.offset + self.numbers.size + 7) // 8
        bits = np.unpackbits(self.bitmap[start:stop], bitorder="little")
        first = self.offset - 8 * start
        valid = bits[first : first + self.numbers.size].astype(bool)
        found: npt.NDArray[Any] = self.numbers[valid]
        return found

    def thinned(self, step: int) -> npt.NDArray[Any]:
        """Every `step`-th of the numbers, of them those that are not null."""
        at = np.arange(0, self.numbers.size, step)
        if self.bitmap is None:
            return self.numbers[at]
        bits = at + self.offset
        valid = (self.bitmap[bits >> 3] >> (bits & 7)) & 1 == 1
        found: npt.NDArray[Any] = self.numbers[at[valid]]
        return found


class _Moments(ctypes.Structure):
    _fields_ = (
        ("nan", ctypes.c_int64),
        ("negative_infinite", ctypes.c_int64),
        ("positive_infinite", ctypes.c_int64),
        ("null", ctypes.c_int64),
        ("sum", ctypes.c_double),
        ("sum_squares", ctypes.c_double),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
        ("int_low", ctypes.c_int64),
        ("int_high", ctypes.c_int64),
    )


@dataclass
class Counts:
    """What one side of a column amounts to on a grid; filled by `count_values`.

    Attributes:
        grid: where the entries are.
        rows: values seen, nulls among them.
        entries: shape (grid.n_entries,), values per entry, as int64.
        sums: values less the origin, per 2**SUM_SHIFT cells (finite values only); None if not kept.
        sum: of the finite values less the origin.
        sum_squares: of their squares over scale squared.
        low: smallest finite value, None without any.
        high: largest finite value.
    """

    grid: Grid
    with_sums: bool = False
    rows: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0
    low: float | int | None = None
    high: float | int | None = None
    sums: npt.NDArray[np.float64] | None = None
    _block: npt.NDArray[np.uint32] = field(init=False)
    _flushed: npt.NDArray[np.int64] | None = None
    _since_flush: int = 0

    def __post_init__(self) -> None:
        self._block = np.zeros(self.grid.n_entries, dtype=np.uint32)
        if self.with_sums:
            self.sums = np.zeros((self.grid.n_cells >> SUM_SHIFT) + 1)

    @property
    def entries(self) -> npt.NDArray[np.int64]:
        """Values per entry, shape (grid.n_entries,)."""
        counts = self._block.astype(np.int64)
        return counts if self._flushed is None else counts + self._flushed

    def used_cells(self, *others: Counts) -> npt.NDArray[np.int64]:
        """Cells that hold values here or in others on the same grid, ascending."""
        sides = [side for side in (self, *others) if side.low is not None]
        if not sides:
            return np.empty(0, dtype=np.int64)
        first, last = self.grid.n_cells, 0
        for side in sides:
            assert side.low is not None
            assert side.high is not None
            ends = np.array([side.low - self.grid.origin, side.high - self.grid.origin])
            span = self.grid.cells(ends.astype(np.float64))
            first, last = min(first, int(span[0])), max(last, int(span[1]) + 1)
        used = np.zeros(last - first, dtype=bool)
        for side in sides:
            used |= side._block[first:last] > 0
            if side._flushed is not None:
                used |= side._flushed[first:last] > 0
        return np.flatnonzero(used) + first

    def at(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Values of the given entries."""
        found = self._block[entries].astype(np.int64)
        return found if self._flushed is None else found + self._flushed[entries]

    def room_for(self, rows: int) -> None:
        """Keep the 32-bit counters from overflowing."""
        if self._since_flush + rows >= _FLUSH_ROWS:
            self._flushed = self.entries
            self._block[:] = 0
            self._since_flush = 0
        self._since_flush += rows
        self.rows += rows

    def extend(self, low: float | int, high: float | int) -> None:
        """Take in the extremes of a piece."""
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)


_SPACES = bytes(32 if 9 <= byte <= 13 else byte for byte in range(256))
_SUFFIX = {"float64": "f64", "float32": "f32", "int64": "i64", "int32": "i32"}


@cache
def compiled() -> Any:
    """The compiled kernels, None where there are none or the environment turns them off."""
    if os.environ.get("RETRAIN_DRIFT_KERNELS") == "numpy":
        return None
    path = Path(__file__).with_name("_kernels.so")
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    for suffix in _SUFFIX.values():
        getattr(library, f"gather_{suffix}").restype = ctypes.c_int64
    return library


def _pointer(array: npt.NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _fitting(values: Values, grid: Grid) -> Values:
    """Integers on a grid of floats become floats, as the grid's differences are."""
    numbers = values.numbers
    if numbers.dtype.kind == "i" and not grid.integral:
        return Values(numbers.astype(np.float64), values.bitmap, values.offset)
    if numbers.dtype == np.int32 and abs(grid.origin) >= 2**53:
        return Values(numbers.astype(np.int64), values.bitmap, values.offset)
    return values


def count_values(values: Values, counts: Counts) -> None:
    """Add a piece of a column to `counts`."""
    values = _fitting(values, counts.grid)
    counts.room_for(values.numbers.size)
    library = compiled()
    if library is None:
        _count_in_numpy(values, counts)
        return
    moments = _Moments(low=inf, high=-inf, int_low=2**63 - 1, int_high=-(2**63))
    numbers = values.numbers
    kernel = getattr(library, f"count_{_SUFFIX[numbers.dtype.name]}")
    kernel(
        _pointer(numbers), _pointer(values.bitmap), ctypes.c_int64(values.offset),
        ctypes.c_int64(numbers.size), ctypes.byref(counts.grid.arrays), _pointer(counts._block),
        _pointer(counts.sums), ctypes.c_int64(SUM_SHIFT), ctypes.byref(moments),
    )  # fmt: skip
    counts.sum += moments.sum
    counts.sum_squares += moments.sum_squares
    if numbers.dtype.kind == "f" and moments.low <= moments.high:
        counts.extend(moments.low, moments.high)
    elif numbers.dtype.kind == "i" and moments.int_low <= moments.int_high:
        counts.extend(moments.int_low, moments.int_high)


def gather_values(
    pieces: Iterable[Values], grid: Grid, actions: npt.NDArray[np.int8], expected: int
) -> tuple[npt.NDArray[Any], float]:
    """The values of the entries marked GATHER, and the signed sum over the others.

    Args:
        pieces: a whole column, as it was counted.
        grid: as it was counted on.
        actions: shape (grid.n_entries,): GATHER, or PLUS or MINUS for the sign that a value less
            the origin has in the sum, or 0.
        expected: how many values the counts say are gathered.

    Returns:
        Gathered values in row order and their own type; the sum.
    """
    found, total = [], 0.0
    library = compiled()
    for piece in pieces:
        values = _fitting(piece, grid)
        numbers = values.numbers
        if library is None:
            gathered, part = _gather_in_numpy(values, grid, actions)
            found.append(gathered)
            total += part
            continue
        # The loop writes before it knows whether to keep, hence one more place.
        room = np.empty(min(expected, numbers.size) + 1, dtype=numbers.dtype)
        signed = ctypes.c_double(0.0)
        kernel = getattr(library, f"gather_{_SUFFIX[numbers.dtype.name]}")
        size = kernel(
            _pointer(numbers), _pointer(values.bitmap), ctypes.c_int64(values.offset),
            ctypes.c_int64(numbers.size), ctypes.byref(grid.arrays), _pointer(actions),
            _pointer(room), ctypes.byref(signed),
        )  # fmt: skip
        found.append(room[:size])
        total += signed.value
    return (np.concatenate(found) if found else np.empty(0)), total


def inside(
    ref: npt.NDArray[Any],
    cur: npt.NDArray[Any],
    grid: Grid,
    blocks: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    levels: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    edges: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    sizes: tuple[int, int, int, int],
) -> tuple[float, float] | None:
    """Largest |F_ref - F_cur| in blocks of sorted values and the area under it, compiled only.

    Args:
        ref: values of the reference, block after block.
        cur: likewise.
        grid: what distances are taken from.
        blocks: values of either side per block.
        levels: F_ref - F_cur before each block, among all and among the finite values.
        edges: where each block begins and ends, as distances; equal to the values' where outside.
        sizes: n, m, and how many of each are finite (1 where none).

    Returns:
        None without compiled kernels.
    """
    library = compiled()
    if library is None or ref.dtype != cur.dtype or ref.dtype.name not in _SUFFIX:
        return None
    arrays = [*blocks, *(np.ascontiguousarray(x, dtype=np.float64) for x in (*levels, *edges))]
    numbers, result = np.array(sizes, dtype=np.float64), np.zeros(2)
    getattr(library, f"inside_{_SUFFIX[ref.dtype.name]}")(
        _pointer(ref), _pointer(cur), ctypes.c_int64(blocks[0].size),
        *(_pointer(x) for x in arrays), _pointer(numbers), ctypes.byref(grid.arrays),
        _pointer(result),
    )  # fmt: skip
    return float(result[0]), float(result[1])


def count_codes(
    codes: npt.NDArray[np.int32], bitmap: npt.NDArray[np.uint8] | None, offset: int, size: int
) -> npt.NDArray[np.int64]:
    """Rows per dictionary code, shape (size,); nulls are left out."""
    library = compiled()
    if library is None:
        present = Values(codes, bitmap, offset).present()
        return np.bincount(present, minlength=size).astype(np.int64)
    counts = np.zeros(size, dtype=np.int64)
    library.count_codes(
        _pointer(codes), _pointer(bitmap), ctypes.c_int64(offset), ctypes.c_int64(codes.size),
        _pointer(counts),
    )  # fmt: skip
    return counts


def count_text(
    values: Any,
    weights: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
) -> None:
    """Add texts to counts of lengths (in characters, the last open) and of tokens (by CRC-32).

    Args:
        values: an Arrow array of strings without nulls.
        weights: shape (len(values),), rows that each stands for.
        lengths: added to in place.
        tokens: likewise; tokens are separated by ASCII whitespace.
    """
    import pyarrow as pa

    library = compiled()
    if library is None:
        for text, weight in zip(values.to_pylist(), weights.tolist(), strict=True):
            lengths[min(len(text), lengths.size - 1)] += weight
            for token in text.encode().translate(_SPACES).split(b" "):
                if token:
                    tokens[crc32(token) % tokens.size] += weight
        return
    wide = values.cast(pa.large_string())
    _, offsets, data = wide.buffers()
    start = np.frombuffer(offsets, dtype=np.int64)[wide.offset :]
    content = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else None
    library.count_text(
        _pointer(start), _pointer(content), ctypes.c_int64(len(wide)), _pointer(weights),
        _pointer(lengths), ctypes.c_int64(lengths.size), _pointer(tokens),
        ctypes.c_int64(tokens.size),
    )  # fmt: skip


def distances(numbers: npt.NDArray[Any], grid: Grid) -> npt.NDArray[np.float64]:
    """Numbers less the grid's origin, rounded once, shape as given."""
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return numbers.astype(np.float64) - float(grid.origin)
    origin, wide = int(grid.origin), numbers.astype(np.int64)
    # Both halves and their products are exact, whatever the difference; the sum rounds once.
    upper = ((wide >> 32) - (origin >> 32)).astype(np.float64) * 4294967296.0
    return upper + ((wide & 0xFFFFFFFF) - (origin & 0xFFFFFFFF)).astype(np.float64)


def _entries_of(numbers: npt.NDArray[Any], y: npt.NDArray[np.float64], grid: Grid) -> Any:
    cells = grid.cells(y)
    if grid.atoms:
        near = np.flatnonzero(grid.first_atom[cells] >= 0)
        # The values themselves: their distances may have been rounded to the same number.
        atoms = grid.float_atoms if numbers.dtype.kind == "f" else grid.int_atoms
        atom = np.searchsorted(atoms, numbers[near])
        inside = atom < len(grid.atoms)
        inside[inside] = grid.atom_cells[atom[inside]] == cells[near[inside]]
        near, atom = near[inside], atom[inside]
        cells[near] = grid.n_cells + 3 + 2 * atom + (numbers[near] == atoms[atom])
    if numbers.dtype.kind == "f":
        cells[numbers == -inf] = grid.n_cells + 1
        cells[numbers == inf] = grid.n_cells + 2
    return cells


def _count_in_numpy(values: Values, counts: Counts) -> None:
    grid, present = counts.grid, values.present()
    if present.dtype.kind == "f":
        present = present[~np.isnan(present)]
    counts._block[grid.n_cells] += np.uint32(values.numbers.size - present.size)
    if not present.size:
        return
    y = distances(present, grid)
    found = np.bincount(_entries_of(present, y, grid), minlength=grid.n_entries)
    counts._block += found.astype(np.uint32)
    if present.dtype.kind == "f":
        finite = np.isfinite(present)
        present, y = present[finite], y[finite]
    if not present.size:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        counts.sum += float(y.sum())
        counts.sum_squares += float(np.square(y * (1.0 / grid.scale)).sum())
        if counts.sums is not None:
            counts.sums += np.bincount(
                grid.cells(y) >> SUM_SHIFT, weights=y, minlength=counts.sums.size
            )
    kind = float if present.dtype.kind == "f" else int
    counts.extend(kind(present.min()), kind(present.max()))


def _gather_in_numpy(
    values: Values, grid: Grid, actions: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[Any], float]:
    present = values.present()
    if present.dtype.kind == "f":
        present = present[~np.isnan(present)]
    y = distances(present, grid)
    todo = actions[_entries_of(present, y, grid)]
    total = float(y[todo == PLUS].sum()) - float(y[todo == MINUS].sum())
    return present[todo == GATHER], total
