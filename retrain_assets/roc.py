"""The area under the ROC curve with DeLong's standard error.

Belongs here: what the gate (two models on one holdout) and the drift engine (how well two tables can
be told apart) share, as functions of plain arrays. Does not: confidence levels, margins, verdicts.

`truth` is 0 or 1, `scores` finite; both of shape (n,), with at least one row of each class.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["auc_influence", "delong_variance", "placements"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def placements(truth: IntArray, scores: FloatArray) -> FloatArray:
    """Share of the other class that each row is ranked rightly against, ties counting half; (n,).

    The mean over either class is the AUC. O(n log n) by sorting instead of all pairs (Sun & Xu,
    "Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver
    operating characteristic curves", IEEE Signal Processing Letters 2014).

    >>> found = placements(np.array([0, 0, 1]), np.array([0.1, 0.8, 0.8]))
    >>> found.tolist()
    [1.0, 0.5, 0.75]
    """
    n = len(scores)
    order = np.argsort(scores)
    ordered, positive = scores[order], truth[order] == 1
    # Rows with equal scores are from starts[i] to stops[i] - 1, in order of the scores.
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(first)
    stops = np.append(starts[1:], n)
    positives = np.concatenate([[0], np.cumsum(positive)])
    # Twice the number of either class below, ties counting half.
    below = starts + stops
    below_positive = positives[starts] + positives[stops]
    of = np.cumsum(first) - 1
    n_positive = positives[-1]
    found = np.empty(n)
    found[order] = np.where(
        positive,
        (below - below_positive)[of] / (2 * (n - n_positive)),
        1 - below_positive[of] / (2 * n_positive),
    )
    return found


def auc_influence(truth: IntArray, scores: FloatArray) -> FloatArray:
    """Influence of each row on the AUC: its placement less the mean, over its class's share; (n,)."""
    found = placements(truth, scores)
    for own in (truth == 1, truth == 0):
        found[own] = (found[own] - found[own].mean()) * len(truth) / np.count_nonzero(own)
    return found


def delong_variance(influence: FloatArray, truth: IntArray) -> tuple[float, float]:
    """Variance of an AUC, or of a difference of AUCs, and its degrees of freedom.

    S_positive / P + S_negative / N with the sample variances of the placements (DeLong, DeLong &
    Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 1988), with Satterthwaite's degrees of freedom, as Brunner &
    Munzel, "The nonparametric Behrens-Fisher problem", 2000, take them for one AUC.

    Args:
        influence: `auc_influence`, or the difference of two, shape (n,).
        truth: at least two rows of each class.
    """
    n = len(truth)
    parts, dofs = [], []
    for label in (1, 0):
        own = influence[truth == label]
        parts.append(float(own @ own) * len(own) / (len(own) - 1) / n**2)
        dofs.append(len(own) - 1)
    variance = sum(parts)
    weights = sum(part**2 / dof for part, dof in zip(parts, dofs, strict=True))
    return variance, variance**2 / weights if weights > 0 else float(n - 2)
