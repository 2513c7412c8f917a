"""A drift report for people: Markdown for the Dagster UI and one picture of the worst features.

Belongs here: wording, layout, colours. Does not: what counts as drift (`verdict`). Nothing here
changes a number, and nothing is drawn through pyplot, whose figures live until somebody closes them.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.columns import category_counts, column_family, numeric_values
from retrain_assets.drift.report import DriftReport, FeatureDrift
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["drift_picture", "report_markdown", "severity_word"]

REFERENCE_COLOUR = "#8a9bb0"
CURRENT_COLOUR = "#e8743b"
INK = "#2b3440"
MUTED = "#6b7683"
WIDTH_INCHES, PANEL_INCHES, DPI = 9.0, 2.15, 100
N_BARS = 7
MAX_DISCRETE = 12


def severity_word(row: FeatureDrift) -> str:
    """Severity in words.

    A drifted feature is moderate (below twice its threshold), strong (below five times) or
    extreme; any other is "none" (below half its threshold), "slight", or "unproven" (beyond the
    threshold, but it may be chance).
    """
    if row.drifted:
        return "moderate" if row.severity < 2 else "strong" if row.severity < 5 else "extreme"
    return "none" if row.severity < 0.5 else "slight" if row.severity < 1 else "unproven"


def report_markdown(report: DriftReport, limit: int = 20) -> str:
    """The report as Markdown: verdict, reasons, and a table of the `limit` worst features.

    Raises:
        DriftError: `limit` is below 1.
    """
    _check_limit(limit)
    told = {reason for row in report.features for reason in row.reasons}
    headline, *others = report.reasons or ("",)
    lines = [
        f"**{report.verdict}**: {_cell(headline)}",
        "",
        f"{_cell(report.current)} ({report.n_current:,} rows) against {_cell(report.reference)} "
        f"({report.n_reference:,} rows); drift score {report.score:.2f}",
        "",
    ]
    notes = [f"- {_cell(reason)}" for reason in others if reason not in told]
    lines += [*notes, ""] if notes else []
    if report.features:
        lines += ["| Feature | Drift | Key statistics | What changed |", "|---|---|---|---|"]
        lines += [_table_row(row) for row in _worst_first(report)[:limit]]
        hidden = report.features[limit:]
        if hidden:
            lines += ["", f"… and {len(hidden)} more feature{'s' if len(hidden) > 1 else ''}"]
    if report.outcomes:
        lines += [
            "",
            "| Beside the features | Drift | Key statistics | What changed |",
            "|---|---|---|---|",
        ]
        lines += [_table_row(row, f"{role}: ") for role, row in report.outcomes]
    return "\n".join(lines).rstrip() + "\n"


def drift_picture(
    report: DriftReport, reference: pa.Table, current: pa.Table, limit: int = 6
) -> bytes:
    """PNG, 900 px wide: the distributions of the `limit` worst features, both sides overlaid.

    Args:
        report: what was found; its order decides what is shown, drifted features first.
        reference: the table that the report was made from; needs the features' columns.
        current: likewise; a missing column is drawn as missing.
        limit: panels, at least 1; three stand side by side.

    Numbers are histograms over the central 99% of both samples, the rest being counted in the outer
    bars; few distinct values and categories are paired bars. Heights are shares of the non-null
    values of each side.

    Raises:
        DriftError: `limit` is below 1, or a feature is not in `reference`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _check_limit(limit)
    rows = _worst_first(report)[:limit]
    missing = [row.feature for row in rows if row.feature not in reference.column_names]
    if missing:
        raise DriftError(
            f"drift picture: reference has no column {', '.join(map(repr, missing))}; "
            "pass the tables that the report was made from"
        )
    n_columns = 3 if len(rows) != 4 else 2
    n_rows = max(1, -(-len(rows) // n_columns))
    figure = Figure(figsize=(WIDTH_INCHES, n_rows * PANEL_INCHES + 0.6), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    _legend(figure, report)
    if not rows:
        figure.text(0.5, 0.4, "no features were compared", ha="center", color=MUTED, fontsize=10)
    for place, row in enumerate(rows, start=1):
        _draw(figure.add_subplot(n_rows, n_columns, place), row, reference, current)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise DriftError(f"limit: must be >= 1, got {limit}")


def _worst_first(report: DriftReport) -> list[FeatureDrift]:
    """Drifted features first: a large effect that may be chance is not the news."""
    return sorted(report.features, key=lambda row: (not row.drifted, -row.severity, row.feature))


def _table_row(row: FeatureDrift, role: str = "") -> str:
    word = f"**{severity_word(row)}**" if row.drifted else severity_word(row)
    # Every reason begins with the feature's name, which the first column says already.
    prefix = f"`{row.feature}`: "
    changed = "; ".join(reason.removeprefix(prefix) for reason in row.reasons)
    return f"| {role}{_cell(row.feature)} | {word} | {_key_statistics(row)} | {_cell(changed)} |"


def _key_statistics(row: FeatureDrift) -> str:
    found = row.statistics
    labels = {"ks": "KS", "wasserstein_scaled": "W/sd", "cramers_v": "V", "psi": "PSI"}
    parts = [f"{label} {found[key]:.2f}" for key, label in labels.items() if key in found]
    if found.get("unseen"):
        parts.append(f"new {found['unseen']:.1%}")
    if found.get("null_rate_reference") or found.get("null_rate_current"):
        before, after = found["null_rate_reference"], found["null_rate_current"]
        parts.append(f"nulls {before:.1%} → {after:.1%}")
    return " · ".join(parts)


def _cell(text: str) -> str:
    """Text that cannot end a table cell or a line."""
    return " ".join(text.split()).replace("|", "\\|")


def _legend(figure: Any, report: DriftReport) -> None:
    from matplotlib.patches import Patch

    sides = (
        (REFERENCE_COLOUR, report.reference, report.n_reference),
        (CURRENT_COLOUR, report.current, report.n_current),
    )
    handles = [Patch(color=colour, alpha=0.75) for colour, _, _ in sides]
    labels = [_plain(f"{_cut(name, 40)} ({rows:,} rows)") for _, name, rows in sides]
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9,
        labelcolor=INK, handlelength=1.2,
    )  # fmt: skip
    legend.set_in_layout(True)


def _draw(axes: "Axes", row: FeatureDrift, reference: pa.Table, current: pa.Table) -> None:
    """One panel: title, distributions, quiet axes."""
    left = reference.column(row.feature)
    right = current.column(row.feature) if row.feature in current.column_names else None
    _quiet(axes)
    axes.set_title(
        _plain(_cut(row.feature, 26)), loc="left", fontsize=10, fontweight="bold", color=INK, pad=16,
        parse_math=False,
    )  # fmt: skip
    axes.annotate(
        _plain(_subtitle(row, right is None)), (0, 1), (0, 4), xycoords="axes fraction",
        textcoords="offset points", fontsize=8, color=CURRENT_COLOUR if row.drifted else MUTED,
        parse_math=False,
    )  # fmt: skip
    families = [column_family(c.type) for c in (left, right) if c is not None and row.n_reference]
    changed_type = len(set(families) - {"null"}) > 1 and bool(row.n_current)
    if row.kind == "categorical" or changed_type:
        counts = [{} if c is None else category_counts(c) for c in (left, right)]
        _draw_categories(axes, counts[0], counts[1])
        return
    samples = [
        np.array([]) if c is None or column_family(c.type) not in _NUMERIC else _finite(c)
        for c in (left, right)
    ]
    _draw_numbers(axes, samples[0], samples[1], column_family(left.type) or "number")


_NUMERIC = ("number", "timestamp", "date", "time of day", "duration")


def _finite(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values = numeric_values(column).astype(np.float64)
    # Histogram edges would overflow beyond this.
    finite: npt.NDArray[np.float64] = values[np.abs(values) < 1e300]
    return finite


def _subtitle(row: FeatureDrift, missing: bool) -> str:
    if missing:
        return f"{severity_word(row)} · missing from current"
    found = row.statistics
    parts = [severity_word(row)]
    if "ks" in found:
        parts.append(f"KS {found['ks']:.2f}")
    if "cramers_v" in found:
        parts.append(f"V {found['cramers_v']:.2f}")
    if found.get("unseen"):
        parts.append(f"new {found['unseen']:.1%}")
    if found.get("null_rate_change", 0.0) >= 0.005:
        before, after = found["null_rate_reference"], found["null_rate_current"]
        parts.append(f"nulls {before:.0%} → {after:.0%}")
    return " · ".join(parts)


def _quiet(axes: "Axes") -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c6cdd5")
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    axes.set_axisbelow(True)


def _draw_numbers(
    axes: "Axes",
    reference: npt.NDArray[np.float64],
    current: npt.NDArray[np.float64],
    family: str,
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    both = np.concatenate([reference, current])
    if not both.size:
        axes.text(0.5, 0.5, "no values", ha="center", color=MUTED, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    distinct = np.unique(both)
    if distinct.size <= MAX_DISCRETE and family == "number":
        bars = [
            _shares([int(np.count_nonzero(side == value)) for value in distinct], side.size)
            for side in (reference, current)
        ]
        _paired_bars(axes, [f"{value:.4g}" for value in distinct], bars[0], bars[1])
        return
    edges = _edges(reference, current)
    for side, colour, layer in ((reference, REFERENCE_COLOUR, 1), (current, CURRENT_COLOUR, 2)):
        if not side.size:
            continue
        counts = np.histogram(np.clip(side, edges[0], edges[-1]), edges)[0]
        shares = _shares(counts.tolist(), side.size)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45, zorder=layer)
        axes.stairs(shares, edges, color=colour, linewidth=1.3, zorder=layer + 2)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.xaxis.set_major_locator(MaxNLocator(3 if family in ("timestamp", "date") else 5))
    axes.grid(axis="y", color="#eceff3", linewidth=0.8)
    if family in ("timestamp", "date"):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _day(value)))


def _edges(
    reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """About 30 equal bars over the central 99% of each side, whole numbers for small integers."""
    spans = [np.quantile(side, [0.005, 0.995]) for side in (reference, current) if side.size]
    low, high = min(float(s[0]) for s in spans), max(float(s[1]) for s in spans)
    both = np.concatenate([reference, current])
    if high - low <= 40 and abs(low) < 1e6 and bool(np.all(both == np.round(both))):
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    if not high > low:
        high, low = high + max(1.0, abs(high) * 1e-3), low - max(1.0, abs(low) * 1e-3)
    return np.linspace(low, high, 31)


def _draw_categories(axes: "Axes", reference: dict[str, int], current: dict[str, int]) -> None:
    sides = (reference, current)
    sizes = [max(1, sum(side.values())) for side in sides]

    def weight(name: str) -> float:
        return sum(side.get(name, 0) / size for side, size in zip(sides, sizes, strict=True))

    shown = sorted(reference.keys() | current.keys(), key=lambda name: (-weight(name), name))
    names, rest = shown[:N_BARS], shown[N_BARS:]
    counts = [[side.get(name, 0) for name in names] for side in sides]
    if rest:
        # As words: a bar of all others would dwarf the named ones.
        before, after = (
            f"{sum(side.get(name, 0) for name in rest) / size:.0%}"
            for side, size in zip(sides, sizes, strict=True)
        )
        others = f"{len(rest):,} other{'s' if len(rest) > 1 else ''}: {before} → {after}"
        axes.set_xlabel(others, fontsize=8, color=MUTED, loc="left")
    _paired_bars(
        axes,
        [_cut(name, 14) or "(empty)" for name in names],
        _shares(counts[0], sizes[0]),
        _shares(counts[1], sizes[1]),
        horizontal=True,
    )


def _paired_bars(
    axes: "Axes",
    labels: Sequence[str],
    reference: Sequence[float],
    current: Sequence[float],
    horizontal: bool = False,
) -> None:
    """Two bars per label; horizontal where labels are words, the first label on top."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    places = np.arange(len(labels), dtype=np.float64)
    bars: Callable[..., Any] = axes.barh if horizontal else axes.bar
    bars(places - 0.2, reference, 0.4, color=REFERENCE_COLOUR)
    bars(places + 0.2, current, 0.4, color=CURRENT_COLOUR)
    set_ticks: Callable[..., Any] = axes.set_yticks if horizontal else axes.set_xticks
    set_ticks(places, [_plain(label) for label in labels], parse_math=False)
    shares = axes.xaxis if horizontal else axes.yaxis
    shares.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    shares.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.grid(axis="x" if horizontal else "y", color="#eceff3", linewidth=0.8)
    if horizontal:
        axes.invert_yaxis()


def _shares(counts: Sequence[int], size: int) -> list[float]:
    return [count / max(1, size) for count in counts]


def _day(seconds: float) -> str:
    return str(np.datetime64(round(seconds), "s").astype("datetime64[D]"))


def _cut(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _plain(text: str) -> str:
    """`text` in the glyphs of the drawing font; a missing one is drawn as a box, not warned of."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    glyphs = get_font(findfont(FontProperties())).get_charmap()
    return "".join(char if ord(char) in glyphs else "□" for char in text)
