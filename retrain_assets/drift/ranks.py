"""Order statistics of the reference, and both sides' counts up to them, from counts and few values.

Belongs here: which entries of the grid hold the deciles, the decile bins of PSI and those of the
Jensen-Shannon distance. Does not: distances between distribution functions (`exact`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.findings import N_BINS, Gathered, Ordered
from retrain_assets.drift.kernels import GATHER, distances

__all__ = ["HeavyValues", "Ranks"]

Integers = npt.NDArray[np.int64]


class HeavyValues(NamedTuple):
    """Values that alone hold a tenth of the reference, ascending."""

    values: list[Any]
    counts: Integers
    ends: Integers  # rank of the last of each


class Ranks:
    """Answers about ranks, once the wanted entries have been gathered.

    Args:
        ordered: counts of both sides.
        heavy: decile bins of their own.
    """

    def __init__(self, ordered: Ordered, heavy: HeavyValues) -> None:
        self.ordered = ordered
        self.heavy = heavy
        n = ordered.n
        self._positions = np.linspace(0, 1, N_BINS + 1)[1:-1] * (n - 1)
        self._floors = np.floor(self._positions).astype(np.int64) + 1
        self._cuts = np.unique(self._cut_ranks())

    def wanted(self) -> npt.NDArray[np.bool_]:
        """Entries whose values are needed: extremes, deciles, and what lies around them."""
        ordered = self.ordered
        wanted = np.zeros(ordered.ids.size, dtype=bool)
        ranks = np.concatenate([[1, ordered.n], self._cuts])
        wanted[np.searchsorted(ordered.ref_after, ranks)] = True
        nexts = np.minimum(self._floors + 1, ordered.n)
        for low, high in zip(
            np.searchsorted(ordered.ref_after, self._floors),
            np.searchsorted(ordered.ref_after, nexts),
            strict=True,
        ):
            wanted[low : high + 1] = True
        return wanted

    def _cut_ranks(self) -> Integers:
        """Ranks (1-based, among all values) of the decile cuts of the values other than heavy."""
        n, counts = self.ordered.n, self.heavy.counts
        rest = n - int(counts.sum())
        n_bins = max(1, round(N_BINS * rest / n))
        cuts = np.ceil(rest * np.arange(1, n_bins) / n_bins).astype(np.int64)
        cuts = cuts[cuts > 0]
        below = self.heavy.ends - np.cumsum(counts)  # other values below each heavy one
        shift = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cuts + shift[np.searchsorted(below, cuts, side="left")]

    def fill(self, gathered: Gathered) -> None:
        """Take the values of the wanted entries, which the methods below need."""
        ordered = self.ordered
        self._gathered = gathered
        self._chosen = ordered.action == GATHER
        self._ref_block = np.cumsum(np.where(self._chosen, ordered.ref, 0))
        self._cur_block = np.cumsum(np.where(self._chosen, ordered.cur, 0))

    def _value(self, rank: int) -> Any:
        """The reference's value of a 1-based rank, of a gathered or single entry."""
        i = int(np.searchsorted(self.ordered.ref_after, rank))
        if not self._chosen[i]:
            return self.ordered.single_value(i)
        from_end = int(self.ordered.ref_after[i]) - rank
        return self._gathered.ref[int(self._ref_block[i]) - from_end - 1].item()

    def _entry(self, value: Any) -> int:
        """Place of the entry that a value which one of the sides has lies in."""
        ordered, grid = self.ordered, self.ordered.grid
        if value in (-np.inf, np.inf):
            return 0 if value < 0 else ordered.ids.size - 1
        y = distances(np.array([value]), grid)
        cell = int(grid.cells(y)[0])
        atom = bisect_left(grid.atoms, value)
        wanted = cell
        if atom < len(grid.atoms) and int(grid.atom_cells[atom]) == cell:
            wanted = grid.n_cells + 3 + 2 * atom + int(grid.atoms[atom] == value)
        return int(np.flatnonzero(ordered.ids == wanted)[0])

    def _below(self, value: Any, *, equal: bool = False) -> tuple[int, int]:
        """Values of either side below `value` (which one of them has), with `equal` also equal."""
        return self._count(self._entry(value), value, equal=equal)

    def _count(self, i: int, value: Any, *, equal: bool = False) -> tuple[int, int]:
        ordered, result = self.ordered, []
        for after, counts, block, values in (
            (ordered.ref_after, ordered.ref, self._ref_block, self._gathered.ref),
            (ordered.cur_after, ordered.cur, self._cur_block, self._gathered.cur),
        ):
            before = int(after[i] - counts[i])
            if self._chosen[i]:
                stop = int(block[i])
                inside = values[stop - int(counts[i]) : stop]
                before += int(np.searchsorted(inside, value, side="right" if equal else "left"))
            elif equal:
                before += int(counts[i])
            result.append(before)
        return result[0], result[1]

    def outside(self) -> float:
        """Share of the current values below the reference's smallest or above its largest."""
        below = self._below(self._value(1))[1]
        upto = self._below(self._value(self.ordered.n), equal=True)[1]
        return (self.ordered.m - upto + below) / self.ordered.m

    def decile_bins(self) -> tuple[Integers, Integers]:
        """As `statistics.decile_counts`: the heavy values, then the bins of the others."""
        heavy = [
            np.subtract(self._below(value, equal=True), self._below(value))
            for value in self.heavy.values
        ]
        edges = list(dict.fromkeys(self._value(int(rank)) for rank in self._cuts))
        upto = []
        for edge in edges:
            counts = np.array(self._below(edge, equal=True))
            for value, count in zip(self.heavy.values, heavy, strict=True):
                if value <= edge:
                    counts = counts - count
            upto.append(counts)
        totals = np.array([self.ordered.n, self.ordered.m]) - sum(heavy, np.zeros(2, np.int64))
        bins = np.diff(np.array([np.zeros(2, np.int64), *upto, totals]), axis=0)
        table = np.concatenate([np.array(heavy, dtype=np.int64).reshape(-1, 2), bins])
        table = table[table.sum(axis=1) > 0].astype(np.int64)
        return table[:, 0], table[:, 1]

    def quantile_bins(self) -> tuple[Integers, Integers]:
        """Counts between the interpolated deciles of the reference.

        Edges are numpy's linear quantiles; equal ones are one, and a value on an edge belongs above.
        """
        below: dict[float, tuple[int, int]] = {}
        for position, rank in zip(self._positions, self._floors, strict=True):
            low, high = self._value(int(rank)), self._value(min(int(rank) + 1, self.ordered.n))
            edge = _interpolate(float(low), float(high), float(position - np.floor(position)))
            if edge not in below:
                below[edge] = self._below_edge(edge, int(rank), low, high)
        rows = np.array([(0, 0), *below.values(), (self.ordered.n, self.ordered.m)], dtype=np.int64)
        bins = np.diff(rows, axis=0)
        return bins[:, 0], bins[:, 1]

    def _below_edge(self, edge: float, rank: int, low: Any, high: Any) -> tuple[int, int]:
        """Values below an edge between the reference's values `low` (of `rank`) and `high`."""
        if edge == float(low):
            return self._below(low)
        if edge == float(high):
            return self._below(high)
        # Current values may lie between the two, in entries that are all gathered or single.
        ordered = self.ordered
        first = int(np.searchsorted(ordered.ref_after, rank))
        last = int(np.searchsorted(ordered.ref_after, rank + 1))
        current = int(ordered.cur_after[first] - ordered.cur[first])
        for i in range(first, last + 1):
            if self._chosen[i]:
                current += self._count(i, edge)[1] - int(ordered.cur_after[i] - ordered.cur[i])
            elif ordered.cur[i] and ordered.single_value(i) < edge:
                current += int(ordered.cur[i])
        return rank, current


def _interpolate(low: float, high: float, share: float) -> float:
    """numpy's linear rule between two order statistics."""
    if low == high or not np.isfinite(high - low):
        return low
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share
