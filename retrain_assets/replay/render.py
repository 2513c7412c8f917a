"""A replay's result for people: text table, Markdown, and the frontier as a picture.

Belongs here: words and drawing. Does not: any figure that is not in the result. Only matplotlib's
object-oriented interface is used, imported where it draws.
"""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrain_assets.replay.result import PolicyResult, Result

__all__ = ["frontier_picture", "markdown", "table_rows", "text"]

_COLORS = {
    "never": "#6b7280", "random": "#9ca3af", "combined": "#dc2626", "drift": "#2563eb",
    "performance": "#059669", "cost": "#7c3aed",
}  # fmt: skip
_EVERY = "#ea7a17"
_INK, _MUTED, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_DPI = 100


def _header(result: "Result") -> list[str]:
    priced = any(one.cost is not None for one in result.policies)
    names = ["policy", f"mean {result.metric}", "against never", "retrains", "promoted", "wrong"]
    return [*names, "failed", "CPU s", *(["cost"] if priced else [])]


def _row(one: "PolicyResult", priced: bool) -> list[str]:
    interval = ""
    if one.gain_low is not None and one.gain_high is not None:
        interval = f" [{one.gain_low:+.4f}, {one.gain_high:+.4f}]"
    counts = [f"{n:.3g}" for n in (one.retrainings, one.promotions, one.wrong, one.failed)]
    gain = "" if one.name == "never" else f"{one.gain:+.4f}{interval}"
    cost = [f"{one.cost:+.4g}" if one.cost is not None else ""] if priced else []
    return [one.name, f"{one.value:.4f}", gain, *counts, f"{one.seconds:.0f}", *cost]


def table_rows(result: "Result") -> list[list[str]]:
    """The table of policies as text: a header, then a row each, hindsight and the reference last."""
    header = _header(result)
    rows = [header, *(_row(one, header[-1] == "cost") for one in result.policies)]
    for count, value, label in _hindsight(result):
        rows.append([label, f"{value:.4f}", "", str(count), *[""] * (len(header) - 4)])
    if result.baseline is not None:
        rows.append(["no change*", f"{result.baseline:.4f}", *[""] * (len(header) - 2)])
    return rows


def _hindsight(result: "Result") -> list[tuple[int, float, str]]:
    """The oracle at the count of `combined`."""
    wanted = round(result.policy("combined").retrainings)
    return [
        (n, value, "oracle") for n, value in result.oracle if n == min(wanted, result.oracle[-1][0])
    ]


def _title(result: "Result") -> str:
    return (
        f"{result.model}: {result.partitions} partitions served, {result.first} to {result.last}, "
        f"{result.rows:,} rows; {result.trainings} models trained"
    )


def _below(result: "Result") -> list[str]:
    lines = []
    if result.baseline is not None:
        lines.append("* a reference, no policy: the last labelled partition's labels again.")
    lines += _staleness_lines(result)
    if result.recommendation is not None:
        lines.append(
            f"Recommended: {result.recommendation.policy}. {result.recommendation.reason}."
        )
    lines += [f"Note: {note}." for note in result.notes]
    return lines


def _staleness_lines(result: "Result") -> list[str]:
    if result.max_age is None:
        return ["A model's age is not shown to matter, so no max_age is suggested."]
    return [
        f"From {result.max_age} partitions of age on a model loses more than {result.matters:.3g} of "
        f"{result.metric} against a fresh one: suggested max_age."
    ]


def text(result: "Result") -> str:
    """Everything as lines for a terminal, at most about 110 columns."""
    table = table_rows(result)
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = [_title(result), ""]
    for row in table:
        cells = [
            cell.ljust(widths[0]) if not place else cell.rjust(widths[place])
            for place, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    lines += ["", "Hindsight (oracle) by number of retrainings: " + _frontier(result), ""]
    lines += _below(result)
    if result.recommendation is not None and result.recommendation.spec:
        lines += ["", result.recommendation.spec]
    return "\n".join(lines)


def _frontier(result: "Result", most: int = 8) -> str:
    """Some points of the oracle, each doubling the count."""
    points = dict(result.oracle)
    counts = [0, *(2**n for n in range(most)), max(points)]
    shown = dict.fromkeys(count for count in counts if count in points)
    return ", ".join(f"{count}: {points[count]:.4f}" for count in shown)


def markdown(result: "Result") -> str:
    """Table, staleness and recommendation as Markdown."""
    header = _header(result)
    lines = [_title(result), "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [
        f"| {' | '.join(row)} |".replace("no change*", "no change\\*")
        for row in table_rows(result)[1:]
    ]
    lines += ["", f"Hindsight by number of retrainings: {_frontier(result)}.", ""]
    lines += [line + "\n" for line in _below(result)]
    if result.recommendation is not None and result.recommendation.spec:
        lines += ["```yaml", result.recommendation.spec, "```"]
    return "\n".join(lines).replace("\n* a ref", "\n\\* a ref")


def frontier_picture(result: "Result") -> bytes:
    """Metric against number of retrainings, and loss by age of a model, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes, aging = figure.subplots(1, 2, width_ratios=[3, 2])
    counts, best = zip(*result.oracle, strict=True)
    axes.plot(counts, best, color=_INK, linewidth=1, linestyle="--", label="oracle (hindsight)")
    for one in result.policies:
        color = _COLORS.get(one.name, _EVERY)
        axes.scatter([one.retrainings], [one.value], color=color, s=42, zorder=3)
        axes.annotate(
            one.name, (one.retrainings, one.value), xytext=(6, -4), textcoords="offset points",
            color=color, fontsize=9,
        )  # fmt: skip
    values = [*best, *(one.value for one in result.policies)]
    shown = result.baseline
    if shown is not None and min(values) - _half_range(values) < shown < max(values) + _half_range(
        values
    ):
        axes.axhline(shown, color=_MUTED, linewidth=1, linestyle=":", label="no change")
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=-0.5)
    axes.set_xlabel("retrainings after the first")
    axes.set_ylabel(f"{result.metric}, mean over {result.partitions} partitions")
    axes.set_title(f"{result.model}: what each policy would have served", fontsize=11, color=_INK)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    middles = [(age.first + age.last) / 2 for age in result.staleness]
    losses = [age.loss for age in result.staleness]
    aging.plot(middles, losses, color=_COLORS["combined"], linewidth=1.4, marker="o", markersize=3)
    judged = [age for age in result.staleness if age.low is not None and age.high is not None]
    aging.fill_between(
        [(age.first + age.last) / 2 for age in judged],
        [age.low for age in judged if age.low is not None],
        [age.high for age in judged if age.high is not None],
        color=_COLORS["combined"], alpha=0.15, linewidth=0,
    )  # fmt: skip
    aging.axhline(result.matters, color=_MUTED, linewidth=1, linestyle=":")
    if result.max_age is not None:
        aging.axvline(result.max_age, color=_MUTED, linewidth=1, linestyle="--")
    aging.set_xlabel("age of the model, partitions")
    aging.set_ylabel(f"{result.metric} lost against a fresh model")
    aging.set_title("Staleness", fontsize=11, color=_INK)
    for one_axes in (axes, aging):
        one_axes.grid(color=_GRID, linewidth=0.6)
        one_axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _half_range(values: list[float]) -> float:
    """Half of the range, for what still fits into the picture."""
    return 0.5 * (max(values) - min(values))
