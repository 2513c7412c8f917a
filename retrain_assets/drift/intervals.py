"""Two numeric profiles compared: counts exactly, distances as certified intervals.

Belongs here: Kolmogorov-Smirnov and Wasserstein bounds from counts per entry, decile bins that
follow entry edges. Does not: exact comparison of values (`exact`).

An entry says that its values lie between two edges, no more. Every distribution function that fits
lies between two steps, so both distances lie between two numbers; the true ones always do, whatever
the data. On one grid the counts of both sides are aligned, the lower Kolmogorov-Smirnov bound is
the exact difference at the edges, and the interval is as wide as one entry's share.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.bars import histogram
from retrain_assets.drift.exact import pooled_spread
from retrain_assets.drift.findings import N_BINS, NumericFindings
from retrain_assets.drift.grid import Grid
from retrain_assets.drift.profile import NumericProfile

__all__ = ["compare_profiles"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class _Steps:
    """Counts between edges, in order of value: lowest and highest value of each, and whether one."""

    def __init__(self, keys: Integers, counts: Integers, lows: Floats, highs: Floats) -> None:
        self.keys, self.counts, self.lows, self.highs = keys, counts, lows, highs


def compare_profiles(
    reference: NumericProfile, current: NumericProfile, *, with_histogram: bool = False
) -> NumericFindings:
    """Compare two profiles of a column.

    Returns:
        The findings, in the column's unit; `ks` and `wasserstein` are certified bounds. Nothing but
        `n` and `m` where a side has no value. Bins are exact counts between edges near the deciles
        where both have the same grid, else the current side's are rounded to the reference's edges.
    """
    found = NumericFindings(n=reference.n, m=current.n, exact=False)
    if not found.n or not found.m:
        return found
    same = reference.grid == current.grid
    level = max(reference.level, current.level)
    if same:
        reference, current = reference.coarsened(level), current.coarsened(level)
        ref, cur = _aligned(_steps(reference), _steps(current))
    else:
        ref, cur = _values(reference), _values(current)
    outer = (reference.infinite, current.infinite)
    found.ks = (_ks_aligned if same else _ks_apart)(ref, cur, outer, found.n, found.m)
    if reference.finite and current.finite:
        _moments(found, reference, current)
        bounds = _area_aligned(ref, cur) if same else _area_apart(ref, cur)
        assert found.means is not None
        shift = abs(found.means[0] - found.means[1])
        rounding = 1e-12 * max(abs(x) for x in found.means)
        found.wasserstein = (max(bounds[0], shift - rounding), max(bounds[1], shift))
    if not same:
        ref, cur = _on_edges(ref, cur)
    found.spread = _spread(ref, cur)
    found.bins = found.quantile_bins = _decile_bins(ref, cur, outer)
    found.outside = _outside(reference, current, ref, cur)
    if with_histogram and found.means is not None:
        origin = float(reference.grid.origin) if same else 0.0
        edges, *bars = histogram(
            ref.lows, ref.highs, ref.counts, cur.counts,
            integral=reference.grid.integral and current.grid.integral,
        )  # fmt: skip
        found.histogram = (edges + origin, bars[0], bars[1])
    return found


def _steps(profile: NumericProfile) -> _Steps:
    """Entries and atoms in order, edges as distances from the origin, cut at the extremes."""
    grid, level, n_atoms = profile.grid, profile.level, len(profile.grid.atoms)
    span = 2 * n_atoms + 2
    atoms = grid.atom_distances
    bounded = np.concatenate([[-np.inf], atoms, [np.inf]])
    lows = np.maximum(grid.lower_edges(profile.cells << level), bounded[profile.ranks])
    uppers = grid.lower_edges((profile.cells + 1) << level)
    highs = np.minimum(
        np.where((profile.cells + 1) << level >= grid.n_cells, np.inf, uppers),
        bounded[profile.ranks + 1],
    )
    some = np.flatnonzero(profile.atom_counts)
    at = grid.atom_cells.astype(np.int64)[some] >> level
    keys = np.concatenate([profile.cells * span + 2 * profile.ranks, at * span + 2 * some + 1])
    order = np.argsort(keys, kind="stable")
    steps = _Steps(
        keys[order],
        np.concatenate([profile.counts, profile.atom_counts[some]])[order],
        np.concatenate([lows, atoms[some]])[order],
        np.concatenate([highs, atoms[some]])[order],
    )
    if profile.low is not None and profile.high is not None:
        # One rounding of slack: the extremes are exact, their distances are rounded.
        low, high = _distance(grid, profile.low), _distance(grid, profile.high)
        steps.lows, steps.highs = np.clip(steps.lows, low, high), np.clip(steps.highs, low, high)
    return steps


def _distance(grid: Grid, value: float | int) -> float:
    return float(value - grid.origin)


def _aligned(ref: _Steps, cur: _Steps) -> tuple[_Steps, _Steps]:
    """Both on the union of their entries; edges as wide as either's."""
    keys = np.union1d(ref.keys, cur.keys)
    lows, highs = np.full(keys.size, np.inf), np.full(keys.size, -np.inf)
    counts = []
    for side in (ref, cur):
        place = np.searchsorted(keys, side.keys)
        held = np.zeros(keys.size, dtype=np.int64)
        held[place] = side.counts
        counts.append(held)
        lows[place] = np.minimum(lows[place], side.lows)
        highs[place] = np.maximum(highs[place], side.highs)
    return _Steps(keys, counts[0], lows, highs), _Steps(keys, counts[1], lows, highs)


