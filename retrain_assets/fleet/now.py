"""What came of `retrain now`, model by model, and how it is shown while it goes on and at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Retrained", "now_progress", "now_table"]

_COLOURS = {
    "promoted": "green",
    "kept": "cyan",
    "failed": "red",
    "waits": "yellow",
    "canceled": "yellow",
}


@dataclass(frozen=True)
class Retrained:
    """What came of one model.

    Attributes:
        outcome: `promoted`, `kept` (the champion stays: the candidate was rejected, undecided, or
            awaits a person), `failed`, `waits` (nothing to train on) or `canceled`.
        said: the reason in one line.
    """

    model: str
    outcome: Literal["promoted", "kept", "failed", "waits", "canceled"]
    said: str = ""
    version: str | None = None
    cpu_seconds: float | None = None


@contextmanager
def now_progress(
    *, quiet: bool
) -> "Iterator[tuple[Callable[[int], None], Callable[[Retrained], None]]]":
    """A progress bar on standard error: a function that gives it its length, and one that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("deciding", total=None)

        def begin(total: int) -> None:
            bar.update(task, total=total, description="retraining")

        def advance(row: Retrained) -> None:
            if row.outcome != "waits":
                bar.advance(task)
            if row.outcome in ("failed", "canceled"):
                bar.console.print(f"{row.model}: {row.outcome}: {row.said}", markup=False)

        yield begin, advance


def now_table(rows: Sequence[Retrained]) -> "Table":
    """The rows, what needs a person first, with their sum as the last line."""
    from rich.table import Table
    from rich.text import Text

    order = list(_COLOURS)[::-1]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("CPU s", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in sorted(rows, key=lambda row: (order.index(row.outcome), row.model)):
        table.add_row(
            Text(row.model),
            Text(row.outcome, style=_COLOURS[row.outcome]),
            f"v{row.version}" if row.version else "-",
            "-" if row.cpu_seconds is None else f"{row.cpu_seconds:.1f}",
            Text(row.said.strip().splitlines()[0] if row.said.strip() else ""),
        )
    counts = [
        f"{count} {name}" for name in _COLOURS if (count := sum(r.outcome == name for r in rows))
    ]
    seconds = sum(row.cpu_seconds or 0.0 for row in rows)
    total = f"{len(rows)} model{'s' * (len(rows) != 1)}"
    table.add_row(total, ", ".join(counts), "", f"{seconds:.1f}", "", style="bold")
    return table
