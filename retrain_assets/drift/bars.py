"""Histograms for pictures, from counts per entry of a grid.

Belongs here: which bars. Does not: statistics, whose bins have nothing to do with what is drawn.
"""

from __future__ import annotations

import numpy as np

from retrain_assets.drift.findings import Floats, Integers

__all__ = ["histogram"]

N_BARS = 40


def histogram(
    lowers: Floats, uppers: Floats, ref: Integers, cur: Integers, *, integral: bool
) -> tuple[Floats, Integers, Integers]:
    """Equal bars over the central 99% of both sides, the rest counted in the outer ones.

    An entry counts where its middle is. Bars of whole numbers hold equally many of them, one or
    more: any other width would draw a comb of full and empty bars.

    Args:
        lowers: shape (k,), least value of each entry, in order.
        uppers: shape (k,), where the entry ends; it may be infinite.
        ref: shape (k,), the reference's counts.
        cur: shape (k,), the current side's; on either side at least one value.
        integral: whether all values are whole numbers.

    Returns:
        Edges, shape (b + 1,), and counts per side, shape (b,); at most 40 bars.

    >>> whole = np.arange(3.0)
    >>> counts = np.array([5, 0, 5]), np.array([0, 10, 0])
    >>> [side.tolist() for side in histogram(whole, whole + 1, *counts, integral=True)]
    [[-0.5, 0.5, 1.5, 2.5], [5, 0, 5], [0, 10, 0]]
    """
    both = ref / max(1, ref.sum()) + cur / max(1, cur.sum())
    share = np.cumsum(both) / both.sum()
    first, last = np.searchsorted(share, [0.005, 0.995]).clip(max=share.size - 1).tolist()
    low, high = float(lowers[first]), float(uppers[last])
    with np.errstate(invalid="ignore"):
        places = (lowers + uppers) / 2
        if integral:
            places = np.where(uppers - lowers < 1.5, np.ceil(lowers), np.rint(places))
            low, high = float(places[first]), float(places[last])
    if integral and np.isfinite([low, high]).all() and high - low < 2**52:
        step = float(np.ceil((high - low + 1) / N_BARS))
        edges = low - 0.5 + step * np.arange(np.ceil((high - low + 1) / step) + 1)
    else:
        if not np.isfinite([low, high]).all() or not low < high:
            low = low if np.isfinite(low) else 0.0
            low, high = low - max(1.0, abs(low) / 100), low + max(1.0, abs(low) / 100)
        edges = np.linspace(low, high, N_BARS + 1)
    n_bars = edges.size - 1
    bars = np.searchsorted(edges, np.nan_to_num(places), side="right") - 1
    bars = bars.clip(0, n_bars - 1)
    counts = [
        np.bincount(bars, weights=side, minlength=n_bars).astype(np.int64) for side in (ref, cur)
    ]
    return edges, counts[0], counts[1]
