"""Two numeric columns compared exactly, in two passes and without sorting them.

Belongs here: Kolmogorov-Smirnov, Wasserstein, deciles and moments of two columns that can be read
twice. Does not: thresholds and p-values (`verdict`), stored profiles (`intervals`).

First pass: count both sides on one grid. At cell edges the difference D of the two distribution
functions is then exact. Inside a cell that holds shares p and q it lies between D - q and D + p, so
only cells whose bound exceeds the best edge can hold the Kolmogorov-Smirnov distance, and only
cells where D may change its sign need more than their sum for the Wasserstein distance. Second
pass: gather the values of those cells and of the deciles (a few percent), sort them, and sum the
others with the sign of D. The result is that of a full sort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.bars import histogram
from retrain_assets.drift.findings import Gathered, NumericFindings, Ordered
from retrain_assets.drift.grid import BITS, FINE_BITS, FINE_ROWS, Grid, choose_grid
from retrain_assets.drift.kernels import (
    GATHER,
    MINUS,
    PLUS,
    Counts,
    Values,
    count_values,
    distances,
    gather_values,
    inside,
)
from retrain_assets.drift.ranks import HeavyValues, Ranks

__all__ = ["Pieces", "compare_numbers", "deviation", "pooled_spread", "sample_of"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Pieces = Callable[[], Iterable[Values]]

SAMPLE = 8192
MAX_SORTED = 6_000_000


def compare_numbers(
    reference: Pieces,
    current: Pieces,
    grid: Grid | None = None,
    *,
    rows: int = 0,
    with_histogram: bool = False,
) -> NumericFindings:
    """Compare two columns exactly.

    Args:
        reference: gives the column piece by piece, from the start each time it is called.
        current: likewise; pieces of both sides are all of integers or all of floats.
        grid: by default chosen from a sample of the reference, of current where that has no value.
        rows: of the longer side, about; many get a finer grid.
        with_histogram: also count about 40 bars for a picture.

    Returns:
        The findings; nothing but `n` and `m` where a side has no value. Where more than MAX_SORTED
        values would have to be sorted (hundreds of millions of rows) the Wasserstein distance is
        a certified interval, narrower than a cell, so that memory stays bounded.
    """
    if grid is None:
        grid = choose_grid(sample_of(reference, current), FINE_BITS if rows > FINE_ROWS else BITS)
    sides = []
    for pieces in (reference, current):
        counts = Counts(grid)
        for piece in pieces():
            count_values(piece, counts)
        sides.append(counts)
    unit = _unit(*sides)
    scaled = None
    if unit != 1.0:
        # Sums that stay finite; ranks from the values as they are, the smallest of which vanish here.
        scaled = compare_numbers(
            _scaled(reference, unit), _scaled(current, unit), with_histogram=with_histogram
        )
    with np.errstate(over="ignore", invalid="ignore"):
        found = _compare_on(grid, sides, (reference, current), with_histogram)
    return found if scaled is None else _with_sums_of(found, _unscaled(scaled, unit))


def _compare_on(
    grid: Grid, sides: list[Counts], pieces: tuple[Pieces, Pieces], with_histogram: bool
) -> NumericFindings:
    reference, current = pieces
    ordered = _order(grid, sides[0], sides[1])
    found = NumericFindings(n=ordered.n, m=ordered.m)
    if not ordered.n or not ordered.m:
        return found
    _moments(found, ordered, *sides)
    ranks = Ranks(ordered, _heavy_values(reference, ordered))
    unsorted = _choose_actions(ordered, ranks.wanted())
    gathered = _gather(reference, current, ordered)
    found.gathered = gathered.ref.size + gathered.cur.size
    distance, area = _inside(ordered, gathered)
    edge = np.abs(_difference(ordered))
    ks = max(float(edge.max()), distance)
    found.ks = (ks, ks)
    if found.means is not None:
        wasserstein = max(0.0, area + _outside_gathered(ordered, gathered))
        found.wasserstein = (wasserstein, wasserstein + unsorted)
        found.exact = unsorted == 0
    ranks.fill(gathered)
    found.bins, found.quantile_bins = ranks.decile_bins(), ranks.quantile_bins()
    found.outside = ranks.outside()
    if with_histogram and found.means is not None:
        inner = slice(1, -1)  # without the infinities
        edges, *bars = histogram(
            ordered.lowers[inner], ordered.uppers[inner], ordered.ref[inner], ordered.cur[inner],
            integral=grid.integral,
        )  # fmt: skip
        found.histogram = (edges + float(grid.origin), bars[0], bars[1])
    return found


def _unit(*sides: Counts) -> float:
    """A power of two that values near the end of the range of floats must be divided by, else 1."""
    extremes = [abs(float(x)) for side in sides for x in (side.low, side.high) if x is not None]
    return 2.0**400 if max(extremes, default=0.0) > 1e300 else 1.0


def _scaled(pieces: Pieces, unit: float) -> Pieces:
    def scaled() -> Iterable[Values]:
        for piece in pieces():
            yield Values(piece.numbers.astype(np.float64) / unit, piece.bitmap, piece.offset)

    return scaled


def _with_sums_of(found: NumericFindings, other: NumericFindings) -> NumericFindings:
    """Ranks of the one, everything in the column's unit of the other."""
    return replace(
        found, wasserstein=other.wasserstein, means=other.means, lows=other.lows,
        highs=other.highs, deviation=other.deviation,
        current_deviation=other.current_deviation, spread=other.spread,
        histogram=other.histogram,
    )  # fmt: skip


