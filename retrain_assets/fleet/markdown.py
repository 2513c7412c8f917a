"""Status rows for the Dagster UI: a Markdown table and a picture, of bounded length.

Belongs here: text and marks. Does not: rows (`status`), when they are written (the orchestration's).
Dagster shows images in Markdown, but no HTML; every event is kept for ever, so that of a large fleet
only what needs a person is told.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from retrain_assets.drift.pictures import CURRENT_COLOUR, REFERENCE_COLOUR, data_uri, plain
from retrain_assets.fleet.status import StatusRow, ago, duration, summary

__all__ = ["fleet_markdown", "trend_picture"]

TABLE_ROWS, DRAWN_ROWS = 30, 40
_COLUMNS = ("model", "state", "champion", "metric", "drift", "data", "last run", "7 days", "note")
_TEXT, _ROW, _WIDTH = "#7a8694", 20, 220
_SHADES = {"drifting": CURRENT_COLOUR}


def fleet_markdown(rows: Sequence[StatusRow], now: datetime) -> str:
    """The summary, the most urgent models as a table, and how many are left out."""
    ranked = sorted(rows, key=lambda row: row.rank)
    lines = [f"**{summary(ranked)}**", "", _line(_COLUMNS), "|" + "---|" * len(_COLUMNS)]
    lines += [_line(_cells(row, now)) for row in ranked[:TABLE_ROWS]]
    if len(ranked) > TABLE_ROWS:
        rest = summary(ranked[TABLE_ROWS:])
        lines += ["", f"and {rest}; `retrain status` and `retrain dashboard` show all"]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text that neither ends the cell nor becomes markup."""
    line = plain(text, 160)
    return "".join(f"\\{c}" if c in "\\|`*_[]<>" else c for c in line)


def _cells(row: StatusRow, now: datetime) -> tuple[str, ...]:
    value = row.newest_value
    metric = "-" if value is None else f"{row.metric} {value:.4g}"
    if row.bound is not None:
        metric += f" (bound {row.bound:.4g}{'' if row.meets else ', broken'})"
    drift = "-" if row.verdict is None else row.verdict
    if row.drift_score is not None:
        drift += f" {row.drift_score:.2f}"
    data = row.newest or "-"
    if row.freshness not in (None, "ok"):
        data += " (stale)" if row.freshness == "fail" else " (late)"
    run = f"{row.last_run.lower()} {ago(row.last_run_at, now)} ago" if row.last_run else "-"
    return (
        row.model,
        row.state,
        f"v{row.champion}, {ago(row.promoted_at, now)}" if row.champion else "-",
        metric,
        drift,
        data,
        run,
        duration(row.week_seconds) if row.week_seconds else "-",
        row.note or row.decision or "",
    )


def trend_picture(rows: Sequence[StatusRow]) -> str:
    """Drift scores of the most urgent models, one line each, as a Markdown image; "" without any.

    The dashed line is 0.5: every feature at its threshold.
    """
    ranked = sorted(rows, key=lambda row: row.rank)
    drawn = [row for row in ranked if any(score is not None for score in row.trend)][:DRAWN_ROWS]
    if not drawn:
        return ""
    left = 16 + round(7 * max(len(plain(row.model, 28)) for row in drawn))
    width, height = left + _WIDTH + 50, len(drawn) * _ROW + 8
    marks = "".join(_trend(row, left, i * _ROW + 4) for i, row in enumerate(drawn))
    return (
        "![drift scores]("
        + data_uri(
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
            f"viewBox='0 0 {width} {height}' font-family='system-ui,sans-serif' font-size='12' "
            f"fill='{_TEXT}'>{marks}</svg>"
        )
        + ")"
    )


def _trend(row: StatusRow, left: int, top: int) -> str:
    colour = _SHADES.get(row.state, REFERENCE_COLOUR)
    step, room = _WIDTH / max(1, len(row.trend) - 1), _ROW - 5
    path, pen = "", "M"
    for i, score in enumerate(row.trend):
        if score is None:
            pen = "M"
            continue
        path += f"{pen}{left + i * step:.0f},{top + room * (1 - min(1.0, score)):.1f}"
        pen = "L"
    known = [score for score in row.trend if score is not None]
    middle = top + room / 2
    return (
        f"<text x='{left - 8}' y='{top + 12}' text-anchor='end'>{escape(plain(row.model, 28))}</text>"
        f"<path d='M{left},{middle}h{_WIDTH}' stroke='{_TEXT}' stroke-opacity='.35' "
        "stroke-dasharray='2 3'/>"
        f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.6' stroke-linecap='round'/>"
        f"<text x='{left + _WIDTH + 8}' y='{top + 12}'>{known[-1]:.2f}</text>"
    )
