"""From two tables or profiles to a `DriftReport`: what counts as drift.

Belongs here: pairing columns, the decision rule, the verdict, the alarm over several reports. Does
not: what moved in a column (`measure`), formulas (`statistics`), reading (`columns`), pictures.

The rule. **Effect size first, significance as evidence**: a feature drifts when one of its effects
reaches its threshold *and* that effect's test has a Benjamini-Hochberg adjusted p-value below
`alpha`, over all tests of all features. With many rows every p-value is tiny, and the threshold
decides; with few rows every effect is large, and the test decides.

| what moved | effects, each against its threshold | test |
|---|---|---|
| numbers | KS, Wasserstein over the reference's sd, PSI on deciles | Kolmogorov-Smirnov |
| categories | Cramér's V, PSI over categories | chi-square |
| new categories | share of current values in them, beyond the expected | permutation bound |
| nulls (NaN is null) | absolute change of the null rate | Fisher's exact test |
| type, or a missing column | drifted | none |

New categories are expected as far as the reference itself foretells them (Good-Turing: its share of
values that occur once), so that identifiers, which are always new, are not drift.

Small samples. PSI of two samples of n and m rows over B bins is on average (B - 1)(1/n + 1/m)
without any drift (Yurdakul 2018): at n = m = 100 and deciles 0.18, so that a threshold of 0.1 or 0.2
fires by itself. Every effect is therefore corrected for what sampling alone produces before it
meets its threshold: PSI less its expectation; KS, Wasserstein and V as sqrt(effect² - noise²), see
`statistics`. The report shows `psi` and `cramers_v` corrected; `ks` and `wasserstein`, which people
check by hand, as they are. Rare categories are grouped, in a fixed order that scatters names (serial
numbers would otherwise drift by being serial), until the chi-square approximation holds, so that
hundreds of categories neither drown nor invent a change.

Too little data is said, not guessed: below `min_rows` rows on a side the verdict is `undecided`; a
feature below `min_rows` non-null values on a side is judged on its null rate alone.

Either side may be a table, a file that is read column by column (`columns.open_table`), or a stored
profile. Two tables give exact distances; with a profile the Kolmogorov-Smirnov and Wasserstein
distances are certified intervals, whose lower end is judged.

Weights: with the champion's feature importance the share of drifted features and the score count
each feature by it. Calibration: with the reference's own partitions a threshold is never below what
this statistic does between them (`calibration`).

Known limits: a timestamp that moves on with time always drifts (exclude it); the Wasserstein effect
of a heavy tail may follow one outlier once Kolmogorov-Smirnov finds any difference at all; a
vanished rare category is seen only through its group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa

from retrain_assets.drift import statistics
from retrain_assets.drift.categories import MAX_COMPARED, CategoryCounts
from retrain_assets.drift.columns import (
    NUMERIC_FAMILIES,
    ArrowSource,
    Source,
    blocks,
    column_family,
    numeric_pieces,
)
from retrain_assets.drift.exact import compare_numbers
from retrain_assets.drift.intervals import compare_profiles
from retrain_assets.drift.measure import (
    Limits,
    Measured,
    Picture,
    measure_categories,
    measure_nulls,
    measure_numbers,
)
from retrain_assets.drift.profile import (
    CategoryProfile,
    NumericProfile,
    TableProfile,
    profile_column,
)
from retrain_assets.drift.report import (
    VERDICTS,
    DriftReport,
    FeatureDrift,
    Kind,
    Verdict,
    drift_score,
)
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from retrain_assets.drift.calibration import Calibration

__all__ = [
    "AlarmRule", "Comparable", "DriftRule", "alarm", "compare",
    "compare_alone", "compare_with_pictures", "measure_all",
]  # fmt: skip

REASONS_SHOWN = 5

Comparable: TypeAlias = pa.Table | Source | TableProfile


class AlarmRule(Protocol):
    """When drift of single reports becomes an alarm: `spec.model.Alarm`, or its like."""

    @property
    def share_of_features(self) -> float:
        """Share of drifted features that makes a report drifted."""

    @property
    def of_last(self) -> int:
        """Reports that are looked at."""

    @property
    def at_least(self) -> int:
        """Drifted reports among them that raise the alarm."""


class DriftRule(Protocol):
    """How drift is judged: `spec.model.Drift`, or its like."""

    @property
    def min_rows(self) -> int:
        """Fewest rows on either side."""

    @property
    def alpha(self) -> float:
        """False-discovery rate."""

    @property
    def thresholds(self) -> Limits:
        """Effect sizes."""

    @property
    def alert(self) -> AlarmRule:
        """From drifted features to a verdict."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Columns that are not watched."""


