"""From the state of a model to a recorded decision, and the run that it requests.

Belongs here: asking `policy.decide` with live evidence, which attempt is due, the run request, the row
of the decision ledger. Does not: when to ask (`sensors`, `schedules`), reading (`observe`), rules.

A decision is on record before its run is requested. A tick that is killed in between decides the same
from the same state: the row is there, and the run key is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import dagster as dg

from retrain_assets.orchestration.keys import Tag, retrain_keys
from retrain_assets.orchestration.kubernetes import run_tags
from retrain_assets.orchestration.observe import Latest, ModelState, full_history, observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy import Decision, Evidence, History, Trigger, decide
from retrain_assets.policy.record import Entry, entry_of
from retrain_assets.spec.code import training_code

if TYPE_CHECKING:
    from retrain_assets.promotion.decisions import Decisions
    from retrain_assets.spec.model import ModelSpec

__all__ = [
    "RETRY_AFTER_SECONDS",
    "Answer",
    "answer",
    "decided_on_demand",
    "recorded",
    "state_of_run",
]

RETRY_AFTER_SECONDS = (60, 600, 3600)
"""Waits after the first, second and third run of a request that failed."""


@dataclass(frozen=True)
class Answer:
    """What is to be done about one model now.

    Attributes:
        model: its name.
        decision: the policy's.
        request: the run to request, None where there is none now.
        entry: the row for the decision ledger; None where another sensor answers.
        asked_again: the question stays open: a run of it is on its way or will be tried again.
    """

    model: str
    decision: Decision
    request: dg.RunRequest | None = None
    entry: Entry | None = None
    asked_again: bool = False

    def unrecorded(self) -> "Answer":
        """The same without a row."""
        return replace(self, entry=None)


@dataclass(frozen=True)
class _Considered:
    """A decision with all that it rested on."""

    partition: str | None
    decision: Decision
    evidence: Evidence
    history: History


def answer(
    instance: dg.DagsterInstance,
    state: ModelState,
    platform: Platform,
    partition: str | None,
    *,
    only: tuple[Trigger, ...],
    run_key: str,
    report: Latest | None = None,
    asked: Literal["schedule"] | None = None,
) -> Answer:
    """Decide about one model, and the run to request if the answer is to retrain.

    The cheap state of a tick knows the partition written last; before a run is requested, the
    stored partitions are listed, so that a backfill of old days neither counts as new data nor
    hides that there is too little of it.

    Args:
        partition: the newest feature partition as far as the tick knows.
        only: triggers that the caller answers for; the others are somebody else's.
        run_key: what makes this request unique, beside the model and the trigger.
        report: the drift report that the caller looks at; None where it looks at none.
        asked: what asks from outside.
    """
    name, by = state.spec.name, run_key if asked else ""
    needed = state.evidence(partition, partitions=0).needed
    new = state.new_partitions(partition)
    found = _ask(state, partition, needed, new, state.history(), report, asked)
    if report and found.decision.trigger == "drift" and "drift" not in only:
        # Drift has its own sensor, which is no reason to keep the other triggers waiting.
        found = _ask(state, partition, needed, new, state.history(), None, asked)
        if found.decision.trigger is None:
            return Answer(name, Decision("wait", None, ("drift has its own sensor",)))
    trigger = found.decision.trigger
    if trigger is not None and trigger not in only:
        return Answer(
            name, Decision("wait", None, (f"the trigger '{trigger}' has its own sensor",))
        )
    if found.decision.action == "retrain":
        # With the report where drift is the caller's, else as it was asked above.
        looked_at = report if found.evidence.drift_alarm is not None else None
        found = _ask_fully(instance, state, platform, found, looked_at, asked)
    entry = _entry(state, found, asked_by=by)
    if found.decision.action != "retrain":
        done = found.decision.action == "wait" and not asked and _is_answered(state, found)
        row = None if done else entry
        return Answer(name, found.decision, None, row, found.decision.action == "hold")
    return _requested(instance, state, found, entry, run_key)


def _is_answered(state: ModelState, found: _Considered) -> bool:
    """Whether a candidate of this very data was judged: why it waits now is worth no row."""
    last = found.history.last_retraining
    return last is not None and state.now(found.partition) <= last


def _ask(
    state: ModelState,
    partition: str | None,
    partitions: int,
    new: int | None,
    history: History,
    report: Latest | None,
    asked: Literal["schedule", "on_demand"] | None,
) -> _Considered:
    evidence = state.evidence(
        partition, partitions=partitions, report=report, new_partitions=new, asked=asked
    )
    decision = decide(state.spec.retrain, evidence, history, state.now(partition))
    return _Considered(partition, decision, evidence, history)


def _ask_fully(
    instance: dg.DagsterInstance,
    state: ModelState,
    platform: Platform,
    found: _Considered,
    report: Latest | None,
    asked: Literal["schedule"] | None,
) -> _Considered:
    """The same question with what is read for one model alone: partitions, past runs, rejections."""
    spec, partition, count, new = state.spec, found.partition, found.evidence.needed, None
    if spec.scheme is not None:
        stored = platform.store.partitions(spec.name, "features")
        if not stored:
            text = ("no feature partition is stored",)
            return replace(found, decision=Decision("wait", found.decision.trigger, text))
        partition, count = max(stored), len(stored)
        new = state.new_partitions(partition, stored)
    history = full_history(instance, platform.ledger, state)
    return _ask(state, partition, count, new, history, report, asked)


def _requested(
    instance: dg.DagsterInstance,
    state: ModelState,
    found: _Considered,
    entry: Entry,
    run_key: str,
) -> Answer:
    """The answer with the run that is due, or with the reason why none is now."""
    spec, decision = state.spec, found.decision
    key = f"retrain|{spec.name}|{decision.trigger}|{run_key}"
    if "change" in decision.fired:  # several changes may come on the same data
        key += f"|{training_code(spec)}"
    attempt, over = _attempt(instance, key)
    if attempt is None:
        ends = "and is not tried again" if over else "and will be tried again"
        waits = (*decision.reasons, f"but its run for this data has failed {ends}")
        held = Decision("wait", decision.trigger, waits, decision.fired)
        return Answer(spec.name, held, None, entry, asked_again=not over)
    selection = retrain_keys(spec.name, partitioned=spec.scheme is not None)
    tags = {
        Tag.KIND: "retrain",
        Tag.MODEL: spec.name,
        Tag.REQUEST: key,
        Tag.TRIGGER: str(decision.trigger),
        Tag.REASON: ", ".join(decision.reasons)[:200],
        Tag.QUEUE: f"retrain:{spec.name}",
        Tag.DECISION: entry.state,
        **run_tags(spec, selection),
    }
    request = dg.RunRequest(
        run_key=key if attempt == 1 else f"{key}|{attempt}",
        asset_selection=selection,
        partition_key=found.partition,
        tags=tags,
    )
    return Answer(spec.name, decision, request, entry, asked_again=True)


def _attempt(instance: dg.DagsterInstance, key: str) -> tuple[int | None, bool]:
    """Which attempt at a retraining is due now: 1 the first time, None where none is; whether it was
    the last.

    A run whose candidate was not judged (the registry was away, say) is tried again after ever longer
    waits. A rejection never gets here: its candidate is the last retraining.
    """
    records = instance.get_run_records(filters=dg.RunsFilter(tags={Tag.REQUEST: key}), limit=10)
    if not records:
        return 1, False
    if len(records) > len(RETRY_AFTER_SECONDS):
        return None, True
    # From its end: Dagster's own retry of a run that died comes seconds later, and is in flight then.
    ended = records[0].end_time or records[0].create_timestamp.timestamp()
    waited = datetime.now(UTC).timestamp() - ended
    due = waited >= RETRY_AFTER_SECONDS[len(records) - 1]
    return (len(records) + 1 if due else None), False


def _entry(state: ModelState, found: _Considered, asked_by: str) -> Entry:
    return entry_of(
        state.spec.name,
        found.partition,
        found.decision,
        found.evidence,
        found.history,
        data_time=state.now(found.partition),
        decided_at=datetime.now(UTC),
        asked_by=asked_by,
    )


def recorded(decisions: "Decisions", answers: Sequence[Answer]) -> list[dg.RunRequest]:
    """The runs of a tick, all of whose decisions are on record then, in one transaction.

    Raises:
        LedgerError: they cannot be recorded; nothing may be requested.
    """
    decisions.record([one.entry for one in answers if one.entry is not None])
    return [one.request for one in answers if one.request is not None]


def state_of_run(run: dg.DagsterRun) -> str:
    """Digest of the decision that a retraining run belongs to; of a person's run its own."""
    return run.tags.get(Tag.DECISION) or f"run {run.run_id}"


def decided_on_demand(context: dg.AssetExecutionContext, spec: "ModelSpec") -> None:
    """Put a retraining on record that a person has started; those of sensors are already.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    if Tag.DECISION in context.run.tags:
        return
    platform: Platform = context.resources.platform
    state = observe(context.instance, platform.ledger, [spec])[spec.name]
    partition = context.partition_key if context.has_partition_key else None
    stored = platform.store.partitions(spec.name, "features") if spec.scheme else [""]
    new = state.new_partitions(partition, stored)
    found = _ask(
        state, partition, len(stored), new, state.history(), state.latest.get("drift_report"),
        "on_demand",
    )  # fmt: skip
    entry = _entry(state, found, asked_by=context.run.run_id)
    platform.decisions.record([replace(entry, state=state_of_run(context.run))])
