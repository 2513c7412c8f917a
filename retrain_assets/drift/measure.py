"""What moved in one column: effect sizes, each with its threshold, test and words.

Belongs here: which statistics numbers, categories and free text get, corrected for what sampling
alone produces; how a change is told. Does not: reading and counting (`exact`, `profile`), the
decision over all columns (`verdict`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

from retrain_assets.drift import statistics
from retrain_assets.drift.categories import CategoryCounts
from retrain_assets.drift.columns import time_unit
from retrain_assets.drift.findings import NumericFindings
from retrain_assets.drift.report import Kind
from retrain_assets.drift.tails import smirnov_p_value

__all__ = [
    "Effect", "Limits", "Measured", "Picture", "Test", "measure_categories", "measure_nulls",
    "measure_numbers",
]  # fmt: skip


class Limits(Protocol):
    """Effect sizes from which a feature counts as drifted: `spec.model.Thresholds`, or its like."""

    @property
    def ks(self) -> float:
        """Kolmogorov-Smirnov distance."""

    @property
    def wasserstein(self) -> float:
        """Wasserstein distance over the reference's standard deviation."""

    @property
    def psi(self) -> float:
        """Population stability index."""

    @property
    def cramers_v(self) -> float:
        """Cramér's V."""

    @property
    def null_rate(self) -> float:
        """Absolute change of the share of nulls."""

    @property
    def unseen(self) -> float:
        """Share of categories that the reference lacks."""


class Picture(NamedTuple):
    """Counts to draw: equal bars between edges, or bars with labels.

    Attributes:
        edges: shape (k + 1,), in the column's unit, seconds for times; None for labels.
        labels: shape (k,); None for edges.
        reference: shape (k,).
        current: shape (k,).
        family: see `columns.column_family`.
        n_others: categories that the last bar counts together, 0 where it is one like the others.
    """

    edges: list[float] | None
    labels: list[str] | None
    reference: list[int]
    current: list[int]
    family: str
    n_others: int = 0


class Effect(NamedTuple):
    """One effect size, corrected for noise, and how to say it."""

    name: str
    size: float
    threshold: float
    phrase: str

    def told(self) -> str:
        """With its threshold."""
        rate = self.name in ("null_rate", "unseen")
        limit = f"{self.threshold:.1%}" if rate else _digits(self.threshold)
        return f"{self.phrase} (threshold {limit})"


@dataclass(frozen=True)
class Test:
    """One p-value, the effects that it is the evidence for, and what changed in words."""

    p_value: float
    effects: tuple[Effect, ...]
    change: str = ""


@dataclass
class Measured:
    """Everything about one column before multiple testing is corrected."""

    feature: str
    kind: Kind
    n_reference: int = 0
    n_current: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)
    broken: str | None = None
    broken_severity: float = 0.0
    notes: list[str] = field(default_factory=list)
    exact: bool = True
    picture: Picture | None = None


def measure_nulls(result: Measured, n_ref: int, n_cur: int, thresholds: Limits) -> None:
    """The change of the share of nulls, `n_ref` and `n_cur` being all rows."""
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
    phrase = f"null rate {before:.1%} → {after:.1%}"
    result.tests.append(Test(p_value, (Effect("null_rate", change, thresholds.null_rate, phrase),)))


