"""Manual approval: candidates that passed the gate and wait for a person (`gate.approval: manual`).

Belongs here: asking, approving, rejecting, and what waits. Does not: the gate, the registry; the
commands that load the version before it is approved are in `approve`.

Rows are only ever inserted; the state of a candidate follows from them. The newest row of a model
says what waits: a row `awaiting` waits until the next row, which is its approval, its rejection, or a
newer candidate that supersedes it. An approval and the promotion are one transaction.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import ChampionChanged, NotAwaiting
from retrain_assets.promotion.database import LostRace, insert_row
from retrain_assets.promotion.ledger import (
    Candidate,
    Ledger,
    Promotion,
    check_entry,
    newest_rows,
    promote_within,
)
from retrain_assets.promotion.tables import reviews

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Review", "Reviews", "review_text"]


@dataclass(frozen=True)
class Review:
    """One event in the approval of a candidate.

    Attributes:
        sequence: 1 for the model's first, then without gaps.
        expected_version: the champion that it was compared with; None where there was none.
        kind: `awaiting` (the gate passed it), `approved`, `rejected`.
        actor: the run that asked, or the person who decided.
        reason: the gate's sentence, or the person's words.
        evidence: of `awaiting`, what a promotion stores with it; else empty.
        reviewed_at: when, UTC.
        (the others: as in `ledger.Candidate`)
    """

    model: str
    sequence: int
    version: str
    run_id: str
    fingerprint: str
    partition: str | None
    metric: str
    value: float
    expected_version: str | None
    kind: str
    actor: str
    reason: str
    evidence: Mapping[str, Any]
    reviewed_at: datetime

    @property
    def candidate(self) -> Candidate:
        """The version that it is about."""
        return Candidate(**{name: getattr(self, name) for name in Candidate.__dataclass_fields__})

    @property
    def signed(self) -> str:
        """Who did it when, and why.

        >>> from datetime import UTC, datetime
        >>> Review("churn", 2, "3", "r", "f", None, "auc", 0.7, "1", "rejected", "anna", "too late",
        ...        {}, datetime(2024, 1, 31, 9, 30, tzinfo=UTC)).signed
        'rejected by anna on 2024-01-31 09:30 UTC (too late)'
        """
        return (
            f"{self.kind} by {self.actor} on {self.reviewed_at:%Y-%m-%d %H:%M} UTC ({self.reason})"
        )


class Reviews:
    """The reviews of all models, in the ledger's database."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database

    def ask(
        self,
        candidate: Candidate,
        *,
        expected_champion: str | None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
    ) -> Review:
        """Record that `candidate` waits for a person; an older one of the model waits no longer.

        Asking again for the one that waits returns its row and writes nothing.

        Args:
            candidate: a version that passed the gate.
            expected_champion: version of the champion that it was compared with; None for none.
            actor: the run that asks.
            reason: the gate's verdict in one line.
            evidence: JSON-compatible, without NaN; the promotion's, if it is approved.

        Raises:
            LedgerError: the entry is not storable, or the database cannot be reached.
        """
        check_entry(candidate, actor, reason, evidence)
        try:
            with self._database.transaction(write=True) as connection:
                past = _rows_of(connection, candidate.model)
                newest = past[0] if past else None
                if newest is not None and _asks_the_same(newest, candidate, expected_champion):
                    return newest
                return _append(
                    connection, past, candidate, expected_champion, "awaiting", actor, reason,
                    evidence,
                )  # fmt: skip
        except LostRace:  # another run has asked, or a person has decided: look again
            return self.ask(
                candidate,
                expected_champion=expected_champion,
                actor=actor,
                reason=reason,
                evidence=evidence,
            )

    def about(self, model: str, version: str) -> Review:
        """The newest review of a version that waits or was approved.

        Raises:
            NotAwaiting: it never passed the gate, was rejected, or a newer candidate waits instead.
        """
        with self._database.transaction() as connection:
            return _approvable(model, version, _rows_of(connection, model))

    def approve(
        self, model: str, version: str, *, actor: str, reason: str
    ) -> tuple[Review, Promotion | None]:
        """Promote the version that waits, if the champion still is the one it was compared with.

        Returns:
            The approval and the promotion; the approval that there was and None where somebody had
            approved it before, and nothing was written.

        Raises:
            NotAwaiting: it never passed the gate, was rejected, or a newer candidate waits instead.
            ChampionChanged: there is another champion by now.
            LedgerError: the entry is not storable, or the database cannot be reached.
        """
        try:
            with self._database.transaction(write=True) as connection:
                past = _rows_of(connection, model)
                about = _decidable(model, version, past)
                if about.kind == "approved":
                    return about, None
                if about.kind == "rejected":
                    raise NotAwaiting(
                        f"{model}: v{version} was {about.signed}; nothing was changed"
                    )
                check_entry(about.candidate, actor, reason, about.evidence)
                promotion = promote_within(
                    connection, about.candidate, about.expected_version, actor, reason,
                    about.evidence,
                )  # fmt: skip
                review = _append(
                    connection, past, about.candidate, about.expected_version, "approved", actor,
                    reason, {},
                )  # fmt: skip
        except LostRace:  # somebody decided at the same time: say who
            return self.approve(model, version, actor=actor, reason=reason)
        except ChampionChanged as error:
            partition = f" of {about.partition}" if about.partition else ""
            raise ChampionChanged(
                f"{error}: materialize candidate_model and promoted_model{partition}"
            ) from None
        return review, promotion

    def reject(self, model: str, version: str, *, actor: str, reason: str) -> tuple[Review, bool]:
        """Record that the version that waits is not wanted.

        Returns:
            The rejection, and whether it is new; repeating it writes nothing.

        Raises:
            NotAwaiting: it never passed the gate, was approved, or a newer candidate waits instead.
            LedgerError: the entry is not storable, or the database cannot be reached.
        """
        try:
            with self._database.transaction(write=True) as connection:
                past = _rows_of(connection, model)
                about = _decidable(model, version, past)
                if about.kind == "rejected":
                    return about, False
                if about.kind == "approved":
                    raise NotAwaiting(
                        f"{model}: v{version} was {about.signed}; nothing was changed. "
                        f"`retrain rollback {model}` takes a champion down"
                    )
                check_entry(about.candidate, actor, reason, {})
                return _append(
                    connection, past, about.candidate, about.expected_version, "rejected", actor,
                    reason, {},
                ), True  # fmt: skip
        except LostRace:  # somebody decided at the same time: say who
            return self.reject(model, version, actor=actor, reason=reason)

    def waiting(self, models: Collection[str] | None = None) -> dict[str, Review]:
        """What waits, by model, in one query.

        Args:
            models: the models asked for; all if None.
        """
        import sqlalchemy as sa

        with self._database.transaction() as connection:
            query = newest_rows(sa.select(reviews()), reviews(), models)
            rows = [_review(row) for row in connection.execute(query).mappings()]
        wanted = None if models is None else set(models)
        return {
            row.model: row
            for row in rows
            if row.kind == "awaiting" and (wanted is None or row.model in wanted)
        }

    def history(self, model: str) -> list[Review]:
        """All reviews of a model, oldest first."""
        with self._database.transaction() as connection:
            return _rows_of(connection, model)[::-1]