def _unscaled(found: NumericFindings, unit: float) -> NumericFindings:
    """Back in the column's unit; what it cannot hold is infinite."""

    def pair(both: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if both is None else (both[0] * unit, both[1] * unit)

    found.wasserstein, found.means = pair(found.wasserstein), pair(found.means)
    found.lows, found.highs = pair(found.lows), pair(found.highs)
    found.deviation *= unit
    found.current_deviation *= unit
    found.spread *= unit
    if found.histogram is not None:
        edges, ref, cur = found.histogram
        found.histogram = (np.clip(edges, -1e180, 1e180) * unit, ref, cur)
    return found


def sample_of(*sides: Pieces) -> npt.NDArray[Any]:
    """Some thousand values of the first side that has any, spread over its first pieces."""
    sample: npt.NDArray[Any] = np.empty(0)
    for pieces in sides:
        parts: list[npt.NDArray[Any]] = []
        for piece in pieces():
            present = piece.thinned(max(1, piece.numbers.size // SAMPLE))
            if present.dtype.kind == "f":
                present = present[~np.isnan(present)]
            parts.append(present)
            if sum(part.size for part in parts) >= SAMPLE // 4:
                break
        if not sum(part.size for part in parts):  # rare values may all have been passed over
            parts = [piece.present()[:SAMPLE] for piece in pieces()]
            parts = [part[~np.isnan(part)] if part.dtype.kind == "f" else part for part in parts]
        sample = np.concatenate(parts) if parts else sample
        if sample.size:
            break
    return sample


def _order(grid: Grid, ref: Counts, cur: Counts) -> Ordered:
    cells = ref.used_cells(cur)
    base, n_atoms = grid.n_cells, len(grid.atoms)
    ids = cells
    uppers, lowers = grid.lower_edges(cells + 1), grid.lower_edges(cells)
    single = np.zeros(cells.size, dtype=bool)
    if n_atoms:
        atoms = np.arange(n_atoms)
        below, equal = base + 3 + 2 * atoms, base + 4 + 2 * atoms
        ids = np.concatenate([cells, below, equal])
        at = grid.atom_cells.astype(np.int64)
        ranks = np.concatenate([np.full(cells.size, 2 * n_atoms), 2 * atoms, 2 * atoms + 1])
        order = np.lexsort((ranks, np.concatenate([cells, at, at])))
        uppers = np.concatenate([uppers, grid.atom_distances, grid.atom_distances])[order]
        lowers = np.concatenate([lowers, grid.lower_edges(at), grid.atom_distances])[order]
        single = np.concatenate([single, np.zeros(n_atoms, bool), np.ones(n_atoms, bool)])[order]
        ids = ids[order]
        # What is below or above an atom begins at the atom before it.
        lowers[1:] = np.maximum(lowers[1:], np.where(single[:-1], uppers[:-1], -np.inf))
    ids = np.concatenate([[base + 1], ids, [base + 2]])
    uppers = np.concatenate([[-np.inf], uppers, [np.inf]])
    lowers = np.concatenate([[-np.inf], lowers, [np.inf]])
    single = np.concatenate([[True], single, [True]])
    counts = [side.at(ids) for side in (ref, cur)]
    used = (counts[0] + counts[1]) > 0
    used[0] = used[-1] = True
    return Ordered(
        grid, ids[used], counts[0][used], counts[1][used], lowers[used], uppers[used], single[used]
    )


def _moments(found: NumericFindings, ordered: Ordered, ref: Counts, cur: Counts) -> None:
    sizes = _finite_sizes(ordered)
    if not all(sizes):
        return
    origin = float(ordered.grid.origin)
    assert ref.low is not None
    assert ref.high is not None
    assert cur.low is not None
    assert cur.high is not None
    found.lows = (float(ref.low), float(cur.low))
    found.highs = (float(ref.high), float(cur.high))
    found.means = (origin + ref.sum / sizes[0], origin + cur.sum / sizes[1])
    found.deviation = deviation(ref, sizes[0])
    found.current_deviation = deviation(cur, sizes[1])
    extremes = [min(ref.low, cur.low), max(ref.high, cur.high)]
    ends = distances(np.array(extremes), ordered.grid)
    found.spread = pooled_spread(ordered.ref + ordered.cur, ordered.lowers, ordered.uppers, ends)


def deviation(side: Counts, size: int) -> float:
    """Standard deviation (ddof 0) of the finite values, in their unit."""
    if side.low == side.high:
        return 0.0
    mean = side.sum / size / side.grid.scale
    return sqrt(max(0.0, side.sum_squares / size - mean * mean)) * side.grid.scale


def pooled_spread(counts: Integers, lowers: Floats, uppers: Floats, ends: Floats) -> float:
    """Integral of sqrt(F (1 - F)) from counts of both sides in ordered entries, infinities first
    and last; `ends` are the finite extremes. Accurate to the width of the entries.
    """
    inner = counts[1:-1]
    total = int(inner.sum())
    if not total:
        return 0.0
    low, high = np.clip(lowers[1:-1], *ends), np.clip(uppers[1:-1], *ends)
    after = np.cumsum(inner) / total
    before = after - inner / total
    root = np.sqrt(np.maximum(0.0, after * (1 - after)))
    root_before = np.sqrt(np.maximum(0.0, before * (1 - before)))
    within = float(np.sum((high - low) * (root + root_before))) / 2
    return within + float(np.sum((low[1:] - high[:-1]) * root[:-1]))


def _finite_sizes(ordered: Ordered) -> tuple[int, int]:
    return (
        ordered.n - int(ordered.ref[0] + ordered.ref[-1]),
        ordered.m - int(ordered.cur[0] + ordered.cur[-1]),
    )


def _difference(ordered: Ordered) -> Floats:
    """F_ref - F_cur after each entry."""
    difference: Floats = np.cumsum(ordered.ref) / ordered.n - np.cumsum(ordered.cur) / ordered.m
    return difference


def _finite_difference(ordered: Ordered) -> Floats:
    """Likewise among the finite values; 0 at both infinities."""
    n, m = _finite_sizes(ordered)
    ref, cur = ordered.ref.copy(), ordered.cur.copy()
    ref[[0, -1]] = cur[[0, -1]] = 0
    difference: Floats = np.cumsum(ref) / n - np.cumsum(cur) / m
    return difference


def _choose_actions(ordered: Ordered, wanted: npt.NDArray[np.bool_]) -> float:
    """Gather what the bounds leave open; the sign of D for the rest.

    Returns:
        The most that entries which are too many to sort can add to the area, nearly always 0.
    """
    unsorted = 0.0
    after = _difference(ordered)
    before = np.concatenate([[0.0], after[:-1]])
    p, q = ordered.ref / ordered.n, ordered.cur / ordered.m
    best = np.abs(after).max()
    slack = 1e-12
    gather = (ordered.ref > 0) & (ordered.cur > 0)
    gather &= np.maximum(before + p, q - before) > best - slack
    gather |= wanted
    sign = np.zeros(ordered.ids.size, dtype=np.int8)
    if all(_finite_sizes(ordered)):
        n, m = _finite_sizes(ordered)
        finite_after = _finite_difference(ordered)
        finite_before = np.concatenate([[0.0], finite_after[:-1]])
        lowest, highest = finite_before - ordered.cur / m, finite_before + ordered.ref / n
        open_entries = (lowest < -slack) & (highest > slack) & ~gather & ~ordered.single
        if int((ordered.ref + ordered.cur)[open_entries].sum()) > MAX_SORTED:
            width = np.diff(ordered.uppers, prepend=-np.inf)[open_entries]
            most = np.maximum(-lowest, highest)[open_entries]
            unsorted = float(np.sum(width * most))
        else:
            gather |= open_entries
        middle = finite_before + finite_after
        sign = np.where(middle > 0, PLUS, np.where(middle < 0, MINUS, 0)).astype(np.int8)
    ordered.action = np.where(gather, GATHER, sign).astype(np.int8)
    ordered.action[ordered.single] = 0
    if unsorted:
        ordered.action[open_entries & ~gather] = 0
    return unsorted


def _gather(reference: Pieces, current: Pieces, ordered: Ordered) -> Gathered:
    actions = np.zeros(ordered.grid.n_entries, dtype=np.int8)
    actions[ordered.ids] = ordered.action
    chosen = ordered.action == GATHER
    parts, sums = [], []
    for pieces, counts in ((reference, ordered.ref), (current, ordered.cur)):
        values, total = gather_values(pieces(), ordered.grid, actions, int(counts[chosen].sum()))
        parts.append(np.sort(values))
        sums.append(total)
    return Gathered(parts[0], parts[1], (sums[0], sums[1]))


def _heavy_values(reference: Pieces, ordered: Ordered) -> HeavyValues:
    """Values that alone hold a tenth of the reference.

    Nearly always entries of their own; an entry of several values that holds so much (the sample
    missed a frequent value, or there are few rows) is gathered once more to look.
    """
    heavy = ordered.heavy
    holds = ordered.ref >= heavy
    rows = [
        (int(ordered.ref_after[i]), ordered.single_value(i), int(ordered.ref[i]))
        for i in np.flatnonzero(holds & ordered.single).tolist()
    ]
    several = holds & ~ordered.single
    if several.any():
        actions = np.zeros(ordered.grid.n_entries, dtype=np.int8)
        actions[ordered.ids[several]] = GATHER
        expected = int(ordered.ref[several].sum())
        values, _ = gather_values(reference(), ordered.grid, actions, expected)
        distinct, counts = np.unique(values, return_counts=True)
        ends = np.cumsum(counts)
        # Values of several entries lie one after the other; shift each to its entry's rank.
        sizes = ordered.ref[several]
        shift = ordered.ref_after[several] - np.cumsum(sizes)
        place = np.searchsorted(np.cumsum(sizes), ends)
        rows += [
            (int(ends[k] + shift[place[k]]), distinct[k].item(), int(counts[k]))
            for k in np.flatnonzero(counts >= heavy).tolist()
        ]
    rows.sort()
    return HeavyValues(
        [row[1] for row in rows],
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[0] for row in rows], dtype=np.int64),
    )


def _outside_gathered(ordered: Ordered, gathered: Gathered) -> float:
    """The area |F_ref - F_cur| over all entries that were not gathered, in distances.

    Over an entry from a to b without change of sign the integral of D is D(b) b - D(a) a less the
    difference of the sides' sums over their sizes.
    """
    after = _finite_difference(ordered)
    before = np.concatenate([[0.0], after[:-1]])
    inside = slice(1, -1)
    uppers = ordered.uppers[inside]
    ends = np.where(after[inside] == 0, 0.0, uppers)
    starts = np.concatenate([[0.0], ends[:-1]])
    action = ordered.action[inside]
    sign = (action == PLUS).astype(np.float64) - (action == MINUS)
    n, m = _finite_sizes(ordered)
    edges = float(np.sum(sign * (after[inside] * ends - before[inside] * starts)))
    # D is constant up to the value of a single one, where it jumps.
    single = ordered.single[inside]
    edges += float(np.sum((np.abs(before[inside]) * np.maximum(0.0, uppers - starts))[single]))
    return edges - (gathered.sums[0] / n - gathered.sums[1] / m)


def _inside(ordered: Ordered, gathered: Gathered) -> tuple[float, float]:
    """Largest |F_ref - F_cur| within the gathered entries, and the area there, in distances."""
    chosen = np.flatnonzero(ordered.action == GATHER)
    if not chosen.size:
        return 0.0, 0.0
    finite = _finite_sizes(ordered)
    after = _finite_difference(ordered) if all(finite) else np.zeros(ordered.ids.size)
    before = np.concatenate([[0.0], after[:-1]])[chosen]
    begins = ordered.uppers[chosen - 1]
    begins = np.where(np.isfinite(begins) & (before != 0), begins, np.inf)
    ends = np.where(after[chosen] == 0, -np.inf, ordered.uppers[chosen])
    level = np.concatenate([[0.0], _difference(ordered)[:-1]])[chosen]
    found = inside(
        gathered.ref, gathered.cur, ordered.grid, (ordered.ref[chosen], ordered.cur[chosen]),
        (level, before), (begins, ends),
        (ordered.n, ordered.m, max(1, finite[0]), max(1, finite[1])),
    )  # fmt: skip
    if found is not None:
        return found[0], found[1] if all(finite) else 0.0
    return _inside_in_numpy(ordered, gathered, chosen)


def _inside_in_numpy(ordered: Ordered, gathered: Gathered, chosen: Integers) -> tuple[float, float]:
    values = np.concatenate([gathered.ref, gathered.cur])
    order = np.argsort(values, kind="stable")  # merges two sorted runs
    is_ref = order < gathered.ref.size
    values = values[order]
    sizes = ordered.ref[chosen] + ordered.cur[chosen]
    starts = np.cumsum(sizes) - sizes
    y = distances(values, ordered.grid)
    last = np.empty(values.size, dtype=bool)  # of a run of equal values
    last[:-1] = values[1:] != values[:-1]
    last[-1] = True
    largest = 0.0
    levels = _levels(is_ref, starts, sizes, _difference(ordered), chosen, (ordered.n, ordered.m))
    if last.any():
        largest = float(np.abs(levels[last]).max())
    finite = _finite_sizes(ordered)
    if not all(finite):
        return largest, 0.0
    after = _finite_difference(ordered)
    levels = _levels(is_ref, starts, sizes, after, chosen, finite)
    ends = np.where(np.isfinite(ordered.uppers[chosen]), ordered.uppers[chosen], 0.0)
    following = np.append(y[1:], 0.0)
    stops = starts + sizes - 1
    # After the last value of an entry D is what it is at the entry's edge; 0 beyond all values.
    following[stops] = np.where(after[chosen] == 0, y[stops], ends)
    area = float(np.sum(np.abs(levels) * np.maximum(0.0, following - y)))
    before = np.abs(np.concatenate([[0.0], after[:-1]])[chosen])
    begin = ordered.uppers[chosen - 1]
    begin = np.where(np.isfinite(begin) & (before > 0), begin, y[starts])
    return largest, area + float(np.sum(before * np.maximum(0.0, y[starts] - begin)))


def _levels(
    is_ref: npt.NDArray[np.bool_],
    starts: Integers,
    sizes: Integers,
    after: Floats,
    chosen: Integers,
    totals: tuple[int, int],
) -> Floats:
    """F_ref - F_cur after each gathered value."""
    before = np.concatenate([[0.0], after[:-1]])[chosen]
    levels: Floats = np.repeat(before, sizes)
    for mine, total, sign in ((is_ref, totals[0], 1), (~is_ref, totals[1], -1)):
        after_each: Integers = np.cumsum(mine)
        at_start: Integers = after_each[starts] - mine[starts]
        levels += sign * ((after_each - np.repeat(at_start, sizes)) / total)
    return levels
