"""From the state of models to recorded decisions, and what is to be retrained.

Belongs here: asking `policy.decide` with live evidence, which attempt is due, the row of the decision
ledger. Does not: when to ask (`sensors`, `schedules`, `inline`), reading (`observe`), rules, which
models share a run (`batching`).

A decision is on record before its run is requested. A tick that is killed in between decides the same
from the same state: the row is there, and the run key is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import dagster as dg

from retrain_assets.orchestration.batching import Wanted, run_requests
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.observe import Latest, ModelState, observe, with_past
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy import Decision, Evidence, History, Trigger, decide
from retrain_assets.policy.record import Entry, entry_of
from retrain_assets.spec.code import training_code
from retrain_assets.spec.model import ModelSpec

__all__ = [
    "BY_ITSELF",
    "RETRY_AFTER_SECONDS",
    "Answer",
    "Question",
    "answers",
    "asked_for",
    "recorded",
]

RETRY_AFTER_SECONDS = (60, 600, 3600)
"""Waits after the first, second and third run of a request that failed."""

BY_ITSELF: tuple[Trigger, ...] = (
    "first", "follow_up", "performance", "cost", "age", "new_data", "change",
)  # fmt: skip
"""Triggers but drift that need nobody to ask."""


@dataclass(frozen=True)
class Question:
    """One model, and what is asked about it.

    Attributes:
        partition: the newest feature partition as far as the tick knows.
        only: triggers that the caller answers for; the others are somebody else's.
        report: the drift report that the caller looks at; None where it looks at none.
        asked: what asks from outside.
        asked_by: what makes a request from outside another one each time (a cron tick).
        suspect_data: why drift is held back, see `policy.suspect`; "" where it is not.
    """

    state: ModelState
    partition: str | None
    only: tuple[Trigger, ...]
    report: Latest | None = None
    asked: Literal["schedule", "on_demand"] | None = None
    asked_by: str = ""
    suspect_data: str = ""

    @property
    def history(self) -> History:
        """As far as the reads of all models show it."""
        return replace(self.state.history(), suspect_data=self.suspect_data)

    def key(self, decision: Decision) -> str:
        """What makes the request for a retraining unique: the model, the trigger, and the moment."""
        return "|".join(
            (
                "retrain", self.state.spec.name, str(decision.trigger),
                self.asked_by or self._moment(decision),
                # Several changes may come on the same data.
                *([training_code(self.state.spec)] if "change" in decision.fired else []),
            )
        )  # fmt: skip

    def _moment(self, decision: Decision) -> str:
        spec, features = self.state.spec, self.state.latest.get("features")
        # A retraining without partitions reads and writes the table again, so that storage ids would
        # change with every attempt.
        content = str(features.metadata.get("fingerprint")) if features else ""
        if decision.trigger == "drift" and spec.retrain.conditions_needed == 1 and self.report:
            return str(self.report.storage_id) if spec.scheme else content
        moment = (features.partition if features else None) or content
        # The first champion of this data was asked for before.
        vacancy = self.state.vacancy
        return f"{moment}|after {vacancy.sequence}" if vacancy else moment


@dataclass(frozen=True)
class Answer:
    """What is to be done about one model now.

    Attributes:
        model: its name.
        decision: the policy's.
        wanted: the retraining to request, None where there is none now.
        entry: the row for the decision ledger; None where another sensor answers.
        asked_again: the question stays open: a run of it is on its way or will be tried again.
    """

    model: str
    decision: Decision
    wanted: Wanted | None = None
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


def answers(
    instance: dg.DagsterInstance,
    platform: Platform,
    questions: Sequence[Question],
    *,
    limit: int | None = None,
) -> list[Answer | None]:
    """Decide about models, in the order of the questions.

    The cheap state of a tick knows the partition written last; before a run is requested, the
    stored partitions are listed, so that a backfill of old days neither counts as new data nor
    hides that there is too little of it. That, past runs and attempts are read only of models that
    the cheap state would retrain.

    Args:
        limit: most retrainings that are looked into; a model beyond it is answered None, to be
            asked about again. None is no limit.
    """
    cheap = [_cheap(question) for question in questions]
    reasons = [
        n for n, one in enumerate(cheap)
        if isinstance(one, _Considered) and one.decision.action == "retrain"
    ]  # fmt: skip
    within = set(reasons[:limit])
    past = with_past(
        instance,
        platform.ledger,
        {questions[n].state.spec.name: (questions[n].state.spec, questions[n].history)
         for n in within},
    )  # fmt: skip
    found: list[Answer | None] = []
    for n, (question, one) in enumerate(zip(questions, cheap, strict=True)):
        if isinstance(one, Answer):
            found.append(one)
        elif one.decision.action != "retrain":
            found.append(_answered(instance, question, one))
        elif n in within:
            history = past[question.state.spec.name]
            fully = _ask_fully(platform, question, one, history)
            found.append(_answered(instance, question, fully))
        else:
            found.append(None)
    return found


def _cheap(question: Question) -> _Considered | Answer:
    """The answer where it is somebody else's to give, else what the cheap state says."""
    state, name = question.state, question.state.spec.name
    needed = state.evidence(question.partition, partitions=0).needed
    new = state.new_partitions(question.partition)
    found = _ask(question, question.partition, needed, new, question.history, question.report)
    if question.report and found.decision.trigger == "drift" and "drift" not in question.only:
        # Drift has its own sensor, which is no reason to keep the other triggers waiting.
        found = _ask(question, question.partition, needed, new, question.history, None)
        if found.decision.trigger is None:
            return Answer(name, Decision("wait", None, ("drift has its own sensor",)))
    trigger = found.decision.trigger
    if trigger is not None and trigger not in question.only:
        text = f"the trigger '{trigger}' has its own sensor"
        return Answer(name, Decision("wait", None, (text,)))
    return found


