"""Which pairs of numeric columns go together differently, whatever their own distributions do.

Belongs here: rank correlations of many columns at once and the test of their change. Does not: which
columns, thresholds that make a verdict, words (`multivariate`).

Chosen by power, because no test of single columns can see a change of correlation alone. Share of 40
pairs of normal samples (10 columns, n rows a side, alpha 0.01) in which the changed correlation of one
pair of columns was found (bench/drift/dependence.py):

    change          n   PCA reconstruction    MMD   correlations   classifier
    none          500         0.00           0.00       0.00          0.00
    none         2000         0.03           0.00       0.00          0.03
    0 to 0.3      500         0.03           0.00       0.85          0.03
    0 to 0.3     2000         0.03           0.00       1.00          0.50
    0.8 to 0.5    500         0.20           0.00       1.00          0.38
    0.8 to 0.5   2000         0.70           0.03       1.00          1.00
    0 to 0.8      500         0.10           0.12       1.00          1.00
    0 to 0.8     2000         0.20           0.97       1.00          1.00

PCA reconstruction (errors beyond the components that hold 65% of the variance) cannot see a
correlation that appears, since a more regular table is reconstructed better; MMD (random Fourier
features, median bandwidth) spreads its power over all directions. This test also names the pair. It
knows monotone dependence of two numeric columns; any other is the classifier's to find. It takes rows for
independent: where many rows share a value (averages per day), a change of the days looks like more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.report import CorrelationChange

__all__ = ["MIN_PAIRS", "correlation_changes", "normal_scores"]

FloatArray = npt.NDArray[np.float64]

MIN_PAIRS = 100
"""Fewest rows with both values, on either side."""

_LEAST_VARIANCE = 1e-12


def correlation_changes(
    reference: FloatArray, current: FloatArray, names: Sequence[str], alpha: float = 0.01
) -> list[CorrelationChange]:
    """Pairs of columns whose rank correlation changed provably, the largest change first.

    The correlation is van der Waerden's, that of normal scores, made on each side by itself: it does
    not depend on the distribution of either column. A pair is compared by

        z = (r_ref - r_cur) / sqrt(v_ref / n_ref + v_cur / n_cur)

    where v is the mean of (z_i z_j - r (z_i^2 + z_j^2) / 2)^2, the squared influence; p-values are
    two-sided and corrected for all pairs (Bonferroni), which is the test of the maximum of Cai, Liu
    & Xia, "Two-sample covariance matrix testing and support recovery in high-dimensional and sparse
    settings", JASA 2013. Rows count for a pair where they have both values.

    Args:
        reference: shape (n, k), nan where there is no value.
        current: shape (m, k), likewise.
        names: of the k columns.
        alpha: chance to name any pair where none changed.

    Minimum: `MIN_PAIRS` rows with both values on either side; other pairs, and constant columns, are
    not compared.

    >>> x = np.random.default_rng(0).normal(size=(2, 1000, 2))
    >>> x[1, :, 1] += x[1, :, 0]
    >>> (found,) = correlation_changes(x[0], x[1], ["a", "b"])
    >>> found.first, found.second, round(found.before, 2), round(found.after, 2)
    ('a', 'b', -0.02, 0.68)
    """
    before, before_variance = _correlations(reference)
    after, after_variance = _correlations(current)
    spread = np.sqrt(np.maximum(before_variance + after_variance, _LEAST_VARIANCE))
    change = np.abs(after - before)
    first, second = np.triu_indices(len(names), 1)
    compared = np.isfinite(change[first, second])
    pairs = list(zip(first[compared].tolist(), second[compared].tolist(), strict=True))
    found = []
    for i, j in pairs:
        if erfc(change[i, j] / spread[i, j] / sqrt(2)) * len(pairs) < alpha:
            found.append((change[i, j], i, j))
    return [
        CorrelationChange(names[i], names[j], float(before[i, j]), float(after[i, j]))
        for _, i, j in sorted(found, key=lambda item: (-item[0], item[1], item[2]))
    ]


def normal_scores(values: FloatArray) -> FloatArray:
    """Phi^-1(rank / (n + 1)) of each value, ties at their mean rank, less the mean; nan stays nan.

    >>> normal_scores(np.array([3.0, 1.0, np.nan, 2.0])).round(3).tolist()
    [0.674, -0.674, nan, 0.0]
    """
    present = ~np.isnan(values)
    n = int(np.count_nonzero(present))
    scores = np.full(values.shape, np.nan)
    if n:
        _, place, counts = np.unique(values[present], return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        twice = 2 * last - counts + 1  # of the mean rank, a whole number
        quantile = NormalDist().inv_cdf
        found = np.array([quantile(rank / (2 * n + 2)) for rank in twice.tolist()])[place]
        scores[present] = found - found.mean()
    return scores


def _correlations(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Correlations over the rows that have both values, and the variances of their estimates."""
    scored = np.column_stack([normal_scores(column) for column in matrix.T])
    has = (~np.isnan(scored)).astype(np.float64)
    z = np.nan_to_num(scored)
    squares = z * z
    n = has.T @ has
    with np.errstate(divide="ignore", invalid="ignore"):
        a = squares.T @ has / n
        a[a < _LEAST_VARIANCE] = np.nan
        r = z.T @ z / n / np.sqrt(a * a.T)
        both = squares.T @ squares / n / (a * a.T)
        third = (squares * z).T @ z / n / np.sqrt(a**3 * a.T)
        fourth = (squares * squares).T @ has / n / a**2
        variance: Any = both - r * (third + third.T) + r * r / 4 * (fourth + fourth.T + 2 * both)
        variance = np.maximum(variance, 0.0) / n
    r[n < MIN_PAIRS] = np.nan
    return r, variance
