"""Small SVG pictures: two distributions overlaid, and drift over time as a heat map.

Belongs here: turning counts and severities into marks. Does not: counting (`measure.Picture`),
choosing what is shown (`history`), text around the pictures (`render`, `page`). Written by hand,
since importing a plotting library costs more CPU than the comparison that it would show.

Pictures are shown as images, which cannot know whether the page around them is light or dark: they
have no background, and every colour reads on both. Blue-grey for the reference and below the
threshold, orange for the current side and beyond it, is told apart with any kind of colour vision.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from retrain_assets.drift.history import DriftHistory
from retrain_assets.drift.measure import Picture

__all__ = ["CURRENT_COLOUR", "REFERENCE_COLOUR", "Outlines", "data_uri", "heat_map", "outlines",
           "plain", "swatch", "thumbnail"]  # fmt: skip

REFERENCE_COLOUR, CURRENT_COLOUR, TEXT_COLOUR = "#8096b0", "#e8743b", "#7a8694"
HEIGHT = 100
"""Of the box that outlines are drawn in, in its own unit."""

_LEVELS = (0.25, 0.5, 1.0, 2.0, 5.0)
_SHADES = (
    (REFERENCE_COLOUR, 0.13), (REFERENCE_COLOUR, 0.32), (REFERENCE_COLOUR, 0.6),
    (CURRENT_COLOUR, 0.5), (CURRENT_COLOUR, 0.75), (CURRENT_COLOUR, 1.0),
)  # fmt: skip
_ROW, _STRIP, _LETTER = 16, 22, 7.0
_NAME_LENGTH = 26


class Outlines(NamedTuple):
    """Both sides of a picture as SVG path data in a box of `width` by `HEIGHT`.

    Attributes:
        width: of the box, in bars.
        reference: path of the reference's shares.
        current: path of the current side's shares.
        top: the share that is as high as the box, in (0, 1].
    """

    width: int
    reference: str
    current: str
    top: float


def plain(text: str, limit: int | None = None) -> str:
    """`text` on one line, cut to `limit` characters, without what XML or a reader cannot bear.

    >>> plain("two\\nlines\\x00 of text", 14)
    'two lines of …'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def data_uri(svg: str) -> str:
    """`svg` as an address that Markdown and HTML take; about a tenth longer, where base64 is a third."""
    return "data:image/svg+xml," + quote(svg, safe="/:=,;'!*@$")


def swatch(colour: str) -> str:
    """A small square of a colour, for legends."""
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' width='11' height='11'>"
        f"<rect width='11' height='11' rx='2' fill='{colour}'/></svg>"
    )


def outlines(picture: Picture) -> Outlines:
    """Steps of equal bars, or pairs of bars for labels, as shares of each side's values.

    A bar of all other categories is left out: it would dwarf the named ones.
    """
    named = slice(None, -1 if picture.n_others else None)
    sides = [shares(side)[named] for side in (picture.reference, picture.current)]
    top = max([*sides[0], *sides[1]], default=0.0) or 1.0
    heights = [[HEIGHT - round(share / top * HEIGHT) for share in side] for side in sides]
    if picture.edges is not None:
        return Outlines(max(1, len(heights[0])), _steps(heights[0]), _steps(heights[1]), top)
    pairs = [_bars(side, shift) for shift, side in enumerate(heights)]
    return Outlines(max(1, 3 * len(heights[0]) - 1), pairs[0], pairs[1], top)


def shares(counts: Sequence[int]) -> list[float]:
    """Each count over the sum of all; zeros of nothing."""
    total = sum(counts) or 1
    return [count / total for count in counts]


def _steps(heights: Sequence[int]) -> str:
    """One closed outline; neighbours of equal height are one step."""
    path, start = f"M0,{HEIGHT}", 0
    for i in range(1, len(heights) + 1):
        if i == len(heights) or heights[i] != heights[start]:
            path += f"V{heights[start]}h{i - start}"
            start = i
    return path + f"V{HEIGHT}z"


def _bars(heights: Sequence[int], shift: int) -> str:
    drawn = (
        f"M{3 * i + shift},{HEIGHT}V{height}h1V{HEIGHT}z"
        for i, height in enumerate(heights)
        if height < HEIGHT
    )
    return "".join(drawn)


def thumbnail(picture: Picture, width: int = 132, height: int = 34) -> str:
    """Both distributions overlaid in a few hundred bytes, for a row of a table."""
    drawn = outlines(picture)
    line = "" if picture.edges is None else f" stroke='{CURRENT_COLOUR}' stroke-width='1.2'"
    opacity = 0.9 if picture.edges is None else 0.3
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 -3 {drawn.width} {HEIGHT + 6}' preserveAspectRatio='none'>"
        f"<path d='{drawn.reference}' fill='{REFERENCE_COLOUR}' fill-opacity='.6'/>"
        f"<path d='{drawn.current}' fill='{CURRENT_COLOUR}' fill-opacity='{opacity}'{line} "
        "vector-effect='non-scaling-stroke'/></svg>"
    )


def heat_map(history: DriftHistory) -> str:
    """Features down, partitions across; colour is severity, a dot marks what counts as drifted.

    The strip above is the verdict of each report; a vertical line marks another reference. A cell
    is empty where there is no report.
    """
    k, n = history.severity.shape
    names = [plain(name, _NAME_LENGTH) for name in history.features]
    left = 12 + round(_LETTER * max([7, *map(len, names)]))
    cell = 12 if n > 30 else 18
    width = max(left + n * cell + 8, left + 470)
    top = 34
    bottom = top + _STRIP + k * _ROW
    parts = [
        _legend(left),
        _labels(names, left, top),
        f"<g transform='translate({left},{top})'>{_verdicts(history, cell)}</g>",
        f"<g transform='translate({left},{top + _STRIP})'>{_cells(history, cell)}</g>",
        _changes(history, left, cell, top, bottom),
        _ticks(history.partitions, left, cell, bottom),
    ]
    if history.n_left_out:
        parts.append(
            f"<text x='{left - 6}' y='{bottom + 14}' text-anchor='end'>"
            f"{history.n_left_out:,} more</text>"
        )
    height = bottom + 22
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' font-family='system-ui,sans-serif' font-size='11' "
        f"fill='{TEXT_COLOUR}'>{''.join(parts)}</svg>"
    )


