"""Metrics by which a model is judged, once or under many bootstrap resamples.

Belongs here: the definition of each metric of `spec.model.METRICS`, its direction, its value under
resampling weights, and the influence of each row on it. Does not: confidence intervals, thresholds,
verdicts (the gate).

Conventions for all metrics, n rows:
    binary       y_true 0/1 of shape (n,); y_score the probability of class 1, shape (n,)
    multiclass   y_true class index of shape (n,); y_score probabilities of shape (n, k)
    regression   y_true and y_score of shape (n,), in the target's unit
    ranking      y_true relevance grades 0, 1, ... 30 of shape (n,); y_score of shape (n,); `groups`
                 names each row's group (query, session), in any order

A *unit* is what a bootstrap draws: a row, or a group for ranking metrics, in order of first
appearance. Every metric is prepared once (sorted, reduced to sufficient statistics) and then
evaluated for blocks of weights, so memory stays bounded whatever the number of resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.roc import auc_influence

__all__ = [
    "MAX_RELEVANCE",
    "Metric",
    "Resampler",
    "get_metric",
    "group_codes",
    "predicted_labels",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Direction = Literal["maximize", "minimize"]
Resampler = Callable[[ArrayLike], FloatArray]
"""Weights of shape (resamples, units) to values of shape (resamples,)."""

MAX_RELEVANCE = 30
"""Largest relevance grade: LightGBM's default gains end there, and 2^rel must stay exact."""

_LOG_CLIP = 1e-15
_BLOCK = 1 << 22
"""Weights that are held as float64 at a time (32 MiB)."""

_Kernel = Callable[[FloatArray], FloatArray]
_Prepare = Callable[[Any, FloatArray, IntArray | None], _Kernel]


