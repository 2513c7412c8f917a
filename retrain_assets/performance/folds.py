"""How far an estimate of performance was off on data where the truth is known.

Belongs here: cutting the champion's holdout into parts, and the estimate's own error from them. Does
not: any estimator (`confidence`, `losses`).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MIN_FOLDS", "fold_codes", "model_variance", "parts"]

MIN_FOLDS = 5
"""Fewest parts of the holdout on which an estimator must have been tried for an interval."""


def fold_codes(n: int, partitions: ArrayLike | None, most: int) -> NDArray[np.int64]:
    """The part, 0 to k - 1, of each of n rows in time order, shape (n,).

    Partitions where there are at least `MIN_FOLDS` of them, neighbours together where there are
    more than `most`; else `most` equal stretches of rows, so that what lasts for a while stays in one
    part.

    >>> fold_codes(6, ["a", "a", "b", "b", "c", "c"], 3).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    if partitions is not None:
        keys, codes = np.unique(np.asarray(partitions), return_inverse=True)
        if len(keys) >= MIN_FOLDS:
            return np.asarray(codes * min(most, len(keys)) // len(keys), dtype=np.int64)
    return np.arange(n, dtype=np.int64) * most // n


def model_variance(
    estimates: list[float], realised: list[float], variances: list[float]
) -> float | None:
    """Variance of an estimator's error beyond the sampling noise of what it is compared with.

        mean of (estimate - realised)^2 - mean of the sampling variances, at least 0

    over the parts of a holdout, each estimated by a model that has not seen it: the method of
    moments for a variance component (DerSimonian & Laird, "Meta-analysis in clinical trials", 1986).
    It holds what differs from day to day as well as the error of the fit.

    Returns:
        None below `MIN_FOLDS` parts that could be compared.

    >>> round(model_variance([0.8] * 5, [0.8, 0.9, 0.7, 0.9, 0.7], [0.001] * 5), 6)
    0.007
    """
    if len(estimates) < MIN_FOLDS:
        return None
    errors = np.asarray(estimates) - np.asarray(realised)
    excess = float(np.mean(errors**2) - np.mean(variances))
    return max(excess, 0.0)


def parts(codes: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Rows of each part, as masks."""
    return [codes == part for part in range(int(codes.max()) + 1)]
