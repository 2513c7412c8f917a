"""Profiles: what a later comparison needs of a table, small, mergeable, made in one pass.

    profile = build_profile(open_table("2013-03-01.parquet"))
    week = profile.merged(other)                      # of the same grids: exact
    data = profile.to_bytes()                         # TableProfile.from_bytes reads it

Belongs here: what is kept per column, merging, the stored format. Does not: comparing profiles
(`intervals`).

Profiles merge exactly where they were counted on the same grids, so all partitions of a model are
profiled with `like=` an earlier one. Per numeric column: counts of the occupied cells at the finest
level at which at most MAX_ENTRIES of them are occupied. That level is a function of the values, so
merging is associative and gives the profile of the rows together; only sums may differ in the
last bits.

Stored format (version 1): `RDP1`, length of a JSON header, the header (columns, grids, scalars,
where each array lies), then the arrays, all compressed with zstd. Integers are stored as
differences split into byte planes, which is what makes them small.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import frexp, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.categories import CategoryCounts
from retrain_assets.drift.columns import (
    NUMERIC_FAMILIES,
    Source,
    blocks,
    column_family,
    numeric_pieces,
)
from retrain_assets.drift.exact import sample_of
from retrain_assets.drift.grid import Grid, choose_grid
from retrain_assets.drift.kernels import Counts, count_values
from retrain_assets.errors import DriftError

__all__ = ["MAX_ENTRIES", "CategoryProfile", "NumericProfile", "TableProfile", "build_profile"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_ENTRIES = 8192
VERSION = 1
_MAGIC = b"RDP1"


@dataclass(frozen=True)
class NumericProfile:
    """A numeric or time column (times in microseconds).

    Attributes:
        type: Arrow's name of the type.
        family: see `columns.column_family`.
        grid: where the entries are.
        n: non-null values, infinities among them; NaN counts as null.
        nulls: null values.
        infinite: values at -inf and at +inf.
        level: cells are 2**level cells of the grid.
        cells: cell of each occupied entry that is not an atom, ascending.
        ranks: atoms of the grid below each of them; a cell with atoms has an entry between any two.
        counts: values of each.
        atom_counts: values at each of the grid's atoms.
        sums: values less the origin, per 2**SUM_SHIFT cells of the grid.
        sum: of the finite values less the origin.
        sum_squares: of their squares, over scale squared.
        low: smallest finite value, None without any.
        high: largest.
    """

    type: str
    family: str
    grid: Grid
    n: int
    nulls: int
    infinite: tuple[int, int]
    level: int
    cells: Integers
    ranks: Integers
    counts: Integers
    atom_counts: Integers
    sums: Floats
    sum: float
    sum_squares: float
    low: float | int | None
    high: float | int | None

    @property
    def finite(self) -> int:
        """Finite values."""
        return self.n - sum(self.infinite)

    @property
    def mean(self) -> float:
        """Of the finite values; NaN without any."""
        return float(self.grid.origin) + self.sum / self.finite if self.finite else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation (ddof 0) of the finite values."""
        if self.low == self.high or not self.finite:
            return 0.0
        mean = self.sum / self.finite / self.grid.scale
        return sqrt(max(0.0, self.sum_squares / self.finite - mean * mean)) * self.grid.scale

    def coarsened(self, level: int) -> NumericProfile:
        """The same at a level of at least this one's."""
        if level <= self.level:
            return self
        cells = self.cells >> (level - self.level)
        starts = np.ones(cells.size, dtype=bool)
        starts[1:] = (cells[1:] != cells[:-1]) | (self.ranks[1:] != self.ranks[:-1])
        first = np.flatnonzero(starts)
        counts = np.add.reduceat(self.counts, first) if first.size else self.counts
        return replace(
            self, level=level, cells=cells[first], ranks=self.ranks[first], counts=counts
        )

    def compact(self) -> NumericProfile:
        """At the finest level with at most MAX_ENTRIES entries."""
        result = self
        while result.cells.size > MAX_ENTRIES:
            result = result.coarsened(result.level + 1)
        return result

    def merged(self, other: NumericProfile, name: str) -> NumericProfile:
        """Both columns' rows together; see `TableProfile.merged`."""
        if self.grid != other.grid:
            raise DriftError(
                f"'{name}': profiles merge where they have the same grid, these do not; build the "
                "second with like= the first (`retrain profile --like`)"
            )
        level = max(self.level, other.level)
        a, b = self.coarsened(level), other.coarsened(level)
        span = len(self.grid.atoms) + 1
        keys = np.concatenate([a.cells * span + a.ranks, b.cells * span + b.ranks])
        unique, places = np.unique(keys, return_inverse=True)
        counts = np.bincount(
            places.reshape(-1), weights=np.concatenate([a.counts, b.counts]), minlength=unique.size
        )
        lows = [x for x in (a.low, b.low) if x is not None]
        highs = [x for x in (a.high, b.high) if x is not None]
        with np.errstate(over="ignore"):  # a sum beyond the largest number is infinite
            sums = a.sums + b.sums
        return replace(
            self, n=a.n + b.n, nulls=a.nulls + b.nulls, level=level,
            infinite=(a.infinite[0] + b.infinite[0], a.infinite[1] + b.infinite[1]),
            cells=unique // span, ranks=unique % span, counts=counts.astype(np.int64),
            atom_counts=a.atom_counts + b.atom_counts, sums=sums, sum=a.sum + b.sum,
            sum_squares=a.sum_squares + b.sum_squares,
            low=min(lows, default=None), high=max(highs, default=None),
        ).compact()  # fmt: skip


