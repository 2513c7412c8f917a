"""Which models a tick of a sensor looks at: those of which something changed, and the next few in turn.

Belongs here: finding them at a cost that does not depend on how many models there are or how long their
history is. Does not: what is seen (`observe`), what follows (`deciding`).

A model changes through a run of its assets: the runs that were updated since the last tick name the
models, in one read by index. What changes otherwise (a materialization without a run, a promotion or
rollback from the command line, a spec that was edited, a clock that has gone on) is found by looking at
up to `IN_TURN` models more, in turn: of so many all at every tick, of a thousand all in twenty, in a
hundred while all of them change. Models whose question is open are looked at again, behind those that wait
longer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from retrain_assets.orchestration.keys import RANGE_START, models_of
from retrain_assets.orchestration.retries import unfinished

__all__ = ["Turn"]

AT_ONCE = 40
"""Most models that a tick looks at because something changed: one takes three milliseconds."""
IN_TURN = 50
"""Most that it looks at in turn."""
_IN_ALL = 50
_RUNS = 500
_OVERLAP = timedelta(seconds=30)
"""How far clocks of run processes may be behind the sensor's; a model beyond is found in its turn."""
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass
class Turn:
    """One tick's models; between ticks, what a cursor keeps.

    Attributes:
        since: up to when the runs that ended were read, seconds since 1970; None before the first tick.
        seen: ids of those whose update lies within the overlap before `since`.
        queue: models to look at, those first that wait longest.
        after: the last model that was looked at in turn.
        running: the runs that have not ended or are about to be tried again; of this tick only.
        sole_runs: of models that were looked at since their runs before, the one run of one partition that
            can have changed them since, by its id; of this tick only.
    """

    since: float | None = None
    seen: list[str] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    after: str = ""
    running: Sequence[dg.DagsterRun] = ()
    sole_runs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stored(cls, cursor: Mapping[str, Any]) -> "Turn":
        """From what `to_store` gave; an empty cursor looks at everything."""
        return cls(**cursor.get("turn", {}))

    def to_store(self) -> dict[str, Any]:
        """What the cursor keeps."""
        kept = {"since": self.since, "seen": self.seen, "queue": self.queue, "after": self.after}
        return {"turn": kept}

    def choose(self, instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
        """The models of this tick, in the order in which they are served."""
        known = sorted(names)
        touched = known if self.since is None else []
        self.running = unfinished(instance)
        among, first = set(known), self.since is None
        started = [run for run in self.running if run.status == dg.DagsterRunStatus.STARTED]
        runs = [*started, *self._updated(instance)]
        self.sole_runs = {} if first else _sole_runs(runs, self.queue)
        changed = [name for run in runs for name in models_of(run.asset_selection)]
        waiting = [*self.queue, *touched, *changed]
        self.queue = [name for name in dict.fromkeys(waiting) if name in among]
        chosen, self.queue = self.queue[:AT_ONCE], self.queue[AT_ONCE:]
        return list(dict.fromkeys([*chosen, *self._in_turn(known, _IN_ALL - len(chosen))]))

    def again(self, open_: Iterable[str], first: Iterable[str] = ()) -> None:
        """Look at models again: `first` before all that wait, since this tick did not get to them."""
        self.queue = list(dict.fromkeys([*first, *self.queue, *open_]))

    def _in_turn(self, known: list[str], room: int) -> list[str]:
        start = next((n for n, name in enumerate(known) if name > self.after), 0)
        found = (known[start:] + known[:start])[: min(IN_TURN, room)]
        self.after = found[-1] if found else ""
        return found

    def _updated(self, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
        """The runs that ended since the last tick; the longest ago first."""
        now = datetime.now(UTC).timestamp()
        if self.since is None:
            self.since = now
            return []
        after = datetime.fromtimestamp(self.since, UTC) - _OVERLAP
        records = instance.get_run_records(
            filters=dg.RunsFilter(statuses=_ENDED, updated_after=after),
            limit=_RUNS,
            order_by="update_timestamp",
            ascending=True,
        )
        moments = {
            record.dagster_run.run_id: record.update_timestamp.replace(tzinfo=UTC).timestamp()
            for record in records
        }
        new = [
            record.dagster_run for record in records if record.dagster_run.run_id not in self.seen
        ]
        # Where nothing ends, what ended last is not read again by every tick.
        all_read = [] if len(records) == _RUNS else [now]
        self.since = max([self.since, *moments.values(), *all_read])
        edge = self.since - _OVERLAP.total_seconds()
        self.seen = [run_id for run_id, moment in moments.items() if moment >= edge]
        return new


def _sole_runs(runs: Iterable[dg.DagsterRun], waiting: Iterable[str]) -> dict[str, str]:
    """By model its one run of one partition; not of models that wait, whose last look is longer ago."""
    several: set[str] = set(waiting)
    found: dict[str, str] = {}
    for run in runs:
        for name in models_of(run.asset_selection):
            if name in found or RANGE_START in run.tags:
                several.add(name)
            found[name] = run.run_id
    return {name: run_id for name, run_id in found.items() if name not in several}