def compare(
    reference: Comparable,
    current: Comparable,
    spec: DriftRule,
    *,
    columns: Sequence[str],
    reference_name: str,
    current_name: str,
    importance: Mapping[str, float] | None = None,
    calibration: Calibration | None = None,
) -> DriftReport:
    """Compare `columns` of two tables by the rule in this module's docstring.

    Args:
        reference: what the model in production was trained on; any number of rows.
        current: the rows to judge; any number of rows.
        spec: minimum rows, alpha, thresholds, the share that alarms, excluded columns.
        columns: the features; those in `spec.exclude` are left out. A column that only `reference`
            has is drifted, one that only `current` has is named in the reasons.
        reference_name: what the reference is, for people.
        current_name: what the current rows are, for people.
        importance: weight >= 0 per feature, 0 where it has none; by default all weigh the same.
        calibration: what the statistics do between partitions of the reference.

    Returns:
        The report; `undecided` below `spec.min_rows` rows on either side or without any column.

    Raises:
        DriftError: a column is in neither table, occurs twice, or has only types that cannot be
            compared (lists, structs, binary); names all of them.
    """
    report, _ = compare_with_pictures(
        reference, current, spec, columns=columns, reference_name=reference_name,
        current_name=current_name, importance=importance, calibration=calibration, pictures=False,
    )  # fmt: skip
    return report


def compare_with_pictures(
    reference: Comparable,
    current: Comparable,
    spec: DriftRule,
    *,
    columns: Sequence[str],
    reference_name: str,
    current_name: str,
    importance: Mapping[str, float] | None = None,
    calibration: Calibration | None = None,
    pictures: bool = True,
) -> tuple[DriftReport, dict[str, Picture]]:
    """As `compare`, with the distributions of every feature that has one."""
    names = [name for name in dict.fromkeys(columns) if name not in spec.exclude]
    ref, cur = _Side(reference, "reference"), _Side(current, "current")
    _check_columns(ref, cur, names)
    _check_importance(importance)
    measured = _measured(ref, cur, spec, names, pictures)
    if calibration is not None:
        measured = [calibration.applied(column) for column in measured]
    features = _judge(measured, spec.alpha, importance, calibration)
    share = _share(features)
    verdict, headline = _verdict(ref.rows, cur.rows, features, share, spec)
    added = sorted(set(cur.types) - set(ref.types) - set(spec.exclude))
    reasons = [headline]
    if added:
        listed = ", ".join(f"`{name}`" for name in added)
        reasons.append(f"only in {current_name}, not compared: {listed}")
    worst = sorted((row for row in features if row.drifted), key=lambda row: -row.severity)
    reasons += [row.reasons[0] for row in worst[:REASONS_SHOWN]]
    report = DriftReport(
        verdict=verdict,
        reasons=tuple(reasons),
        features=features,
        n_reference=ref.rows,
        n_current=cur.rows,
        share_drifted=share,
        score=drift_score(features),
        reference=reference_name,
        current=current_name,
        exact=all(column.exact for column in measured),
        calibrated_on=0 if calibration is None else calibration.partitions,
    )
    shown = {row.feature: row.picture for row in measured if row.picture is not None}
    return report, shown


def measure_all(
    reference: Comparable, current: Comparable, spec: DriftRule, columns: Sequence[str]
) -> list[Measured]:
    """Effects and tests of `columns` (those that the reference has), before any decision."""
    ref, cur = _Side(reference, "reference"), _Side(current, "current")
    _check_columns(ref, cur, columns)
    return _measured(ref, cur, spec, columns, pictures=False)