def _values(profile: NumericProfile) -> _Steps:
    """Edges as values, wider by what rounding may have moved them."""
    steps = _steps(profile)
    origin = float(profile.grid.origin)
    slack = 4e-16 * (np.abs(steps.lows) + np.abs(steps.highs) + 2 * abs(origin))
    single = steps.lows == steps.highs
    slack = np.where(single & (abs(origin) < 2**53), 0.0, slack)
    return _Steps(
        steps.keys, steps.counts, steps.lows + origin - slack, steps.highs + origin + slack
    )


Outer = tuple[tuple[int, int], tuple[int, int]]


def _ks_aligned(ref: _Steps, cur: _Steps, outer: Outer, n: int, m: int) -> tuple[float, float]:
    after_ref = (outer[0][0] + np.cumsum(ref.counts)) / n
    after_cur = (outer[1][0] + np.cumsum(cur.counts)) / m
    before_ref, before_cur = after_ref - ref.counts / n, after_cur - cur.counts / m
    edge = abs(outer[0][0] / n - outer[1][0] / m)
    lowest = max(edge, float(np.abs(after_ref - after_cur).max(initial=0.0)))
    several = ref.lows < ref.highs
    apart = np.maximum(after_ref - before_cur, after_cur - before_ref)[several]
    return lowest, min(1.0, max(lowest, float(apart.max(initial=0.0))))


def _area_aligned(ref: _Steps, cur: _Steps) -> tuple[float, float]:
    n, m = int(ref.counts.sum()), int(cur.counts.sum())
    p, q = ref.counts / n, cur.counts / m
    after = np.cumsum(ref.counts) / n - np.cumsum(cur.counts) / m
    before = np.concatenate([[0.0], after[:-1]])
    width = ref.highs - ref.lows
    least = np.maximum(0.0, np.maximum(before - q, -(before + p)))
    most = np.maximum(np.abs(before - q), np.abs(before + p))
    gaps = float(np.sum(np.abs(after[:-1]) * np.maximum(0.0, ref.lows[1:] - ref.highs[:-1])))
    return gaps + float(np.sum(width * least)), gaps + float(np.sum(width * most))


def _bounds_at(steps: _Steps, points: Floats, before: int, total: int) -> tuple[Floats, Floats]:
    """Least and greatest share of values up to each point."""
    after = np.concatenate([[0], np.cumsum(steps.counts)])
    least = after[np.searchsorted(steps.highs, points, side="right")]
    most = after[np.searchsorted(steps.lows, points, side="right")]
    return (before + least) / total, (before + most) / total


def _monotone(steps: _Steps) -> _Steps:
    """Slack may have put neighbouring edges out of order by a rounding."""
    return _Steps(
        steps.keys, steps.counts, np.minimum.accumulate(steps.lows[::-1])[::-1],
        np.maximum.accumulate(steps.highs),
    )  # fmt: skip


def _ks_apart(ref: _Steps, cur: _Steps, outer: Outer, n: int, m: int) -> tuple[float, float]:
    ref, cur = _monotone(ref), _monotone(cur)
    points = np.unique(np.concatenate([ref.lows, ref.highs, cur.lows, cur.highs]))
    least, most = _bounds_at(ref, points, outer[0][0], n)
    least_cur, most_cur = _bounds_at(cur, points, outer[1][0], m)
    lowest = float(np.maximum(least - most_cur, least_cur - most).max(initial=0.0))
    lowest = max(lowest, abs(outer[0][0] / n - outer[1][0] / m))
    # Just below a point where values of one side end none of them need have come.
    strictly = np.nextafter(points, -np.inf)
    least_before, _ = _bounds_at(ref, strictly, outer[0][0], n)
    least_cur_before, _ = _bounds_at(cur, strictly, outer[1][0], m)
    highest = float(np.maximum(most - least_cur_before, most_cur - least_before).max(initial=0.0))
    return lowest, min(1.0, max(lowest, highest))


