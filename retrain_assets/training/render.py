"""Pictures of a candidate: what it looks at, and how it compares with the champion.

Belongs here: PNG bytes from importance and evaluations, 900 pixels wide. Does not: statistics
beyond what is drawn, where pictures are shown. Only matplotlib's object-oriented interface is used:
no global state, no display.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.evaluation import CANDIDATE, CHAMPION, Evaluation
from retrain_assets.training.metrics import Metric, get_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_picture", "importance_picture"]

_COLORS = {CANDIDATE: "#2563eb", CHAMPION: "#ea7a17"}
_INK, _MUTED, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_WIDTH_INCHES, _DPI = 9.0, 100
_MAX_CLASSES = 15


def importance_picture(importance: Mapping[str, float], limit: int = 15) -> bytes:
    """Bars of the `limit` largest shares, the rest summed up, as PNG.

    Args:
        importance: share of each feature, as `feature_importance` gives it.
        limit: how many features get a bar of their own.

    Raises:
        TrainingError: there is no feature.
    """
    if not importance:
        raise TrainingError("importance: no feature to draw")
    ranked = sorted(importance.items(), key=lambda item: -item[1])
    shown, rest = ranked[:limit], ranked[limit:]
    names = [_text(name) for name, _ in shown]
    shares = [share for _, share in shown]
    if rest:
        names.append(f"{len(rest)} others")
        shares.append(sum(share for _, share in rest))
    figure, axes = _canvas(height=1.3 + 0.32 * len(names))
    positions = np.arange(len(names))[::-1]
    colors = [_COLORS[CANDIDATE]] * len(shown) + ["#9ca3af"] * bool(rest)
    axes.barh(positions, shares, color=colors, height=0.68)
    largest = max(shares) or 1.0
    for position, share in zip(positions, shares, strict=True):
        axes.text(share + 0.01 * largest, position, f"{share:.1%}", va="center", color=_INK)
    axes.set_yticks(positions, names)
    axes.set_xlim(0, largest * 1.12)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    _title(axes, "What the model looks at", "share of the total gain of all splits")
    return _png(figure)


def comparison_picture(evaluation: Evaluation, metric: Metric) -> bytes:
    """Candidate against champion on the holdout, as PNG.

    Binary: ROC curves (the distribution of errors where only one class occurs). Regression: the
    distribution of errors. Multiclass: F1 of each class. Ranking: the distribution of the metric
    over groups.

    Args:
        evaluation: the evidence; without a champion the candidate is drawn alone.
        metric: the metric that the legend quotes, and that ranking draws.

    Raises:
        TrainingError: the metric does not fit the task.
    """
    shown = {n: evaluation.scores[n] for n in (CANDIDATE, CHAMPION) if n in evaluation.scores}
    figure, axes = _canvas(height=5.0)
    labels = {name: _label(evaluation, metric, name) for name in shown}
    rows = f"{evaluation.n_rows:,} holdout rows"
    if evaluation.task == "multiclass":
        _draw_classes(axes, evaluation, shown, labels)
        _title(axes, "F1 of each class", rows)
    elif evaluation.task == "ranking":
        _draw_groups(axes, evaluation, metric, shown, labels)
        _title(axes, f"{metric.name} of each group", rows)
    elif evaluation.task == "binary" and len(np.unique(evaluation.y_true)) == 2:
        _draw_roc(axes, evaluation.y_true, shown, labels)
        _title(axes, "ROC curve", rows)
    else:
        _draw_errors(axes, evaluation.y_true, shown, labels)
        _title(axes, "Errors", f"{rows}; prediction minus truth, middle 98%")
    _legend(axes)
    return _png(figure)


def _draw_roc(
    axes: "Axes", y_true: NDArray[Any], shown: Mapping[str, NDArray[Any]], labels: dict[str, str]
) -> None:
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 4)))
    for name, score in reversed(list(shown.items())):
        order = np.argsort(-score, kind="stable")
        hit = y_true[order] == 1
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
        true_rate = np.append(0, np.cumsum(hit)[ends] / hit.sum())
        false_rate = np.append(0, np.cumsum(~hit)[ends] / (~hit).sum())
        axes.plot(false_rate, true_rate, color=_COLORS[name], linewidth=2.2, label=labels[name])
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")


def _draw_errors(
    axes: "Axes", y_true: NDArray[Any], shown: Mapping[str, NDArray[Any]], labels: dict[str, str]
) -> None:
    errors = {name: score - y_true for name, score in shown.items()}
    low, high = np.quantile(np.concatenate(list(errors.values())), [0.01, 0.99])
    margin = 0.5 * max(abs(low), abs(high), 1e-9) if low == high else 0.0
    bins = int(np.clip(np.sqrt(len(y_true)), 12, 60))
    edges = np.linspace(low - margin, high + margin, bins + 1)
    for name, error in reversed(list(errors.items())):
        counts, _ = np.histogram(error, edges)
        share = counts / len(error)
        axes.stairs(share, edges, fill=True, color=_COLORS[name], alpha=0.22)
        axes.stairs(share, edges, color=_COLORS[name], linewidth=2, label=labels[name])
    axes.axvline(0, color=_MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.set_xlabel("error")
    axes.set_ylabel("share of rows")


def _draw_classes(
    axes: "Axes",
    evaluation: Evaluation,
    shown: Mapping[str, NDArray[Any]],
    labels: dict[str, str],
) -> None:
    f1 = get_metric("f1")
    classes = evaluation.classes or ()
    support = np.bincount(evaluation.y_true, minlength=len(classes))
    largest = np.argsort(-support, kind="stable")[:_MAX_CLASSES]
    once = np.ones((1, evaluation.n_rows))
    heights = {
        name: [
            f1.resampled(evaluation.y_true == c, score.argmax(axis=1) == c, once)[0]
            for c in largest
        ]
        for name, score in shown.items()
    }
    _draw_pairs(axes, np.arange(len(largest)), heights, labels)
    axes.set_xticks(np.arange(len(largest)), [_text(str(classes[c]), 14) for c in largest])
    if len(largest) > 6:
        axes.tick_params(axis="x", labelrotation=35)
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("F1")


def _draw_groups(
    axes: "Axes",
    evaluation: Evaluation,
    metric: Metric,
    shown: Mapping[str, NDArray[Any]],
    labels: dict[str, str],
) -> None:
    if evaluation.groups is None:
        raise TrainingError("comparison picture: a ranking evaluation needs the group of each row")
    edges = np.linspace(0, 1, 11)
    heights: dict[str, Any] = {}
    for name, score in shown.items():
        values = metric.per_group(evaluation.y_true, score, evaluation.groups)
        values = values[~np.isnan(values)]
        counts, _ = np.histogram(np.clip(values, 0, 1), edges)
        heights[name] = counts / max(len(values), 1)
    _draw_pairs(axes, np.arange(10), heights, labels)
    axes.set_xticks(np.arange(10), [f"{low:.1f} to {low + 0.1:.1f}" for low in edges[:-1]])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(metric.name)
    axes.set_ylabel("share of groups")


def _draw_pairs(
    axes: "Axes", positions: NDArray[Any], heights: Mapping[str, Any], labels: dict[str, str]
) -> None:
    width = 0.8 / len(heights)
    for i, (name, values) in enumerate(heights.items()):
        at = positions + (i - (len(heights) - 1) / 2) * width
        axes.bar(at, values, width * 0.94, color=_COLORS[name], label=labels[name])
    axes.grid(False, axis="x")


def _label(evaluation: Evaluation, metric: Metric, name: str) -> str:
    units = metric.n_units(evaluation.y_true, groups=evaluation.groups)
    value = metric.resampled(
        evaluation.y_true, evaluation.scores[name], np.ones((1, units)), groups=evaluation.groups
    )[0]
    return f"{name}, {metric.name} {'undefined' if np.isnan(value) else f'{value:.4g}'}"


def _canvas(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.14, h_pad=0.12)
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(colors=_INK, length=0, labelsize=10)
    axes.grid(True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_MUTED)
    return figure, axes


def _title(axes: "Axes", title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=_INK, pad=24)
    axes.annotate(
        subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
        color=_MUTED, fontsize=10,
    )  # fmt: skip


def _legend(axes: "Axes") -> None:
    """Above the plot on the right, where it hides nothing; the candidate first."""
    handles, labels = axes.get_legend_handles_labels()
    pairs = sorted(zip(handles, labels, strict=True), key=lambda pair: pair[1])
    axes.legend(
        [handle for handle, _ in pairs], [label for _, label in pairs],
        loc="lower right", bbox_to_anchor=(1, 1), frameon=False, labelcolor=_INK, borderaxespad=0.2,
    )  # fmt: skip


def _text(name: str, limit: int = 32) -> str:
    """A name as matplotlib must show it: shortened, and no `$`, which would begin a formula."""
    short = name if len(name) <= limit else name[: limit - 1] + "…"
    return short.replace("$", r"\$")


def _png(figure: "Figure") -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
