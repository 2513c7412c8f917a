"""What the comparison of two numeric columns passes between its steps.

Belongs here: plain containers. Does not: any computation beyond cumulative sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.grid import Grid

__all__ = ["N_BINS", "Gathered", "NumericFindings", "Ordered"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

N_BINS = 10
"""Deciles."""


@dataclass
class NumericFindings:
    """What two numeric columns differ in, in the column's own unit.

    Attributes:
        n: non-null values of the reference, NaN being null; infinities count.
        m: likewise of the current side.
        ks: bounds of the Kolmogorov-Smirnov distance; equal where exact.
        wasserstein: bounds of the Wasserstein distance of the finite values; None where a side has
            none.
        deviation: standard deviation (ddof 0) of the reference's finite values.
        current_deviation: likewise of the current side.
        spread: integral of sqrt(F (1 - F)) over both sides together, see `wasserstein_noise`.
        means: of the finite values, per side.
        lows: smallest finite values.
        highs: largest finite values.
        bins: counts in the reference's deciles per side, see `statistics.decile_counts`.
        quantile_bins: counts between the reference's interpolated deciles, which the Jensen-Shannon
            and Hellinger distances are over.
        outside: share of current values beyond the reference's extremes.
        histogram: edges (k + 1,) and counts (k,) per side, for pictures.
        exact: whether everything is; else `ks` and `wasserstein` are certified bounds.
        gathered: values that had to be sorted.
    """

    n: int = 0
    m: int = 0
    ks: tuple[float, float] = (0.0, 0.0)
    wasserstein: tuple[float, float] | None = None
    deviation: float = 0.0
    current_deviation: float = 0.0
    spread: float = 0.0
    means: tuple[float, float] | None = None
    lows: tuple[float, float] | None = None
    highs: tuple[float, float] | None = None
    bins: tuple[Integers, Integers] | None = None
    quantile_bins: tuple[Integers, Integers] | None = None
    outside: float = 0.0
    histogram: tuple[Floats, Integers, Integers] | None = None
    exact: bool = True
    gathered: int = 0


@dataclass
class Ordered:
    """Both sides' counts per occupied entry of a grid, in order of value.

    The first entry is -inf and the last +inf, occupied or not.

    Attributes:
        grid: what the entries are of.
        ids: entry numbers.
        ref: values of the reference.
        cur: values of the current side.
        lowers: least distance from the origin that the entry may hold.
        uppers: a distance between the entry and the next.
        single: whether the entry is of one value only, an atom or an infinity.
        action: per entry, see `kernels.gather_values`; set once it is decided.
    """

    grid: Grid
    ids: Integers
    ref: Integers
    cur: Integers
    lowers: Floats
    uppers: Floats
    single: npt.NDArray[np.bool_]
    action: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, dtype=np.int8))

    @cached_property
    def ref_after(self) -> Integers:
        """Values of the reference up to and with each entry."""
        return np.cumsum(self.ref)

    @cached_property
    def cur_after(self) -> Integers:
        """Values of the current side up to and with each entry."""
        return np.cumsum(self.cur)

    @property
    def n(self) -> int:
        """Values of the reference."""
        return int(self.ref_after[-1])

    @property
    def m(self) -> int:
        """Values of the current side."""
        return int(self.cur_after[-1])

    @property
    def heavy(self) -> float:
        """Count from which a value of the reference is a decile bin of its own."""
        return max(2.0, self.n / N_BINS)

    def single_value(self, place: int) -> Any:
        """The value of an entry that is `single`."""
        entry = int(self.ids[place]) - self.grid.n_cells
        if entry in (1, 2):
            return -np.inf if entry == 1 else np.inf
        return self.grid.atoms[(entry - 4) // 2]


@dataclass
class Gathered:
    """Values of the gathered entries, sorted, and the signed sums of the others."""

    ref: npt.NDArray[Any]
    cur: npt.NDArray[Any]
    sums: tuple[float, float]