@dataclass(frozen=True)
class Metric:
    """One metric: its value on a sample, and under bootstrap weights.

    Attributes:
        name: as in a spec's `gate.metric`.
        direction: whether larger or smaller is better.
        needs_groups: ranking metrics; their units are groups, not rows.
        undefined_when: when the metric has no value.

    >>> auc = get_metric("roc_auc")
    >>> y_true, y_score = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    >>> auc.evaluate(y_true, y_score)
    0.75
    >>> auc.resampled(y_true, y_score, [[1, 1, 1, 1], [2, 0, 1, 1], [2, 2, 0, 0]]).tolist()
    [0.75, 1.0, nan]
    """

    name: str
    direction: Direction
    needs_groups: bool
    undefined_when: str
    _prepare: _Prepare = field(repr=False)
    _kind: Literal["score", "probability", "number", "relevance"] = field(repr=False)
    _dimensions: tuple[int, ...] = field(default=(1,), repr=False)

    @property
    def is_regression(self) -> bool:
        """Whether scores are numbers in the target's unit."""
        return self._kind == "number"

    def evaluate(
        self,
        y_true: ArrayLike,
        y_score: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        classes: Any | None = None,
    ) -> float:
        """The metric's value on all rows (shapes: see the module).

        Args:
            y_true: truth.
            y_score: predictions.
            groups: group of each row, for ranking metrics.
            classes: the model's class labels; where given, `y_score` must have that many columns.

        Raises:
            TrainingError: malformed input, or the value is undefined (see `undefined_when`).
        """
        scores = np.asarray(y_score)
        if classes is not None and (scores.shape[1] if scores.ndim == 2 else 2) != len(classes):
            raise TrainingError(
                f"{self.name}: y_score must have a column for each of the {len(classes)} classes, "
                f"got shape {scores.shape}; score with the model that has these classes"
            )
        units = self.n_units(y_true, groups=groups)
        value = float(self.resampler(y_true, scores, groups=groups)(np.ones((1, units)))[0])
        if np.isnan(value):
            raise TrainingError(
                f"{self.name} is undefined on these {np.asarray(y_true).shape[0]} rows: "
                f"{self.undefined_when}; take a longer holdout or another metric"
            )
        return value

    def resampled(
        self,
        y_true: ArrayLike,
        y_score: ArrayLike,
        weights: ArrayLike,
        *,
        groups: ArrayLike | None = None,
    ) -> FloatArray:
        """One value per resample, nan where it is undefined.

        Args:
            y_true: truth.
            y_score: predictions.
            weights: how often each unit was drawn, shape (resamples, units), not negative.
            groups: group of each row, for ranking metrics.

        Raises:
            TrainingError: malformed input.
        """
        return self.resampler(y_true, y_score, groups=groups)(weights)

    def resampler(
        self, y_true: ArrayLike, y_score: ArrayLike, *, groups: ArrayLike | None = None
    ) -> Resampler:
        """Sort once; returns the function from weights (resamples, units) to values.

        Weights may come in several calls, so that they need not all be in memory.

        Raises:
            TrainingError: malformed input, now or (weights) in a later call.
        """
        truth, scores = self._checked(y_true, y_score)
        codes = self._codes(truth, groups)
        kernel = self._prepare(truth, scores, codes)
        units = len(truth) if codes is None else int(codes.max()) + 1

        def values(weights: ArrayLike) -> FloatArray:
            counts = np.asarray(weights)
            if counts.ndim != 2 or counts.shape[1] != units:
                raise TrainingError(
                    f"{self.name}: weights must have the shape (resamples, {units}), one column "
                    f"per {'group' if self.needs_groups else 'row'}, got {counts.shape}"
                )
            result = np.empty(len(counts))
            step = max(1, _BLOCK // units)
            for at in range(0, len(counts), step):
                block = np.asarray(counts[at : at + step], dtype=np.float64)
                if block.min() < 0:
                    raise TrainingError(
                        f"{self.name}: weights must not be negative, got {block.min():g}"
                    )
                with np.errstate(divide="ignore", invalid="ignore"):
                    result[at : at + step] = kernel(block)
            return result

        return values

    def influence(
        self, y_true: ArrayLike, y_score: ArrayLike, *, groups: ArrayLike | None = None
    ) -> FloatArray:
        """Influence of each unit on the value, shape (units,): the derivative of the value with
        respect to the unit's weight, at equal weights, times the number of units.

        The values sum to 0, and the mean of their squares, over the number of units, estimates the
        variance of the metric (the infinitesimal jackknife: Efron & Tibshirani, *An Introduction to
        the Bootstrap*, 1993, sections 21.3 and 22.6). For a mean loss they are its deviations from
        the mean, for ROC AUC the components of DeLong et al. 1988. All nan where the metric is
        undefined.

        Raises:
            TrainingError: malformed input.

        >>> get_metric("mae").influence([0.0, 0.0, 0.0], [1.0, 2.0, 6.0]).round(9).tolist()
        [-2.0, -1.0, 3.0]
        """
        truth, scores = self._checked(y_true, y_score)
        codes = self._codes(truth, groups)
        rule = self._prepare
        assert isinstance(rule, (_Additive, _Curve))
        with np.errstate(divide="ignore", invalid="ignore"):
            return rule.influence(truth, scores, codes)

    def n_units(self, y_true: ArrayLike, *, groups: ArrayLike | None = None) -> int:
        """How many units a bootstrap draws from: rows, or groups for ranking metrics."""
        truth = np.asarray(y_true)
        codes = self._codes(truth, groups)
        return len(truth) if codes is None else int(codes.max()) + 1

    def per_group(self, y_true: ArrayLike, y_score: ArrayLike, groups: ArrayLike) -> FloatArray:
        """Ranking metrics: the value of each group in order of first appearance.

        Groups without positive relevance are nan: they have no value and are left out of the mean.

        Raises:
            TrainingError: the metric has no groups, or the input is malformed.
        """
        if not self.needs_groups:
            raise TrainingError(f"{self.name} is not a ranking metric and has no value per group")
        truth, scores = self._checked(y_true, y_score)
        rule = self._prepare
        assert isinstance(rule, _Additive)
        with np.errstate(invalid="ignore"):
            return rule.combine(rule.statistics(truth, scores, self._codes(truth, groups)))

    @overload
    def gain(self, candidate: float, champion: float) -> float: ...
    @overload
    def gain(self, candidate: FloatArray, champion: FloatArray) -> FloatArray: ...
    def gain(
        self, candidate: float | FloatArray, champion: float | FloatArray
    ) -> float | FloatArray:
        """How much better the candidate is, in the metric's own unit; negative: worse.

        Takes values or arrays of values (resamples).

        >>> get_metric("rmse").gain(2.0, 2.5)
        0.5
        """
        return candidate - champion if self.direction == "maximize" else champion - candidate

    def _checked(self, y_true: ArrayLike, y_score: ArrayLike) -> tuple[Any, FloatArray]:
        truth = np.asarray(y_true)
        scores = np.asarray(y_score, dtype=np.float64)
        if truth.ndim != 1 or not len(truth) or len(scores) != len(truth):
            raise TrainingError(
                f"{self.name}: y_true must have the shape (n,) with n > 0 and y_score as many rows, "
                f"got {truth.shape} and {scores.shape}"
            )
        if scores.ndim not in self._dimensions:
            shapes = " or ".join("(n,)" if d == 1 else "(n, classes)" for d in self._dimensions)
            raise TrainingError(
                f"{self.name}: y_score must have the shape {shapes}, got {scores.shape}"
            )
        if scores.ndim == 2:
            _check_probabilities(self.name, truth, scores)
            return truth.astype(np.int64), scores
        _check_finite(self.name, "y_score", scores)
        if self._kind in ("number", "relevance"):
            truth = truth.astype(np.float64)
            _check_finite(self.name, "y_true", truth)
            if self._kind == "relevance":
                _check_relevance(self.name, truth)
            return truth, scores
        other = (truth != 0) & (truth != 1)
        if other.any():
            raise TrainingError(f"{self.name}: y_true must be 0 or 1, got {_some(truth[other])}")
        if self._kind == "probability" and (scores.min() < 0 or scores.max() > 1):
            raise TrainingError(
                f"{self.name}: y_score must be probabilities in [0, 1], got "
                f"{scores.min():g} to {scores.max():g}"
            )
        return truth.astype(np.int64), scores

    def _codes(self, truth: NDArray[Any], groups: ArrayLike | None) -> IntArray | None:
        if not self.needs_groups:
            return None
        if groups is None:
            raise TrainingError(f"{self.name}: needs the group of each row, got none")
        names = np.asarray(groups)
        if names.shape != truth.shape:
            raise TrainingError(
                f"{self.name}: groups must have one entry per row ({len(truth)}), got {names.shape}"
            )
        return group_codes(names)


def group_codes(groups: ArrayLike) -> IntArray:
    """Number of each row's group, 0 for the group that appears first, 1 for the next, ...

    Raises:
        TrainingError: there is no row, or a row has no group.

    >>> group_codes(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    names = np.asarray(groups)
    missing = names == None if names.dtype == object else names != names  # noqa: E711 (elementwise)
    if not len(names) or bool(np.any(missing)):
        raise TrainingError(
            f"groups must be given for every row, got {int(np.sum(missing))} nulls in "
            f"{len(names)} rows; drop rows without a group in the feature transform"
        )
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _some(values: NDArray[Any]) -> str:
    distinct = np.unique(values)
    return ", ".join(str(v) for v in distinct[:3]) + (" ..." if len(distinct) > 3 else "")


def _check_finite(name: str, what: str, values: FloatArray) -> None:
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise TrainingError(
            f"{name}: {what} must be finite, got nan or infinity in {bad} of {len(values)} rows"
        )


def _check_relevance(name: str, relevance: FloatArray) -> None:
    bad = (relevance < 0) | (relevance > MAX_RELEVANCE)
    if bad.any():
        raise TrainingError(
            f"{name}: relevance must be between 0 and {MAX_RELEVANCE}, got {_some(relevance[bad])}; "
            "map it to a few grades in the feature transform"
        )


def _check_probabilities(name: str, truth: NDArray[Any], scores: FloatArray) -> None:
    k = scores.shape[1]
    bad = ~np.isin(truth, np.arange(k))
    if bad.any():
        raise TrainingError(
            f"{name}: y_true must be class indices 0 to {k - 1}, got {_some(truth[bad])}"
        )
    wrong = ~(np.isfinite(scores).all(axis=1) & (scores >= 0).all(axis=1))
    wrong |= ~(np.abs(scores.sum(axis=1) - 1) < 1e-6)
    if wrong.any():
        raise TrainingError(
            f"{name}: each row of y_score must be probabilities that sum to 1, "
            f"got {int(wrong.sum())} other rows of {len(scores)}"
        )


# Additive metrics: a function of weighted sums of statistics of each unit.


@dataclass(frozen=True)
class _Additive:
    """A metric `combine(weights @ statistics)` with statistics of shape (units, s)."""

    statistics: Callable[[Any, FloatArray, IntArray | None], Any]
    combine: Callable[[FloatArray], FloatArray]

    def __call__(self, truth: Any, scores: FloatArray, codes: IntArray | None) -> _Kernel:
        matrix = self.statistics(truth, scores, codes)
        return lambda weights: self.combine(np.asarray(weights @ matrix))

    def influence(self, truth: Any, scores: FloatArray, codes: IntArray | None) -> FloatArray:
        """Statistics times the gradient of `combine`, taken by a complex step.

        The complex step has no cancellation: its error is of the order of rounding (Squire &
        Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review
        1998).
        """
        matrix = self.statistics(truth, scores, codes)
        sums = np.asarray(matrix.sum(axis=0), dtype=np.float64)
        if not np.isfinite(self.combine(sums[None, :])).all():
            return np.full(matrix.shape[0], np.nan)
        step = 1e-30
        stepped: Any = sums + 1j * step * np.eye(len(sums))
        gradient = np.imag(self.combine(stepped)) / step
        return np.asarray(matrix.shape[0] * (matrix @ gradient))


def _mean_of(loss: Callable[[Any, FloatArray], FloatArray]) -> _Prepare:
    """The weighted mean of a loss of each row."""
    return _Additive(
        lambda y, s, _: np.stack([loss(y, s), np.ones(len(y))], axis=1),
        lambda sums: sums[:, 0] / sums[:, 1],
    )


def _log_loss(truth: IntArray, scores: FloatArray) -> FloatArray:
    chances = scores if scores.ndim == 2 else np.stack([1 - scores, scores], axis=1)
    likelihood = chances[np.arange(len(truth)), truth]
    return np.asarray(-np.log(np.clip(likelihood, _LOG_CLIP, 1 - _LOG_CLIP)))


def predicted_labels(scores: FloatArray) -> IntArray:
    """Predicted class: the most probable (the first of equals); binary from 0.5 on."""
    if scores.ndim == 2:
        return np.asarray(scores.argmax(axis=1))
    return (scores >= 0.5).astype(np.int64)


def _hits(truth: IntArray, scores: FloatArray) -> FloatArray:
    return np.asarray(predicted_labels(scores) == truth, dtype=np.float64)


def _f1_statistics(truth: IntArray, scores: FloatArray, _: IntArray | None) -> FloatArray:
    predicted = predicted_labels(scores)
    return np.stack([truth * predicted, truth + predicted], axis=1).astype(np.float64)


def _f1(sums: FloatArray) -> FloatArray:
    """F1 = 2 TP / (TP + FN + TP + FP)."""
    return 2 * sums[:, 0] / sums[:, 1]


def _f1_macro_statistics(truth: IntArray, scores: FloatArray, _: IntArray | None) -> Any:
    """Per class TP and (actual + predicted), sparse: three entries a row whatever the classes."""
    from scipy.sparse import csr_array

    n, k = scores.shape
    predicted = predicted_labels(scores)
    hits = np.flatnonzero(predicted == truth)
    rows = np.concatenate([hits, np.arange(n), np.arange(n)])
    columns = np.concatenate([truth[hits], k + truth, k + predicted])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, 2 * k))


def _f1_macro(sums: FloatArray) -> FloatArray:
    """Mean F1 over the classes that occur in the truth or in the predictions."""
    k = sums.shape[1] // 2
    support = sums[:, k:]
    scores = np.where(support > 0, 2 * sums[:, :k] / np.where(support > 0, support, 1), 0)
    return np.asarray(scores.sum(axis=1) / (support > 0).sum(axis=1))


def _squared_errors(truth: FloatArray, scores: FloatArray, _: IntArray | None) -> FloatArray:
    return np.stack([(scores - truth) ** 2, np.ones(len(truth))], axis=1)


def _rmse(sums: FloatArray) -> FloatArray:
    return np.sqrt(sums[:, 0] / sums[:, 1])


def _mape_statistics(truth: FloatArray, scores: FloatArray, _: IntArray | None) -> FloatArray:
    zero = truth == 0
    relative = np.abs(scores - truth) / np.where(zero, 1, np.abs(truth))
    return np.stack([np.where(zero, 0, relative), np.ones(len(truth)), zero], axis=1)


def _mape(sums: FloatArray) -> FloatArray:
    return np.where(sums[:, 2] > 0, np.nan, sums[:, 0] / sums[:, 1])


def _r2_statistics(truth: FloatArray, scores: FloatArray, _: IntArray | None) -> FloatArray:
    # Centred on the median, which a constant target equals exactly, against cancellation.
    y = truth - np.median(truth)
    return np.stack([np.ones(len(y)), y, y * y, (truth - scores) ** 2], axis=1)


def _r2(sums: FloatArray) -> FloatArray:
    total = sums[:, 2] - sums[:, 1] ** 2 / sums[:, 0]
    constant = ~(total > 1e-12 * sums[:, 2])
    return np.where(constant, np.nan, 1 - sums[:, 3] / np.where(constant, 1, total))


# Ranking metrics: a value per group, then the weighted mean over groups.


@dataclass(frozen=True)
class _Ranked:
    """Rows sorted by group, then by descending score, with runs of equal scores.

    `run` is the run of each sorted row, `start` the first row of each run, `position` the 0-based
    rank of each sorted row in its group.
    """

    order: IntArray
    codes: IntArray
    position: IntArray
    run: IntArray
    start: IntArray

    @classmethod
    def of(cls, codes: IntArray, scores: FloatArray) -> "_Ranked":
        order = np.lexsort((-scores, codes))
        sorted_codes, sorted_scores = codes[order], scores[order]
        n = len(order)
        new_group = np.ones(n, dtype=bool)
        new_group[1:] = sorted_codes[1:] != sorted_codes[:-1]
        new_run = new_group.copy()
        new_run[1:] |= sorted_scores[1:] != sorted_scores[:-1]
        group_start = np.flatnonzero(new_group)
        position = np.arange(n) - group_start[np.cumsum(new_group) - 1]
        return cls(order, sorted_codes, position, np.cumsum(new_run) - 1, np.flatnonzero(new_run))

    def run_mean(self, values: FloatArray) -> FloatArray:
        """Mean of sorted values over each row's run of equal scores."""
        sizes = np.diff(np.append(self.start, len(self.order)))
        return (np.add.reduceat(values, self.start) / sizes)[self.run]


def _group_statistics(values: FloatArray, relevant: FloatArray) -> FloatArray:
    """Value and 1 for each group with something relevant, 0 and 0 for the others."""
    included = relevant > 0
    safe = np.where(included, relevant, 1)
    return np.stack([np.where(included, values / safe, 0), included], axis=1)


def _mean_over_groups(sums: FloatArray) -> FloatArray:
    return sums[:, 0] / sums[:, 1]


def _ndcg(k: int) -> _Prepare:
    """NDCG@k with gains 2^rel - 1 and discounts 1 / log2(1 + rank).

    Rows with equal scores share the mean of their gains: the expectation over all orders of ties
    (McSherry & Najork, "Computing information retrieval performance measures efficiently in the
    presence of tied scores", ECIR 2008, section 2).
    """

    def discounted(ranked: _Ranked, gains: FloatArray) -> FloatArray:
        discounts = np.where(ranked.position < k, 1 / np.log2(ranked.position + 2), 0)
        return np.bincount(ranked.codes, discounts * gains).astype(np.float64)

    def statistics(truth: FloatArray, scores: FloatArray, codes: IntArray | None) -> FloatArray:
        assert codes is not None
        gains = np.exp2(truth) - 1
        ranked, ideal = _Ranked.of(codes, scores), _Ranked.of(codes, truth)
        return _group_statistics(
            discounted(ranked, ranked.run_mean(gains[ranked.order])),
            discounted(ideal, gains[ideal.order]),
        )

    return _Additive(statistics, _mean_over_groups)


def _average_precision_at(k: int) -> _Prepare:
    """Mean over groups of AP@k; a row is relevant where its grade is positive.

    AP@k = sum of precision at each relevant rank up to k, over min(k, relevant rows). With ties the
    expectation over all orders: at the j-th of m tied rows of which r are relevant, after a
    relevant rows before the tie, it is r/m (a + 1 + (j - 1)(r - 1)/(m - 1)) / rank (McSherry &
    Najork 2008, section 2).
    """

    def statistics(truth: FloatArray, scores: FloatArray, codes: IntArray | None) -> FloatArray:
        assert codes is not None
        ranked = _Ranked.of(codes, scores)
        relevant = (truth > 0).astype(np.float64)[ranked.order]
        total = np.bincount(codes, truth > 0)
        before_group = np.concatenate([[0.0], np.cumsum(total)[:-1]])[ranked.codes]
        first = ranked.start[ranked.run]
        before_run = (np.cumsum(relevant) - relevant)[first] - before_group
        share = ranked.run_mean(relevant)
        size = np.diff(np.append(ranked.start, len(relevant)))[ranked.run]
        earlier = np.arange(len(relevant)) - first
        among_tied = earlier * (share * size - 1) / np.maximum(size - 1, 1)
        term = share * (before_run + 1 + among_tied) / (ranked.position + 1)
        value = np.bincount(ranked.codes, np.where(ranked.position < k, term, 0))
        return _group_statistics(value.astype(np.float64), np.minimum(total, k).astype(np.float64))

    return _Additive(statistics, _mean_over_groups)


# Curves: sorted once, cumulated per resample.


@dataclass(frozen=True)
class _Curve:
    """A metric that depends on the order of all scores."""

    prepare: _Prepare
    influence: Callable[[Any, FloatArray, IntArray | None], FloatArray]

    def __call__(self, truth: Any, scores: FloatArray, codes: IntArray | None) -> _Kernel:
        return self.prepare(truth, scores, codes)


def _roc_auc(truth: IntArray, scores: FloatArray, _: IntArray | None) -> _Kernel:
    """P(score of a positive > score of a negative) + half of P(equal) (Mann-Whitney)."""
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    # Both in order: neighbours in one are neighbours in the other. Ties are counted whole.
    positive, negative = (own[np.argsort(scores[own])] for own in (positive, negative))
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    not_above = np.searchsorted(scores[negative], scores[positive], side="right")

    def kernel(weights: FloatArray) -> FloatArray:
        pos = weights[:, positive]
        cumulated = np.zeros((len(weights), len(negative) + 1))
        np.cumsum(weights[:, negative], axis=1, out=cumulated[:, 1:])
        wins = np.einsum("ij,ij->i", pos, cumulated[:, below])
        wins += np.einsum("ij,ij->i", pos, cumulated[:, not_above])
        return np.asarray(wins / (2 * pos.sum(axis=1) * cumulated[:, -1]))

    return kernel


def _roc_auc_influence(truth: IntArray, scores: FloatArray, _: IntArray | None) -> FloatArray:
    if not 0 < np.count_nonzero(truth == 1) < len(truth):
        return np.full(len(truth), np.nan)
    return auc_influence(truth, scores)


def _average_precision(truth: IntArray, scores: FloatArray, _: IntArray | None) -> _Kernel:
    """Sum over thresholds of (recall gained) * precision, without interpolation."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, positive = scores[order], truth[order].astype(np.float64)
    # The last row of each run of equal scores: ties are taken or left together.
    end = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True))

    def kernel(weights: FloatArray) -> FloatArray:
        drawn = weights[:, order]
        taken = np.cumsum(drawn, axis=1)[:, end]
        found = np.cumsum(drawn * positive, axis=1)[:, end]
        gained = np.diff(found, axis=1, prepend=0)
        precision = found / np.where(taken > 0, taken, 1)
        return np.asarray(np.einsum("ij,ij->i", gained, precision) / found[:, -1])

    return kernel


def _average_precision_influence(
    truth: IntArray, scores: FloatArray, _: IntArray | None
) -> FloatArray:
    """Derivative of (1/P) sum over positives of A/B, by weight.

    A row counts in A (positives at or above a threshold) and B (rows at or above it) of every
    positive that is not ranked above it, and a positive also brings its own term.
    """
    n, total = len(truth), int(truth.sum())
    if not total:
        return np.full(n, np.nan)
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], truth[order].astype(np.float64)
    start = np.append(True, ranked[1:] != ranked[:-1])
    run = np.cumsum(start) - 1
    first = np.flatnonzero(start)
    end = np.append(first[1:], n) - 1
    at_or_above = end + 1.0  # B of each run
    found = np.cumsum(positive)[end]  # A of each run
    hits = np.add.reduceat(positive, first)
    # Sums over the positives of this run and of all runs below it.
    one_more = np.cumsum((hits / at_or_above)[::-1])[::-1]
    diluted = np.cumsum((hits * found / at_or_above**2)[::-1])[::-1]
    precision = found / at_or_above
    value = float(hits @ precision) / total
    derivative = positive * (precision[run] + one_more[run] - value) - diluted[run]
    result = np.empty(n)
    result[order] = n * derivative / total
    return result


def _pinball(level: float) -> _Prepare:
    """Mean of level (y - s) where y > s, else (1 - level)(s - y) (Koenker & Bassett 1978)."""
    return _mean_of(lambda y, s: np.maximum(level * (y - s), (level - 1) * (y - s)))


_NO_WEIGHT = "no row carries weight"
_NOTHING_RELEVANT = "no group has a row of positive relevance"
_ALL = (
    Metric(
        "roc_auc", "maximize", False, "y_true holds one class only",
        _Curve(_roc_auc, _roc_auc_influence), "score",
    ),
    Metric(
        "average_precision", "maximize", False, "y_true holds no positive",
        _Curve(_average_precision, _average_precision_influence), "score",
    ),
    Metric("log_loss", "minimize", False, _NO_WEIGHT, _mean_of(_log_loss), "probability", (1, 2)),
    Metric(
        "brier", "minimize", False, _NO_WEIGHT, _mean_of(lambda y, s: (s - y) ** 2), "probability"
    ),
    Metric("accuracy", "maximize", False, _NO_WEIGHT, _mean_of(_hits), "probability", (1, 2)),
    Metric(
        "f1", "maximize", False, "neither y_true nor the predictions hold a positive",
        _Additive(_f1_statistics, _f1), "probability",
    ),
    Metric(
        "f1_macro", "maximize", False, _NO_WEIGHT, _Additive(_f1_macro_statistics, _f1_macro),
        "probability", (2,),
    ),
    Metric("mae", "minimize", False, _NO_WEIGHT, _mean_of(lambda y, s: np.abs(s - y)), "number"),
    Metric("rmse", "minimize", False, _NO_WEIGHT, _Additive(_squared_errors, _rmse), "number"),
    Metric(
        "mape", "minimize", False, "y_true holds zeros", _Additive(_mape_statistics, _mape),
        "number",
    ),
    Metric("r2", "maximize", False, "y_true is constant", _Additive(_r2_statistics, _r2), "number"),
    Metric("pinball@0.1", "minimize", False, _NO_WEIGHT, _pinball(0.1), "number"),
    Metric("pinball@0.5", "minimize", False, _NO_WEIGHT, _pinball(0.5), "number"),
    Metric("pinball@0.9", "minimize", False, _NO_WEIGHT, _pinball(0.9), "number"),
    Metric("ndcg@5", "maximize", True, _NOTHING_RELEVANT, _ndcg(5), "relevance"),
    Metric("ndcg@10", "maximize", True, _NOTHING_RELEVANT, _ndcg(10), "relevance"),
    Metric("map@10", "maximize", True, _NOTHING_RELEVANT, _average_precision_at(10), "relevance"),
)  # fmt: skip
_BY_NAME = {metric.name: metric for metric in _ALL}


def get_metric(name: str) -> Metric:
    """The metric with this name.

    Raises:
        TrainingError: there is none; lists those that exist.
    """
    if name not in _BY_NAME:
        raise TrainingError(f"'{name}' is not a metric; use one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
