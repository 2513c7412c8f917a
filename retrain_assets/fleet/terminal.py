"""Status rows on a terminal of 80 columns: a summary, one line per model, and what to know about it.

Belongs here: columns, colours, what is left out. Does not: the rows (`status`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from retrain_assets.fleet.status import STATES, StatusRow, ago, summary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["sparkline", "status_lines", "status_notes", "status_table"]

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


def status_table(rows: Sequence[StatusRow], now: datetime) -> "Table":
    """The rows as a table for a terminal of 80 columns, what needs a person first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model")  # the one that gives way; its names are cut, not wrapped
    for title in ("state", "champion", "metric", "data", "drift", "run"):
        table.add_column(title, no_wrap=True)
    for row in sorted(rows, key=lambda row: row.rank):
        table.add_row(
            Text(row.model, no_wrap=True, overflow="ellipsis"),
            Text(row.state, style=_COLOURS[row.state]),
            Text(f"v{row.champion} {ago(row.promoted_at, now)}" if row.champion else "-"),
            Text(_metric(row), style="red" if row.meets is False else ""),
            Text(row.newest or "-", style=_FRESH.get(row.freshness or "ok", "")),
            Text(_drift(row), style="yellow" if row.verdict == "drifted" else ""),
            Text(ago(row.last_run_at, now), style=_run_colour(row)),
        )
    return table


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