def _ask(
    question: Question,
    partition: str | None,
    partitions: int,
    new: int | None,
    history: History,
    report: Latest | None,
) -> _Considered:
    state = question.state
    evidence = state.evidence(
        partition, partitions=partitions, report=report, new_partitions=new, asked=question.asked
    )
    decision = decide(state.spec.retrain, evidence, history, state.now(partition))
    return _Considered(partition, decision, evidence, history)


def _ask_fully(
    platform: Platform, question: Question, found: _Considered, history: History
) -> _Considered:
    """The same question with what is read for one model alone: partitions, past runs, rejections."""
    state, partition = question.state, found.partition
    count, new = found.evidence.needed, None
    if state.spec.scheme is not None:
        stored = platform.store.partitions(state.spec.name, "features")
        if not stored:
            text = ("no feature partition is stored",)
            return replace(found, decision=Decision("wait", found.decision.trigger, text))
        partition, count = max(stored), len(stored)
        new = state.new_partitions(partition, stored)
    # With the report where drift is the caller's, else as it was asked before.
    report = question.report if found.evidence.drift_alarm is not None else None
    return _ask(question, partition, count, new, history, report)


def _answered(instance: dg.DagsterInstance, question: Question, found: _Considered) -> Answer:
    name, decision = question.state.spec.name, found.decision
    entry = _entry(question.state, found, asked_by=question.asked_by)
    if decision.action != "retrain":
        judged = decision.action == "wait" and not question.asked
        row = None if judged and _is_answered(question.state, found) else entry
        return Answer(name, decision, None, row, decision.action == "hold")
    key = question.key(decision)
    # What is asked for from outside is asked for once.
    attempt, over = (1, False) if question.asked else _attempt(instance, name, key)
    if attempt is None:
        ends = "and is not tried again" if over else "and will be tried again"
        waits = (*decision.reasons, f"but its run for this data has failed {ends}")
        held = Decision("wait", decision.trigger, waits, decision.fired)
        return Answer(name, held, None, entry, asked_again=not over)
    wanted = Wanted(
        spec=question.state.spec,
        partition=found.partition,
        key=key,
        attempt=attempt,
        trigger=str(decision.trigger),
        reason=", ".join(decision.reasons)[:200],
        decision=entry.state,
    )
    return Answer(name, decision, wanted, entry, asked_again=True)


def _is_answered(state: ModelState, found: _Considered) -> bool:
    """Whether a candidate of this very data was judged: why it waits now is worth no row."""
    last = found.history.last_retraining
    return last is not None and state.now(found.partition) <= last


def _attempt(instance: dg.DagsterInstance, model: str, key: str) -> tuple[int | None, bool]:
    """Which attempt at a retraining is due now: 1 the first time, None where none is; whether it was
    the last.

    A run whose candidate was not judged (the registry was away, say) is tried again after ever longer
    waits. A rejection never gets here: its candidate is the last retraining.
    """
    records = instance.get_run_records(
        filters=dg.RunsFilter(tags={Tag.request(model): key}), limit=10
    )
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


def recorded(platform: Platform, answered: Sequence[Answer]) -> list[dg.RunRequest]:
    """The runs of a tick, all of whose decisions are on record then, in one transaction.

    Raises:
        LedgerError: they cannot be recorded; nothing may be requested.
    """
    platform.decisions.record([one.entry for one in answered if one.entry is not None])
    wanted = [one.wanted for one in answered if one.wanted is not None]
    return run_requests(wanted, platform.settings)


def asked_for(
    instance: dg.DagsterInstance,
    platform: Platform,
    specs: Sequence[ModelSpec],
    partition: str | None,
    asked_by: str,
) -> list[Answer]:
    """Decisions about models that a person wants retrained, none of them recorded yet.

    Args:
        partition: what for; None is the newest of each model.
        asked_by: id of what asks: the same request is the same decision.
    """
    states: Mapping[str, ModelState] = observe(instance, platform.ledger, specs)
    found = []
    for spec in specs:
        state = states[spec.name]
        features = state.latest.get("features")
        question = Question(
            state, partition or (features.partition if features else None), ("on_demand",),
            state.latest.get("drift_report"), "on_demand", asked_by,
        )  # fmt: skip
        stored = platform.store.partitions(spec.name, "features") if spec.scheme else [""]
        about = question.partition
        if partition is None and spec.scheme is not None:
            about = max(stored, default=about)
        new = state.new_partitions(about, stored)
        decided = _ask(question, about, len(stored), new, question.history, question.report)
        found.append(_answered(instance, question, decided))
    return found
