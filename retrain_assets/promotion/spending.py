"""How much of an error may be spent at each look at data that keep coming.

Belongs here: group-sequential boundaries, pure arithmetic. Does not: what is looked at (`guard`).

Looking again and again at growing data finds a difference that is not there far more often than one
look does. A spending function says how much of the error alpha may have been used when a fraction t of
the planned data is in (Lan & DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
1983); looks may come at any t, and need not all be taken. The one used here is alpha t (Kim & DeMets,
"Design and analysis of group sequential tests based on the type I error spending rate function",
Biometrika 1987, rho = 1): about as ready to stop early as late.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrain_assets.promotion.quantiles import normal_cdf, normal_quantile

__all__ = ["next_alpha"]

_FloatArray = NDArray[np.float64]
_POINTS = 600
_FAR = 8.0
"""Standard deviations beyond which nothing is."""


def next_alpha(past: Sequence[tuple[float, float]], fraction: float, alpha: float) -> float:
    """The nominal one-sided level of a look, such that all looks together err with chance alpha.

    With the sum of the data so far as a Brownian motion B at times t, the chance to cross a boundary
    at the looks before is found by recursive integration (Armitage, McPherson & Rowe, "Repeated
    significance tests on accumulating data", JRSS A 1969), and the boundary of this look is the one
    at which the whole chance is alpha t. The level is applied to Student's t (the significance-level
    approach: Jennison & Turnbull, *Group Sequential Methods*, 2000, section 4.4).

    Args:
        past: (fraction, nominal level) of the looks before, fractions ascending in (0, 1).
        fraction: of the planned data that is in, above those of `past`, at most 1.
        alpha: chance of a false finding over all looks.

    Returns:
        The level of this look, in (0, alpha]; 0.0 where the looks before have spent everything that
        may be spent by now.

    >>> next_alpha([], 1.0, 0.05)
    0.05
    >>> first = next_alpha([], 0.5, 0.05)
    >>> first, round(next_alpha([(0.5, first)], 1.0, 0.05), 4)
    (0.025, 0.0354)
    """
    spent, grid, density = _before(tuple(past))
    due = alpha * fraction - spent
    if not past:
        return due
    if due <= 0 or fraction <= past[-1][0]:
        return 0.0
    spread = math.sqrt(fraction - past[-1][0])
    low, high = 0.0, _FAR
    for _ in range(50):
        middle = (low + high) / 2
        chance = _crossing(grid, density, spread, middle * math.sqrt(fraction))
        low, high = (middle, high) if chance > due else (low, middle)
    return 1.0 - normal_cdf(high)


@lru_cache(maxsize=256)
def _before(past: tuple[tuple[float, float], ...]) -> tuple[float, _FloatArray, _FloatArray]:
    """Chance that a look of `past` found something, and the density of B at the last, else."""
    if not past:
        return 0.0, np.zeros(0), np.zeros(0)
    (time, level), rest = past[-1], past[:-1]
    bound = normal_quantile(1 - level) * math.sqrt(time)
    here = np.linspace(-_FAR * math.sqrt(time), bound, _POINTS)
    if not rest:
        return level, here, _normal(here / math.sqrt(time)) / math.sqrt(time)
    spent, grid, density = _before(rest)
    spread = math.sqrt(time - rest[-1][0])
    steps = _normal((here[:, None] - grid) / spread) / spread
    found = _crossing(grid, density, spread, bound)
    return spent + found, here, np.asarray(np.trapezoid(steps * density, grid, axis=1))


def _crossing(grid: _FloatArray, density: _FloatArray, spread: float, bound: float) -> float:
    """Chance that the next value of B lies above `bound`."""
    from scipy.special import ndtr

    return float(np.trapezoid(density * ndtr((grid - bound) / spread), grid))


def _normal(x: _FloatArray) -> _FloatArray:
    return np.asarray(np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