@dataclass(frozen=True)
class CategoryProfile:
    """A text, boolean or all-null column."""

    type: str
    family: str
    counted: CategoryCounts

    @property
    def n(self) -> int:
        """Non-null values."""
        return self.counted.n

    @property
    def nulls(self) -> int:
        """Null values."""
        return self.counted.nulls


ColumnProfile = NumericProfile | CategoryProfile


@dataclass(frozen=True)
class TableProfile:
    """A table.

    Attributes:
        rows: number of rows.
        columns: by name, in the table's order; columns that cannot be compared are left out.
        left_out: their types by name.
    """

    rows: int
    columns: dict[str, ColumnProfile]
    left_out: dict[str, str] = field(default_factory=dict)

    def merged(self, other: TableProfile) -> TableProfile:
        """The profile of both tables' rows together.

        Associative and commutative, exact but for the rounding of sums.

        Raises:
            DriftError: other columns, another family of type, or another grid; names all of them.
        """
        one_only = self.columns.keys() ^ other.columns.keys()
        problems = [f"'{name}': is in one of the two profiles only" for name in sorted(one_only)]
        merged: dict[str, ColumnProfile] = {}
        for name, mine in self.columns.items():
            theirs = other.columns.get(name)
            try:
                if theirs is not None:
                    merged[name] = _merged(mine, theirs, name)
            except DriftError as error:
                problems.append(str(error))
        if problems:
            raise DriftError("profiles cannot be merged: " + "; ".join(problems))
        return TableProfile(self.rows + other.rows, merged, {**self.left_out, **other.left_out})

    def to_bytes(self) -> bytes:
        """The stored format, see the module's docstring; equal profiles give equal bytes."""
        arrays: list[bytes] = []
        header = {
            "version": VERSION,
            "rows": self.rows,
            "left_out": self.left_out,
            "columns": {name: _pack(column, arrays) for name, column in self.columns.items()},
        }
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        body = struct.pack("<Q", len(text)) + text + b"".join(arrays)
        packed: bytes = pa.Codec("zstd", compression_level=9).compress(body, asbytes=True)
        return _MAGIC + struct.pack("<Q", len(body)) + packed

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "profile") -> TableProfile:
        """Read what `to_bytes` wrote.

        Raises:
            DriftError: not a profile, damaged, or of a later version.
        """
        if data[:4] != _MAGIC:
            raise DriftError(f"{name}: not a profile, begins with {data[:4]!r}, not {_MAGIC!r}")
        try:
            (size,) = struct.unpack("<Q", data[4:12])
            if size > 1 << 32:
                raise ValueError(f"a size of {size} bytes")
            body: bytes = pa.Codec("zstd").decompress(data[12:], size, asbytes=True)
            (length,) = struct.unpack("<Q", body[:8])
            header = json.loads(body[8 : 8 + length])
            version = header["version"]
            if version != VERSION:
                raise DriftError(
                    f"{name}: profile version must be {VERSION}, got {version!r}; build it again "
                    "or read it with the release that wrote it"
                )
            reader = _Reader(memoryview(body)[8 + length :])
            columns = {key: _unpack(entry, reader) for key, entry in header["columns"].items()}
            return cls(header["rows"], columns, header["left_out"])
        except (
            struct.error, ValueError, KeyError, TypeError, IndexError, pa.ArrowException, OSError,
        ) as error:  # fmt: skip
            raise DriftError(f"{name}: damaged profile: {error!r}; build it again") from None