def compare_alone(
    reference: Comparable, current: Comparable, spec: DriftRule, column: str
) -> FeatureDrift:
    """One column by the same rule, its p-values corrected for its own tests only; nulls are no drift.

    `drift.exclude` does not apply. Absent from one side counts as all null there.

    Raises:
        DriftError: as `compare`.
    """
    ref, cur = _Side(reference, "reference"), _Side(current, "current")
    _check_columns(ref, cur, [column])
    if column not in ref.types or column not in cur.types:
        side = ref if column in ref.types else cur
        n = _count(side, column)
        sizes = (n, 0) if side is ref else (0, n)
        measured = Measured(column, _kind(side.families[column]), *sizes)
    else:
        measured = _measured(ref, cur, spec, [column], pictures=False)[0]
        measured.tests = [
            test for test in measured.tests if test.effects[0].name != "null_rate"
        ]  # fmt: skip
    return _judge([measured], spec.alpha, None, None)[0]


def _measured(
    ref: _Side, cur: _Side, spec: DriftRule, names: Sequence[str], pictures: bool
) -> list[Measured]:
    pairs = _Pairs(ref, cur, spec, pictures)
    return list(pairs.measure([name for name in names if name in ref.types]))


def alarm(verdicts: Sequence[str], alert: AlarmRule) -> bool:
    """Whether at least `alert.at_least` of the last `alert.of_last` verdicts are `drifted`.

    Args:
        verdicts: oldest first; may be shorter than `of_last`. `undecided` counts as not drifted.
        alert: the rule.

    Raises:
        DriftError: a verdict is not one of stable, drifted, undecided.

    >>> from retrain_assets.spec.model import Alarm
    >>> alarm(["drifted", "stable", "drifted"], Alarm(of_last=3, at_least=2))
    True
    """
    for verdict in verdicts:
        if verdict not in VERDICTS:
            raise DriftError(f"verdict: must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    return verdicts[-alert.of_last :].count("drifted") >= alert.at_least


class _Side:
    """A table or a profile, asked in the same way."""

    def __init__(self, given: Comparable, name: str) -> None:
        self.name = name
        self.profile = given if isinstance(given, TableProfile) else None
        self.source: Source | None = None
        self.repeated: set[str] = set()
        if isinstance(given, TableProfile):
            self.rows = given.rows
            self.types = {key: column.type for key, column in given.columns.items()}
            self.families = {key: column.family for key, column in given.columns.items()}
            self.types.update(given.left_out)
            self.families.update(dict.fromkeys(given.left_out))
            return
        source = ArrowSource(given) if isinstance(given, pa.Table) else given
        self.source, self.rows = source, source.rows
        self.types, self.families = {}, {}
        for column in source.schema:
            if column.name in self.types:
                self.repeated.add(column.name)
            self.types[column.name] = str(column.type)
            self.families[column.name] = column_family(column.type)

    types: dict[str, str]
    families: dict[str, str | None]
    rows: int


def _check_columns(reference: _Side, current: _Side, names: Sequence[str]) -> None:
    problems = []
    for name in names:
        held = [side for side in (reference, current) if name in side.types]
        if not held:
            problems.append(f"'{name}': is in neither table")
        for side in held:
            if name in side.repeated:
                problems.append(f"'{name}': must be unique, occurs more than once in {side.name}")
            elif all(other.families[name] is None for other in held):
                problems.append(
                    f"'{name}': type {side.types[name]} in {side.name} cannot be compared"
                )
    if problems:
        raise DriftError(
            "columns: " + "; ".join(problems) + ". Correct them or name them in drift.exclude"
        )


def _check_importance(importance: Mapping[str, float] | None) -> None:
    wrong = {name: x for name, x in (importance or {}).items() if not 0 <= x < float("inf")}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise DriftError(f"importance of '{name}': must be >= 0 and finite, got {value}")


class _Pairs:
    """Both sides of each column, counted and measured."""

    def __init__(self, ref: _Side, cur: _Side, spec: DriftRule, pictures: bool) -> None:
        self.ref, self.cur, self.spec, self.pictures = ref, cur, spec, pictures

    def measure(self, names: Sequence[str]) -> Iterator[Measured]:
        """Columns that the reference has, in order."""
        rows = max([side.rows for side in (self.ref, self.cur) if side.source is not None] or [0])
        for group in blocks(names, rows):
            for side in (self.ref, self.cur):
                if side.source is not None:
                    side.source.block([name for name in group if name in side.types])
            for name in group:
                yield self._measure(name)

    def _measure(self, name: str) -> Measured:
        ref, cur, spec = self.ref, self.cur, self.spec
        family = str(ref.families[name])
        if name in cur.types and None in (ref.families[name], cur.families[name]):
            return self._measure_incomparable(name)
        if name not in cur.types:
            result = Measured(name, _kind(family))
            result.n_reference = _count(ref, name)
            result.broken = f"`{name}`: missing from current"
            # As if every value were null.
            result.broken_severity = 1 / spec.thresholds.null_rate
            return result
        other = str(cur.families[name])
        if family != other and not {family, other} <= set(_CATEGORICAL):
            return self._measure_unlike(name)
        result, fill = self._numbers(name) if family in NUMERIC_FAMILIES else self._categories(name)
        return self._finish(result, fill)

    def _finish(self, result: Measured, fill: Callable[[], None]) -> Measured:
        spec, n_ref, n_cur = self.spec, result.n_reference, result.n_current
        measure_nulls(result, self.ref.rows, self.cur.rows, spec.thresholds)
        if min(n_ref, n_cur) < spec.min_rows:
            result.notes.append(
                f"`{result.feature}`: {n_ref:,} and {n_cur:,} non-null values, min_rows is "
                f"{spec.min_rows:,}: judged on its null rate alone"
            )
        elif not result.broken:
            fill()
        return result

    def _measure_unlike(self, name: str) -> Measured:
        """A column of two families; one without any value has whatever type its reader chose."""
        ref, cur = self.ref, self.cur
        n_ref, n_cur = _count(ref, name), _count(cur, name)
        family, other = str(ref.families[name]), str(cur.families[name])
        result = Measured(name, _kind(family if n_ref or not n_cur else other), n_ref, n_cur)
        if n_ref and n_cur:
            result.broken = self._type_change(name)
            result.broken_severity = 1 / self.spec.thresholds.null_rate
            measure_nulls(result, ref.rows, cur.rows, self.spec.thresholds)
            return result
        return self._finish(result, lambda: None)

    def _measure_incomparable(self, name: str) -> Measured:
        """A column that one side holds as lists, structs or bytes, of which nothing is counted."""
        ref, cur = self.ref, self.cur
        family = ref.families[name] or cur.families[name]
        n, m = (_count(side, name) if side.families[name] else 0 for side in (ref, cur))
        result = Measured(name, _kind(family), n, m)
        result.broken = self._type_change(name)
        result.broken_severity = 1 / self.spec.thresholds.null_rate
        return result

    def _type_change(self, name: str) -> str:
        was, now = (
            f"{side.families[name]} ({side.types[name]})" if side.families[name] else side.types[name]
            for side in (self.ref, self.cur)
        )  # fmt: skip
        return f"`{name}`: was {was}, is {now}"

    def _numbers(self, name: str) -> tuple[Measured, Callable[[], None]]:
        ref, cur = self.ref, self.cur
        family = str(ref.families[name])
        if ref.source is not None and cur.source is not None:
            whole = all(_is_whole(side, name) for side in (ref, cur))
            sources = ref.source, cur.source
            found = compare_numbers(
                lambda: numeric_pieces(sources[0], name, as_float=not whole),
                lambda: numeric_pieces(sources[1], name, as_float=not whole),
                rows=max(ref.rows, cur.rows),
                with_histogram=self.pictures,
            )
        else:
            profiles = self._profiles(name)
            assert isinstance(profiles[0], NumericProfile)
            assert isinstance(profiles[1], NumericProfile)
            found = compare_profiles(*profiles, with_histogram=self.pictures)
        # Of no value on either side it is not known that they would be numbers.
        kind: Kind = "numeric" if found.n or found.m or family != "null" else "categorical"
        result = Measured(name, kind, found.n, found.m)
        thresholds = self.spec.thresholds
        return result, lambda: measure_numbers(result, found, family, thresholds)

    def _profiles(self, name: str) -> tuple[Any, Any]:
        """Both columns as profiles; a table's is made on the other's grid."""
        ref = None if self.ref.profile is None else self.ref.profile.columns[name]
        cur = None if self.cur.profile is None else self.cur.profile.columns[name]
        for side, other in ((self.ref, cur), (self.cur, ref)):
            if side.source is not None:
                made = profile_column(
                    side.source, name, side.types[name], str(side.families[name]), other
                )
                ref, cur = (made, cur) if side is self.ref else (ref, made)
        return ref, cur

    def _categories(self, name: str) -> tuple[Measured, Callable[[], None]]:
        sides = []
        for side in (self.ref, self.cur):
            if side.profile is not None:
                column = side.profile.columns[name]
                assert isinstance(column, CategoryProfile)
                sides.append(column.counted)
            elif side.source is not None:
                sides.append(CategoryCounts(limit=MAX_COMPARED).add(side.source.chunks(name)))
        result = Measured(name, "categorical", sides[0].n, sides[1].n)
        thresholds = self.spec.thresholds
        families = {str(side.families[name]) for side in (self.ref, self.cur)}
        if len(families - {"null"}) > 1 and sides[0].n and sides[1].n:
            result.broken = self._type_change(name)
            result.broken_severity = 1 / thresholds.null_rate
        return result, lambda: measure_categories(result, sides[0], sides[1], thresholds)


_CATEGORICAL = ("text", "boolean", "null")


def _kind(family: str | None) -> Kind:
    return "numeric" if family in NUMERIC_FAMILIES else "categorical"


def _is_whole(side: _Side, name: str) -> bool:
    assert side.source is not None
    kind = side.source.schema.field(name).type
    return bool(pa.types.is_integer(kind)) or side.families[name] != "number"


def _count(side: _Side, name: str) -> int:
    """Non-null values, NaN being null."""
    if side.profile is not None:
        return side.profile.columns[name].n
    assert side.source is not None
    family = str(side.families[name])
    return profile_column(side.source, name, side.types[name], family).n


def _judge(
    measured: Sequence[Measured],
    alpha: float,
    importance: Mapping[str, float] | None,
    calibration: Calibration | None,
) -> tuple[FeatureDrift, ...]:
    """Correct all p-values together, then decide feature by feature."""
    adjusted = iter(
        statistics.benjamini_hochberg(
            [test.p_value for column in measured for test in column.tests]
        ).tolist()
    )
    features = []
    for column in measured:
        tests = [(test, next(adjusted)) for test in column.tests]
        effects = [effect for test in column.tests for effect in test.effects]
        reasons = [column.broken] if column.broken else []
        for test, p_adjusted in tests:
            reached = [e.told() for e in test.effects if e.size >= e.threshold]
            if reached and p_adjusted < alpha:
                changes = ([test.change] if test.change else []) + reached
                reasons.append(f"`{column.feature}`: {', '.join(changes)}")
        strongest = min(tests, key=lambda pair: pair[0].p_value, default=None)
        features.append(
            FeatureDrift(
                feature=column.feature,
                kind=column.kind,
                n_reference=column.n_reference,
                n_current=column.n_current,
                drifted=bool(reasons),
                severity=max([column.broken_severity, *(e.size / e.threshold for e in effects)]),
                p_value=strongest[0].p_value if strongest else None,
                p_adjusted=strongest[1] if strongest else None,
                statistics=column.statistics,
                reasons=(*reasons, *column.notes),
                importance=None if importance is None else importance.get(column.feature, 0.0),
                usual={} if calibration is None else calibration.usual_of(column.feature),
            )
        )
    return tuple(features)


def _share(features: Sequence[FeatureDrift]) -> float:
    """Share of drifted features, by weight where there are any weights."""
    weights = [1.0 if row.importance is None else row.importance for row in features]
    if not sum(weights):
        weights = [1.0] * len(features)
    drifted = sum(w for w, row in zip(weights, features, strict=True) if row.drifted)
    return drifted / sum(weights) if features else 0.0


def _verdict(
    n_ref: int, n_cur: int, features: Sequence[FeatureDrift], share: float, spec: DriftRule
) -> tuple[Verdict, str]:
    few = [
        f"{side} has {rows:,} row{'' if rows == 1 else 's'}"
        for side, rows in (("reference", n_ref), ("current", n_cur))
        if rows < spec.min_rows
    ]
    if few:
        return "undecided", f"too few rows: {' and '.join(few)}, min_rows is {spec.min_rows:,}"
    if not features:
        return "undecided", "no column of the reference is watched: nothing was compared"
    drifted = sum(row.drifted for row in features)
    limit = spec.alert.share_of_features
    counted = f"{drifted} of {len(features)} feature{'' if len(features) == 1 else 's'} drifted"
    # Any feature at all is told by itself.
    told = f"; a drifted partition from {limit:.0%}" if limit * len(features) >= 0.5 else ""
    return (
        "drifted" if share >= limit else "stable",
        f"{counted} ({share:.0%}{told})",
    )
