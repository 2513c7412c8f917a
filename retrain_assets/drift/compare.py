"""From two tables to a `DriftReport`: which statistics a column gets, and what counts as drift.

Belongs here: column kinds, the decision rule, the verdict, the alarm over several reports. Does
not: formulas (`statistics`), the report's form (`report`), pictures (`render`), reading tables.

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

Known limits: a timestamp that moves on with time always drifts (exclude it); the Wasserstein effect
of a heavy tail may follow one outlier once Kolmogorov-Smirnov finds any difference at all; a
vanished rare category is seen only through its group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import frexp
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift import statistics
from retrain_assets.drift.report import (
    VERDICTS,
    DriftReport,
    FeatureDrift,
    Kind,
    Verdict,
    drift_score,
)
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Alarm, Drift, Thresholds

__all__ = ["alarm", "category_counts", "column_family", "compare", "numeric_values"]

EXACT_INTEGER = 2**53
REASONS_SHOWN = 5
NUMERIC_FAMILIES = ("number", "timestamp", "date", "time of day", "duration")


def compare(
    reference: pa.Table,
    current: pa.Table,
    spec: Drift,
    *,
    columns: Sequence[str],
    reference_name: str,
    current_name: str,
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

    Returns:
        The report; `undecided` below `spec.min_rows` rows on either side or without any column.

    Raises:
        DriftError: a column is in neither table, occurs twice, or has a type that cannot be
            compared (lists, structs, binary); names all of them.
    """
    names = [name for name in dict.fromkeys(columns) if name not in spec.exclude]
    _check_columns(reference, current, names)
    measured = [
        _measure(name, reference, current, spec) for name in names if name in reference.column_names
    ]
    features = _judge(measured, spec.alpha)
    share = sum(row.drifted for row in features) / len(features) if features else 0.0
    verdict, headline = _verdict(reference.num_rows, current.num_rows, features, share, spec)
    added = sorted(set(current.column_names) - set(reference.column_names) - set(spec.exclude))
    reasons = [headline]
    if added:
        listed = ", ".join(f"`{name}`" for name in added)
        reasons.append(f"only in {current_name}, not compared: {listed}")
    worst = sorted((row for row in features if row.drifted), key=lambda row: -row.severity)
    reasons += [row.reasons[0] for row in worst[:REASONS_SHOWN]]
    return DriftReport(
        verdict=verdict,
        reasons=tuple(reasons),
        features=features,
        n_reference=reference.num_rows,
        n_current=current.num_rows,
        share_drifted=share,
        score=drift_score(features),
        reference=reference_name,
        current=current_name,
    )


