"""What a drift comparison found, as plain data that can be stored and read back.

Belongs here: `FeatureDrift`, `DriftReport`, their JSON form and the number that is plotted over
time. Does not: how any of it was computed (`statistics`, `compare`) or how it looks (`render`); an
engine is free to change as long as it fills these fields.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from math import inf, isnan, nan
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from retrain_assets.errors import DriftError

__all__ = ["DriftReport", "FeatureDrift", "Kind", "Verdict", "drift_score"]

Kind = Literal["numeric", "categorical"]
Verdict = Literal["stable", "drifted", "undecided"]

VERDICTS: tuple[str, ...] = get_args(Verdict)

_VERSION = 1
_STRICT = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="strings")

# Infinity and NaN are not JSON numbers; as strings every JSON parser can read the report.
_NON_FINITE = {"Infinity": inf, "-Infinity": -inf, "NaN": nan}


def _from_text(value: Any) -> Any:
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


_Number = Annotated[float, BeforeValidator(_from_text)]


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
            category the reference lacks), mean_reference, mean_current.
        reasons: what changed, in plain words; also why a feature could not be judged in full.
    """

    __pydantic_config__ = _STRICT

    feature: str
    kind: Kind
    n_reference: int
    n_current: int
    drifted: bool
    severity: _Number
    p_value: _Number | None
    p_adjusted: _Number | None
    statistics: dict[str, _Number]
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if isnan(self.severity) or self.severity < 0:
            raise DriftError(f"'{self.feature}': severity must be >= 0, got {self.severity}")


@dataclass(frozen=True)
class DriftReport:
    """The comparison of one reference with one current table.

    Attributes:
        verdict: `undecided` where there is too little data to say; never a disguised `stable`.
        reasons: why, in plain words, the most important first.
        features: one row per compared feature; kept in order of falling severity, then by name.
        n_reference: rows of the reference.
        n_current: rows of the current data.
        share_drifted: drifted features over compared features, in [0, 1].
        score: see `drift_score`, in [0, 1].
        reference: what the reference is, for people ("champion v7, 60 days").
        current: what it was compared with ("2013-03-01").
    """

    __pydantic_config__ = _STRICT

    verdict: Verdict
    reasons: tuple[str, ...]
    features: tuple[FeatureDrift, ...]
    n_reference: int
    n_current: int
    share_drifted: _Number
    score: _Number
    reference: str
    current: str

    def __post_init__(self) -> None:
        ordered = sorted(self.features, key=lambda row: (-row.severity, row.feature))
        object.__setattr__(self, "features", tuple(ordered))

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """Names of the features that drifted, the worst first."""
        return tuple(row.feature for row in self.features if row.drifted)

    def to_json(self) -> str:
        """The report as one JSON object with a `version`; `from_json` reads it back unchanged.

        Infinity and NaN are written as the strings "Infinity", "-Infinity" and "NaN".
        """
        document = {"version": _VERSION, **asdict(self)}
        return TypeAdapter(dict[str, Any], config=_STRICT).dump_json(document).decode()

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
        version = document.pop("version", None)
        if type(version) is not int or version != _VERSION:
            raise DriftError(
                f"drift report: version must be {_VERSION}, got {version!r}; read it with the "
                "release that wrote it, or compute the report again"
            )
        try:
            # From JSON text again, where strict validation lets an array be a tuple.
            return _adapter().validate_json(json.dumps(document))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            )
            raise DriftError(f"drift report: {problems}") from None


@cache
def _adapter() -> TypeAdapter[DriftReport]:
    return TypeAdapter(DriftReport)


def drift_score(features: Iterable[FeatureDrift]) -> float:
    """One bounded number per report, to plot over time.

    The mean over the features of s / (1 + s), s being the severity, which is taken as at most 1
    for a feature that did not drift (so that noise in few rows cannot look like drift). Range
    [0, 1]: 0 nothing moved, 0.5 every feature sits at its threshold, towards 1 everything is far
    beyond. A single extreme feature of k adds at most 1/k. No features give 0.

    >>> drift_score([])
    0.0
    """
    parts = []
    for row in features:
        severity = row.severity if row.drifted else min(row.severity, 1.0)
        parts.append(1.0 if severity == inf else severity / (1.0 + severity))
    return sum(parts) / len(parts) if parts else 0.0
