"""What a drift comparison found, as plain data that can be stored and read back.

Belongs here: `DriftReport` and its parts, their JSON form and the number that is plotted over time.
Does not: how any of it was computed (`statistics`, `verdict`, `multivariate`, `outcomes`) or how it
looks (`render`); an engine is free to change as long as it fills these fields.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import inf, isfinite, isnan, nan
from typing import TYPE_CHECKING, Any, Literal, get_args

from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "CorrelationChange", "DriftReport", "FeatureDrift", "Kind", "MultivariateDrift", "ReportSummary",
    "Sections", "Verdict", "drift_score",
]  # fmt: skip

Kind = Literal["numeric", "categorical"]
Verdict = Literal["stable", "drifted", "undecided"]

VERDICTS: tuple[str, ...] = get_args(Verdict)

_VERSION = 3
_READABLE = (1, 2, 3)
# pydantic's ConfigDict is a plain dict; importing it would cost every comparison 0.1 CPU s.
_STRICT: Any = {"extra": "forbid", "strict": True}

# Infinity and NaN are not JSON numbers; as strings every JSON parser can read the report.
_NON_FINITE = {"Infinity": inf, "-Infinity": -inf, "NaN": nan}
_NUMBERS = ("severity", "p_value", "p_adjusted", "importance", "share_drifted", "score")


def _as_text(value: Any) -> Any:
    """The document with numbers that JSON does not know as strings."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _from_text(document: Any) -> Any:
    """The reverse, in the fields that hold numbers."""
    if not isinstance(document, dict):
        return document
    result = dict(document)
    for key in _NUMBERS:
        if isinstance(result.get(key), str):
            result[key] = _NON_FINITE.get(result[key], result[key])
    for key in ("statistics", "usual"):
        if isinstance(result.get(key), dict):
            result[key] = {
                name: _NON_FINITE.get(x, x) if isinstance(x, str) else x
                for name, x in result[key].items()
            }
    for key in ("features", "prediction"):
        if isinstance(result.get(key), list):
            result[key] = [_from_text(row) for row in result[key]]
    if isinstance(result.get("label"), dict):
        result["label"] = _from_text(result["label"])
    return result


@dataclass(frozen=True)
class FeatureDrift:
    """How far one feature moved.

    Attributes:
        feature: column name.
        kind: how it was compared.
        n_reference: non-null values in the reference.
        n_current: non-null values in the current data.
        drifted: an effect reached its threshold and its test is significant, or the column is
            missing or changed its type.
        severity: largest effect size over its threshold, >= 0; 1.0 is at the threshold. Not yet
            a verdict: with few rows a large effect may be chance, see `drifted`.
        p_value: smallest p-value among the feature's tests, None where nothing could be tested.
        p_adjusted: the same test's p-value after correction for all tests of the report.
        statistics: what applies of ks, wasserstein (in the column's unit), wasserstein_scaled
            (over the reference's standard deviation), psi, chi2, cramers_v, null_rate_reference,
            null_rate_current, null_rate_change (absolute), unseen (share of current values whose
            category the reference lacks), vanished (likewise the other way), js (base 2), hellinger,
            outside (share beyond the reference's range), mean_reference, mean_current,
            deviation_reference, deviation_current, length_ks and mean lengths of free text. With stored profiles `ks`
            and `wasserstein` are lower ends, `ks_high` and `wasserstein_high` the upper ones.
        reasons: what changed, in plain words; also why a feature could not be judged in full.
        importance: weight in the report's share and score, None where all weigh the same.
        usual: per effect what it is between partitions of the reference, where that is known.
    """

    __pydantic_config__ = _STRICT

    feature: str
    kind: Kind
    n_reference: int
    n_current: int
    drifted: bool
    severity: float
    p_value: float | None
    p_adjusted: float | None
    statistics: dict[str, float]
    reasons: tuple[str, ...]
    importance: float | None = None
    usual: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isnan(self.severity) or self.severity < 0:
            raise DriftError(f"'{self.feature}': severity must be >= 0, got {self.severity}")


@dataclass(frozen=True)
class CorrelationChange:
    """Two numeric columns whose rank correlation changed provably, from `before` to `after`."""

    __pydantic_config__ = _STRICT

    first: str
    second: str
    before: float
    after: float