def _merged(mine: ColumnProfile, theirs: ColumnProfile, name: str) -> ColumnProfile:
    # A column without any value lies on no grid.
    some = mine.n and theirs.n and mine.family == theirs.family
    if isinstance(mine, NumericProfile) and isinstance(theirs, NumericProfile) and some:
        return mine.merged(theirs, name)
    if isinstance(mine, CategoryProfile) and isinstance(theirs, CategoryProfile):
        families = {mine.family, theirs.family} - {"null"}
        if len(families) < 2:
            family = families.pop() if families else "null"
            typed = mine if mine.family == family else theirs
            return CategoryProfile(typed.type, family, mine.counted.merged(theirs.counted))
    # An all-null column has whatever type its reader chose.
    for empty, full in ((mine, theirs), (theirs, mine)):
        if empty.n == 0 and isinstance(full, NumericProfile):
            return replace(full, nulls=full.nulls + empty.nulls)
        if empty.n == 0 and isinstance(full, CategoryProfile):
            counted = full.counted.copy()
            counted.nulls += empty.nulls
            return replace(full, counted=counted)
    raise DriftError(f"'{name}': is {mine.family} in one profile and {theirs.family} in the other")


def build_profile(
    source: Source, *, like: TableProfile | None = None, columns: Sequence[str] | None = None
) -> TableProfile:
    """Profile a table in one streaming pass.

    Args:
        source: see `columns.open_table`; memory does not grow with its rows.
        like: a profile whose grids are used, so that both merge; columns that it lacks get their
            own grid.
        columns: by default all.

    Raises:
        DriftError: a column name occurs twice, or `columns` names one that is not there.
    """
    wanted = list(source.schema.names) if columns is None else list(columns)
    problems = [
        f"'{name}': must be there once, occurs {count} times"
        for name in dict.fromkeys(wanted)
        if (count := source.schema.names.count(name)) != 1
    ]
    if problems:
        raise DriftError("profile: " + "; ".join(problems))
    types = {name: source.schema.field(name).type for name in wanted}
    families = {name: column_family(kind) for name, kind in types.items()}
    left_out = {name: str(types[name]) for name in wanted if families[name] is None}
    known = [name for name in wanted if name not in left_out]
    found: dict[str, ColumnProfile] = {}
    for names in blocks(known, source.rows):
        source.block(names)
        for name in names:
            earlier = None if like is None else like.columns.get(name)
            kind, family = str(types[name]), str(families[name])
            found[name] = profile_column(source, name, kind, family, earlier)
    return TableProfile(source.rows, found, left_out)


def profile_column(
    source: Source, name: str, kind: str, family: str, earlier: ColumnProfile | None = None
) -> ColumnProfile:
    """Profile one column, on the grid of `earlier` where that is numeric too."""
    if family not in NUMERIC_FAMILIES:
        return CategoryProfile(kind, family, CategoryCounts().add(source.chunks(name)))
    grid = earlier.grid if isinstance(earlier, NumericProfile) else None
    if grid is None:
        grid = choose_grid(sample_of(lambda: numeric_pieces(source, name)))
    counts = Counts(grid, with_sums=True)
    for piece in numeric_pieces(source, name):
        count_values(piece, counts)
    return numeric_profile(counts, kind, family)


def numeric_profile(counts: Counts, kind: str = "double", family: str = "number") -> NumericProfile:
    """The profile of what was counted."""
    grid = counts.grid
    base, n_atoms = grid.n_cells, len(grid.atoms)
    extra = counts.at(np.arange(base, grid.n_entries))
    below, equal = extra[3::2], extra[4::2]
    cells = counts.used_cells()
    at = grid.atom_cells.astype(np.int64)
    ranks = np.searchsorted(at, cells, side="right").astype(np.int64)
    some = np.flatnonzero(below)
    order = np.lexsort((np.concatenate([ranks, some]), np.concatenate([cells, at[some]])))
    assert counts.sums is not None
    values = np.concatenate([counts.at(cells), below[some]])[order]
    return NumericProfile(
        type=kind, family=family, grid=grid, n=counts.rows - int(extra[0]), nulls=int(extra[0]),
        infinite=(int(extra[1]), int(extra[2])), level=0,
        cells=np.concatenate([cells, at[some]])[order],
        ranks=np.concatenate([ranks, some])[order].astype(np.int64),
        counts=values, atom_counts=equal[:n_atoms], sums=counts.sums.copy(), sum=counts.sum,
        sum_squares=counts.sum_squares, low=counts.low, high=counts.high,
    ).compact()  # fmt: skip