def _area_apart(ref: _Steps, cur: _Steps) -> tuple[float, float]:
    ref, cur = _monotone(ref), _monotone(cur)
    points = np.unique(np.concatenate([ref.lows, ref.highs, cur.lows, cur.highs]))
    least, most = _bounds_at(ref, points, 0, int(ref.counts.sum()))
    least_cur, most_cur = _bounds_at(cur, points, 0, int(cur.counts.sum()))
    width = np.diff(points)
    low = np.maximum(0.0, np.maximum(least - most_cur, least_cur - most))[:-1]
    high = np.maximum(most - least_cur, most_cur - least)[:-1]
    return float(np.sum(width * low)), float(np.sum(width * high))


def _on_edges(ref: _Steps, cur: _Steps) -> tuple[_Steps, _Steps]:
    """The current side's entries put where their middles fall among the reference's."""
    middles = (cur.lows + cur.highs) / 2
    edges = np.unique(np.concatenate([ref.highs, middles]))
    place_ref, place_cur = np.searchsorted(edges, ref.highs), np.searchsorted(edges, middles)
    start = min([*ref.lows[:1].tolist(), *middles[:1].tolist()], default=0.0)
    lows = np.concatenate([[start], edges[:-1]])
    counts = [
        np.bincount(place, weights=side.counts, minlength=edges.size).astype(np.int64)
        for place, side in ((place_ref, ref), (place_cur, cur))
    ]
    keys = np.arange(edges.size)
    return _Steps(keys, counts[0], lows, edges), _Steps(keys, counts[1], lows, edges)


def _moments(found: NumericFindings, ref: NumericProfile, cur: NumericProfile) -> None:
    assert ref.low is not None
    assert ref.high is not None
    assert cur.low is not None
    assert cur.high is not None
    found.means = (ref.mean, cur.mean)
    found.deviation = ref.deviation
    found.current_deviation = cur.deviation
    found.lows = (float(ref.low), float(cur.low))
    found.highs = (float(ref.high), float(cur.high))


def _spread(ref: _Steps, cur: _Steps) -> float:
    counts = np.concatenate([[0], ref.counts + cur.counts, [0]])
    if counts.size == 2:
        return 0.0
    ends = np.array([ref.lows[0], ref.highs[-1]])
    padded = [np.concatenate([[-np.inf], edges, [np.inf]]) for edges in (ref.lows, ref.highs)]
    return pooled_spread(counts, padded[0], padded[1], ends)


def _decile_bins(ref: _Steps, cur: _Steps, outer: Outer) -> tuple[Integers, Integers]:
    """Heavy single values, then bins of the others that end at the edge after each decile."""
    counts = [
        np.concatenate([[ends[0]], side.counts, [ends[1]]])
        for side, ends in ((ref, outer[0]), (cur, outer[1]))
    ]
    single = np.concatenate([[True], ref.lows == ref.highs, [True]])
    n = int(counts[0].sum())
    heavy = single & (counts[0] >= max(2.0, n / N_BINS))
    rest = np.where(heavy, 0, counts[0])
    n_bins = max(1, round(N_BINS * int(rest.sum()) / n))
    cuts = np.ceil(rest.sum() * np.arange(1, n_bins) / n_bins)
    ends = np.unique(np.searchsorted(np.cumsum(rest), cuts[cuts > 0]))
    bins = np.searchsorted(ends, np.arange(rest.size), side="left")
    sides = []
    for side in counts:
        others = np.bincount(bins, weights=np.where(heavy, 0, side), minlength=ends.size + 1)
        sides.append(np.concatenate([side[heavy], others.astype(np.int64)]))
    used = (sides[0] + sides[1]) > 0
    return sides[0][used], sides[1][used]


def _outside(ref: NumericProfile, cur: NumericProfile, ref_steps: _Steps, steps: _Steps) -> float:
    """Share of current values beyond the reference's extremes, to the width of an entry."""
    beyond = 0 if ref.infinite[0] else cur.infinite[0]
    beyond += 0 if ref.infinite[1] else cur.infinite[1]
    held = np.flatnonzero(ref_steps.counts)
    if held.size:
        beyond += int(steps.counts[: held[0]].sum()) if not ref.infinite[0] else 0
        beyond += int(steps.counts[held[-1] + 1 :].sum()) if not ref.infinite[1] else 0
    return beyond / cur.n
