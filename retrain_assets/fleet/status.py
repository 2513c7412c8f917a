"""Status rows, one per model, and the table that shows them. Gathering is the orchestration's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["StatusRow", "ago", "status_table"]

State = Literal["broken", "failing", "drifting", "waiting", "retraining", "healthy"]
_ORDER: tuple[State, ...] = ("broken", "failing", "drifting", "waiting", "retraining", "healthy")
_COLOURS = {
    "broken": "bold red",
    "failing": "red",
    "drifting": "yellow",
    "waiting": "cyan",
    "retraining": "blue",
    "healthy": "green",
}


@dataclass(frozen=True)
class StatusRow:
    """One model at one moment.

    Attributes:
        state: `broken` (spec in quarantine), `failing` (last run failed), `drifting` (alarm),
            `waiting` (no champion yet), `retraining`, `healthy`.
        champion: version that serves, None before the first.
        promoted_at: when it was promoted, ISO 8601 UTC.
        metric, value: the gate's metric of the champion on its holdout.
        trained_for: the partition whose retraining made the champion.
        newest: the newest feature partition.
        verdict: of the newest drift report.
        drift_score: of the newest drift report.
        last_run: status of the latest run of any of the model's assets.
        last_run_at: when it was last updated, ISO 8601 UTC.
        note: what a person should know: the error, the reason, what is waited for.
    """

    model: str
    state: State
    owner: str | None = None
    champion: str | None = None
    promoted_at: str | None = None
    metric: str | None = None
    value: float | None = None
    trained_for: str | None = None
    newest: str | None = None
    verdict: str | None = None
    drift_score: float | None = None
    last_run: str | None = None
    last_run_at: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-compatible data."""
        return asdict(self)

    @property
    def rank(self) -> tuple[int, str]:
        """Sort key: what needs a person first."""
        return _ORDER.index(self.state), self.model


def ago(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 moment was, in words."""
    if moment is None:
        return ""
    age = (now or datetime.now(UTC)) - datetime.fromisoformat(moment)
    for unit, size in (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1))):
        if age >= size:
            return f"{age // size} {unit} ago"
    return "just now"


def status_table(rows: Sequence[StatusRow]) -> "Table":
    """The rows as a table for the terminal, what needs a person first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "state", "champion", "metric", "newest data", "drift", "last run", "note"):
        table.add_column(title, overflow="fold" if title == "note" else "ellipsis", no_wrap=title != "note")
    for row in sorted(rows, key=lambda row: row.rank):
        champion = f"v{row.champion}" if row.champion else "-"
        if row.champion and row.trained_for:
            champion += f" ({row.trained_for})"
        metric = f"{row.metric} {row.value:.4f}" if row.metric and row.value is not None else "-"
        drift = row.verdict or "-"
        if row.drift_score is not None and row.verdict != "undecided":
            drift += f" {row.drift_score:.2f}"
        run = " ".join(filter(None, [(row.last_run or "-").lower(), ago(row.last_run_at)]))
        table.add_row(
            row.model,
            Text(row.state, style=_COLOURS[row.state]),
            champion,
            metric,
            row.newest or "-",
            drift,
            run,
            row.note,
        )
    return table
