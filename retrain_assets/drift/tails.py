"""P-values without scipy, whose import costs more than a whole comparison.

Belongs here: upper tails of the Kolmogorov, two-sample Smirnov, chi-square and hypergeometric
distributions. Does not: the statistics (`statistics`). scipy is the reference in the tests.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, erfc, exp, inf, lgamma, log, log1p, pi, sqrt

import numpy as np
import numpy.typing as npt

__all__ = [
    "EXACT_PRODUCT", "chi_square_tail", "fisher_two_sided", "kolmogorov_tail", "smirnov_exact",
    "smirnov_p_value",
]  # fmt: skip

Floats = npt.NDArray[np.float64]

EXACT_PRODUCT = 1_000_000
"""Up to n * m = this a Smirnov p-value below 0.5 is exact (up to 15 ms)."""


def kolmogorov_tail(x: float) -> float:
    """P(K >= x) of Kolmogorov's limit distribution, in [0, 1].

    2 sum (-1)^(k-1) exp(-2 k^2 x^2), for small x by its theta transform; relative error 1e-14.

    Source: Kolmogorov 1933; Marsaglia, Tsang and Wang, "Evaluating Kolmogorov's distribution", 2003.

    >>> round(kolmogorov_tail(1.36), 4)
    0.0495
    """
    if x < 0.18:
        return 1.0
    if x < 1.0:
        factor = sqrt(2 * pi) / x
        terms = (exp(-((2 * k - 1) ** 2) * pi * pi / (8 * x * x)) for k in range(1, 8))
        return min(1.0, max(0.0, 1.0 - factor * sum(terms)))
    total = sum((1.0 if k % 2 else -1.0) * exp(-2 * k * k * x * x) for k in range(1, 12))
    return min(1.0, 2 * total)


def smirnov_p_value(distance: float, n: int, m: int) -> float:
    """P(D >= distance) of two samples of n and m values from one continuous distribution.

    Exact where it is below 0.5 and n * m <= EXACT_PRODUCT, else by the limit law, which is
    conservative; with ties both are. In [0, 1].

    Source: Smirnov 1939; Hodges, "The significance probability of the Smirnov two-sample test", 1958.

    >>> round(smirnov_p_value(0.8, 4, 5), 6)
    0.079365
    """
    limit = kolmogorov_tail(distance * sqrt(n / (n + m) * m))
    # The limit is conservative: where it is below 0.5 the exact value is too, but not the reverse.
    if n * m <= EXACT_PRODUCT and limit < 0.9:
        return smirnov_exact(distance, n, m)
    return limit


@lru_cache(maxsize=4096)
def smirnov_exact(distance: float, n: int, m: int) -> float:
    """The same, exact at every size; n * m additions.

    Of all paths from (0, 0) to (n, m), the share that touches |i / n - j / m| >= distance. Shares
    only add up, so a small one is as exact as a large one.
    """
    n, m = min(n, m), max(n, m)
    limit = round(distance * n * m)
    if limit <= 0:
        return 1.0
    # Row i holds counts times i! m! / (i + m)!; outside the band all paths have left it.
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + m + 1)))])

    def everything(i: int, j: npt.NDArray[np.int64]) -> Floats:
        scale = log_factorial[m] - log_factorial[i + m]
        found: Floats = np.exp(log_factorial[i + j] - log_factorial[j] + scale)
        return found

    high = min(m, ceil(limit / n) - 1)
    row = np.zeros(m + 1)
    for i in range(1, n + 1):
        low_now = max(0, (i * m - limit) // n + 1)
        high_now = min(m, -((-i * m - limit) // n) - 1)
        if low_now > high_now:
            return 1.0
        if high_now > high:
            row[high + 1 : high_now + 1] = everything(i - 1, np.arange(high + 1, high_now + 1))
        part = np.cumsum(row[low_now : high_now + 1] * (i / (i + m)))
        if low_now:
            part += everything(i, np.array([low_now - 1]))
        row[low_now : high_now + 1] = part
        high = high_now
    return min(1.0, float(row[m]))


def chi_square_tail(statistic: float, dof: int) -> float:
    """P(X >= statistic) of the chi-square distribution, in [0, 1]; relative error 1e-10.

    The regularised incomplete gamma function Q(dof / 2, statistic / 2) by its series below the
    mean and its continued fraction above.

    Source: Press et al., "Numerical Recipes", 2007, section 6.2.

    >>> round(chi_square_tail(3.841459, 1), 6)
    0.05
    """
    if statistic <= 0 or dof <= 0:
        return 1.0
    if statistic == inf:
        return 0.0
    a, x = dof / 2, statistic / 2
    log_front = a * log(x) - x - lgamma(a)
    if x < a + 1:
        term = total = 1 / a
        k = a
        while term > total * 1e-16:
            k += 1
            term *= x / k
            total += term
        return max(0.0, 1.0 - total * exp(log_front))
    b = x + 1 - a
    c, d = 1e300, 1 / b
    fraction = d
    for i in range(1, 100_000):
        numerator = -i * (i - a)
        b += 2
        d = numerator * d + b
        c = b + numerator / c
        d = 1 / (d if abs(d) > 1e-300 else 1e-300)
        c = c if abs(c) > 1e-300 else 1e-300
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(1.0, exp(log_front) * fraction) if log_front > -745 else 0.0


def fisher_two_sided(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    """Fisher's exact test: total probability of tables no likelier than the one seen, in [0, 1].

    Tables more than 40 standard deviations from the mode weigh less than 1e-300 and are left out;
    where the one seen is one of them the p-value is bounded by Chernoff's inequality.

    Source: Fisher, "Statistical methods for research workers", 1934, section 21.02.

    >>> round(fisher_two_sided(0, 100, 8, 100), 4)
    0.0068
    """
    total, marked = n_a + n_b, successes_a + successes_b
    low, high = max(0, marked - n_b), min(marked, n_a)
    if low == high:
        return 1.0
    mode = min(high, max(low, (marked + 1) * (n_a + 1) // (total + 2)))
    share = marked / total
    spread = sqrt(max(1.0, n_a * share * (1 - share) * (n_b / max(1, total - 1))))
    width = int(40 * spread) + 50
    first, last = max(low, mode - width), min(high, mode + width)
    if not first <= successes_a <= last:
        return _chernoff(successes_a, n_a, share)
    k = np.arange(first, last, dtype=np.float64)
    steps = np.log((n_a - k) * (marked - k)) - np.log((k + 1) * (n_b - marked + k + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    logs -= logs.max()
    weights = np.exp(logs)
    seen = logs[successes_a - first]
    return min(1.0, float(weights[logs <= seen + 1e-7].sum() / weights.sum()))


def _chernoff(successes: int, n: int, share: float) -> float:
    p = successes / n
    divergence = p * log(p / share) if p > 0 else 0.0
    if p < 1:
        divergence += (1 - p) * (log1p(-p) - log1p(-share))
    return min(1.0, 2 * exp(max(-745.0, -n * divergence)))


def normal_tail(z: float) -> float:
    """P(Z >= z) of the standard normal distribution.

    >>> round(normal_tail(1.96), 4)
    0.025
    """
    return erfc(z / sqrt(2)) / 2
