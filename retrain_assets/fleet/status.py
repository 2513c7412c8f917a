"""Status rows, one per model, and the table that shows them. Gathering is the orchestration's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["StatusRow", "status_notes", "status_table"]

State = Literal["broken", "failing", "approval", "drifting", "waiting", "retraining", "healthy"]
_ORDER: tuple[State, ...] = get_args(State)
_COLOURS = {
    "broken": "bold red",
    "failing": "red",
    "approval": "magenta",
    "drifting": "yellow",
    "waiting": "cyan",
    "retraining": "blue",
    "healthy": "green",
}


@dataclass(frozen=True)
class StatusRow:
    """One model at one moment.

    Attributes:
        state: `broken` (spec in quarantine), `failing` (last run failed), `approval` (a candidate
            awaits a person), `drifting` (alarm), `waiting` (no champion yet), `retraining`,
            `healthy`.
        champion: version that serves, None before the first.
        promoted_at: when it was promoted, ISO 8601 UTC.
        metric, value: the gate's metric of the champion on its holdout.
        trained_for: the partition whose retraining made the champion.
        newest: the newest feature partition.
        verdict: of the newest drift report.
        drift_score: of the newest drift report.
        last_run: status of the latest run of any of the model's assets.
        last_run_at: when it was last updated, ISO 8601 UTC.
        awaits: version of the candidate that awaits approval, None where none does.
        decision: the last decision about it, in one line with when; see `retrain why`.
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
    awaits: str | None = None
    decision: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-compatible data."""
        return asdict(self)

    @property
    def rank(self) -> tuple[int, str]:
        """Sort key: what needs a person first."""
        return _ORDER.index(self.state), self.model


def status_table(rows: Sequence[StatusRow]) -> "Table":
    """The rows as a table for a terminal of 80 columns, what needs a person first.

    Notes stand in a second line below their model.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in ("model", "state", "champion", "metric", "newest data", "drift", "last run"):
        table.add_column(title, no_wrap=True)
    for row in sorted(rows, key=lambda row: row.rank):
        metric = f"{row.metric} {row.value:.4g}" if row.metric and row.value is not None else "-"
        table.add_row(
            Text(row.model),
            Text(row.state, style=_COLOURS[row.state]),
            f"v{row.champion}" if row.champion else "-",
            metric,
            row.newest or "-",
            row.verdict or "-",
            (row.last_run or "-").lower(),
        )
    return table


def status_notes(rows: Sequence[StatusRow]) -> list[str]:
    """What a person should know about single models, most urgent first: notes, last decisions."""
    return [
        f"{row.model}: {text}"
        for row in sorted(rows, key=lambda row: row.rank)
        for text in (row.note, row.decision)
        if text
    ]
