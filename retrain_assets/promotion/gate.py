"""The promotion gate: is the candidate demonstrably better than the champion, on the same rows?

Belongs here: the comparison of the metric, the verdict and the report, from arrays alone. Does not:
how certain a difference is (`intervals`), the further criteria (`criteria`), training, scoring, what
happens after the verdict (`ledger`, `registry`, the assets).

The comparison is paired: candidate, champion and baselines score the same holdout rows, so that what
makes a row hard for both cancels out. The candidate passes when the one-sided lower confidence bound
of its gain lies above `gate.min_gain`; `intervals` has the method for each metric.

**A holdout that is used again.** Each comparison on the same holdout is another chance to be lucky.
With alpha = 1 - confidence, the first comparison is held to alpha and the k-th (k >= 2) to
alpha / (k (k - 1)), which sum to 2 alpha: by the union bound the chance that a candidate that is no
better is ever promoted on one holdout stays below 2 alpha, however often it is used. (Spending a
convergent series: Foster & Stine, "Alpha-investing", JRSS B 2008; Javanmard & Montanari, "On online
control of false discovery rate", 2015, for the series. That candidates may depend on earlier
verdicts does no harm as long as those are rejections: Blum & Hardt, "The Ladder", ICML 2015.)
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.promotion import criteria as further
from retrain_assets.promotion.criteria import Criterion, finite, not_asked
from retrain_assets.promotion.intervals import (
    FEW_CLUSTERS,
    MIN_CLUSTERS,
    POWER,
    GainInterval,
    bootstrap,
    delong,
    detectable,
    jackknife,
    linear,
    mcnemar,
    method_of,
)
from retrain_assets.promotion.standing import Standing, Standings
from retrain_assets.promotion.validation import Validation
from retrain_assets.spec.model import Gate
from retrain_assets.training.metrics import Metric, get_metric, group_codes, predicted_labels

__all__ = [
    "CRITERIA",
    "Criterion",
    "GateReport",
    "evaluate_gate",
    "gate_markdown",
    "gate_sentence",
    "nested",
    "paired_gain",
    "spent_alpha",
]

CRITERIA = (
    "finite_scores",
    "enough_rows",
    "floor",
    "beats_baselines",
    "unseen_holdout",
    "beats_champion",
    "power",
    "slices",
    "group_gaps",
    "calibration",
    "size",
    "latency",
    "churn",
    "infra_validation",
)
"""Names of the criteria; every report has all of them, in this order."""

_FORMAT = 3
_NOT_JUDGED = "not judged"
_BLOCK = 1 << 22
_FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GateReport:
    """The verdict and all that it rests on.

    Attributes:
        decision: `promote` if all required criteria passed; `reject` if one failed; else
            `undecided`, which is never promoted either.
        criteria: all of `CRITERIA`, in that order.
        metric: name of the metric; `direction` says whether more or less of it is better.
        candidate: the candidate's value on the holdout; nan where it has none.
        champion: the champion's value; None without champion or where it has none.
        gain: how much better the candidate is, in the metric's unit; None likewise.
        gain_low: one-sided lower confidence bound of the gain; None where not judged.
        gain_high: one-sided upper bound at the same confidence.
        n: rows that were judged on (ranking: groups).
        reasons: summaries of the required criteria that did not pass, less those that were not
            judged because an earlier one did not pass.
        method: how the bounds of the gain were made; empty where not judged.
        confidence: of the bounds, after the correction for reuse of the holdout; None likewise.
        detectable: the smallest gain that this holdout shows with 80% chance; None likewise.
    """

    decision: Literal["promote", "reject", "undecided"]
    criteria: tuple[Criterion, ...]
    metric: str
    direction: Literal["maximize", "minimize"]
    candidate: float
    champion: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    n: int
    reasons: tuple[str, ...]
    method: str = ""
    confidence: float | None = None
    detectable: float | None = None

    def criterion(self, name: str) -> Criterion:
        """The criterion with this name."""
        return self.criteria[CRITERIA.index(name)]

    def to_json(self) -> str:
        """JSON without NaN (an undefined value of the candidate is null), for `from_json`."""
        fields: dict[str, Any] = {"format": _FORMAT, **vars(self)}
        fields["candidate"] = self.candidate if math.isfinite(self.candidate) else None
        fields["criteria"] = [vars(criterion) for criterion in self.criteria]
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "GateReport":
        """Read what `to_json` wrote, now or in formats 1 and 2, which had fewer criteria.

        Raises:
            TrainingError: it is something else, or of another format version.
        """
        try:
            fields = json.loads(text)
            written = fields.pop("format", 0) if isinstance(fields, dict) else 0
            if written not in range(1, _FORMAT + 1):
                raise ValueError(f"format must be 1 to {_FORMAT}")
            found = {c["name"]: Criterion(**c) for c in fields.pop("criteria")}
            if written < _FORMAT:
                missing = "not asked when this report was written"
                found |= {n: not_asked(n, missing) for n in CRITERIA if n not in found}
            if tuple(found) != CRITERIA:
                raise ValueError(f"criteria must be {', '.join(CRITERIA)}, got {', '.join(found)}")
            criteria = tuple(found.values())
            candidate = fields.pop("candidate")
            reasons = tuple(fields.pop("reasons"))
            value = math.nan if candidate is None else candidate
            return cls(criteria=criteria, candidate=value, reasons=reasons, **fields)
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"gate report cannot be read: {error}; evaluate the gate again"
            ) from error


def evaluate_gate(
    *,
    y_true: ArrayLike,
    scores: Mapping[str, np.ndarray[Any, Any]],
    groups: ArrayLike | None,
    gate: Gate,
    metric: str,
    seed: int,
    champion_seen_holdout: bool,
    units: ArrayLike | None = None,
    columns: Mapping[str, ArrayLike] | None = None,
    measured: Mapping[str, float] | None = None,
    earlier_uses: int = 0,
    validation: Validation | Literal["not asked"] | None = "not asked",
    standings: Standings | None = None,
) -> GateReport:
    """Judge a candidate on a holdout of n rows; the same arguments give the same report.

    Args:
        y_true: truth, shape (n,), as `training.metrics` has it.
        scores: predictions by name, shape (n,) or (n, classes): `candidate`, `champion` where there
            is one, and trivial baselines under any other name.
        groups: group of each row, for ranking metrics; else None.
        gate: what is asked.
        metric: name of the metric (`gate.metric` may be None, so it is given).
        seed: seed of the bootstrap.
        champion_seen_holdout: whether the champion was trained on any of these rows.
        units: label of each row; rows with equal labels (one customer, one day) are one cluster,
            which widens the bounds where they are alike (`intervals.time_blocks` makes them of
            partitions). By default rows are drawn alone. A ranking metric draws groups, each of
            which must lie in one unit.
        columns: labels of the holdout rows by column, for `gate.slices` and `gate.group_gaps`.
        measured: `size_bytes`, `row_ms` and `batch_ms` of the candidate, for `gate.budgets`.
        earlier_uses: how many candidates were compared on this holdout before.
        validation: what a fresh process made of the registered model; None where it should have been
            asked and was not.
        standings: of earlier verdicts on the same arrays.

    Raises:
        TrainingError: the arrays do not fit each other or the metric, a column that the gate needs
            is missing, or `gate.resamples` is too small for `gate.confidence`.
    """
    measure = get_metric(metric)
    truth = np.asarray(y_true)
    _check_shapes(measure, truth, scores, groups, units)
    finite_ = _finite_scores(scores)
    if not finite_.passed:
        return _report_without_scores(
            measure, truth, groups, finite_, gate, measured or {}, _infra_validation(validation)
        )
    sample = _Sample.of(measure, truth, scores, groups, units, standings or Standings())
    enough = _enough_rows(sample, gate)
    alpha = spent_alpha(gate, earlier_uses)
    intervals = {} if enough.passed is None else sample.intervals(gate, alpha, seed)
    versus_champion = _beats_champion(sample, gate, intervals, alpha, earlier_uses)
    power = _power(gate, "champion" in scores, intervals.get("champion"), versus_champion, alpha)
    if power.required and power.passed is None and versus_champion.passed is False:
        versus_champion = _undecided_for_lack_of_power(versus_champion)
    judged = enough.passed is True
    rows = columns or {}
    codes = None if units is None else group_codes(units)
    criteria = (
        finite_,
        enough,
        _floor(sample, gate, judged=judged),
        _beats_baselines(sample, gate, intervals),
        _unseen_holdout("champion" in scores, champion_seen_holdout),
        versus_champion,
        power,
        further.slices(gate, measure, truth, scores, rows, groups=groups, codes=codes)
        if judged
        else _unjudged("slices", gate.slices is not None and "champion" in scores),
        further.group_gaps(gate, truth, scores["candidate"], rows, codes=codes)
        if judged
        else _unjudged("group_gaps", gate.group_gaps is not None),
        further.calibration(gate, truth, scores["candidate"])
        if judged
        else _unjudged("calibration", gate.max_calibration_error is not None),
        further.size(gate.budgets, measured or {}),
        further.latency(gate.budgets, measured or {}),
        further.churn(gate, measure, truth, scores, groups),
        _infra_validation(validation),
    )
    return _report(sample, criteria, intervals.get("champion"), alpha)


def paired_gain(
    *,
    y_true: ArrayLike,
    scores: Mapping[str, np.ndarray[Any, Any]],
    groups: ArrayLike | None,
    units: ArrayLike,
    gate: Gate,
    metric: str,
    seed: int,
    alpha: float,
) -> GainInterval:
    """The gain of `candidate` over `champion` with bounds at `alpha`, as the gate computes it.

    Args:
        y_true, scores, groups, metric, seed: as in `evaluate_gate`; scores of these two.
        units: label of each row; rows with equal labels are one cluster.
        gate: `resamples` and `min_rows`, below which there are no bounds.
        alpha: 1 - confidence of each bound.

    Raises:
        TrainingError: as `evaluate_gate`.
    """
    measure = get_metric(metric)
    truth = np.asarray(y_true)
    _check_shapes(measure, truth, scores, groups, units)
    sample = _Sample.of(measure, truth, scores, groups, units, Standings())
    enough = _enough_rows(sample, gate)
    if enough.passed is None:
        nan = math.nan
        return GainInterval(
            sample.gain("champion"), None, None, nan, nan, "", sample.drawn, enough.summary
        )
    return sample.intervals(gate, alpha, seed)["champion"]


def spent_alpha(gate: Gate, earlier_uses: int) -> float:
    """1 - confidence of a comparison with the champion, after earlier ones on the same holdout.

    The rule and its source: see the module.

    >>> [round(spent_alpha(Gate(), uses), 5) for uses in range(4)]
    [0.05, 0.025, 0.00833, 0.00417]
    """
    alpha = 1 - gate.confidence
    if gate.holdout_reuse == "ignore" or earlier_uses < 1:
        return alpha
    return alpha / (earlier_uses * (earlier_uses + 1))


def nested(groups: ArrayLike, units: ArrayLike) -> bool:
    """Whether every group lies in one unit.

    >>> nested(["a", "a", "b"], [1, 1, 1]), nested(["a", "a", "b"], [1, 2, 2])
    (True, False)
    """
    inner, outer = group_codes(groups), group_codes(units)
    first = np.zeros(int(inner.max()) + 1, dtype=np.int64)
    first[inner] = outer
    return bool((first[inner] == outer).all())


@dataclass(frozen=True)
class _Sample:
    """The holdout: every model's values on it, and how certain their differences are.

    `codes` maps each of the metric's units to its cluster, None where each is drawn alone.
    """

    metric: Metric
    values: Mapping[str, float]
    n: int
    codes: NDArray[np.int64] | None
    truth: NDArray[Any]
    standings: Mapping[str, Standing]

    @classmethod
    def of(
        cls,
        metric: Metric,
        truth: NDArray[Any],
        scores: Mapping[str, NDArray[Any]],
        groups: ArrayLike | None,
        units: ArrayLike | None,
        known: Standings,
    ) -> "_Sample":
        n = metric.n_units(truth, groups=groups)
        standings = {name: known.of(metric, truth, score, groups) for name, score in scores.items()}
        values = {name: standing.value for name, standing in standings.items()}
        codes = None if units is None else group_codes(units)
        if codes is not None and metric.needs_groups and groups is not None:
            of_group = np.zeros(n, dtype=np.int64)
            of_group[group_codes(groups)] = codes
            codes = of_group
        return cls(metric, values, n, codes, truth, standings)

    @property
    def drawn(self) -> int:
        """Independent units: rows, groups or clusters."""
        return self.n if self.codes is None else int(self.codes.max()) + 1

    @property
    def rivals(self) -> list[str]:
        """Champion and baselines."""
        return [name for name in self.standings if name != "candidate"]

    @property
    def baselines(self) -> list[str]:
        """All rivals but the champion."""
        return [name for name in self.rivals if name != "champion"]

    def gain(self, rival: str) -> float:
        """The candidate's gain over a rival on all rows."""
        return self.metric.gain(self.values["candidate"], self.values[rival])

    def intervals(self, gate: Gate, alpha: float, seed: int) -> dict[str, GainInterval]:
        """The candidate's gain over each rival: over the champion at `alpha`, else as asked."""
        method = method_of(self.metric.name)
        few = self.codes is not None and self.drawn < FEW_CLUSTERS
        alphas = dict.fromkeys(self.rivals, 1 - gate.confidence)
        if "champion" in alphas:
            alphas["champion"] = alpha
        if method == "mcnemar" and self.codes is None:
            return {rival: self._mcnemar(rival, level) for rival, level in alphas.items()}
        if few:
            left_out = self._left_out()
            return {
                rival: jackknife(self.gain(rival), left_out[rival], level)
                for rival, level in alphas.items()
            }
        influence = {name: standing.influence for name, standing in self.standings.items()}
        gains = self._resampled(gate, seed) if method == "bootstrap" and alphas else {}
        found = {}
        for rival, level in alphas.items():
            values = self.metric.gain(influence["candidate"], influence[rival])
            gain = self.gain(rival)
            if method == "bootstrap":
                found[rival] = bootstrap(gain, gains[rival], values, level, codes=self.codes)
            elif self.codes is not None:
                name = "cluster-robust t"
                found[rival] = linear(gain, values, level, codes=self.codes, method=name)
            elif method == "delong":
                found[rival] = delong(gain, values, self.truth, level)
            else:
                found[rival] = linear(gain, values, level, method=method)
        return found

    def _mcnemar(self, rival: str, alpha: float) -> GainInterval:
        ours, theirs = (
            predicted_labels(np.asarray(self.standings[who].score, dtype=np.float64)) == self.truth
            for who in ("candidate", rival)
        )
        return mcnemar(int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours)), self.n, alpha)

    def _left_out(self) -> dict[str, _FloatArray]:
        """The candidate's gain over each rival without each of the clusters, shape (clusters,)."""
        assert self.codes is not None
        weights = (np.arange(self.drawn)[:, None] != self.codes).astype(np.float64)
        values = {name: standing.resampler(weights) for name, standing in self.standings.items()}
        return {
            rival: self.metric.gain(values["candidate"], values[rival]) for rival in self.rivals
        }

    def _resampled(self, gate: Gate, seed: int) -> dict[str, _FloatArray]:
        """The candidate's gain over each rival in each resample, shape (resamples,); nan possible.

        Rows (or clusters) are drawn again and again, and every draw is applied to all models; block
        by block, so that memory does not grow with the resamples.
        """
        if (1 - gate.confidence) * (gate.resamples + 1) < 1 - 1e-9:
            raise TrainingError(
                f"gate.resamples: {gate.resamples} are too few for a bound at confidence "
                f"{gate.confidence}; take at least {math.ceil(1.1 / (1 - gate.confidence))}"
            )
        rng = np.random.default_rng(seed)
        drawn = self.drawn
        parts: dict[str, list[_FloatArray]] = {name: [] for name in self.rivals}
        step = max(1, _BLOCK // max(self.n, drawn))
        for at in range(0, gate.resamples, step):
            rows = min(step, gate.resamples - at)
            draws = rng.integers(0, drawn, size=(rows, drawn))
            draws += np.arange(rows)[:, None] * drawn
            counts = np.bincount(draws.ravel(), minlength=rows * drawn).reshape(rows, drawn)
            weights = counts.astype(np.float64)
            if self.codes is not None:
                weights = weights[:, self.codes]
            candidate = self.standings["candidate"].resampler(weights)
            for name in self.rivals:
                rival = self.standings[name].resampler(weights)
                parts[name].append(self.metric.gain(candidate, rival))
        return {name: np.concatenate(blocks) for name, blocks in parts.items()}


def _numbers(interval: GainInterval) -> dict[str, float]:
    found = {
        "gain": interval.gain,
        "gain_low": interval.low,
        "gain_high": interval.high,
        "standard_error": interval.se,
        "drawn": interval.drawn,
    }
    if interval.resamples:
        found |= {"resamples": interval.resamples, "undefined_resamples": interval.undefined}
    return finite(found)


def _check_shapes(
    metric: Metric,
    truth: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    groups: ArrayLike | None,
    units: ArrayLike | None,
) -> None:
    if "candidate" not in scores:
        raise TrainingError(f"gate: scores need 'candidate', got {', '.join(scores) or 'none'}")
    wrong = [f"{name} {s.shape}" for name, s in scores.items() if len(s) != len(truth)]
    if wrong:
        raise TrainingError(
            f"gate: all scores need one row for each of the {len(truth)} true values, got "
            f"{', '.join(wrong)}; score the same holdout with every model"
        )
    if units is not None and len(np.asarray(units)) != len(truth):
        raise TrainingError(
            f"gate: units need one label per row ({len(truth)}), got {len(np.asarray(units))}"
        )
    if units is not None and metric.needs_groups and groups is not None:
        if nested(groups, units):
            return
        raise TrainingError(
            f"gate: {metric.name} has a value per group, and groups lie in several units; give "
            "no units, or groups that lie in one each"
        )


def _finite_scores(scores: Mapping[str, NDArray[Any]]) -> Criterion:
    bad = {}
    for name, score in scores.items():
        values = np.asarray(score, dtype=np.float64).reshape(len(score), -1)
        bad[name] = int(np.sum(~np.isfinite(values).all(axis=1)))
    numbers = {f"not_finite_{name}": float(count) for name, count in bad.items()}
    rows = len(scores["candidate"])
    found = [f"{name}: {count} of {rows}" for name, count in bad.items() if count]
    if not found:
        return Criterion(CRITERIA[0], True, "all scores are finite", numbers, True)
    summary = f"scores are nan or infinite ({', '.join(found)} rows), so nothing can be compared"
    return Criterion(CRITERIA[0], False, summary, numbers, True)


def _report_without_scores(
    metric: Metric,
    truth: NDArray[Any],
    groups: ArrayLike | None,
    finite_: Criterion,
    gate: Gate,
    measured: Mapping[str, float],
    infra_validation: Criterion,
) -> GateReport:
    n = metric.n_units(truth, groups=groups)
    asked = {
        "power": gate.detectable,
        "slices": gate.slices,
        "group_gaps": gate.group_gaps,
        "calibration": gate.max_calibration_error,
        "churn": gate.max_churn,
    }
    known = {
        "finite_scores": finite_,
        "size": further.size(gate.budgets, measured),
        "latency": further.latency(gate.budgets, measured),
        "infra_validation": infra_validation,
    }
    criteria = tuple(
        known.get(name)
        or (
            not_asked(name)
            if name in asked and asked[name] is None
            else Criterion(name, None, f"{_NOT_JUDGED}: scores are not finite", {}, True)
        )
        for name in CRITERIA
    )
    return _verdict(metric, n, criteria, math.nan)


def _infra_validation(validation: Validation | Literal["not asked"] | None) -> Criterion:
    if validation == "not asked":
        return not_asked("infra_validation")
    return further.infra_validation(validation)


def _unjudged(name: str, asked: bool) -> Criterion:
    if not asked:
        return not_asked(name)
    return Criterion(name, None, f"{_NOT_JUDGED}: too little data", {}, True)


def _enough_rows(sample: _Sample, gate: Gate) -> Criterion:
    """The size of the sample, and whether the metric has a value on it at all."""
    what = "groups" if sample.metric.needs_groups else "rows"
    numbers = {"rows": float(sample.n), "min_rows": float(gate.min_rows)}
    if sample.n < gate.min_rows:
        summary = f"{sample.n} holdout {what} are fewer than min_rows {gate.min_rows}"
        return Criterion("enough_rows", None, summary, numbers, True)
    if not math.isfinite(sample.values["candidate"]):
        summary = f"{sample.metric.name} has no value here: {sample.metric.undefined_when}"
        return Criterion("enough_rows", None, summary, numbers, True)
    numbers["drawn"] = float(sample.drawn)
    if sample.codes is not None and sample.drawn < MIN_CLUSTERS:
        summary = f"{sample.drawn} clusters of rows are fewer than {MIN_CLUSTERS}"
        return Criterion("enough_rows", None, summary, numbers, True)
    together = "" if sample.codes is None else f" in {sample.drawn} clusters"
    summary = f"{sample.n} holdout {what}{together} (min_rows {gate.min_rows})"
    return Criterion("enough_rows", True, summary, numbers, True)


def _floor(sample: _Sample, gate: Gate, *, judged: bool) -> Criterion:
    if gate.floor is None:
        return Criterion("floor", True, "no floor set", {}, False)
    value = sample.values["candidate"]
    numbers = finite({"candidate": value, "floor": gate.floor})
    if not judged:
        return Criterion("floor", None, f"{_NOT_JUDGED}: too little data", numbers, True)
    passed = sample.metric.gain(value, gate.floor) >= 0
    signs = (">=", "<") if sample.metric.direction == "maximize" else ("<=", ">")
    sign = signs[0] if passed else signs[1]
    summary = f"{sample.metric.name} {value:.4g} {sign} floor {gate.floor:g}"
    return Criterion("floor", passed, summary, numbers, True)


def _beats_baselines(
    sample: _Sample, gate: Gate, intervals: Mapping[str, GainInterval]
) -> Criterion:
    """Better than every baseline; the one with the lowest bound decides and is reported."""
    name = "beats_baselines"
    if not sample.baselines:
        return not_asked(name, "no baselines given")
    numbers = {f"{rival}_value": sample.values[rival] for rival in sample.baselines}
    if not intervals:
        return Criterion(name, None, f"{_NOT_JUDGED}: too little data", finite(numbers), True)
    found = {rival: intervals[rival] for rival in sample.baselines}
    for rival, interval in found.items():
        numbers |= {f"{rival}_{key}": number for key, number in _numbers(interval).items()}
    verdicts = {
        rival: None if interval.low is None else interval.low > 0
        for rival, interval in found.items()
    }
    # False before None before True, then the lowest bound.
    urgency = {False: 0, None: 1, True: 2}
    worst = min(found, key=lambda r: (urgency[verdicts[r]], found[r].low or 0.0))
    summary = _comparison(sample, worst, found[worst], 0.0, gate.confidence)
    return Criterion(name, verdicts[worst], summary, finite(numbers), True)


def _unseen_holdout(has_champion: bool, seen: bool) -> Criterion:
    if not has_champion:
        return Criterion("unseen_holdout", True, "no champion yet", {}, False)
    if seen:
        summary = (
            "the champion was trained on rows of this holdout, which flatters it; wait for data "
            "that neither has seen"
        )
        return Criterion("unseen_holdout", False, summary, {}, True)
    return Criterion("unseen_holdout", True, "the champion has not seen the holdout", {}, True)


def _beats_champion(
    sample: _Sample,
    gate: Gate,
    intervals: Mapping[str, GainInterval],
    alpha: float,
    earlier_uses: int,
) -> Criterion:
    """The lower bound of the gain must lie above min_gain, strictly.

    Strictly, so that a candidate that predicts exactly what the champion predicts (gain and bounds
    0) does not replace it at min_gain 0; a negative min_gain lets it.
    """
    name = "beats_champion"
    if "champion" not in sample.standings:
        return not_asked(name, "no champion yet")
    asked = {"min_gain": gate.min_gain, "confidence": 1 - alpha, "earlier_uses": earlier_uses}
    known = {who: sample.values[who] for who in ("candidate", "champion")}
    if not intervals:
        numbers = finite({**known, "gain": sample.gain("champion"), **asked})
        return Criterion(name, None, f"{_NOT_JUDGED}: too little data", numbers, True)
    interval = intervals["champion"]
    verdict = None if interval.low is None else interval.low > gate.min_gain
    summary = _comparison(sample, "champion", interval, gate.min_gain, 1 - alpha)
    if earlier_uses and gate.holdout_reuse == "spend":
        summary += f" (comparison {earlier_uses + 1} on this holdout)"
    numbers = finite({**known, **_numbers(interval), **asked})
    return Criterion(name, verdict, summary, numbers, True)


def _power(
    gate: Gate,
    has_champion: bool,
    interval: GainInterval | None,
    versus_champion: Criterion,
    alpha: float,
) -> Criterion:
    """What the holdout can show; required where `gate.detectable` asks for it.

    Passed as well where the gain has been shown: then there was enough power.
    """
    if not has_champion:
        return not_asked("power", "no champion yet" if gate.detectable else "not asked")
    smallest = None if interval is None else detectable(interval, alpha)
    numbers = finite({"detectable": smallest, "power": POWER, "asked": gate.detectable})
    if gate.detectable is None:
        text = "not asked"
        if smallest is not None:
            text += f"; this holdout shows a gain of {smallest:.3g} with {POWER:.0%} chance"
        return Criterion("power", True, text, numbers, False)
    if smallest is None:
        return Criterion("power", None, f"{_NOT_JUDGED}: the gain has no bound", numbers, True)
    enough = smallest <= gate.detectable
    text = (
        f"this holdout shows a gain of {smallest:.3g} with {POWER:.0%} chance, "
        f"{gate.detectable:g} is asked for"
    )
    if enough or versus_champion.passed:
        return Criterion("power", True, text, numbers, True)
    return Criterion("power", None, f"{text}; take a longer holdout", numbers, True)


def _undecided_for_lack_of_power(criterion: Criterion) -> Criterion:
    """Not shown to be better, by a holdout that could not have shown it: no evidence either way.

    A candidate that is shown not to reach min_gain (upper bound below it) stays rejected.
    """
    numbers = criterion.numbers
    if numbers["gain_high"] < numbers["min_gain"]:
        return criterion
    return Criterion(criterion.name, None, criterion.summary, numbers, criterion.required)


def _comparison(
    sample: _Sample, rival: str, interval: GainInterval, min_gain: float, confidence: float
) -> str:
    values = (
        f"{sample.metric.name} {sample.values['candidate']:.4g} against {rival} "
        f"{sample.values[rival]:.4g}"
    )
    if interval.low is None:
        return f"{values}: {interval.problem}"
    return f"{values}: gain {interval.gain:+.3g}, {_bound(interval.low, confidence, min_gain)}"


def _bound(low: float, confidence: float, min_gain: float) -> str:
    sign = ">" if low > min_gain else "=" if low == min_gain else "<"
    needed = ", must be above" if sign == "=" else ""
    return f"{confidence * 100:.4g}% lower bound {low:+.3g} {sign} {min_gain:g}{needed}"


def _report(
    sample: _Sample,
    criteria: tuple[Criterion, ...],
    interval: GainInterval | None,
    alpha: float,
) -> GateReport:
    judged = interval is not None and interval.low is not None
    return _verdict(
        sample.metric,
        sample.n,
        criteria,
        sample.values["candidate"],
        method=interval.method if interval is not None and judged else "",
        confidence=1 - alpha if judged else None,
        detectable=criteria[CRITERIA.index("power")].numbers.get("detectable"),
    )


def _verdict(
    metric: Metric, n: int, criteria: tuple[Criterion, ...], candidate: float, **known: Any
) -> GateReport:
    required = [criterion for criterion in criteria if criterion.required]
    verdicts = [criterion.passed for criterion in required]
    numbers = criteria[CRITERIA.index("beats_champion")].numbers
    return GateReport(
        decision=(
            "reject" if False in verdicts else "undecided" if None in verdicts else "promote"
        ),
        criteria=criteria,
        metric=metric.name,
        direction=metric.direction,
        candidate=candidate,
        champion=numbers.get("champion"),
        gain=numbers.get("gain"),
        gain_low=numbers.get("gain_low"),
        gain_high=numbers.get("gain_high"),
        n=n,
        reasons=tuple(c.summary for c in required if _counts_against(c)),
        **known,
    )


def _counts_against(criterion: Criterion) -> bool:
    return (
        criterion.required
        and criterion.passed is not True
        and not criterion.summary.startswith(_NOT_JUDGED)
    )


def gate_markdown(report: GateReport) -> str:
    """The report as a Markdown table, for the Dagster UI and alerts."""
    marks = {True: "passed", False: "**failed**", None: "undecided"}
    lines = [f"**{report.decision}** on {report.metric}, n = {report.n}", ""]
    lines += ["| criterion | result | why |", "|---|---|---|"]
    for criterion in report.criteria:
        result = marks[criterion.passed] if criterion.required else "not asked"
        lines.append(f"| {criterion.name} | {result} | {criterion.summary.replace('|', '/')} |")
    return "\n".join(lines)


def gate_sentence(
    report: GateReport,
    *,
    candidate_version: str | None = None,
    champion_version: str | None = None,
) -> str:
    """The verdict in one line, for errors and logs.

    For example: `candidate v12 (roc_auc 0.671) does not beat champion v9 (0.668): gain +0.003, 95%
    lower bound -0.004 < 0`.
    """
    ours = f"candidate{f' v{candidate_version}' if candidate_version else ''}"
    theirs = f"champion{f' v{champion_version}' if champion_version else ''}"
    if math.isfinite(report.candidate):
        ours += f" ({report.metric} {report.candidate:.4g})"
    champion = report.criterion("beats_champion")
    against = [criterion for criterion in report.criteria if _counts_against(criterion)]
    if report.champion is None or report.gain is None or report.gain_low is None:
        if report.decision == "promote":
            return f"{ours} becomes the first champion"
    elif against in ([], [champion]):
        verb = "beats" if champion.passed else "does not beat"
        if champion.passed is None:
            verb = "is not shown to beat"
        bound = _bound(
            report.gain_low, champion.numbers["confidence"], champion.numbers["min_gain"]
        )
        return f"{ours} {verb} {theirs} ({report.champion:.4g}): gain {report.gain:+.3g}, {bound}"
    verdict = "cannot be judged" if report.decision == "undecided" else "is not promoted"
    return f"{ours} {verdict}: {'; '.join(criterion.summary for criterion in against)}"
