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
_TREND = 8
_NAME = 24
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
    for title in ("model", "state", "champion", "metric", "data", "drift", "run"):
        table.add_column(title, no_wrap=True)
    for row in sorted(rows, key=lambda row: row.rank):
        table.add_row(
            Text(_cut(row.model, _NAME)),
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


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _metric(row: StatusRow) -> str:
    value = row.newest_value
    if row.metric is None or value is None:
        return "-"
    mark = {True: "", False: "!", None: ""}[row.meets]
    return f"{row.metric} {value:.4g}{mark}"


def _drift(row: StatusRow) -> str:
    return sparkline(row.trend[-_TREND:]) if row.trend else row.verdict or "-"


def status_notes(rows: Sequence[StatusRow]) -> list[str]:
    """What a person should know about single models, most urgent first.

    Of a model that needs nobody, nothing; of any other its note and the last decision about it.
    Models that all have the same note share a line.
    """
    shown = [row for row in sorted(rows, key=lambda row: row.rank) if row.state not in _CALM]
    found: list[str] = []
    shown.sort(key=lambda row: (STATES.index(row.state), row.note, row.model))
    for _, same in groupby(shown, key=lambda row: (row.state, row.note)):
        members = list(same)
        if len(members) > 3 and members[0].note:
            named = ", ".join(row.model for row in members[:3])
            found.append(f"{named} and {len(members) - 3} more: {members[0].note}")
        else:
            found += [line for row in members for line in _notes(row)]
    found += [f"{row.model}: {row.stale}" for row in shown if row.stale]
    return found + [f"{row.model}: {row.stale}" for row in rows if row.stale and row.state in _CALM]


def _notes(row: StatusRow) -> Iterator[str]:
    if row.note:
        yield f"{row.model}: {row.note}"
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
