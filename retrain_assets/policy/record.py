"""A decision as one row of the decision ledger, and as sentences for people.

Belongs here: what makes two decisions the same state of affairs, what of the evidence is kept. Does
not: deciding (`decide`), the database (`promotion.decisions`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from retrain_assets.policy.decide import Decision
from retrain_assets.policy.evidence import Evidence, History

__all__ = ["Entry", "entry_of"]

KEPT = 3
"""Performances that are kept with a decision; earlier ones are in earlier rows."""


@dataclass(frozen=True)
class Entry:
    """A decision as it is recorded.

    Attributes:
        model: name of the model.
        state: digest of the state of affairs; the same state is recorded once.
        decided_at: wall clock, UTC.
        data_time: the `now` of the decision.
        partition: what would be trained for; None without partitions.
        action, trigger, reasons: of the `Decision`.
        evidence: what it rested on, JSON.
    """

    model: str
    state: str
    decided_at: datetime
    data_time: datetime
    partition: str | None
    action: str
    trigger: str | None
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]


def entry_of(
    model: str,
    partition: str | None,
    decision: Decision,
    evidence: Evidence,
    history: History,
    *,
    data_time: datetime,
    decided_at: datetime,
    asked_by: str = "",
) -> Entry:
    """The row of a decision.

    Args:
        model: name of the model.
        partition: newest partition.
        decision, evidence, history, data_time: of one call of `decide`.
        decided_at: wall clock.
        asked_by: what makes a request from outside another one each time (a cron tick, a run).
    """
    known = asdict(replace(evidence, performance=tuple(evidence.performance)[-KEPT:]))
    past = asdict(history)
    # How long past runs are ago changes with every tick; which guard they hold up does not.
    past.pop("runs")
    if not history.suspect_data:
        past.pop("suspect_data")  # a state of affairs that the ledger knows stays the same
    document = {"evidence": known, "history": past}
    content = json.loads(json.dumps(document, default=_text))
    state = [partition, decision.action, decision.trigger, decision.fired, decision.held, asked_by]
    digest = hashlib.sha256(json.dumps([model, *state, content], sort_keys=True).encode())
    return Entry(
        model=model,
        state=digest.hexdigest()[:32],
        decided_at=decided_at,
        data_time=data_time,
        partition=partition,
        action=decision.action,
        trigger=decision.trigger,
        reasons=decision.reasons,
        evidence=content,
    )


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
