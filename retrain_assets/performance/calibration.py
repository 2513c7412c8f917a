"""From a model's scores to probabilities that come true: isotonic regression and Platt scaling.

Belongs here: fitting a calibration on rows with labels, applying it. Does not: what the
probabilities are used for (`confidence`), the gate's calibration error (`promotion.criteria`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ISOTONIC_ROWS", "Calibration", "fit_calibration"]

FloatArray = NDArray[np.float64]

ISOTONIC_ROWS = 1000
"""Rows from which isotonic regression is taken: on fewer it overfits and Platt's two parameters do
better (Niculescu-Mizil & Caruana, "Predicting good probabilities with supervised learning", ICML
2005, section 5)."""

_CLIP = 1e-12


@dataclass(frozen=True, eq=False)
class Calibration:
    """Maps a score in [0, 1] to the chance of the class.

    Attributes:
        method: `isotonic` or `platt`.
        x, y: isotonic: scores and their chances, both ascending; between them it is linear and
            beyond them constant. Platt: x is empty and y holds (slope, intercept) on the logits.
    """

    method: str
    x: FloatArray
    y: FloatArray

    def __call__(self, score: FloatArray) -> FloatArray:
        """Chances, of the same shape as `score`."""
        if self.method == "isotonic":
            return np.interp(score, self.x, self.y)
        return _sigmoid(self.y[0] * _logit(score) + self.y[1])


def fit_calibration(truth: NDArray[Any], score: FloatArray) -> Calibration:
    """Isotonic regression from `ISOTONIC_ROWS` rows on, Platt scaling below.

    Isotonic: the non-decreasing function of the score with the least squared error against the
    labels (Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates", KDD 2002). Platt: sigmoid(a logit(score) + b) by maximum likelihood with Platt's
    softened targets (Platt, "Probabilistic outputs for support vector machines", 1999), fitted by
    Newton's method.

    Args:
        truth: 0 or 1, shape (n,); both occur (the caller has checked).
        score: the model's probabilities, shape (n,).

    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(4000)
    >>> truth = (rng.random(4000) < score**2).astype(int)
    >>> fit_calibration(truth, score)(np.array([0.3, 0.8])).round(1).tolist()
    [0.1, 0.6]
    """
    if len(truth) >= ISOTONIC_ROWS:
        return _isotonic(truth, score)
    return _platt(truth, score)


def _isotonic(truth: NDArray[Any], score: FloatArray) -> Calibration:
    from scipy.optimize import isotonic_regression

    x, of_row = np.unique(score, return_inverse=True)
    rows = np.bincount(of_row).astype(np.float64)
    shares = np.bincount(of_row, truth) / rows
    y = np.asarray(isotonic_regression(shares, weights=rows).x, dtype=np.float64)
    # The ends of each step say all; what lies between is dropped.
    keep = np.ones(len(x), dtype=bool)
    keep[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return Calibration("isotonic", x[keep], y[keep])


def _platt(truth: NDArray[Any], score: FloatArray) -> Calibration:
    positives = float(np.sum(truth == 1))
    negatives = len(truth) - positives
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([_logit(score), np.ones(len(score))], axis=1)
    beta = np.array([1.0, 0.0])
    for _ in range(50):
        chance = _sigmoid(design @ beta)
        gradient = design.T @ (target - chance)
        weight = chance * (1 - chance)
        # A ridge far below the data's own curvature: equal scores leave the slope free.
        hessian = (design * weight[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # Newton's step is cut where it would leave the region in which its parabola is meant.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        beta = beta + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return Calibration("platt", np.empty(0), beta)


def _logit(score: FloatArray) -> FloatArray:
    inside = np.clip(score, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
