"""The promotion gate: is the candidate demonstrably better than the champion, on the same rows?

Belongs here: the criteria, their numbers and the verdict, computed from arrays alone. Does not:
training, scoring, what happens after the verdict (`ledger`, `registry`, the assets).

The comparison is paired. Candidate, champion and baselines score the same holdout rows; the
bootstrap draws the rows (ranking: the groups) again and again, and every draw is applied to all of
them, so that what makes a row hard for both cancels out. The candidate passes when the one-sided
lower confidence bound of its gain lies above `gate.min_gain`.

The bound is the percentile bootstrap's: with B defined gains in ascending order and
alpha = 1 - confidence, the floor(alpha (B + 1))-th of them (Davison & Hinkley, *Bootstrap Methods
and their Application*, 1997, section 5.3).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import Gate
from retrain_assets.training.metrics import Metric, get_metric, group_codes

__all__ = [
    "CRITERIA",
    "MAX_UNDEFINED_SHARE",
    "Criterion",
    "GateReport",
    "evaluate_gate",
    "gate_markdown",
    "gate_sentence",
]

CRITERIA = (
    "finite_scores",
    "enough_rows",
    "floor",
    "beats_baselines",
    "unseen_holdout",
    "beats_champion",
)
"""Names of the criteria; every report has all of them, in this order."""

MAX_UNDEFINED_SHARE = 0.05
"""Largest share of resamples in which the metric may be undefined (one class only, say)."""

_FORMAT = 1
_NOT_JUDGED = "not judged"
_BLOCK = 1 << 22
_FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """One thing that a candidate must show.

    Attributes:
        name: one of `CRITERIA`.
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
        """Read what `to_json` wrote.

        Raises:
            TrainingError: it is something else, or of another format version.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT:
                raise ValueError(f"format must be {_FORMAT}")
            criteria = tuple(Criterion(**criterion) for criterion in fields.pop("criteria"))
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
) -> GateReport:
    """Judge a candidate on a holdout of n rows; the same arguments give the same report.

    Args:
        y_true: truth, shape (n,), as `training.metrics` has it.
        scores: predictions by name, shape (n,) or (n, classes): `candidate`, `champion` where there
            is one, and trivial baselines under any other name.
        groups: group of each row, for ranking metrics; else None.
        gate: min_gain, confidence, floor, min_rows and resamples.
        metric: name of the metric (`gate.metric` may be None, so it is given).
        seed: seed of the bootstrap.
        champion_seen_holdout: whether the champion was trained on any of these rows.
        units: label of each row; rows with equal labels (one customer, one day) are drawn together,
            which widens the bounds where they are alike. By default rows are drawn alone, and
            groups where the metric is a ranking metric.

    Raises:
        TrainingError: the arrays do not fit each other or the metric, or `gate.resamples` is too
            small for `gate.confidence`.
    """
    measure = get_metric(metric)
    truth = np.asarray(y_true)
    _check_shapes(measure, truth, scores, units)
    finite = _finite_scores(scores)
    if not finite.passed:
        return _report_without_scores(measure, truth, groups, finite)
    sample = _Sample.of(measure, truth, scores, groups, units)
    enough = _enough_rows(sample, gate)
    gains = None if enough.passed is None else sample.gains(gate, seed)
    criteria = (
        finite,
        enough,
        _floor(sample, gate, judged=enough.passed is True),
        _beats_baselines(sample, gate, gains),
        _unseen_holdout("champion" in scores, champion_seen_holdout),
        _beats_champion(sample, gate, gains),
    )
    return _report(measure, sample.n, criteria, sample.values["candidate"])


@dataclass(frozen=True)
class _Sample:
    """The holdout: every model's values on it, and the way to resample it.

    `codes` maps each of the metric's units to the unit that is drawn.
    """

    metric: Metric
    values: Mapping[str, float]
    n: int
    codes: NDArray[np.int64]
    truth: NDArray[Any]
    scores: Mapping[str, NDArray[Any]]
    groups: ArrayLike | None

    @classmethod
    def of(
        cls,
        metric: Metric,
        truth: NDArray[Any],
        scores: Mapping[str, NDArray[Any]],
        groups: ArrayLike | None,
        units: ArrayLike | None,
    ) -> "_Sample":
        n = metric.n_units(truth, groups=groups)
        once = np.ones((1, n))
        values = {
            name: float(metric.resampled(truth, score, once, groups=groups)[0])
            for name, score in scores.items()
        }
        codes = np.arange(n) if units is None else group_codes(units)
        return cls(metric, values, n, codes, truth, scores, groups)

    @property
    def rivals(self) -> list[str]:
        """Champion and baselines."""
        return [name for name in self.scores if name != "candidate"]

    @property
    def baselines(self) -> list[str]:
        """All rivals but the champion."""
        return [name for name in self.rivals if name != "champion"]

    def gains(self, gate: Gate, seed: int) -> dict[str, _FloatArray]:
        """The candidate's gain over each rival in each resample, shape (resamples,); nan possible.

        The draws are made block by block, so that memory does not grow with the resamples.
        """
        rng = np.random.default_rng(seed)
        resamplers = {
            name: self.metric.resampler(self.truth, score, groups=self.groups)
            for name, score in self.scores.items()
        }
        drawn = int(self.codes.max()) + 1
        parts: dict[str, list[_FloatArray]] = {name: [] for name in self.rivals}
        step = max(1, _BLOCK // max(self.n, drawn))
        for at in range(0, gate.resamples, step):
            rows = min(step, gate.resamples - at)
            draws = rng.integers(0, drawn, size=(rows, drawn))
            draws += np.arange(rows)[:, None] * drawn
            counts = np.bincount(draws.ravel(), minlength=rows * drawn).reshape(rows, drawn)
            weights = counts[:, self.codes].astype(np.float64)
            candidate = resamplers["candidate"](weights)
            for name in self.rivals:
                parts[name].append(self.metric.gain(candidate, resamplers[name](weights)))
        return {name: np.concatenate(blocks) for name, blocks in parts.items()}


@dataclass(frozen=True)
class _Interval:
    """One-sided bounds of a gain; None where too many resamples were undefined."""

    gain: float
    low: float | None
    high: float | None
    undefined: int
    resamples: int

    @classmethod
    def of(cls, gain: float, gains: _FloatArray, confidence: float) -> "_Interval":
        defined = np.sort(gains[np.isfinite(gains)])
        undefined = len(gains) - len(defined)
        if undefined > MAX_UNDEFINED_SHARE * len(gains) or not math.isfinite(gain):
            return cls(gain, None, None, undefined, len(gains))
        # 1e-9: (1 - 0.9) * 400 must count as 40.
        rank = math.floor((1 - confidence) * (len(defined) + 1) + 1e-9)
        if rank < 1:
            raise TrainingError(
                f"gate.resamples: {len(gains)} are too few for a bound at confidence {confidence}; "
                f"take at least {math.ceil(1.1 / (1 - confidence))}"
            )
        return cls(gain, float(defined[rank - 1]), float(defined[-rank]), undefined, len(gains))

    def numbers(self) -> dict[str, float]:
        found = {"gain": self.gain, "gain_low": self.low, "gain_high": self.high}
        return _finite(
            {**found, "resamples": self.resamples, "undefined_resamples": self.undefined}
        )


def _check_shapes(
    metric: Metric,
    truth: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
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
    if units is not None and metric.needs_groups:
        raise TrainingError(f"gate: {metric.name} draws its groups; units must be None")
    if units is not None and len(np.asarray(units)) != len(truth):
        raise TrainingError(
            f"gate: units need one label per row ({len(truth)}), got {len(np.asarray(units))}"
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
    metric: Metric, truth: NDArray[Any], groups: ArrayLike | None, finite: Criterion
) -> GateReport:
    n = metric.n_units(truth, groups=groups)
    others = tuple(
        Criterion(name, None, f"{_NOT_JUDGED}: scores are not finite", {}, True)
        for name in CRITERIA[1:]
    )
    return _report(metric, n, (finite, *others), math.nan)


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
    drawn = int(sample.codes.max()) + 1
    summary = f"{sample.n} holdout {what} (min_rows {gate.min_rows})"
    return Criterion("enough_rows", True, summary, {**numbers, "drawn": float(drawn)}, True)


def _floor(sample: _Sample, gate: Gate, *, judged: bool) -> Criterion:
    if gate.floor is None:
        return Criterion("floor", True, "no floor set", {}, False)
    value = sample.values["candidate"]
    numbers = _finite({"candidate": value, "floor": gate.floor})
    if not judged:
        return Criterion("floor", None, f"{_NOT_JUDGED}: too little data", numbers, True)
    passed = sample.metric.gain(value, gate.floor) >= 0
    signs = (">=", "<") if sample.metric.direction == "maximize" else ("<=", ">")
    sign = signs[0] if passed else signs[1]
    summary = f"{sample.metric.name} {value:.4g} {sign} floor {gate.floor:g}"
    return Criterion("floor", passed, summary, numbers, True)


def _beats_baselines(
    sample: _Sample, gate: Gate, gains: Mapping[str, _FloatArray] | None
) -> Criterion:
    """Better than every baseline; the one with the lowest bound decides and is reported."""
    name = "beats_baselines"
    if not sample.baselines:
        return Criterion(name, True, "no baselines given", {}, False)
    numbers = {f"{rival}_value": sample.values[rival] for rival in sample.baselines}
    if gains is None:
        return Criterion(name, None, f"{_NOT_JUDGED}: too little data", _finite(numbers), True)
    intervals = {rival: _interval(sample, gate, gains, rival) for rival in sample.baselines}
    for rival, interval in intervals.items():
        numbers |= {f"{rival}_{key}": number for key, number in interval.numbers().items()}
    verdicts = {
        rival: None if interval.low is None else interval.low > 0
        for rival, interval in intervals.items()
    }
    # False before None before True, then the lowest bound.
    urgency = {False: 0, None: 1, True: 2}
    worst = min(intervals, key=lambda r: (urgency[verdicts[r]], intervals[r].low or 0.0))
    summary = _comparison(sample, gate, worst, intervals[worst], 0.0)
    return Criterion(name, verdicts[worst], summary, _finite(numbers), True)


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
    sample: _Sample, gate: Gate, gains: Mapping[str, _FloatArray] | None
) -> Criterion:
    """The lower bound of the gain must lie above min_gain, strictly.

    Strictly, so that a candidate that predicts exactly what the champion predicts (gain and bounds
    0) does not replace it at min_gain 0; a negative min_gain lets it.
    """
    name = "beats_champion"
    if "champion" not in sample.scores:
        return Criterion(name, True, "no champion yet", {}, False)
    asked = {"min_gain": gate.min_gain, "confidence": gate.confidence}
    known = {who: sample.values[who] for who in ("candidate", "champion")}
    if gains is None:
        gain = sample.metric.gain(known["candidate"], known["champion"])
        numbers = _finite({**known, "gain": gain, **asked})
        return Criterion(name, None, f"{_NOT_JUDGED}: too little data", numbers, True)
    interval = _interval(sample, gate, gains, "champion")
    verdict = None if interval.low is None else interval.low > gate.min_gain
    summary = _comparison(sample, gate, "champion", interval, gate.min_gain)
    numbers = _finite({**known, **interval.numbers(), **asked})
    return Criterion(name, verdict, summary, numbers, True)


def _interval(
    sample: _Sample, gate: Gate, gains: Mapping[str, _FloatArray], rival: str
) -> _Interval:
    gain = sample.metric.gain(sample.values["candidate"], sample.values[rival])
    return _Interval.of(gain, gains[rival], gate.confidence)


def _comparison(
    sample: _Sample, gate: Gate, rival: str, interval: _Interval, min_gain: float
) -> str:
    values = (
        f"{sample.metric.name} {sample.values['candidate']:.4g} against {rival} "
        f"{sample.values[rival]:.4g}"
    )
    if interval.low is None:
        return (
            f"{values}: undefined in {interval.undefined} of {interval.resamples} resamples, more "
            f"than {MAX_UNDEFINED_SHARE:.0%}, so the gain has no bound"
        )
    return f"{values}: gain {interval.gain:+.3g}, {_bound(interval.low, gate.confidence, min_gain)}"


def _bound(low: float, confidence: float, min_gain: float) -> str:
    sign = ">" if low > min_gain else "=" if low == min_gain else "<"
    needed = ", must be above" if sign == "=" else ""
    return f"{confidence * 100:g}% lower bound {low:+.3g} {sign} {min_gain:g}{needed}"


def _report(
    metric: Metric, n: int, criteria: tuple[Criterion, ...], candidate: float
) -> GateReport:
    required = [criterion for criterion in criteria if criterion.required]
    verdicts = [criterion.passed for criterion in required]
    numbers = criteria[-1].numbers
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
    )


def _counts_against(criterion: Criterion) -> bool:
    return (
        criterion.required
        and criterion.passed is not True
        and not criterion.summary.startswith(_NOT_JUDGED)
    )


def _finite(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers that exist: undefined ones are said in the summary, and JSON has no nan."""
    return {
        name: float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


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
        bound = _bound(
            report.gain_low, champion.numbers["confidence"], champion.numbers["min_gain"]
        )
        return f"{ours} {verb} {theirs} ({report.champion:.4g}): gain {report.gain:+.3g}, {bound}"
    verdict = "cannot be judged" if report.decision == "undecided" else "is not promoted"
    return f"{ours} {verdict}: {'; '.join(criterion.summary for criterion in against)}"