@dataclass(frozen=True)
class MultivariateDrift:
    """How well a classifier tells current rows from reference rows, all columns together.

    Attributes:
        verdict: `drifted` where the AUC is proven to be above `threshold`.
        auc: area under the ROC curve on rows that the classifier was not trained on; 0.5 where the
            sides cannot be told apart, 1 where every row can. None below the minimum sample, and
            where no column can be compared.
        low: lower end of its 95% confidence interval, None likewise.
        high: upper end.
        threshold: of the AUC.
        calibrated_on: windows of the reference that the threshold was calibrated on, or 0.
        n_rows: sampled rows of each side.
        shares: each column's share of what tells the sides apart, from 1%, largest first; empty
            where the interval does not lie above 0.5.
        correlations: pairs of numeric columns that go together differently, largest change first.
        left_out: columns that the classifier does not see, and why.
        reasons: in plain words.
    """

    __pydantic_config__ = _STRICT

    verdict: Verdict
    auc: float | None
    low: float | None
    high: float | None
    threshold: float
    calibrated_on: int
    n_rows: int
    shares: dict[str, float]
    correlations: tuple[CorrelationChange, ...]
    left_out: dict[str, str]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Sections:
    """What is compared beside the single features; see `DriftReport`."""

    multivariate: MultivariateDrift | None = None
    prediction: tuple[FeatureDrift, ...] = ()
    label: FeatureDrift | None = None


