"""All features together: can current rows be told apart from reference rows?

Belongs here: which columns and rows take part, the classifier, the words. Does not: the change of
correlations (`correlation`), what becomes of the verdict (`report.DriftReport.completed`).

**Classifier two-sample test** (Lopez-Paz & Oquab, "Revisiting classifier two-sample tests", ICLR 2017).
A balanced sample of both sides is labelled by side, and small LightGBM trees learn the label in
`FOLDS`-fold cross-validation. The AUC on rows that the trees have not seen is 0.5 where the sides have
one distribution, whatever it is, and rises with any difference, also of how columns go together while
each by itself stays as it is. It is an effect size: with more rows its interval narrows, and it rises
only as far as the trees can learn more.

The AUC is the mean over the folds, its variance the mean of DeLong's variances over the folds, times
1 / FOLDS + 1 / (FOLDS - 1) in place of 1 / FOLDS: folds share training rows, and without that the 95%
interval holds 0.5 in 84 to 93% of samples without drift (Nadeau & Bengio, "Inference for the
generalization error", Machine Learning 2003; DeLong's variance alone: LeDell, Petersen & van der
Laan, Electronic Journal of Statistics 2015). With it, in 96 to 100% (200 to 2,000 rows a side, 8 to 20
columns; bench/drift/dependence.py).

Which columns give it away: the trees' score of a held-out row is a sum of SHAP values, one per column
(Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
Nature Machine Intelligence 2020), so the distance between the mean scores of the two sides is a sum
over columns too; shares are of that, and given only where the whole interval lies above 0.5. Not the
gain of splits: it is measured on the training rows, where noise gains as well (of 20 columns, 1,000
rows, two that changed: 31% of the gain, 80% of this). Not shuffling: of two columns that say the
same (month and day of the year) each hides the other's loss.

What would separate the sides without saying anything is left out and named:

| column | why |
|---|---|
| timestamps, dates | they move on by themselves |
| numbers whose ranges do not overlap | counters, serial numbers, days as numbers (note) |
| text without one value in common | identifiers, days as text (note) |
| values on one side only, or of another type | the comparison by column says so |
| text of which no value occurs in `MIN_CATEGORY` rows | identifiers and free text: trees could only learn it by heart |

(note) A real change as complete as that is what the comparison by column cannot miss. Rarer values of
other text columns count as one. Nulls are a value of their own.

**What is usual.** Windows of one reference can be told apart too: a day has one weekday and one weather,
and averages per day are its fingerprint (flights of 2013, one day against the 45 others: AUC 0.98).
Where the partition of each reference row is known, up to `MAX_WINDOWS` windows of it, as long as the
current one, are told apart from the rest, and the threshold is never below their upper prediction limit
(normal on the logit scale, at `FALSE_ALARMS`). Without that, the threshold of a spec stands alone; let
`drift.window` then span a whole season, or exclude such columns.

Known limits: what happens to all windows alike is not seen to be more than usual, however strong it is;
an AUC well below 0.5 means that the same rows are on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from random import Random
from statistics import NormalDist, mean, stdev
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.calibration import FALSE_ALARMS, t_quantile
from retrain_assets.drift.columns import ArrowSource, Source, column_family, sampled
from retrain_assets.drift.correlation import correlation_changes
from retrain_assets.drift.profile import TableProfile
from retrain_assets.drift.report import CorrelationChange, MultivariateDrift
from retrain_assets.drift.verdict import Comparable
from retrain_assets.errors import DriftError
from retrain_assets.roc import auc_influence, delong_variance, placements

__all__ = [
    "MIN_CATEGORY",
    "MIN_SAMPLE",
    "MultivariateRule",
    "Usual",
    "compare_jointly",
    "rows_of",
    "separability",
    "usual_separability",
]

FloatArray = npt.NDArray[np.float64]

FOLDS = 5
CONFIDENCE = 0.95
MIN_SAMPLE = 200
"""Fewest rows of a side: 40 in each fold."""

MIN_CATEGORY = 20
"""Fewest sampled rows (both sides together) for a text value of its own."""

MIN_WINDOWS, MAX_WINDOWS = 4, 8

_MAX_CATEGORIES = 250
_SHOWN = 3
_TREES = 50
_TREE_PARAMETERS = {
    "objective": "binary", "num_leaves": 15, "learning_rate": 0.1, "max_bin": 63, "seed": 0,
    "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip
_LEAST_LEAF_SHARE = 0.01
_EXPLAINED = 2000  # held-out rows of each fold whose SHAP values are computed


class MultivariateRule(Protocol):
    """`spec.model.Multivariate`, or its like."""

    @property
    def auc(self) -> float:
        """AUC from which the sides differ too much."""

    @property
    def rows(self) -> int:
        """Most sampled rows of each side."""


@dataclass(frozen=True)
class Usual:
    """What is usual between windows of the reference.

    Attributes:
        limit: AUC that one more such window exceeds with probability `FALSE_ALARMS`, at least the
            largest found.
        windows: how many were told apart from the rest.
        n_rows: rows of each side then; with more rows trees learn more, so that a current window
            has to be compared with as many.
    """

    limit: float
    windows: int
    n_rows: int


@dataclass
class _Encoded:
    """Both samples as numbers; categories as codes, what is missing as nan."""

    names: list[str] = field(default_factory=list)
    pairs: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    categorical: list[int] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, pair: tuple[FloatArray, FloatArray], *, categorical: bool) -> None:
        if categorical:
            self.categorical.append(len(self.names))
        self.names.append(name)
        self.pairs.append(pair)

    def separability(self) -> tuple[float, float, FloatArray]:
        matrix = np.column_stack([np.concatenate(pair) for pair in self.pairs])
        side_of = np.repeat([0, 1], [len(side) for side in self.pairs[0]])
        return separability(matrix, side_of, self.categorical)

    def numeric(self, side: int) -> tuple[FloatArray, list[str]]:
        """Columns that are no categories, and their names."""
        places = [i for i in range(len(self.names)) if i not in set(self.categorical)]
        return (
            np.column_stack([self.pairs[i][side] for i in places]),
            [self.names[i] for i in places],
        )


def compare_jointly(
    reference: Source,
    current: Source,
    rule: MultivariateRule,
    *,
    columns: Sequence[str],
    min_rows: int,
    usual: Usual | None = None,
) -> MultivariateDrift:
    """Tell current rows from reference rows by all of `columns` together; see this module.

    Args:
        reference: any number of rows, of which at most `rule.rows` are drawn, with a fixed seed.
        current: likewise, as many as of `reference`.
        rule: AUC from which the verdict is `drifted`, and rows.
        columns: the features; any types.
        min_rows: fewest rows on either side, at least `MIN_SAMPLE` in any case.
        usual: what windows of the reference do; the threshold is never below its limit.

    Returns:
        `undecided` where there are too few rows or no column that can be compared.
    """
    n = min(rule.rows if usual is None else usual.n_rows, reference.rows, current.rows)
    least = max(min_rows, MIN_SAMPLE)
    threshold = rule.auc if usual is None else max(rule.auc, usual.limit)
    windows = 0 if usual is None else usual.windows
    if n < least:
        sizes = f"{reference.rows:,} and {current.rows:,} rows"
        why = f"{sizes}, {least:,} are needed on either side"
        return _undecided(threshold, windows, n, {}, why)
    encoded = _encoded(reference, current, columns, n)
    if not encoded.names:
        why = "no column can be compared on both sides"
        return _undecided(threshold, windows, n, encoded.left_out, why)
    auc, se, parts = encoded.separability()
    reach = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * se
    low, high = max(0.0, auc - reach), min(1.0, auc + reach)
    shares = _shares(encoded.names, parts) if low > 0.5 else {}
    changes: list[CorrelationChange] = []
    if len(encoded.names) - len(encoded.categorical) > 1:
        (before, names), (after, _) = encoded.numeric(0), encoded.numeric(1)
        changes = correlation_changes(before, after, names)
    sentence = _sentence(auc, low, high, shares)
    if shares:
        sentence += f"; a drifted partition above {threshold:.3g}"
        sentence += f", the limit of {windows} windows of the reference" if windows else ""
    return MultivariateDrift(
        verdict="drifted" if low > threshold else "stable",
        auc=auc, low=low, high=high, threshold=threshold, calibrated_on=windows, n_rows=n,
        shares=shares, correlations=tuple(changes), left_out=encoded.left_out,
        reasons=(sentence, *_correlation_words(changes)),
    )  # fmt: skip


def usual_separability(
    reference: pa.Table,
    partitions: Sequence[str],
    window: int,
    rule: MultivariateRule,
    *,
    columns: Sequence[str],
    min_rows: int,
) -> Usual | None:
    """How well windows of the reference can be told from the rest of it, see this module.

    Args:
        reference: rows that the champion was trained on (a sample will do).
        partitions: of each row, shape (n,); keys sort in time order.
        window: partitions that are compared together, as those of the current side are.
        rule: at most `rule.rows` rows of each side.
        columns: the features.
        min_rows: as in `compare_jointly`.

    Returns:
        None where the reference has fewer than `MIN_WINDOWS` windows, or too few rows in one.
    """
    keys, of_row = np.unique(np.asarray(partitions), return_inverse=True)
    count = min(MAX_WINDOWS, len(keys) // window)
    if count < MIN_WINDOWS:
        return None
    # At random in each stretch of time: evenly spaced days might all be Mondays.
    random, stretch = Random(0), (len(keys) - window + 1) / count
    starts = [int((i + random.random()) * stretch) for i in range(count)]
    inside = [(of_row >= start) & (of_row < start + window) for start in starts]
    n = min(rule.rows, *(int(min(rows.sum(), (~rows).sum())) for rows in inside))
    if n < max(min_rows, MIN_SAMPLE):
        return None
    found = []
    for rows in inside:
        sides = [ArrowSource(reference.filter(pa.array(part))) for part in (~rows, rows)]
        encoded = _encoded(sides[0], sides[1], columns, n)
        found.append(0.5 if not encoded.names else encoded.separability()[0])
    logits = [log(auc / (1 - auc)) for auc in np.clip(found, 0.01, 0.999).tolist()]
    spread = stdev(logits) * sqrt(1 + 1 / count)
    limit = 1 / (1 + exp(-mean(logits) - t_quantile(FALSE_ALARMS, count - 1) * spread))
    return Usual(max(limit, *found), count, n)


def rows_of(side: Comparable, name: str) -> Source:
    """The rows of a table or file.

    Raises:
        DriftError: a stored profile, which keeps every column by itself and no rows.
    """
    if isinstance(side, pa.Table):
        return ArrowSource(side)
    if isinstance(side, TableProfile):
        raise DriftError(
            f"{name}: multivariate drift needs rows, got a stored profile, which keeps every column "
            "by itself; give the Parquet or CSV file, or leave multivariate out"
        )
    return side


def separability(
    matrix: FloatArray, side_of: npt.NDArray[np.int64], categorical: Sequence[int] = ()
) -> tuple[float, float, FloatArray]:
    """Cross-validated AUC of telling two samples apart, its standard error, and what each column adds.

    Args:
        matrix: shape (n, k), nan where there is no value; at least `FOLDS` * 5 rows of each side.
        side_of: 0 or 1, shape (n,).
        categorical: columns that hold codes >= 0.

    Returns:
        AUC in [0, 1], 0.5 without any difference; standard error (module docstring); distance
        between the sides' mean scores that each column adds, about 0 or below for noise, shape
        (k,). The same arguments give the same result.
    """
    import lightgbm

    rng = np.random.default_rng(0)
    fold = np.empty(len(side_of), dtype=np.int64)
    for side in (0, 1):
        rows = np.flatnonzero(side_of == side)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % FOLDS
    least = max(MIN_CATEGORY, int(_LEAST_LEAF_SHARE * len(side_of)))
    settings = {**_TREE_PARAMETERS, "min_data_in_leaf": least}
    whole = lightgbm.Dataset(
        matrix, side_of, categorical_feature=list(categorical), params=settings, free_raw_data=False
    )
    whole.construct()
    aucs, variances, parts = [], [], np.zeros(matrix.shape[1])
    for number in range(FOLDS):
        held_out = fold == number
        learned = whole.subset(np.flatnonzero(~held_out).tolist())
        trained = lightgbm.train(settings, learned, num_boost_round=_TREES)
        truth = side_of[held_out]
        scores = np.asarray(trained.predict(matrix[held_out], num_threads=1))
        aucs.append(float(placements(truth, scores)[truth == 1].mean()))
        variances.append(delong_variance(auc_influence(truth, scores), truth)[0])
        some = slice(None, None, max(1, len(truth) // _EXPLAINED))
        shap = trained.predict(matrix[held_out][some], pred_contrib=True, num_threads=1)
        values, sides = np.asarray(shap)[:, :-1], truth[some]
        parts += values[sides == 1].mean(axis=0) - values[sides == 0].mean(axis=0)
    variance = float(np.mean(variances)) * (1 / FOLDS + 1 / (FOLDS - 1))
    return float(np.mean(aucs)), sqrt(variance), parts / FOLDS


def _encoded(reference: Source, current: Source, columns: Sequence[str], n: int) -> _Encoded:
    """`n` rows of either side as numbers."""
    schemas = reference.schema.names, current.schema.names
    common = [name for name in columns if all(name in names for names in schemas)]
    sides = [sampled(side, common, n, seed) for seed, side in enumerate((reference, current))]
    encoded = _encode(sides[0], sides[1], common)
    encoded.left_out |= {name: "in one table only" for name in columns if name not in common}
    return encoded


def _encode(reference: pa.Table, current: pa.Table, names: Sequence[str]) -> _Encoded:
    """Columns that can tell something; constants are left out without a word."""
    encoded = _Encoded()
    for name in names:
        pair = reference.column(name), current.column(name)
        families = [column_family(column.type) for column in pair]
        reason = _unlike(families, [str(column.type) for column in pair])
        if reason is None and "text" in families:
            reason = _add_text(encoded, name, pair)
        elif reason is None:
            reason = _add_numbers(encoded, name, pair)
        if reason is not None:
            encoded.left_out[name] = reason
    return encoded


def _unlike(families: Sequence[str | None], types: Sequence[str]) -> str | None:
    for family, kind in zip(families, types, strict=True):
        if family is None:
            return f"type {kind} cannot be compared"
    known = {family for family in families if family != "null"}
    if known & {"timestamp", "date"}:
        return "a time, which moves on by itself"
    if len(known) > 1:
        return f"{families[0]} in the reference, {families[1]} now"
    if len(set(families)) > 1:
        return _ONE_SIDED
    return None


_ONE_SIDED = "has values on one side only"


def _add_numbers(
    encoded: _Encoded, name: str, pair: tuple[pa.ChunkedArray, pa.ChunkedArray]
) -> str | None:
    sides = _floats(pair[0]), _floats(pair[1])
    present = [side[~np.isnan(side)] for side in sides]
    if not any(side.size for side in present):
        return None
    if not all(side.size for side in present):
        return _ONE_SIDED
    if present[0].max() < present[1].min() or present[1].max() < present[0].min():
        return "the two ranges do not overlap"
    values = np.concatenate(sides)
    if np.isnan(values).any() or values.min() < values.max():
        encoded.add(name, sides, categorical=False)
    return None


def _floats(column: pa.ChunkedArray) -> FloatArray:
    kind = column.type
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        column = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif pa.types.is_boolean(kind) or pa.types.is_null(kind):
        column = column.cast(pa.uint8())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _add_text(
    encoded: _Encoded, name: str, pair: tuple[pa.ChunkedArray, pa.ChunkedArray]
) -> str | None:
    """Codes by falling frequency over both sides; all rare values share the next code."""
    plain = [_strings(column) for column in pair]
    both = pa.chunked_array([*plain[0].chunks, *plain[1].chunks]).combine_chunks()
    coded = both.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy().astype(np.int64)
    n = len(pair[0])
    k = len(coded.dictionary)
    counts = [np.bincount(side[side >= 0], minlength=k) for side in (codes[:n], codes[n:])]
    if not all(side.any() for side in counts):
        return _ONE_SIDED if any(side.any() for side in counts) else None
    if k > 1 and not np.any((counts[0] > 0) & (counts[1] > 0)):
        return "the sides have no value in common"
    total = counts[0] + counts[1]
    order = np.argsort(-total, kind="stable")
    kept = order[:_MAX_CATEGORIES][total[order[:_MAX_CATEGORIES]] >= MIN_CATEGORY]
    if not kept.size:
        return f"no value occurs in {MIN_CATEGORY} of {2 * n:,} rows: an identifier or free text"
    place = np.full(k + 1, len(kept), dtype=np.float64)
    place[kept] = np.arange(len(kept))
    place[k] = np.nan  # nulls have code -1
    found = place[codes]
    if np.isnan(found).any() or found.min() < found.max():
        encoded.add(name, (found[:n], found[n:]), categorical=True)
    return None


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string())


def _shares(names: Sequence[str], parts: FloatArray) -> dict[str, float]:
    added = np.maximum(parts, 0.0)
    shares = added / (added.sum() or 1.0)
    order = np.argsort(-shares, kind="stable")
    return {names[i]: float(shares[i]) for i in order if shares[i] >= 0.01}


def _sentence(auc: float, low: float, high: float, shares: dict[str, float]) -> str:
    found = f"AUC {auc:.3f} ({low:.3f} to {high:.3f})"
    if not shares:
        more = ": the same rows may be on both sides" if high < 0.5 else ""
        return f"all columns together: cannot be told apart from the reference, {found}{more}"
    by = ", ".join(f"`{name}` ({share:.0%})" for name, share in list(shares.items())[:_SHOWN])
    return f"all columns together: told apart from the reference with {found}, by {by}"


def _correlation_words(changes: Sequence[CorrelationChange]) -> list[str]:
    """The largest changes that are worth a sentence."""
    large = [change for change in changes if abs(change.after - change.before) >= _LEAST_TOLD]
    words = [
        f"`{c.first}` and `{c.second}`: rank correlation {c.before:.2f} → {c.after:.2f}"
        for c in large[:_SHOWN]
    ]
    more = len(large) - _SHOWN
    if more > 0:
        words.append(f"and {more} more pair{'s' if more > 1 else ''} that go together differently")
    return words


_LEAST_TOLD = 0.1


def _undecided(
    threshold: float, windows: int, n: int, left_out: dict[str, str], why: str
) -> MultivariateDrift:
    return MultivariateDrift(
        verdict="undecided", auc=None, low=None, high=None, threshold=threshold,
        calibrated_on=windows, n_rows=n, shares={}, correlations=(), left_out=left_out,
        reasons=(f"all columns together: undecided, {why}",),
    )  # fmt: skip