def _planes(values: Integers) -> bytes:
    """Differences, zigzag, least significant bytes of all first."""
    steps = np.diff(values, prepend=np.int64(0))
    zigzag = ((steps << 1) ^ (steps >> 63)).astype("<u8")
    width = max(1, (int(zigzag.max(initial=0)).bit_length() + 7) // 8)
    planes = zigzag.view(np.uint8).reshape(-1, 8)[:, :width].T
    return bytes([width]) + planes.tobytes()


def _pack(column: ColumnProfile, arrays: list[bytes]) -> dict[str, Any]:
    """Scalars as JSON; arrays appended, with their sizes."""
    if isinstance(column, CategoryProfile):
        counted = column.counted
        entry: dict[str, Any] = {
            "kind": "category", "type": column.type, "family": column.family, "n": counted.n,
            "nulls": counted.nulls, "limit": counted.limit,
        }  # fmt: skip
        if counted.counts is not None:
            entry["values"] = sorted(counted.counts)
            numbers = [counted.counts[value] for value in entry["values"]]
            arrays.append(_planes(np.array(numbers, dtype=np.int64)))
        else:
            assert counted.lengths is not None
            assert counted.tokens is not None
            arrays += [_planes(counted.lengths), _planes(counted.tokens)]
            entry["sizes"] = [counted.lengths.size, counted.tokens.size]
        return entry
    kept = np.flatnonzero(column.sums)
    arrays += [
        _planes(column.cells), _planes(column.ranks), _planes(column.counts),
        _planes(column.atom_counts), _planes(kept), column.sums[kept].astype("<f8").tobytes(),
    ]  # fmt: skip
    grid = column.grid
    return {
        "kind": "numeric", "type": column.type, "family": column.family, "n": column.n,
        "nulls": column.nulls, "infinite": column.infinite, "level": column.level,
        "sizes": [column.cells.size, column.atom_counts.size, kept.size, column.sums.size],
        "origin": _text(grid.origin), "scale": frexp(grid.scale)[1] - 1, "integral": grid.integral,
        "atoms": [_text(atom) for atom in grid.atoms], "sum": _text(column.sum),
        "sum_squares": _text(column.sum_squares), "low": _text(column.low),
        "high": _text(column.high),
    }  # fmt: skip


def _text(number: float | int | None) -> str | int | None:
    """Floats as hexadecimal text, which is exact and knows infinities."""
    return number.hex() if isinstance(number, float) else number


def _number(text: str | int | None) -> Any:
    return float.fromhex(text) if isinstance(text, str) else text


class _Reader:
    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def integers(self, size: int) -> Integers:
        width = self._body[self._at]
        stop = self._at + 1 + width * size
        if stop > len(self._body) or width > 8:
            raise ValueError("an array is cut off")
        planes = np.frombuffer(self._body[self._at + 1 : stop], dtype=np.uint8)
        self._at = stop
        full = np.zeros((size, 8), dtype=np.uint8)
        full[:, :width] = planes.reshape(width, size).T
        zigzag = full.view("<u8").reshape(-1)
        steps = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(
            np.int64
        )
        return np.cumsum(steps)

    def floats(self, size: int) -> Floats:
        stop = self._at + 8 * size
        if stop > len(self._body):
            raise ValueError("an array is cut off")
        found = np.frombuffer(self._body[self._at : stop], dtype="<f8").astype(np.float64)
        self._at = stop
        return found


def _unpack(entry: dict[str, Any], reader: _Reader) -> ColumnProfile:
    if entry["kind"] == "category":
        counted = CategoryCounts(entry["limit"], entry["n"], entry["nulls"])
        if "values" in entry:
            numbers = reader.integers(len(entry["values"])).tolist()
            counted.counts = dict(zip(entry["values"], numbers, strict=True))
        else:
            counted.counts = None
            counted.lengths = reader.integers(entry["sizes"][0])
            counted.tokens = reader.integers(entry["sizes"][1])
        return CategoryProfile(entry["type"], entry["family"], counted)
    n_cells, n_atoms, n_kept, n_sums = entry["sizes"]
    cells, ranks, counts = (reader.integers(n_cells) for _ in range(3))
    atom_counts, kept = reader.integers(n_atoms), reader.integers(n_kept)
    sums = np.zeros(n_sums)
    sums[kept] = reader.floats(n_kept)
    grid = Grid(
        _number(entry["origin"]), 2.0 ** entry["scale"],
        tuple(_number(atom) for atom in entry["atoms"]), entry["integral"],
    )  # fmt: skip
    return NumericProfile(
        entry["type"], entry["family"], grid, entry["n"], entry["nulls"],
        (entry["infinite"][0], entry["infinite"][1]), entry["level"], cells, ranks, counts,
        atom_counts, sums, _number(entry["sum"]), _number(entry["sum_squares"]),
        _number(entry["low"]), _number(entry["high"]),
    )  # fmt: skip