@dataclass(frozen=True)
class DriftReport:
    """The comparison of one reference with one current table.

    Attributes:
        verdict: `undecided` where there is too little data to say; never a disguised `stable`.
        reasons: why, in plain words, the most important first.
        features: one row per compared feature; kept in order of falling severity, then by name.
        n_reference: rows of the reference.
        n_current: rows of the current data.
        share_drifted: drifted features over compared features, by importance if given, in [0, 1].
        score: see `drift_score`, in [0, 1].
        reference: what the reference is, for people ("champion v7, 60 days").
        current: what it was compared with ("2013-03-01").
        exact: whether every distance is; else some are lower ends of certified intervals.
        calibrated_on: partitions of the reference that the thresholds were calibrated on, or 0.
        multivariate: all features together, None where it was not asked for.
        prediction: the champion's scores on current rows against those on its training rows; one
            row per class of a multiclass model, empty without a champion.
        label: the target, null values (labels still to come) left out; None where there is none.

    `prediction` and `label` are evidence: they count neither in share, score nor verdict.
    """

    __pydantic_config__ = _STRICT

    verdict: Verdict
    reasons: tuple[str, ...]
    features: tuple[FeatureDrift, ...]
    n_reference: int
    n_current: int
    share_drifted: float
    score: float
    reference: str
    current: str
    exact: bool = True
    calibrated_on: int = 0
    multivariate: MultivariateDrift | None = None
    prediction: tuple[FeatureDrift, ...] = ()
    label: FeatureDrift | None = None

    def __post_init__(self) -> None:
        ordered = sorted(self.features, key=lambda row: (-row.severity, row.feature))
        object.__setattr__(self, "features", tuple(ordered))

    @property
    def row_change(self) -> float:
        """Current rows over reference rows, less 1; infinity for an empty reference."""
        if not self.n_reference:
            return inf if self.n_current else 0.0
        return self.n_current / self.n_reference - 1

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """Names of the features that drifted, the worst first."""
        return tuple(row.feature for row in self.features if row.drifted)

    @property
    def outcomes(self) -> tuple[tuple[str, FeatureDrift], ...]:
        """Scores and label with what they are: `prediction`, `label`."""
        rows = [("prediction", row) for row in self.prediction]
        return (*rows, *([] if self.label is None else [("label", self.label)]))

    @property
    def news(self) -> tuple[str, ...]:
        """Reasons after the first that no row of a feature, score or label tells."""
        rows = (*self.features, *(row for _, row in self.outcomes))
        told = {reason for row in rows for reason in row.reasons}
        return tuple(reason for reason in self.reasons[1:] if reason not in told)

    def completed(self, sections: Sections) -> "DriftReport":
        """With the sections, and with what they found among the reasons.

        A multivariate `drifted` makes the report drifted, unless it is undecided, and is then told
        first where no feature was the reason.
        """
        joint, reasons, verdict = sections.multivariate, list(self.reasons), self.verdict
        if joint is not None:
            decides = joint.verdict == "drifted" and verdict == "stable"
            place = 0 if decides else 1
            reasons[place:place] = joint.reasons
            verdict = "drifted" if decides else verdict
        whole = replace(
            self,
            verdict=verdict,
            multivariate=joint,
            prediction=sections.prediction,
            label=sections.label,
        )
        told = [reason for _, row in whole.outcomes for reason in row.reasons]
        return replace(whole, reasons=(*reasons, *told))

    def to_json(self) -> str:
        """The report as one JSON object with a `version`; `from_json` reads it back unchanged.

        Infinity and NaN are written as the strings "Infinity", "-Infinity" and "NaN".
        """
        document = {"version": _VERSION, **asdict(self)}
        return json.dumps(_as_text(document), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "DriftReport":
        """Read what `to_json` wrote.

        Raises:
            DriftError: not JSON, another version, or a field that is missing, unknown or of the
                wrong type; names every such field.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise DriftError(f"drift report: must be JSON, got {text[:40]!r}: {error}") from None
        if not isinstance(document, dict):
            raise DriftError(f"drift report: must be a JSON object, got {text[:40]!r}")
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "DriftReport":
        """As `from_json`, of a JSON object that has been parsed already."""
        fields = dict(document)
        _check_version(fields.pop("version", None))
        from pydantic import ValidationError

        try:
            # From JSON text again, where strict validation lets an array be a tuple.
            return _adapter().validate_json(json.dumps(_from_text(fields)))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            )
            raise DriftError(f"drift report: {problems}") from None


@dataclass(frozen=True)
class ReportSummary:
    """What a history needs of a stored report; validating sixty of them in full costs seconds.

    Attributes:
        verdict: see `DriftReport`.
        reference: see `DriftReport`.
        severity: by feature, see `FeatureDrift`.
        drifted: the features that drifted.
        score: see `DriftReport`.
    """

    verdict: Verdict
    reference: str
    severity: dict[str, float]
    drifted: frozenset[str]
    score: float

    @classmethod
    def from_document(cls, document: Any) -> "ReportSummary":
        """Read a parsed report.

        Raises:
            DriftError: another version, or one of these fields is missing or of the wrong type.
        """
        try:
            _check_version(document["version"])
            rows = document["features"]
            return cls(
                document["verdict"],
                document["reference"],
                # "Infinity" is text in JSON, which float reads too.
                {row["feature"]: float(row["severity"]) for row in rows},
                frozenset(row["feature"] for row in rows if row["drifted"]),
                float(document["score"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DriftError(f"drift report: not a stored report: {error!r}") from None


def _check_version(version: object) -> None:
    if type(version) is not int or version not in _READABLE:
        raise DriftError(
            f"drift report: version must be 1, 2 or {_VERSION}, got {version!r}; read it with the "
            "release that wrote it, or compute the report again"
        )


@cache
def _adapter() -> "TypeAdapter[DriftReport]":
    from pydantic import TypeAdapter

    return TypeAdapter(DriftReport)


def drift_score(features: Iterable[FeatureDrift]) -> float:
    """One bounded number per report, to plot over time.

    The mean over the features (by importance, if they have one) of s / (1 + s), s being the
    severity, which is taken as at most 1 for a feature that did not drift (so that noise in few
    rows cannot look like drift). Range [0, 1]: 0 nothing moved, 0.5 every feature sits at its
    threshold, towards 1 everything is far beyond. A single extreme feature of k adds at most 1/k. No features give 0.

    >>> drift_score([])
    0.0
    """
    parts, weights = [], []
    for row in features:
        severity = row.severity if row.drifted else min(row.severity, 1.0)
        parts.append(1.0 if severity == inf else severity / (1.0 + severity))
        weights.append(1.0 if row.importance is None else row.importance)
    if not sum(weights):
        weights = [1.0] * len(parts)
    total = sum(part * weight for part, weight in zip(parts, weights, strict=True))
    return total / sum(weights) if parts else 0.0