def measure_numbers(
    result: Measured, found: NumericFindings, family: str, thresholds: Limits
) -> None:
    """Kolmogorov-Smirnov, Wasserstein and PSI of a numeric or time column with values on both sides.

    Bounds of a distance are told as the lower one, which is certain.
    """
    n, m, unit = found.n, found.m, time_unit(family)
    assert found.bins is not None
    assert found.quantile_bins is not None
    k = found.bins[0].size
    stability = max(0.0, statistics.psi(*found.bins) - statistics.psi_noise(k, n, m))
    ks = found.ks[0]
    effects = [
        Effect(
            "ks", statistics.excess(ks, statistics.ks_noise(n, m)), thresholds.ks,
            f"KS {_digits(ks)}",
        ),
        Effect(
            "psi", stability, thresholds.psi,
            f"PSI {_digits(stability)}",
        ),
    ]  # fmt: skip
    result.exact = found.exact
    result.statistics |= {
        "ks": ks,
        "psi": stability,
        "js": statistics.jensen_shannon(*found.quantile_bins),
        "hellinger": statistics.hellinger(*found.quantile_bins),
        "outside": found.outside,
    }
    if not found.exact:
        result.statistics["ks_high"] = found.ks[1]
    change = _measure_distance(result, found, family, effects, thresholds)
    result.tests.append(Test(smirnov_p_value(ks, n, m), tuple(effects), change))
    if found.histogram is not None:
        edges, ref, cur = found.histogram
        result.picture = Picture((edges * unit).tolist(), None, ref.tolist(), cur.tolist(), family)


def _measure_distance(
    result: Measured,
    found: NumericFindings,
    family: str,
    effects: list[Effect],
    thresholds: Limits,
) -> str:
    """Means and Wasserstein; the change of the mean in words, empty without finite values."""
    if found.means is None or found.wasserstein is None:
        return ""
    unit = time_unit(family)
    low, high = found.wasserstein
    means = [mean * unit for mean in found.means]
    result.statistics |= {
        "wasserstein": low * unit,
        "mean_reference": means[0],
        "mean_current": means[1],
        "deviation_reference": found.deviation * unit,
        "deviation_current": found.current_deviation * unit,
    }
    if not found.exact:
        result.statistics["wasserstein_high"] = high * unit
    if found.deviation > 0:
        noise = statistics.wasserstein_scale(found.n, found.m) * found.spread
        result.statistics["wasserstein_scaled"] = low / found.deviation
        limit = thresholds.wasserstein
        phrase = f"Wasserstein {_digits(low / found.deviation)} sd"
        scaled = statistics.excess(low, noise) / found.deviation
        effects.append(Effect("wasserstein", scaled, limit, phrase))
    told = f"mean {_pair(means[0], means[1], family)}"
    spreads = found.deviation, found.current_deviation
    wider = max(spreads) - min(spreads)
    if wider > 2 * abs(found.means[1] - found.means[0]):
        # The mean is not what changed: a widened distribution around the same centre.
        told = f"standard deviation {_pair(spreads[0] * unit, spreads[1] * unit, 'number')}"
        told += " s" if unit != 1.0 else ""
    return told


def measure_categories(
    result: Measured, reference: CategoryCounts, current: CategoryCounts, thresholds: Limits
) -> None:
    """Cramér's V, PSI and new categories of a column with values on both sides.

    Free text (more distinct values than are kept) is compared by length and by tokens.
    """
    if reference.counts is None or current.counts is None:
        _measure_text(result, reference, current, thresholds)
        return
    in_ref, in_cur = reference.counts, current.counts
    names = sorted(in_ref.keys() | in_cur.keys(), key=lambda name: (crc32(name.encode()), name))
    ref = np.array([in_ref.get(name, 0) for name in names], dtype=np.int64)
    cur = np.array([in_cur.get(name, 0) for name in names], dtype=np.int64)
    n, m = int(ref.sum()), int(cur.sum())
    most = int(np.argmax(np.abs(cur / m - ref / n)))
    change = f"'{_short(names[most])}' {ref[most] / n:.1%} → {cur[most] / m:.1%}"
    _measure_shares(result, ref, cur, change, thresholds)
    result.statistics["js"] = statistics.jensen_shannon(ref, cur)
    result.statistics["hellinger"] = statistics.hellinger(ref, cur)
    unseen = statistics.unseen_share(ref, cur)
    result.statistics["unseen"] = unseen
    result.statistics["vanished"] = float(ref[cur == 0].sum() / n)
    new = sorted((name for name in in_cur if name not in in_ref), key=lambda x: (-in_cur[x], x))
    listed = ", ".join(f"'{_short(name)}'" for name in new[:3]) + (", …" if len(new) > 3 else "")
    phrase = f"{unseen:.1%} in categories that the reference lacks: {listed}"
    surprise = max(0.0, unseen - statistics.expected_unseen(ref[ref > 0]))
    effect = Effect("unseen", surprise, thresholds.unseen, phrase)
    result.tests.append(Test(statistics.unseen_p_value(ref, cur), (effect,)))
    result.picture = _bars(names, ref, cur)