def alarm(verdicts: Sequence[str], alert: Alarm) -> bool:
    """Whether at least `alert.at_least` of the last `alert.of_last` verdicts are `drifted`.

    Args:
        verdicts: oldest first; may be shorter than `of_last`. `undecided` counts as not drifted.
        alert: the rule.

    Raises:
        DriftError: a verdict is not one of stable, drifted, undecided.

    >>> alarm(["drifted", "stable", "drifted"], Alarm(of_last=3, at_least=2))
    True
    """
    for verdict in verdicts:
        if verdict not in VERDICTS:
            raise DriftError(f"verdict: must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    return verdicts[-alert.of_last :].count("drifted") >= alert.at_least


def column_family(kind: pa.DataType) -> str | None:
    """What an Arrow type holds: number, boolean, text, timestamp, date, time of day, duration.

    "null" for a column of nulls only, None for types that cannot be compared. Dictionaries are
    text whatever their values are: who encodes integers says that they are labels.
    """
    types = pa.types
    families = {
        "number": (types.is_integer, types.is_floating, types.is_decimal),
        "boolean": (types.is_boolean,),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "timestamp": (types.is_timestamp,),
        "date": (types.is_date,),
        "time of day": (types.is_time,),
        "duration": (types.is_duration,),
        "null": (types.is_null,),
    }
    if types.is_dictionary(kind):
        return "text" if column_family(kind.value_type) is not None else None
    for family, tests in families.items():
        if any(test(kind) for test in tests):
            return family
    return None


def numeric_values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The non-null values of a numeric, time or all-null column, shape (non-null,), in row order.

    Integers as they are (int64 or uint64), everything else float64: decimals rounded, timestamps
    and dates as seconds since 1970-01-01 UTC, times and durations as seconds. NaN counts as null.
    """
    import pyarrow.compute as pc

    kind, values = column.type, column.drop_null()
    if pa.types.is_integer(kind):
        wide = pa.uint64() if pa.types.is_unsigned_integer(kind) else pa.int64()
        return np.asarray(values.cast(wide).to_numpy())
    if column_family(kind) in ("timestamp", "date", "time of day", "duration"):
        units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
        if pa.types.is_date32(kind):
            return np.asarray(values.cast(pa.int32()).to_numpy() * 86400.0)
        per_second = 10**3 if pa.types.is_date64(kind) else units[kind.unit]
        storage = pa.int32() if kind.bit_width == 32 else pa.int64()
        return np.asarray(values.cast(storage).to_numpy() / per_second)
    numbers = np.asarray(pc.cast(values, pa.float64()).to_numpy(), dtype=np.float64)
    return numbers[~np.isnan(numbers)]


def category_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Rows per non-null category of a text, boolean, dictionary or all-null column."""
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    counted = pc.value_counts(column.cast(pa.large_string()).drop_null())
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return dict(zip(values, counts, strict=True))


class _Effect(NamedTuple):
    """One effect size, corrected for noise, and how to say it."""

    size: float
    threshold: float
    phrase: str


@dataclass(frozen=True)
class _Test:
    """One p-value, the effects that it is the evidence for, and what changed in words."""

    p_value: float
    effects: tuple[_Effect, ...]
    change: str = ""


@dataclass
class _Measured:
    """Everything about one column before multiple testing is corrected."""

    feature: str
    kind: Kind
    n_reference: int = 0
    n_current: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    tests: list[_Test] = field(default_factory=list)
    broken: str | None = None
    broken_severity: float = 0.0
    notes: list[str] = field(default_factory=list)


def _check_columns(reference: pa.Table, current: pa.Table, names: Sequence[str]) -> None:
    problems = []
    for name in names:
        tables = [("reference", reference), ("current", current)]
        held = [(side, table) for side, table in tables if name in table.column_names]
        if not held:
            problems.append(f"'{name}': is in neither table")
        for side, table in held:
            if table.column_names.count(name) > 1:
                problems.append(f"'{name}': must be unique, occurs more than once in {side}")
            elif column_family(table.schema.field(name).type) is None:
                kind = table.schema.field(name).type
                problems.append(f"'{name}': type {kind} in {side} cannot be compared")
    if problems:
        raise DriftError(
            "columns: " + "; ".join(problems) + ". Correct them or name them in drift.exclude"
        )


def _measure(name: str, reference: pa.Table, current: pa.Table, spec: Drift) -> _Measured:
    """Statistics and tests of one column that the reference has."""
    ref_type = reference.schema.field(name).type
    ref_column = reference.column(name)
    ref_family = column_family(ref_type)
    if name not in current.column_names:
        result = _Measured(name, _kind(ref_family))
        result.n_reference = _present(ref_column)
        result.broken = f"`{name}`: missing from current"
        # As if every value were null.
        result.broken_severity = 1 / spec.thresholds.null_rate
        return result
    cur_column, cur_type = current.column(name), current.schema.field(name).type
    cur_family = column_family(cur_type)
    n_ref, n_cur = _present(ref_column), _present(cur_column)
    # A column without any value has whatever type its reader chose for it.
    kind = _kind(ref_family if n_ref or not n_cur else cur_family)
    result = _Measured(name, kind, n_ref, n_cur)
    _measure_nulls(result, reference.num_rows, current.num_rows, spec.thresholds)
    if n_ref and n_cur and ref_family != cur_family:
        result.broken = f"`{name}`: was {ref_family} ({ref_type}), is {cur_family} ({cur_type})"
        result.broken_severity = 1 / spec.thresholds.null_rate
        return result
    if min(n_ref, n_cur) < spec.min_rows:
        result.notes.append(
            f"`{name}`: {n_ref:,} and {n_cur:,} non-null values, min_rows is {spec.min_rows:,}: "
            "judged on its null rate alone"
        )
        return result
    if kind == "numeric":
        _measure_numbers(result, ref_column, cur_column, str(ref_family), spec.thresholds)
    else:
        _measure_categories(result, ref_column, cur_column, spec.thresholds)
    return result


def _kind(family: str | None) -> Kind:
    return "numeric" if family in NUMERIC_FAMILIES else "categorical"


def _present(column: pa.ChunkedArray) -> int:
    """Non-null values, NaN being null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return int(numeric_values(column).size)
    return len(column) - int(column.null_count)


def _measure_nulls(result: _Measured, n_ref: int, n_cur: int, thresholds: Thresholds) -> None:
    if n_ref == 0 or n_cur == 0:
        return
    nulls_ref, nulls_cur = n_ref - result.n_reference, n_cur - result.n_current
    before, after = nulls_ref / n_ref, nulls_cur / n_cur
    change = abs(after - before)
    result.statistics |= {
        "null_rate_reference": before,
        "null_rate_current": after,
        "null_rate_change": change,
    }
    if nulls_ref + nulls_cur in (0, n_ref + n_cur):
        return  # nothing or everything null: no evidence is possible, it would dilute the others
    p_value = statistics.two_proportions(nulls_ref, n_ref, nulls_cur, n_cur)
    phrase = f"null rate {before:.1%} → {after:.1%} (threshold {thresholds.null_rate:.1%})"
    result.tests.append(_Test(p_value, (_Effect(change, thresholds.null_rate, phrase),)))


def _measure_numbers(
    result: _Measured,
    reference: pa.ChunkedArray,
    current: pa.ChunkedArray,
    family: str,
    thresholds: Thresholds,
) -> None:
    ref, cur, offset, unit = _aligned(numeric_values(reference), numeric_values(current))
    n, m = ref.size, cur.size
    found = statistics.kolmogorov_smirnov(ref, cur)
    counts = statistics.decile_counts(ref, cur)
    stability = max(0.0, statistics.psi(*counts) - statistics.psi_noise(counts[0].size, n, m))
    ks_effect = statistics.excess(found.statistic, statistics.ks_noise(n, m))
    effects = [
        _Effect(
            ks_effect, thresholds.ks, f"KS {found.statistic:.2f} (threshold {thresholds.ks:.2f})"
        ),
        _Effect(stability, thresholds.psi, f"PSI {stability:.2f} (threshold {thresholds.psi:.2f})"),
    ]
    result.statistics |= {"ks": found.statistic, "psi": stability}
    change = ""
    finite_ref, finite_cur = ref[np.isfinite(ref)], cur[np.isfinite(cur)]
    if finite_ref.size and finite_cur.size:
        means = [float(side.mean()) * unit + offset for side in (finite_ref, finite_cur)]
        distance = statistics.wasserstein(finite_ref, finite_cur)
        result.statistics |= {
            "wasserstein": distance * unit,
            "mean_reference": means[0],
            "mean_current": means[1],
        }
        change = f"mean {_pair(means[0], means[1], family)}"
        # Rounding gives a constant a deviation of about 1e-17, which nothing may be divided by.
        if finite_ref.min() < finite_ref.max():
            noise = statistics.wasserstein_noise(finite_ref, finite_cur)
            deviation = float(finite_ref.std())
            result.statistics["wasserstein_scaled"] = distance / deviation
            phrase = f"Wasserstein {distance / deviation:.2f} sd (threshold {thresholds.wasserstein:.2f})"
            scaled = statistics.excess(distance, noise) / deviation
            effects.append(_Effect(scaled, thresholds.wasserstein, phrase))
    result.tests.append(_Test(found.p_value, tuple(effects), change))


def _aligned(
    reference: npt.NDArray[Any], current: npt.NDArray[Any]
) -> tuple[statistics.Sample, statistics.Sample, float, float]:
    """Both samples as float64, with the offset and unit that give back the values.

    Integers beyond 2**53 are counted from their common minimum, which is exact while their range
    stays below 2**53 (else to 16 digits of the range). Magnitudes beyond 1e77 are divided by a
    power of two, so that sums and squares stay finite.
    """
    both_integer = reference.dtype.kind in "iu" and current.dtype.kind in "iu"
    if both_integer:
        low = min(int(reference.min()), int(current.min()))
        high = max(int(reference.max()), int(current.max()))
        if max(-low, high) > EXACT_INTEGER and high - low <= EXACT_INTEGER:
            sides = [
                (side - side.dtype.type(low)).astype(np.float64) for side in (reference, current)
            ]
            return sides[0], sides[1], float(low), 1.0
    ref, cur = reference.astype(np.float64), current.astype(np.float64)
    finite = [np.abs(side[np.isfinite(side)]).max(initial=0.0) for side in (ref, cur)]
    exponent = frexp(float(max(finite)))[1]
    unit = 2.0 ** (exponent - 256) if exponent > 256 else 1.0
    return ref / unit, cur / unit, 0.0, unit


def _measure_categories(
    result: _Measured,
    reference: pa.ChunkedArray,
    current: pa.ChunkedArray,
    thresholds: Thresholds,
) -> None:
    in_ref, in_cur = category_counts(reference), category_counts(current)
    names = sorted(in_ref.keys() | in_cur.keys(), key=lambda name: (crc32(name.encode()), name))
    ref = np.array([in_ref.get(name, 0) for name in names], dtype=np.int64)
    cur = np.array([in_cur.get(name, 0) for name in names], dtype=np.int64)
    n, m = int(ref.sum()), int(cur.sum())
    groups = statistics.group_rare(ref + cur, min(n, m) / (n + m))
    grouped = [np.bincount(groups, weights=side).astype(np.int64) for side in (ref, cur)]
    k = int(grouped[0].size)
    found = statistics.chi_square(*grouped)
    association = statistics.excess(
        statistics.cramers_v(*grouped), statistics.cramers_v_noise(k, n, m)
    )
    stability = max(0.0, statistics.psi(*grouped) - statistics.psi_noise(k, n, m))
    unseen = statistics.unseen_share(ref, cur)
    result.statistics |= {
        "chi2": found.statistic,
        "cramers_v": association,
        "psi": stability,
        "unseen": unseen,
    }
    phrase = f"Cramér's V {association:.2f} (threshold {thresholds.cramers_v:.2f})"
    effects = (
        _Effect(association, thresholds.cramers_v, phrase),
        _Effect(stability, thresholds.psi, f"PSI {stability:.2f} (threshold {thresholds.psi:.2f})"),
    )
    most = int(np.argmax(np.abs(cur / m - ref / n)))
    change = f"'{_short(names[most])}' {ref[most] / n:.1%} → {cur[most] / m:.1%}"
    if k > 1:
        result.tests.append(_Test(found.p_value, effects, change))
    new = sorted((name for name in in_cur if name not in in_ref), key=lambda x: (-in_cur[x], x))
    listed = ", ".join(f"'{_short(name)}'" for name in new[:3]) + (", …" if len(new) > 3 else "")
    phrase = f"{unseen:.1%} in categories that the reference lacks: {listed} "
    phrase += f"(threshold {thresholds.unseen:.1%})"
    surprise = max(0.0, unseen - statistics.expected_unseen(ref[ref > 0]))
    result.tests.append(
        _Test(statistics.unseen_p_value(ref, cur), (_Effect(surprise, thresholds.unseen, phrase),))
    )


def _judge(measured: Sequence[_Measured], alpha: float) -> tuple[FeatureDrift, ...]:
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
            reached = [e.phrase for e in test.effects if e.size >= e.threshold]
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
            )
        )
    return tuple(features)


def _verdict(
    n_ref: int, n_cur: int, features: Sequence[FeatureDrift], share: float, spec: Drift
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
    return (
        "drifted" if share >= limit else "stable",
        f"{counted} ({share:.0%}; a drifted partition from {limit:.0%})",
    )


def _pair(before: float, after: float, family: str) -> str:
    """`before → after` with as many digits as show the difference, times as dates."""
    if family in ("timestamp", "date"):
        times = np.array([before, after]).round().astype("datetime64[s]")
        return " → ".join(str(time).replace("T", " ") for time in times)
    for digits in range(3, 17):
        texts = [f"{float(f'{value:.{digits}g}'):,.16g}" for value in (before, after)]
        if before == after or texts[0] != texts[1]:
            break
    return " → ".join(texts)


def _short(text: str, limit: int = 30) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