def _legend(left: int) -> str:
    """The scale in multiples of the threshold, and what the marks mean."""
    parts = [f"<text x='{left - 6}' y='12' text-anchor='end'>× threshold</text>"]
    for i, (colour, opacity) in enumerate(_SHADES):
        x = left + 34 * i
        parts.append(
            f"<rect x='{x}' y='2' width='33' height='12' fill='{colour}' fill-opacity='{opacity}'/>"
        )
        if i:
            parts.append(
                f"<text x='{x}' y='25' text-anchor='middle' font-size='10'>{_LEVELS[i - 1]:g}</text>"
            )
    x = left + 34 * len(_SHADES) + 18
    parts.append(f"{_dots([(x, 8)])}<text x='{x + 8}' y='12'>drifted</text>")
    parts.append(
        f"<path d='M{x + 62},1v14' stroke='{TEXT_COLOUR}' stroke-dasharray='3 2'/>"
        f"<text x='{x + 69}' y='12'>another reference</text>"
    )
    return "".join(parts)


def _labels(names: Sequence[str], left: int, top: int) -> str:
    rows = [("verdict", top + 12)]
    rows += [(name, top + _STRIP + i * _ROW + 12) for i, name in enumerate(names)]
    return "".join(
        f"<text x='{left - 6}' y='{y}' text-anchor='end'>{escape(name)}</text>" for name, y in rows
    )


def _verdicts(history: DriftHistory, cell: int) -> str:
    """Filled orange: drifted; filled grey: stable; outlined: undecided."""
    looks = {
        "drifted": f"fill='{CURRENT_COLOUR}'",
        "stable": f"fill='{REFERENCE_COLOUR}' fill-opacity='.38'",
        "undecided": f"fill='none' stroke='{REFERENCE_COLOUR}'",
    }
    parts = []
    for verdict, look in looks.items():
        side = cell - (2 if verdict == "undecided" else 1)
        drawn = "".join(
            f"M{i * cell + (cell - 1 - side) / 2 + 0.5:g},2.5h{side}v11h-{side}z"
            for i, found in enumerate(history.verdicts)
            if found == verdict
        )
        parts.append(f"<path d='{drawn}' {look}/>" if drawn else "")
    return "".join(parts)


def _cells(history: DriftHistory, cell: int) -> str:
    """One path per colour, a stroke per run of equal cells, dashed into cells: 8 bytes each."""
    parts = []
    levels = np.digitize(history.severity, _LEVELS)
    levels[np.isnan(history.severity)] = -1
    k, n = levels.shape
    for level, (colour, opacity) in enumerate(_SHADES):
        drawn = []
        for row in range(k):
            column = 0
            while column < n:
                start = column
                while column < n and levels[row, column] == level:
                    column += 1
                if column > start:
                    drawn.append(
                        f"M{start * cell},{row * _ROW + _ROW // 2}h{(column - start) * cell}"
                    )
                column += 1
        if drawn:
            parts.append(
                f"<path d='{''.join(drawn)}' stroke='{colour}' stroke-opacity='{opacity}' "
                f"stroke-width='{_ROW - 1}' stroke-dasharray='{cell - 1} 1'/>"
            )
    marks = [
        (column * cell + (cell - 1) / 2, row * _ROW + _ROW // 2)
        for row, column in np.argwhere(history.drifted).tolist()
    ]
    return "".join(parts) + _dots(marks)


def _dots(places: Sequence[tuple[float, float]]) -> str:
    """Dark dots with a light rim, seen on every shade."""
    if not places:
        return ""
    path = "".join(f"M{x:g},{y:g}h0" for x, y in places)
    return (
        f"<g fill='none' stroke-linecap='round'><path d='{path}' stroke='#fff' stroke-width='7'/>"
        f"<path d='{path}' stroke='#2b3440' stroke-width='4.5'/></g>"
    )


def _changes(history: DriftHistory, left: int, cell: int, top: int, bottom: int) -> str:
    """A line before each report whose reference is not that of the report before it."""
    before: str | None = None
    path = ""
    for i, reference in enumerate(history.references):
        if reference is None:
            continue
        if before is not None and reference != before:
            path += f"M{left + i * cell - 0.5:g},{top}V{bottom}"
        before = reference
    if not path:
        return ""
    return f"<path d='{path}' stroke='{TEXT_COLOUR}' stroke-dasharray='3 2'/>"


def _ticks(partitions: Sequence[str], left: int, cell: int, bottom: int) -> str:
    """As many partition keys as fit below, the newest among them, each ending at its column."""
    keys = [plain(key, 24) for key in partitions]
    room = round(_LETTER * max(map(len, keys), default=0))
    parts = []
    for i in range(len(keys) - 1, -1, -(room // cell + 2)):
        x = left + (i + 1) * cell - 1
        if x - room >= left - 6:
            parts.append(
                f"<path d='M{x - cell / 2:g},{bottom}v4' stroke='{TEXT_COLOUR}'/>"
                f"<text x='{x}' y='{bottom + 15}' text-anchor='end'>{escape(keys[i])}</text>"
            )
    return "".join(parts)