def review_text(review: Review, champion: str | None) -> str:
    """What a person needs to decide about a review that waits: the comparison, and the commands.

    Args:
        review: what waits.
        champion: version of the present champion, None if there is none.
    """
    from retrain_assets.promotion.gate import GateReport

    report = GateReport.from_json(json.dumps(review.evidence["gate"]))
    candidate = review.evidence["candidate"]
    partition = f", trained for {review.partition}" if review.partition else ""
    marks = {True: "passed", False: "FAILED", None: "undecided"}
    asked = [
        f"  {criterion.name:<16}{marks[criterion.passed]:<11}{criterion.summary}"
        for criterion in report.criteria
        if criterion.required
    ]
    decide = [
        f'retrain promote {review.model} {review.version} --reason "..."',
        f'retrain reject {review.model} {review.version} --reason "..."',
    ]
    if review.expected_version != champion:
        compared = f"v{review.expected_version}" if review.expected_version else "no champion"
        now = f"v{champion} is champion now" if champion else "there is no champion now"
        decide = [f"It was compared with {compared}, but {now}: retrain, or reject it"]
    return "\n".join(
        [
            f"{review.model} v{review.version}{partition}: awaits approval since "
            f"{review.reviewed_at:%Y-%m-%d %H:%M} UTC (asked by {review.actor})",
            f"trained on {candidate['trained_on']}, judged on {candidate['holdout']}",
            *asked,
            review.reason,
            *decide,
        ]
    )


def _approvable(model: str, version: str, past: list[Review]) -> Review:
    about = _decidable(model, version, past)
    if about.kind == "rejected":
        raise NotAwaiting(f"{model}: v{version} was {about.signed}; nothing was changed")
    return about


def _decidable(model: str, version: str, past: list[Review]) -> Review:
    """The newest review of `version`, decided or waiting; `past` is newest first."""
    about = next((row for row in past if row.version == version), None)
    waits = past[0] if past and past[0].kind == "awaiting" else None
    if about is None:
        listed = f"v{waits.version} waits" if waits else "nothing waits"
        raise NotAwaiting(
            f"{model}: v{version} never passed the gate to wait for approval, so it can be neither "
            f"promoted nor rejected; {listed}. `retrain promote {model}` shows what waits"
        )
    if about.kind == "awaiting" and about is not past[0]:
        newer = past[0]
        raise NotAwaiting(
            f"{model}: v{version} waits no longer, v{newer.version} has superseded it on "
            f"{newer.reviewed_at:%Y-%m-%d %H:%M} UTC. `retrain promote {model}` shows what waits"
        )
    return about


def _asks_the_same(newest: Review, candidate: Candidate, expected: str | None) -> bool:
    return (
        newest.kind == "awaiting"
        and newest.version == candidate.version
        and newest.expected_version == expected
    )


def _append(
    connection: "Connection",
    past: list[Review],
    candidate: Candidate,
    expected: str | None,
    kind: str,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
) -> Review:
    review = Review(
        **vars(candidate),
        sequence=past[0].sequence + 1 if past else 1,
        expected_version=expected,
        kind=kind,
        actor=actor,
        reason=reason,
        evidence=dict(evidence),
        reviewed_at=datetime.now(UTC),
    )
    written = review.reviewed_at.isoformat(timespec="microseconds")
    insert_row(connection, reviews(), {**vars(review), "reviewed_at": written})
    return review


def _rows_of(connection: "Connection", model: str) -> list[Review]:
    """Reviews of a model, newest first."""
    import sqlalchemy as sa

    table = reviews()
    query = sa.select(table).where(table.c.model == model).order_by(table.c.sequence.desc())
    return [_review(row) for row in connection.execute(query).mappings()]


def _review(row: Mapping[Any, Any]) -> Review:
    fields = {name: row[name] for name in Review.__dataclass_fields__}
    return Review(**{**fields, "reviewed_at": datetime.fromisoformat(row["reviewed_at"])})
