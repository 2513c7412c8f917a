"""What else a candidate must show beside a better metric: slices, gaps, calibration, cost, churn.

Belongs here: one pure function per criterion, from arrays and numbers to a `Criterion`. Does not: the
comparison of the metric and the verdict (`gate`), measuring size and latency (`candidate`).

Where a criterion compares noisy numbers, it fails only on what the holdout shows at the gate's
confidence, corrected for the number of comparisons; and what is too small to judge is counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.promotion.intervals import MIN_CLUSTERS, MIN_UNITS, linear
from retrain_assets.promotion.quantiles import t_quantile
from retrain_assets.promotion.validation import TOLERANCE, Validation
from retrain_assets.spec.model import Budgets, Gate
from retrain_assets.training.metrics import Metric, group_codes, predicted_labels

__all__ = [
    "Criterion",
    "calibration",
    "calibration_error",
    "churn",
    "finite",
    "group_gaps",
    "infra_validation",
    "latency",
    "not_asked",
    "size",
    "slices",
]

MAX_LISTED = 20
"""Slices whose numbers are reported, the worst first."""

CALIBRATION_BINS = 10

_FloatArray = NDArray[np.float64]
_IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Criterion:
    """One thing that a candidate must show.

    Attributes:
        name: one of `gate.CRITERIA`.
        passed: None where the data cannot tell.
        summary: one line for people.
        numbers: what the verdict rests on; finite.
        required: whether it counts. What was not asked for (no floor, no champion yet) is passed
            and not required.
    """

    name: str
    passed: bool | None
    summary: str
    numbers: Mapping[str, float]
    required: bool


def not_asked(name: str, summary: str = "not asked") -> Criterion:
    """A criterion that does not count."""
    return Criterion(name, True, summary, {}, False)


def finite(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers that exist: undefined ones are said in the summary, and JSON has no nan."""
    return {
        name: float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def slices(
    gate: Gate,
    metric: Metric,
    truth: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    columns: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None,
    codes: _IntArray | None,
) -> Criterion:
    """No slice may be shown to be worse than the champion by more than `slices.max_loss`.

    A slice is the rows with one value of one column. On each with enough rows the gain has an upper
    bound by `intervals.linear` at confidence 1 - alpha / m, m judged slices (Bonferroni, so that the
    bounds hold together); the slice fails where that bound lies below -max_loss. A slice that may be
    worse but is not shown to be passes: on a hundred rows few things are shown.

    Args:
        gate: slices and confidence.
        metric: the gate's metric.
        truth: shape (n,).
        scores: of `candidate` and `champion`.
        columns: by name, a label for each row, shape (n,); missing values are a slice of their own.
        groups: ranking: group of each row; a slice then holds the parts of groups that are in it.
        codes: cluster of each row (ranking too), None where rows are drawn alone.
    """
    asked = gate.slices
    if asked is None:
        return not_asked("slices")
    if "champion" not in scores:
        return not_asked("slices", "no champion yet")
    found, small = [], 0
    for column in asked.columns:
        labels = _labels(column, columns, len(truth), "gate.slices.columns")
        names, of_row = np.unique(labels, return_inverse=True)
        for number, name in enumerate(names):
            rows = of_row == number
            part = _slice_gain(metric, truth, scores, groups, codes, rows)
            if int(rows.sum()) < asked.min_rows or part is None:
                small += 1
                continue
            found.append((f"{column}={name}", int(rows.sum()), *part))
    numbers: dict[str, float] = {
        "judged": len(found),
        "too_small": small,
        "max_loss": asked.max_loss,
    }
    if not found:
        summary = f"none of {small} slices has {asked.min_rows} rows on which it can be judged"
        return Criterion("slices", None, summary, numbers, True)
    alpha = (1 - gate.confidence) / len(found)
    judged = []
    for name, size_, gain, influence, part_codes in found:
        interval = linear(gain, influence, alpha, codes=part_codes)
        assert interval.high is not None
        judged.append((interval.high, name, size_, gain))
    judged.sort()
    for high, name, size_, gain in judged[:MAX_LISTED]:
        numbers |= {f"{name}_rows": size_, f"{name}_gain": gain, f"{name}_gain_high": high}
    failed = [item for item in judged if item[0] < -asked.max_loss]
    rest = f"; {small} slices are too small to judge" if small else ""
    high, name, size_, gain = judged[0]
    worst = f"{name} ({size_} rows): gain {gain:+.3g}, at most {high:+.3g}"
    if failed:
        names_ = f"{len(failed)} of {len(judged)} slices are worse than -{asked.max_loss:g}"
        return Criterion("slices", False, f"{names_}, worst {worst}{rest}", numbers, True)
    summary = f"none of {len(judged)} slices is shown to be worse than -{asked.max_loss:g}; lowest {worst}"
    return Criterion("slices", True, f"{summary}{rest}", numbers, True)


def _slice_gain(
    metric: Metric,
    truth: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    groups: ArrayLike | None,
    codes: _IntArray | None,
    rows: NDArray[np.bool_],
) -> tuple[float, _FloatArray, _IntArray | None] | None:
    """Gain, influence and clusters in a slice; None where it has no bound."""
    within = None if groups is None else np.asarray(groups)[rows]
    values, influences = [], []
    for who in ("candidate", "champion"):
        part = np.asarray(scores[who])[rows]
        units = metric.n_units(truth[rows], groups=within)
        once = np.ones((1, units))
        values.append(float(metric.resampled(truth[rows], part, once, groups=within)[0]))
        influences.append(metric.influence(truth[rows], part, groups=within))
    gain = metric.gain(*values)
    influence = metric.gain(*influences)
    part_codes = None
    if codes is not None:
        among = codes[rows]
        if within is not None:  # ranking: codes of the slice's groups, in order of appearance
            among = among[np.sort(np.unique(group_codes(within), return_index=True)[1])]
        part_codes = np.unique(among, return_inverse=True)[1].astype(np.int64)
    drawn = len(influence) if part_codes is None else int(part_codes.max()) + 1
    least = MIN_UNITS if part_codes is None else MIN_CLUSTERS
    if drawn < least or not math.isfinite(gain) or not np.isfinite(influence).all():
        return None
    return gain, influence, part_codes


def group_gaps(
    gate: Gate,
    truth: NDArray[Any],
    candidate: NDArray[Any],
    columns: Mapping[str, ArrayLike],
    *,
    codes: _IntArray | None,
) -> Criterion:
    """Gaps between groups in the share predicted positive and in recall, at probability 0.5.

    Demographic parity: P(predicted positive | group) is the same in all groups; equal opportunity:
    P(predicted positive | truly positive, group) is (Hardt, Price & Srebro, "Equality of opportunity
    in supervised learning", NeurIPS 2016). The gap is the largest difference between two groups;
    it fails where its lower bound, Student's t at confidence 1 - alpha / pairs, lies above what is
    allowed. Groups with fewer than `min_rows` rows (recall: true positives) are not judged.

    Args:
        gate: group_gaps and confidence.
        truth: 0 or 1, shape (n,).
        candidate: the candidate's probabilities, shape (n,).
        columns: as in `slices`.
        codes: cluster of each row, None where rows are drawn alone.
    """
    asked = gate.group_gaps
    if asked is None:
        return not_asked("group_gaps")
    if candidate.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise TrainingError("gate.group_gaps: only for binary models; remove it from the spec")
    predicted = (candidate >= 0.5).astype(np.float64)
    rules = {
        "demographic_parity": (asked.demographic_parity, np.ones(len(truth), dtype=bool)),
        "equal_opportunity": (asked.equal_opportunity, truth == 1),
    }
    numbers: dict[str, float] = {}
    broken: list[str] = []
    unknown: list[str] = []
    seen: list[str] = []
    for rule, (bound, among) in rules.items():
        if bound is None:
            continue
        numbers[f"{rule}_allowed"] = bound
        for column in asked.columns:
            labels = _labels(column, columns, len(truth), "gate.group_gaps.columns")
            where = f"{rule} by {column}"
            gap = _gap(predicted, among, labels, asked.min_rows, 1 - gate.confidence, codes)
            if gap is None:
                unknown.append(f"{where}: fewer than two groups with {asked.min_rows} rows")
                continue
            value, low, lowest, highest = gap
            numbers |= {f"{rule}_{column}_gap": value, f"{rule}_{column}_gap_low": low}
            text = (
                f"{where}: gap {value:.3f} ({highest} over {lowest}), at least {low:.3f}, "
                f"allowed {bound:g}"
            )
            (broken if low > bound else seen).append(text)
    verdict = False if broken else None if unknown else True
    return Criterion("group_gaps", verdict, "; ".join(broken or unknown or seen), numbers, True)


def _gap(
    predicted: _FloatArray,
    among: NDArray[np.bool_],
    labels: NDArray[Any],
    min_rows: int,
    alpha: float,
    codes: _IntArray | None,
) -> tuple[float, float, str, str] | None:
    """Largest gap of a share between two groups, the largest lower bound, and the two groups."""
    names, counts = np.unique(labels[among], return_counts=True)
    large = names[counts >= min_rows]
    if len(large) < 2:
        return None
    pairs = list(combinations(large, 2))
    worst = None
    for one, other in pairs:
        first, second = (among & (labels == name) for name in (one, other))
        shares = [float(predicted[rows].mean()) for rows in (first, second)]
        influence = np.zeros(len(predicted))
        influence[first] = (predicted[first] - shares[0]) / first.sum()
        influence[second] = -(predicted[second] - shares[1]) / second.sum()
        difference = shares[0] - shares[1]
        if difference < 0:
            difference, one, other = -difference, other, one
        sums = influence if codes is None else np.bincount(codes, influence)
        drawn = int((first | second).sum()) if codes is None else len(sums)
        se = math.sqrt(drawn / (drawn - 1) * float(sums @ sums))
        low = difference - t_quantile(1 - alpha / len(pairs), drawn - 1) * se
        if worst is None or (low, difference) > (worst[1], worst[0]):
            worst = (difference, low, str(other), str(one))
    return worst


def calibration(gate: Gate, truth: NDArray[Any], candidate: NDArray[Any]) -> Criterion:
    """The expected calibration error of the candidate is at most `max_calibration_error`.

    The error of a perfectly calibrated model on as many rows is not 0; where that alone exceeds the
    bound, a larger error is undecided, since no holdout of this size could pass reliably.
    """
    bound = gate.max_calibration_error
    if bound is None:
        return not_asked("calibration")
    error, noise = calibration_error(truth, candidate)
    numbers = {"calibration_error": error, "noise": noise, "allowed": bound}
    passed = True if error <= bound else None if noise > bound else False
    sign = "<=" if passed else ">"
    summary = (
        f"expected calibration error {error:.4f} {sign} {bound:g} (a perfectly calibrated model "
        f"would show {noise:.4f} on these {len(truth)} rows)"
    )
    return Criterion("calibration", passed, summary, numbers, True)


def calibration_error(
    truth: NDArray[Any], scores: NDArray[Any], bins: int = CALIBRATION_BINS
) -> tuple[float, float]:
    """Expected calibration error, and what a perfectly calibrated model would show.

        ECE = sum over bins of (n_b / n) |mean outcome - mean probability|

    over bins of equal counts, which are the least biased (Roelofs, Cain, Shlens & Mozer, "Mitigating
    bias in calibration error estimation", AISTATS 2022). Outcome and probability are those of class 1,
    with more than two classes those of the most probable class (Guo et al., "On calibration of modern
    neural networks", ICML 2017). The noise is the expectation of the same sum where each outcome
    follows its probability: the mean absolute deviation of a normal in every bin.

    Args:
        truth: class 0 or 1, or class index; shape (n,).
        scores: probabilities, shape (n,) or (n, classes).
        bins: number of bins; at most n.

    Returns:
        The error and the noise, both in [0, 1].

    Raises:
        TrainingError: scores are not probabilities.

    >>> calibration_error(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.1, 0.9]), bins=2)[0]
    0.09999999999999999
    """
    probabilities = np.asarray(scores, dtype=np.float64)
    if (
        not np.isfinite(probabilities).all()
        or not ((probabilities >= 0) & (probabilities <= 1)).all()
    ):
        raise TrainingError(
            "gate.max_calibration_error: needs probabilities in [0, 1], got "
            f"{probabilities.min():g} to {probabilities.max():g}; remove it from the spec"
        )
    if probabilities.ndim == 2:
        outcome = (probabilities.argmax(axis=1) == truth).astype(np.float64)
        probabilities = probabilities.max(axis=1)
    else:
        outcome = np.asarray(truth, dtype=np.float64)
    order = np.argsort(probabilities, kind="stable")
    error = noise = 0.0
    for rows in np.array_split(order, min(bins, len(order))):
        share = len(rows) / len(order)
        error += share * abs(float(outcome[rows].mean() - probabilities[rows].mean()))
        variance = float(np.mean(probabilities[rows] * (1 - probabilities[rows]))) / len(rows)
        noise += share * math.sqrt(2 * variance / math.pi)
    return error, noise


def size(budgets: Budgets | None, measured: Mapping[str, float]) -> Criterion:
    """The model's files are at most `budgets.size_bytes`; `measured` has `size_bytes`."""
    return _budget("size", budgets, measured, {"size_bytes": "bytes"})


def latency(budgets: Budgets | None, measured: Mapping[str, float]) -> Criterion:
    """p95 of predicting one row and a batch; `measured` has `row_ms` and `batch_ms`."""
    return _budget("latency", budgets, measured, {"row_ms": "ms a row", "batch_ms": "ms a batch"})


def infra_validation(found: Validation | None) -> Criterion:
    """The registered version loads in a fresh process and predicts what the trained model did."""
    name = "infra_validation"
    if found is None:
        text = "was not loaded in a fresh process; materialize candidate_model again"
        return Criterion(name, None, text, {}, True)
    numbers = finite({**found.numbers(), "tolerance": TOLERANCE})
    if found.problem:
        return Criterion(name, False, f"the registered model {found.problem}", numbers, True)
    exact = "bit for bit" if not found.max_difference else f"within {found.max_difference:.2g}"
    text = f"a fresh process predicts {found.rows} stored rows as when trained, {exact}"
    if found.load_seconds is not None and found.peak_bytes is not None:
        text += f"; loaded in {found.load_seconds:.2g} s, {found.peak_bytes / 1e6:.0f} MB at most"
    return Criterion(name, True, text, numbers, True)


def _budget(
    name: str,
    budgets: Budgets | None,
    measured: Mapping[str, float],
    units: Mapping[str, str],
) -> Criterion:
    numbers = finite({field: measured.get(field) for field in units})
    allowed: dict[str, float | None] = {
        field: None if budgets is None else getattr(budgets, field) for field in units
    }
    if not any(allowed.values()):
        return Criterion(name, True, "not asked", numbers, False)
    texts: dict[bool | None, list[str]] = {False: [], None: [], True: []}
    for field, unit in units.items():
        bound = allowed[field]
        if bound is None:
            continue
        numbers[f"{field}_allowed"] = float(bound)
        value = numbers.get(field)
        if value is None:
            texts[None].append(f"{field} was not measured; materialize candidate_model again")
        else:
            sign = "<=" if value <= bound else ">"
            texts[value <= bound].append(f"{value:,.4g} {unit} {sign} {bound:,g}")
    verdict = next(verdict for verdict in (False, None, True) if texts[verdict])
    return Criterion(name, verdict, "; ".join(texts[verdict]), numbers, True)


def churn(
    gate: Gate,
    metric: Metric,
    truth: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    groups: ArrayLike | None,
) -> Criterion:
    """How much predictions change against the champion, right or wrong.

    Classification: share of rows whose predicted label changes (Milani Fard, Cormier, Canini & Gupta,
    "Launch and iterate: reducing prediction churn", NeurIPS 2016). Regression: mean absolute change
    over the standard deviation of the champion's predictions. Ranking: share of groups whose first
    row changes (ties: the first in order).
    """
    if "champion" not in scores:
        text = "not asked" if gate.max_churn is None else "no champion yet"
        return not_asked("churn", text)
    ours, theirs = (np.asarray(scores[who], dtype=np.float64) for who in ("candidate", "champion"))
    if metric.needs_groups:
        assert groups is not None
        value = float(np.mean(_first_rows(ours, groups) != _first_rows(theirs, groups)))
        what = "of the groups have another first row"
    elif metric.is_regression:
        spread = float(np.std(theirs))
        change = float(np.mean(np.abs(ours - theirs)))
        value = change / spread if spread > 0 else (0.0 if change == 0 else math.inf)
        what = "standard deviations is the mean change"
    else:
        value = float(np.mean(predicted_labels(ours) != predicted_labels(theirs)))
        what = "of the predicted labels change"
    bound = gate.max_churn
    if bound is None:
        return Criterion("churn", True, "not asked", finite({"churn": value}), False)
    passed = value <= bound
    summary = f"{value:.4g} {what} {'<=' if passed else '>'} {bound:g}"
    return Criterion("churn", passed, summary, finite({"churn": value, "allowed": bound}), True)


def _first_rows(scores: _FloatArray, groups: ArrayLike) -> _IntArray:
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.lexsort((-scores, codes))
    starts = np.flatnonzero(np.append(True, np.diff(codes[order]) != 0))
    return np.asarray(order[starts])


def _labels(
    column: str, columns: Mapping[str, ArrayLike], rows: int, field: str
) -> NDArray[np.str_]:
    """The rows' labels as text; missing ones are 'missing'."""
    if column not in columns:
        raise TrainingError(
            f"{field}: '{column}' is not among the stored columns of the holdout "
            f"({', '.join(columns) or 'none'}); materialize candidate_model again"
        )
    values = np.asarray(columns[column], dtype=object)
    if values.shape != (rows,):
        raise TrainingError(f"{field}: '{column}' needs {rows} labels, got shape {values.shape}")
    return np.array(
        ["missing" if value is None or value != value else str(value) for value in values]
    )
