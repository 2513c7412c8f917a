"""Quantiles and tails of the distributions that the gate's intervals refer to.

Belongs here: functions of a few numbers, without scipy, which takes a third of a second to import
(`tests/unit/promotion/test_quantiles.py` compares them with it). Does not: statistics of data.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

__all__ = ["binomial_mid_p", "normal_cdf", "normal_quantile", "t_cdf", "t_quantile"]

_NORMAL = NormalDist()
_LARGE_DOF = 1e7


def normal_cdf(x: float) -> float:
    """P(Z <= x) of a standard normal Z."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """The x with P(Z <= x) = p, odd around p = 0.5; infinite at 0 and 1.

    >>> round(normal_quantile(0.95), 4)
    1.6449
    """
    if not 0 < p < 1:
        return math.copysign(math.inf, p - 0.5)
    return _NORMAL.inv_cdf(p) if p <= 0.5 else -_NORMAL.inv_cdf(1 - p)


def t_cdf(x: float, dof: float) -> float:
    """P(T <= x) of Student's t with `dof` > 0 degrees of freedom (need not be whole).

    By the incomplete beta function (Abramowitz & Stegun 26.7.1).
    """
    if dof >= _LARGE_DOF:
        return normal_cdf(x)
    tail = 0.5 * _incomplete_beta(dof / 2, 0.5, dof / (dof + x * x))
    return tail if x <= 0 else 1 - tail


@lru_cache(maxsize=4096)
def t_quantile(p: float, dof: float) -> float:
    """The x with P(T <= x) = p for Student's t, odd around p = 0.5.

    Newton's steps from the normal quantile, kept inside a bracket.

    >>> round(t_quantile(0.95, 13), 4)
    1.7709
    """
    if dof >= _LARGE_DOF or not 0 < p < 1:
        return normal_quantile(p)
    if p > 0.5:
        return -t_quantile(1 - p, dof)
    if p == 0.5:
        return 0.0
    log_norm = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    low, high = -1.0, 0.0
    while t_cdf(low, dof) > p:
        low, high = 2 * low, low
    x = max(low, min(high, normal_quantile(p)))
    for _ in range(200):
        error = t_cdf(x, dof) - p
        low, high = (low, x) if error > 0 else (x, high)
        density = math.exp(log_norm - (dof + 1) / 2 * math.log1p(x * x / dof))
        moved = x - error / density if density > 0 else low
        if not low <= moved <= high:
            moved = (low + high) / 2
        if abs(moved - x) <= 1e-13 * max(1.0, abs(x)):
            return moved
        x = moved
    return x


def binomial_mid_p(hits: int, trials: int) -> float:
    """P(X > hits) + P(X = hits) / 2 for X binomial with chance one half; 0.5 without trials.

    >>> round(binomial_mid_p(7, 8), 6)  # (1 + 8 / 2) / 256
    0.019531
    """
    if not trials:
        return 0.5
    k = np.arange(1, trials + 1, dtype=np.float64)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(k))])
    x = np.arange(hits, trials + 1)
    log_mass = (
        log_factorial[-1] - log_factorial[x] - log_factorial[trials - x] - trials * math.log(2)
    )
    mass = np.exp(log_mass)
    return float(mass[1:].sum() + mass[0] / 2)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz's method; DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    c, value = 1.0, d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + numerator / c
            c = c if abs(c) > tiny else tiny
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * value / a