def _bars(
    names: list[str], ref: npt.NDArray[Any], cur: npt.NDArray[Any], limit: int = 8
) -> Picture:
    """The most frequent categories and all others together."""
    weight = ref / max(1, ref.sum()) + cur / max(1, cur.sum())
    shown = np.argsort(-weight, kind="stable")[:limit]
    labels = [names[i] for i in shown]
    bars = [side[shown].tolist() for side in (ref, cur)]
    n_others = max(0, len(names) - limit)
    if n_others:
        labels.append(f"({n_others:,} others)")
        bars = [
            [*bar, int(side.sum()) - sum(bar)] for bar, side in zip(bars, (ref, cur), strict=True)
        ]
    return Picture(None, labels, bars[0], bars[1], "text", n_others)


def _measure_shares(
    result: Measured,
    ref: npt.NDArray[np.int64],
    cur: npt.NDArray[np.int64],
    change: str,
    thresholds: Limits,
) -> None:
    """Chi-square, Cramér's V and PSI of counts per category, rare ones grouped."""
    n, m = int(ref.sum()), int(cur.sum())
    groups = statistics.group_rare(ref + cur, min(n, m) / (n + m))
    grouped = [np.bincount(groups, weights=side).astype(np.int64) for side in (ref, cur)]
    k = int(grouped[0].size)
    found = statistics.chi_square(*grouped)
    noise = statistics.cramers_v_noise(k, n, m)
    association = statistics.excess(statistics.cramers_v(*grouped), noise)
    stability = max(0.0, statistics.psi(*grouped) - statistics.psi_noise(k, n, m))
    result.statistics |= {"chi2": found.statistic, "cramers_v": association, "psi": stability}
    effects = (
        Effect(
            "cramers_v", association, thresholds.cramers_v,
            f"Cramér's V {_digits(association)}",
        ),
        Effect(
            "psi", stability, thresholds.psi, f"PSI {_digits(stability)}"
        ),
    )  # fmt: skip
    if k > 1:
        result.tests.append(Test(found.p_value, effects, change))


def _measure_text(
    result: Measured, reference: CategoryCounts, current: CategoryCounts, thresholds: Limits
) -> None:
    sides = [side.copy() for side in (reference, current)]
    for side in sides:
        side.overflow()
    lengths = [side.lengths for side in sides if side.lengths is not None]
    tokens = [side.tokens for side in sides if side.tokens is not None]
    n, m = (int(side.sum()) for side in lengths)
    ks = float(np.abs(np.cumsum(lengths[0]) / n - np.cumsum(lengths[1]) / m).max())
    places = np.arange(lengths[0].size)
    means = [
        float((side * places).sum()) / size for side, size in zip(lengths, (n, m), strict=True)
    ]
    effect = Effect(
        "ks", statistics.excess(ks, statistics.ks_noise(n, m)), thresholds.ks,
        f"KS of the length {_digits(ks)}",
    )  # fmt: skip
    change = f"mean length {_pair(means[0], means[1], 'number')}"
    result.statistics |= {
        "length_ks": ks, "mean_length_reference": means[0], "mean_length_current": means[1],
    }  # fmt: skip
    result.tests.append(Test(smirnov_p_value(ks, n, m), (effect,), change))
    used = (tokens[0] + tokens[1]) > 0
    if tokens[0].any() and tokens[1].any():
        _measure_shares(result, tokens[0][used], tokens[1][used], "tokens", thresholds)
    result.notes.append(
        f"`{result.feature}`: too many distinct values to compare one by one, compared by length "
        "and tokens"
    )


def _digits(value: float) -> str:
    """Two decimals, more where two would not show anything."""
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.2g}"


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
