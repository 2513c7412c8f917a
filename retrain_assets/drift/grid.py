"""The grid that a numeric column is counted on: monotone, open to both sides, found without search.

Belongs here: choosing a grid from a sample, the order of its entries and their edges. Does not:
counting (`kernels`), what is concluded from counts (`exact`, `intervals`).

A value x lies at t = (x - origin) / scale. The origin is the sample's median, the scale a power of
two near its interquartile range. The cell on either side is given by the exponent and the leading
`bits` mantissa bits of 1 + |t|: linear for |t| < 1, logarithmic beyond, so that heavy tails need
few cells and offsets (timestamps) lose nothing. Every step is monotone in floating point too, so a
cell is an interval and cumulative counts at cell edges are exact.

Frequent single values ("atoms": a zero in a column of amounts) would hide what happens around them
in their cell. Each is an entry of its own, and so are the rest of its cell below and above it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property
from math import frexp, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BITS", "FINE_BITS", "FINE_ROWS", "OCTAVES", "Grid", "GridArrays", "choose_grid"]

Sample = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

BITS = 13
"""Mantissa bits of a cell: 8,192 cells per unit of scale around the origin."""

FINE_BITS = 15
"""For more than `FINE_ROWS` rows: what must be sorted is what sampling noise hides in a cell."""

FINE_ROWS = 3_000_000

OCTAVES = 32
"""Doublings of the distance from the origin until the last cell, which is open."""

MAX_ATOMS = 256
ATOM_SHARE = 0.001
"""Share of the sample from which a value is an atom."""

EXACT_INTEGER = 2**53


class GridArrays(ctypes.Structure):
    """The grid as the compiled kernels read it; `_kernels.c` has the same fields."""

    _fields_ = (
        ("origin", ctypes.c_double),
        ("int_origin", ctypes.c_int64),
        ("inverse_scale", ctypes.c_double),
        ("bits", ctypes.c_int64),
        ("half", ctypes.c_int64),
        ("n_atoms", ctypes.c_int64),
        ("atoms", ctypes.c_void_p),
        ("int_atoms", ctypes.c_void_p),
        ("atom_cells", ctypes.c_void_p),
        ("first_atom", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Grid:
    """A monotone map from values to entries.

    Attributes:
        origin: centre; a whole number where `integral`.
        scale: a power of two, > 0.
        atoms: values with an entry of their own, sorted.
        integral: values are whole numbers, and differences from the origin are taken as such.
        bits: mantissa bits of a cell.

    Entry numbers: cells 0 to 2 * half - 1 in order of value, then `n_cells` (null or NaN),
    `n_cells + 1` (-inf), `n_cells + 2` (+inf), then for atom j `n_cells + 3 + 2 j` (values of its
    cell below it and above the previous atom) and the atom itself.
    """

    origin: float | int
    scale: float
    atoms: tuple[float | int, ...] = ()
    integral: bool = False
    bits: int = BITS

    @property
    def half(self) -> int:
        """Cells on either side of the origin."""
        return OCTAVES << self.bits

    @property
    def n_cells(self) -> int:
        """Cells, which come first among the entries."""
        return 2 * self.half

    @property
    def n_entries(self) -> int:
        """Cells, three for null and infinities, two per atom."""
        return self.n_cells + 3 + 2 * len(self.atoms)

    @cached_property
    def atom_distances(self) -> Sample:
        """Atoms less the origin, shape (n_atoms,)."""
        if self.integral:
            return np.array([float(atom - self.origin) for atom in self.atoms], dtype=np.float64)
        return np.array(self.atoms, dtype=np.float64) - float(self.origin)

    @cached_property
    def float_atoms(self) -> Sample:
        """Atoms as they are, shape (n_atoms,)."""
        return np.array(self.atoms, dtype=np.float64)

    @cached_property
    def int_atoms(self) -> Index:
        """Atoms of a grid of integers, shape (n_atoms,); none otherwise."""
        return np.array(self.atoms if self.integral else (), dtype=np.int64)

    @cached_property
    def atom_cells(self) -> npt.NDArray[np.int32]:
        """The cell that each atom lies in."""
        return self.cells(self.atom_distances)

    @cached_property
    def first_atom(self) -> npt.NDArray[np.int32]:
        """Per entry up to +inf: its first atom, -1 without one."""
        first = np.full(self.n_cells + 3, -1, dtype=np.int32)
        for j in range(len(self.atoms) - 1, -1, -1):
            first[self.atom_cells[j]] = j
        return first

    @cached_property
    def arrays(self) -> GridArrays:
        """For the compiled kernels; lives as long as the grid."""
        return GridArrays(
            float(self.origin),
            int(self.origin) if self.integral else 0,
            1.0 / self.scale,
            self.bits,
            self.half,
            len(self.atoms),
            self.float_atoms.ctypes.data,
            self.int_atoms.ctypes.data,
            self.atom_cells.ctypes.data,
            self.first_atom.ctypes.data if self.atoms else None,
        )

    def cells(self, distances: Sample) -> npt.NDArray[np.int32]:
        """Cell of each value, given as its distance from the origin; infinities in the last."""
        with np.errstate(over="ignore", invalid="ignore"):
            magnitude = np.abs(distances * (1.0 / self.scale)) + 1.0
        step = (magnitude.view(np.int64) >> (52 - self.bits)) - (1023 << self.bits)
        np.minimum(step, self.half - 1, out=step)
        return np.where(distances < 0, self.half - 1 - step, self.half + step).astype(np.int32)

    def lower_edges(self, cells: Index) -> Sample:
        """Smallest distance from the origin of each cell (to one rounding), -inf for the first."""
        steps = np.where(cells >= self.half, cells - self.half, self.half - cells)
        # The inverse: mantissa bits back into a float, less the one that was added.
        magnitude = ((steps.astype(np.int64) + (1023 << self.bits)) << (52 - self.bits)).view(
            np.float64
        )
        edges = np.where(cells >= self.half, 1.0, -1.0) * (magnitude - 1.0) * self.scale
        return np.where(cells <= 0, -np.inf, edges)


def choose_grid(sample: npt.NDArray[Any], bits: int = BITS) -> Grid:
    """A grid for the column that `sample` (non-null, any order, a few thousand values) is from.

    Args:
        sample: shape (k,), k >= 0, float or integer; NaN and infinities are left out.

    Returns:
        A grid that depends on nothing but the sample. Any grid gives exact comparisons; a good
        one gives narrow intervals and little to gather.
    """
    integral = sample.dtype.kind in "iu"
    values = sample if integral else sample[np.isfinite(sample)].astype(np.float64)
    if not values.size:
        return Grid(0 if integral else 0.0, 1.0, (), integral, bits)
    distinct, counts = np.unique(values, return_counts=True)
    is_atom = counts >= max(3.0, ATOM_SHARE * values.size)
    if np.count_nonzero(is_atom) > MAX_ATOMS:
        is_atom = counts >= np.sort(counts)[-MAX_ATOMS]
        is_atom &= np.cumsum(is_atom) <= MAX_ATOMS
    rest = np.repeat(distinct[~is_atom], counts[~is_atom])
    body = rest if rest.size >= 32 else distinct
    origin = body[body.size // 2]
    low, high = body[body.size // 4], body[min(body.size - 1, 3 * body.size // 4)]
    spread = float(high) - float(low)
    if not 0 < spread < np.inf:
        spread = float(distinct[-1]) - float(distinct[0])
    if not 0 < spread < np.inf:
        spread = abs(float(origin)) or 1.0
    scale = 2.0 ** min(1000, max(-1000, frexp(spread)[1]))
    assert isfinite(scale)
    kind = int if integral else float
    return Grid(
        kind(origin), scale, tuple(kind(atom) for atom in distinct[is_atom]), integral, bits
    )
