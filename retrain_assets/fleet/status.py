"""Status rows, one per model: what a person should know about it, and what needs a person first.

Belongs here: the row, its order, the words for ages and bounds. Does not: gathering (the
orchestration's), how rows are shown (`terminal`, `markdown`, `page`, `metrics`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

__all__ = [
    "STATES",
    "Freshness",
    "State",
    "StatusRow",
    "ago",
    "duration",
    "freshness_of",
    "summary",
]

State = Literal[
    "broken", "failing", "rejected", "approval", "drifting", "waiting", "retraining", "healthy",
    "retired",
]  # fmt: skip
STATES: tuple[State, ...] = get_args(State)
"""All states, what needs a person first."""

Freshness = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class StatusRow:
    """One model at one moment.

    Attributes:
        state: `broken` (spec in quarantine), `failing` (last run failed), `rejected` (the last
            run's candidate did not pass the gate, and the run failed for that), `approval` (a
            candidate awaits a person), `drifting` (alarm), `waiting` (no champion yet),
            `retraining`, `healthy`, `retired` (in the ledger, in no spec).
        group: asset group of the spec; the model's own name where it has none.
        champion: version that serves, None before the first.
        promoted_at: when it was promoted, ISO 8601 UTC.
        trained_for: the partition whose retraining made the champion.
        metric, value: the gate's metric of the champion on its holdout.
        live, live_kind, live_on: its newest performance since (`realised` or `estimated`) and on
            which partition.
        bound: the worst value that the spec puts up with: of the gate's floor, and floor and drop
            of `retrain.on_performance`, the strictest.
        meets: whether the newest known value keeps the bound; None where either is missing.
        newest: the newest feature partition.
        verdict: of the newest drift report.
        drift_score: of the newest drift report, in [0, 1].
        trend: drift scores of the last partitions, oldest first; None where there is no report.
        freshness: the worst of the spec's freshness policies; None where it has none.
        stale: which asset is how old, where it is not fresh.
        last_run, last_run_id: status and id of the latest run of any of the model's assets.
        last_run_at: when it was last updated, ISO 8601 UTC.
        last_run_seconds: how long it took, or has taken so far; None before it starts.
        week_seconds: what its runs have taken in 7 days; a run of several models counts in parts.
        week_runs: runs that ended in 7 days, by `kind status` (`monitor success`).
        awaits: version of the candidate that awaits approval, None where none does.
        decided_at, action, decision: the last decision about it; see `retrain why`.
        promotions, rejections: champions made, and candidates that did not pass, ever.
        note: what a person should know: the error, the reason, what is waited for.
        links: addresses by name: `asset`, `run` (Dagster), `model` (MLflow).
    """

    model: str
    state: State
    group: str | None = None
    owner: str | None = None
    description: str = ""
    champion: str | None = None
    promoted_at: str | None = None
    trained_for: str | None = None
    metric: str | None = None
    value: float | None = None
    live: float | None = None
    live_kind: str | None = None
    live_on: str | None = None
    bound: float | None = None
    meets: bool | None = None
    newest: str | None = None
    verdict: str | None = None
    drift_score: float | None = None
    trend: tuple[float | None, ...] = ()
    freshness: Freshness | None = None
    stale: str = ""
    last_run: str | None = None
    last_run_id: str | None = None
    last_run_at: str | None = None
    last_run_seconds: float | None = None
    week_seconds: float = 0.0
    week_runs: Mapping[str, int] = field(default_factory=dict)
    awaits: str | None = None
    decided_at: str | None = None
    action: str | None = None
    decision: str | None = None
    promotions: int = 0
    rejections: int = 0
    note: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-compatible data."""
        # Not `asdict`, which copies every value of a thousand rows.
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**found, "trend": list(self.trend)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "StatusRow":
        """The row that `to_dict` was called on.

        Raises:
            ValueError: a field is missing or unknown: another release wrote it.
        """
        if document.keys() != cls.__dataclass_fields__.keys():
            raise ValueError("status row: its fields are those of another release")
        return cls(**{**document, "trend": tuple(document["trend"])})

    @property
    def rank(self) -> tuple[int, str]:
        """Sort key: what needs a person first."""
        return STATES.index(self.state), self.model

    @property
    def newest_value(self) -> float | None:
        """The metric as last known: since the promotion, else on the holdout."""
        return self.value if self.live is None else self.live


def summary(rows: Iterable[StatusRow]) -> str:
    """How many models are in which state, most urgent first.

    >>> summary([StatusRow("a", "healthy"), StatusRow("b", "failing"), StatusRow("c", "healthy")])
    '3 models: 1 failing, 2 healthy'
    """
    counts = Counter(row.state for row in rows)
    total = sum(counts.values())
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{total} model{'' if total == 1 else 's'}{': ' if told else ''}{told}"


def duration(seconds: float) -> str:
    """A stretch of time in one unit that people read at a glance.

    >>> [duration(s) for s in (0.4, 75, 3 * 3600, 52 * 3600, 400 * 86400)]
    ['0s', '75s', '3h', '52h', '400d']
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (3 * 86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds / 86400:.0f}d"


def ago(moment: str | None, now: datetime) -> str:
    """How long `moment` (ISO 8601) is ago; "-" where there is none."""
    if moment is None:
        return "-"
    return duration(max(0.0, (now - datetime.fromisoformat(moment)).total_seconds()))


def freshness_of(
    written_at: float | None, warn: timedelta | None, fail: timedelta, now: datetime
) -> tuple[Freshness, str]:
    """What a freshness policy says, as Dagster's `FreshnessPolicy.time_window` does.

    Args:
        written_at: the last materialization, seconds since 1970; None for never.
        warn, fail: the policy's windows.
        now: the moment that is asked about.

    Returns:
        The state, and in words what is wrong ("" where nothing is). What was never written is not
        late yet: it is waited for, and the state of the model says so.
    """
    if written_at is None:
        return "ok", ""
    age = timedelta(seconds=max(0.0, now.timestamp() - written_at))
    told = f"written {duration(age.total_seconds())} ago"
    if age > fail:
        return "fail", f"{told}, fails after {duration(fail.total_seconds())}"
    if warn is not None and age > warn:
        return "warn", f"{told}, warns after {duration(warn.total_seconds())}"
    return "ok", ""
