"""Status rows on a terminal of 80 columns: a summary, one line per model, and what to know about it.

Belongs here: columns, colours, what is left out. Does not: the rows (`status`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from retrain_assets.fleet.status import STATES, StatusRow, ago, summary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["StatusTable", "sparkline", "status_lines", "status_notes", "status_table"]

_COLOURS = {
    "broken": "bold red",
    "failing": "red",
    "rejected": "bright_red",
    "approval": "magenta",
    "drifting": "yellow",
    "waiting": "cyan",
    "retraining": "blue",
    "healthy": "green",
    "retired": "dim",
}
_BARS = "▁▂▃▄▅▆▇█"
_TREND = 6
_METRIC = 7
_FEW = 10
_CALM = ("healthy", "retraining", "retired")


def sparkline(scores: Sequence[float | None]) -> str:
    """Scores in [0, 1] as bars; a partition without a report is a gap.

    >>> sparkline([0.0, 0.5, None, 1.0])
    '▁▅ █'
    """
    return "".join(
        " " if score is None else _BARS[min(7, max(0, int(score * 8)))] for score in scores
    )


@dataclass(frozen=True)
class StatusTable:
    """Rows of cells in columns, as a thing that rich prints.

    Lines of padded cells; `rich.table.Table` lays out and wraps each cell by itself, which for a thousand
    rows is a fifth of the whole command.

    Attributes:
        lines: by row, text and style of each cell. The first column gives way where the terminal is too
            narrow: its texts are cut, not wrapped.
    """

    lines: "Sequence[Sequence[tuple[str, str]]]"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Called by rich, with the width of the terminal."""
        from rich.cells import cell_len
        from rich.text import Text

        widths = [
            max(cell_len(text) for text, _ in column) for column in zip(*self.lines, strict=True)
        ]
        widths[0] = max(1, min(widths[0], options.max_width - sum(widths[1:]) - len(widths) + 1))
        for line in self.lines:
            shown = Text(no_wrap=True, overflow="ellipsis")
            for (text, style), width in zip(line, widths, strict=True):
                if cell_len(text) > width:
                    cell = Text(text)
                    cell.truncate(width, overflow="ellipsis")
                    text = cell.plain
                shown.append(text + " " * (width - cell_len(text)), style)
                shown.append(" ")
            shown.rstrip()
            yield shown


def status_table(rows: Sequence[StatusRow], now: datetime) -> StatusTable:
    """The rows as a table for a terminal of 80 columns, what needs a person first."""
    titles = ("model", "state", "champion", "metric", "data", "drift", "run")
    found = [[(title, "bold") for title in titles]]
    for row in sorted(rows, key=lambda row: row.rank):
        champion = f"v{row.champion} {ago(row.promoted_at, now)}" if row.champion else "-"
        found.append(
            [
                (row.model, ""),
                (row.state, _COLOURS[row.state]),
                (champion, ""),
                (_metric(row), "red" if row.meets is False else ""),
                (row.newest or "-", _FRESH.get(row.freshness or "ok", "")),
                (_drift(row), "yellow" if row.verdict == "drifted" else ""),
                (ago(row.last_run_at, now), _run_colour(row)),
            ]
        )
    return StatusTable(found)


def _run_colour(row: StatusRow) -> str:
    return {"FAILURE": "red", "STARTED": "blue"}.get(row.last_run or "", "")


_FRESH = {"warn": "yellow", "fail": "red"}


def _metric(row: StatusRow) -> str:
    value = row.newest_value
    if row.metric is None or value is None:
        return "-"
    mark = "!" if row.meets is False else ""
    name = row.metric if len(row.metric) <= _METRIC else row.metric[: _METRIC - 1] + "…"
    return f"{value:.4g}{mark} {name}"


def _drift(row: StatusRow) -> str:
    return sparkline(row.trend[-_TREND:]) if row.trend else row.verdict or "-"


def status_notes(rows: Sequence[StatusRow]) -> list[str]:
    """What a person should know about single models, most urgent first.

    Of a few models everything; of many the notes of those that need somebody, where models with the
    same note share a line (`retrain why` has the decisions).
    """
    if len(rows) <= _FEW:
        return [line for row in sorted(rows, key=lambda row: row.rank) for line in _notes(row)]
    shown = [row for row in rows if row.state not in _CALM and row.note]
    shown.sort(key=lambda row: (STATES.index(row.state), row.note, row.model))
    found: list[str] = []
    for note, same in groupby(shown, key=lambda row: row.note):
        names = [row.model for row in same]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        found.append(f"{', '.join(names[:3])}{more}: {note}")
    return found + [f"{row.model}: {row.stale}" for row in rows if row.stale]


def _notes(row: StatusRow) -> Iterator[str]:
    if row.note:
        yield f"{row.model}: {row.note}"
    if row.stale:
        yield f"{row.model}: {row.stale}"
    if row.decision:
        moment = (row.decided_at or "")[:16].replace("T", " ")
        yield f"{row.model}: last decision {moment} UTC, {row.decision}"


def status_lines(rows: Sequence[StatusRow]) -> list[str]:
    """Summaries: of all models and, where there are several groups of several, of each group."""
    found = [summary(rows)]
    by_group: dict[str, list[StatusRow]] = {}
    for row in rows:
        by_group.setdefault(row.group or "", []).append(row)
    groups = {name: members for name, members in by_group.items() if name and len(members) > 1}
    if len(by_group) > 1 and groups:
        urgent = sorted(groups, key=lambda name: (min(r.rank[0] for r in groups[name]), name))
        found += [f"  {name}: {summary(groups[name])}" for name in urgent]
    return found
