"""The promotion ledger: the append-only SQL table that says which version is champion.

Belongs here: compare-and-set promotion and the questions asked of the history. Does not: whether a
candidate deserves it (`gate`), where its files are (`registry`, whose aliases only follow this
table), the table itself (`tables`), connections (`database`).

Rows are only ever inserted. `(model, sequence)` is unique, so that of two writers that saw the same
champion one inserts `sequence + 1` and the other gets `ChampionChanged`.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import ChampionChanged, LedgerError
from retrain_assets.promotion.database import Database, LostRace, insert_row
from retrain_assets.promotion.tables import metadata, outcomes, promotions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

__all__ = [
    "Candidate",
    "GuardOutcome",
    "Ledger",
    "Promotion",
    "check_entry",
    "lost_versions",
    "newest_rows",
    "promote_within",
    "rollback_target",
    "taken_down",
    "written",
]

_IN_LIMIT = 1000


@dataclass(frozen=True)
class Candidate:
    """The version that asks to become champion.

    Attributes:
        model: name of the model.
        version: version in the registry.
        run_id: training run in the registry.
        fingerprint: what it was trained from (data, code, spec).
        partition: partition key that it was trained for; None for `partitions: none`.
        metric: name of the metric of the gate.
        value: the candidate's value of it on the holdout; finite.
    """

    model: str
    version: str
    run_id: str
    fingerprint: str
    partition: str | None
    metric: str
    value: float


@dataclass(frozen=True)
class Promotion:
    """One row of the ledger: a version that became champion, or a champion that was lost.

    Attributes:
        sequence: 1 for the model's first promotion, then without gaps.
        expected_version: the champion that it replaced; None where there was none.
        kind: `promotion`; `rollback` to a version that was champion before; `fallback` to one
            because the champion was deleted from the registry; `vacancy`: it was deleted, and no
            earlier champion is left, so that from here on there is none.
        actor: who promoted (a person, or the run).
        reason: why, for people.
        evidence: what the decision rested on (the gate's report), JSON.
        promoted_at: when, UTC; later than that of the row before.
        (the others: as in `Candidate`; of a vacancy those of the version that was lost)
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
    promoted_at: datetime

    @property
    def is_vacancy(self) -> bool:
        """Whether there is no champion from this row on."""
        return self.kind == "vacancy"

    @property
    def previous_version(self) -> str | None:
        """The version that the alias `previous` belongs on: the champion before, if it is there."""
        return self.expected_version if self.kind in ("promotion", "rollback") else None


@dataclass(frozen=True)
class GuardOutcome:
    """One row of the table of outcomes: what a promotion had brought when it was looked at.

    Attributes:
        sequence: of the promotion that is looked at.
        through_partition: the last partition that was compared; one look for each.
        version: the promoted version.
        predecessor: the version that it replaced.
        partitions, rows: how many were compared since the first.
        metric: name of the metric.
        expected_gain: the gain that the gate had seen on the holdout; None where it had seen none.
        gain: the gain on these rows, in the metric's unit; positive: the promoted version is better.
        gain_low, gain_high: its bounds, each at confidence 1 - alpha; over all looks together they
            hold with the confidence of the guard (repeated confidence intervals).
        fraction: of the guard period, in (0, 1].
        alpha: level of this look.
        verdict: `worse` where gain_high is below -max_loss, else `holds`.
        recorded_at: when, UTC.
    """

    model: str
    sequence: int
    through_partition: str
    version: str
    predecessor: str
    partitions: int
    rows: int
    metric: str
    expected_gain: float | None
    gain: float
    gain_low: float
    gain_high: float
    fraction: float
    alpha: float
    verdict: str
    recorded_at: datetime

    @property
    def sentence(self) -> str:
        """Expected and realised gain in one line.

        For example: `expected +0.012, realised +0.009 [0.004, 0.014] over 7 partitions up to
        2024-01-21`.
        """
        expected = "" if self.expected_gain is None else f"expected {self.expected_gain:+.3g}, "
        text = (
            f"{expected}realised {self.gain:+.3g} [{self.gain_low:.3g}, {self.gain_high:.3g}] over "
            f"{self.partitions} partitions up to {self.through_partition}"
        )
        return f"{text}: worse than v{self.predecessor}" if self.verdict == "worse" else text


class Ledger:
    """The promotions of all models in one database.

    Every method raises LedgerError when the database cannot be reached or refuses.

    Attributes:
        database: where the rows are.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def champion(self, model: str) -> Promotion | None:
        """The promotion in force, None if there is no champion."""
        return _in_force(self.newest_of(model))

    def champions(self, models: Collection[str] | None = None) -> dict[str, Promotion]:
        """Promotions in force by model, in one query; models without a champion are left out.

        Args:
            models: the models asked for; all of the ledger if None.
        """
        return {name: row for name, row in self.newest(models).items() if not row.is_vacancy}

    def champion_at(self, model: str, moment: datetime) -> Promotion | None:
        """The promotion that was in force at `moment`; None before the first, or in a vacancy.

        Raises:
            LedgerError: `moment` has no time zone.
        """
        if moment.tzinfo is None:
            raise LedgerError(
                f"{model}: a moment needs a time zone, got {moment.isoformat()}; write for example "
                f"{moment.isoformat()}+00:00"
            )
        until = written(moment)
        rows = self._select(
            lambda query: (
                _newest_of(query, model).where(promotions().c.promoted_at <= until).limit(1)
            )
        )
        return _in_force(rows[0] if rows else None)

    def newest_of(self, model: str) -> Promotion | None:
        """The model's newest row, a vacancy too; None if nothing was ever promoted."""
        rows = self._select(lambda query: _newest_of(query, model).limit(1))
        return rows[0] if rows else None

    def newest(self, models: Collection[str] | None = None) -> dict[str, Promotion]:
        """The newest row by model, vacancies too, in one query.

        Args:
            models: the models asked for; all of the ledger if None.
        """
        rows = self._select(lambda query: newest_rows(query, promotions(), models))
        wanted = None if models is None else set(models)
        return {row.model: row for row in rows if wanted is None or row.model in wanted}

    def promotion_counts(self) -> dict[str, int]:
        """How often a candidate became champion, by model, of all that the ledger knows; one query."""
        import sqlalchemy as sa

        table = promotions()
        query = sa.select(table.c.model, sa.func.count()).where(table.c.kind == "promotion")
        with self.database.transaction() as connection:
            rows = connection.execute(query.group_by(table.c.model)).all()
        return {model: int(count) for model, count in rows}

    def newest_ids(self) -> list[int]:
        """The newest row number of each append-only table, 0 of an empty one; one query.

        Rows are only ever inserted: as long as these stay, nothing was written.
        """
        import sqlalchemy as sa

        newest = [
            sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0)).scalar_subquery()
            for table in metadata().sorted_tables
            if "id" in table.c
        ]
        with self.database.transaction() as connection:
            return [int(number) for number in connection.execute(sa.select(*newest)).one()]

    def history(self, model: str) -> list[Promotion]:
        """All rows of a model, oldest first."""
        return self._select(lambda query: _newest_of(query, model))[::-1]

    def promote(
        self,
        candidate: Candidate,
        *,
        expected_champion: str | None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
    ) -> Promotion:
        """Make `candidate` champion if the champion still is the one it was compared with.

        Repeating a promotion that has happened returns its row and writes nothing, so a killed
        caller may simply run again.

        Args:
            candidate: the version to promote.
            expected_champion: version of the champion that the gate compared with; None for none.
            actor: who promotes.
            reason: why, for people.
            evidence: JSON-compatible evidence, without NaN or infinity.

        Raises:
            ChampionChanged: the champion is another one by now; nothing was written.
            LedgerError: the entry is not storable, or the database cannot be reached.
        """
        check_entry(candidate, actor, reason, evidence)
        try:
            with self.database.transaction(write=True) as connection:
                return promote_within(
                    connection, candidate, expected_champion, actor, reason, evidence
                )
        except LostRace:
            # The other writer has committed: what it wrote decides, and it may be the same version.
            current = self.champion(candidate.model)
            if current is not None and current.version == candidate.version:
                return current
            raise _champion_changed(candidate, expected_champion, current) from None

    def outcomes(self, model: str) -> list[GuardOutcome]:
        """Everything that the guard has recorded about a model's promotions, oldest first."""
        import sqlalchemy as sa

        table = outcomes()
        query = sa.select(table).where(table.c.model == model)
        with self.database.transaction() as connection:
            rows = connection.execute(query.order_by(table.c.id)).mappings().all()
        return [_outcome(row) for row in rows]

    def record_outcome(self, outcome: GuardOutcome) -> GuardOutcome:
        """Record a look of the guard; of two looks at the same partitions the first one stays.

        Returns:
            The row that is in the table.

        Raises:
            LedgerError: the database cannot be reached, or refuses.
        """
        import sqlalchemy as sa

        values = {
            **vars(outcome),
            "recorded_at": written(outcome.recorded_at),
        }
        table = outcomes()
        try:
            with self.database.transaction(write=True) as connection:
                insert_row(connection, table, values)
        except LostRace:
            key = ("model", "sequence", "through_partition")
            same = [table.c[name] == values[name] for name in key]
            with self.database.transaction() as connection:
                row = connection.execute(sa.select(table).where(*same)).mappings().one()
            return _outcome(row)
        return outcome

    def roll_back(
        self,
        model: str,
        *,
        to_version: str | None,
        expected_champion: str | None,
        actor: str,
        reason: str,
        because: Mapping[str, Any] | None = None,
    ) -> Promotion:
        """Make an earlier champion champion again, as a new row of kind `rollback`.

        Repeating it returns the row in force and writes nothing.

        Args:
            model: name of the model.
            to_version: a version that was champion before; None for the one before the champion in
                force, which must not itself come from a rollback.
            expected_champion: version of the champion that is rolled back; None in a vacancy.
            actor: who does it.
            reason: why, for people.
            because: JSON-compatible evidence for the rollback, kept as `evidence["rollback"]` beside
                that of the version's own promotion.

        Raises:
            ChampionChanged: the champion is another one by now; nothing was written.
            LedgerError: there is no such earlier champion, or the database cannot be reached.
        """
        try:
            with self.database.transaction(write=True) as connection:
                past = _rows_of(connection, model)
                target = rollback_target(model, past, to_version)
                check_entry(target, actor, reason, target.evidence)
                current = _in_force(past[0])
                if current is not None and target.version == current.version:
                    return current
                if (current.version if current else None) != expected_champion:
                    raise ChampionChanged(
                        f"{model}: {_named(expected_champion)} was to be rolled back, but "
                        f"{_named(current)} is champion now; nothing was changed"
                    )
                return _append(
                    connection, past[0], target,
                    kind="rollback", actor=actor, reason=reason,
                    evidence=_rollback_evidence(target, because),
                )  # fmt: skip
        except LostRace:
            raise self._beaten(model) from None

    def replace_lost(
        self, lost: Promotion, target: Promotion | None, *, actor: str, reason: str
    ) -> Promotion:
        """Record that the champion `lost` is gone, and which earlier champion serves instead.

        Repeating it returns the row in force and writes nothing.

        Args:
            lost: the promotion in force, whose version does not exist any more.
            target: the earlier promotion that takes over; None leaves a vacancy.
            actor: who found out.
            reason: what happened, for people.

        Raises:
            ChampionChanged: the champion is another one by now; nothing was written.
            LedgerError: the database cannot be reached.
        """
        try:
            with self.database.transaction(write=True) as connection:
                (current, *_) = _rows_of(connection, lost.model, limit=1)
                if current.sequence == lost.sequence:
                    return _append(
                        connection, lost, target or lost,
                        kind="fallback" if target else "vacancy",
                        actor=actor, reason=reason, evidence=(target or lost).evidence,
                    )  # fmt: skip
        except LostRace:
            raise self._beaten(lost.model) from None
        same = current.version == (target or lost).version and current.is_vacancy == (not target)
        if same and current.expected_version == lost.version:
            return current
        raise self._beaten(lost.model)

    def _beaten(self, model: str) -> ChampionChanged:
        return ChampionChanged(
            f"{model}: somebody else changed the champion at the same time, "
            f"{_named(self.champion(model))} is champion now; nothing was changed"
        )

    def _select(self, narrow: "Callable[[Select[Any]], Select[Any]]") -> list[Promotion]:
        import sqlalchemy as sa

        with self.database.transaction() as connection:
            rows = connection.execute(narrow(sa.select(promotions()))).mappings().all()
        return [_promotion(row) for row in rows]


def promote_within(
    connection: "Connection",
    candidate: Candidate,
    expected: str | None,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
) -> Promotion:
    """`Ledger.promote` inside the caller's write transaction, which may write more.

    Raises:
        ChampionChanged: as there.
        LostRace: another writer was faster; the transaction must be left.
    """
    rows = _rows_of(connection, candidate.model, limit=1)
    newest = rows[0] if rows else None
    current = _in_force(newest)
    if current is not None and current.version == candidate.version:
        return current
    if (current.version if current else None) != expected:
        raise _champion_changed(candidate, expected, current)
    return _append(
        connection, newest, candidate,
        kind="promotion", actor=actor, reason=reason, evidence=evidence,
    )  # fmt: skip


def rollback_target(model: str, past: Sequence[Promotion], to_version: str | None) -> Promotion:
    """The promotion that a rollback goes back to.

    Args:
        model: name of the model, for errors.
        past: its rows, newest first.
        to_version: as in `Ledger.roll_back`.

    Returns:
        The latest promotion of that version; the one in force where there is nothing to do.

    Raises:
        LedgerError: there is no champion, no earlier one, or the version was never champion.
    """
    if not past:
        raise LedgerError(
            f"{model}: no version was ever promoted, so there is nothing to roll back"
        )
    served = [row for row in past if not row.is_vacancy]
    if to_version is None:
        if past[0].kind == "rollback":
            return past[0]
        gone = lost_versions(past) | ({past[0].version} if not past[0].is_vacancy else set())
        earlier = [row for row in served if row.version not in gone]
        if not earlier:
            raise LedgerError(
                f"{model}: v{past[0].version} is the only version that was ever champion"
                f"{' and is still registered' if lost_versions(past) else ''}; "
                "there is none to go back to"
            )
        return earlier[0]
    for row in served:
        if row.version == to_version:
            return row
    listed = ", ".join(f"v{version}" for version in dict.fromkeys(row.version for row in served))
    raise LedgerError(f"{model}: v{to_version} was never champion; these were: {listed}")


def _rollback_evidence(target: Promotion, because: Mapping[str, Any] | None) -> dict[str, Any]:
    own = {name: value for name, value in target.evidence.items() if name != "rollback"}
    return own if because is None else {**own, "rollback": dict(because)}


def lost_versions(past: Sequence[Promotion]) -> set[str]:
    """Versions that were champion when they were deleted from the registry."""
    lost = {row.expected_version for row in past if row.kind in ("fallback", "vacancy")}
    return {version for version in lost if version is not None}


def taken_down(past: Sequence[Promotion]) -> dict[str, Promotion]:
    """What people have rolled back and nobody has put back: the rollback by fingerprint.

    Args:
        past: rows of one model, newest first.
    """
    found: dict[str, Promotion] = {}
    before: Promotion | None = None
    for row in reversed(past):
        if row.kind == "rollback" and before is not None and not before.is_vacancy:
            found[before.fingerprint] = row
        if not row.is_vacancy:
            found.pop(row.fingerprint, None)
        before = row
    return found


def newest_rows(
    query: "Select[Any]", table: "Table", models: Collection[str] | None
) -> "Select[Any]":
    """Of a query of a table with (model, sequence), the newest row of each model.

    Args:
        models: the models asked for; all if None, and, so that the caller must look, if they are
            more than the databases take as parameters of one query.
    """
    import sqlalchemy as sa

    top = sa.select(table.c.model, sa.func.max(table.c.sequence).label("top"))
    if models is not None and len(models) <= _IN_LIMIT:
        top = top.where(table.c.model.in_(sorted(models)))
    last = top.group_by(table.c.model).subquery()
    both = sa.and_(table.c.model == last.c.model, table.c.sequence == last.c.top)
    return query.join(last, both).order_by(table.c.model)


def _append(
    connection: "Connection",
    newest: Promotion | None,
    entry: Candidate | Promotion,
    *,
    kind: str,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
) -> Promotion:
    """Insert the row after `newest`: `entry` becomes champion, or is lost.

    The clock of this machine may be behind that of the one that wrote the row before; history says
    which version was champion at a time, so time goes on by a microsecond at least.
    """
    now = datetime.now(UTC)
    lost = kind in ("fallback", "vacancy")
    row = Promotion(
        **{name: getattr(entry, name) for name in Candidate.__dataclass_fields__},
        sequence=newest.sequence + 1 if newest else 1,
        expected_version=newest.version if newest and (lost or not newest.is_vacancy) else None,
        kind=kind,
        actor=actor,
        reason=reason,
        evidence=dict(evidence),
        promoted_at=max(now, newest.promoted_at + timedelta(microseconds=1)) if newest else now,
    )
    insert_row(connection, promotions(), {**vars(row), "promoted_at": written(row.promoted_at)})
    return row


def _rows_of(connection: "Connection", model: str, limit: int | None = None) -> list[Promotion]:
    """Rows of a model, newest first."""
    import sqlalchemy as sa

    query = _newest_of(sa.select(promotions()), model).limit(limit)
    return [_promotion(row) for row in connection.execute(query).mappings()]


def _in_force(newest: Promotion | None) -> Promotion | None:
    return None if newest is None or newest.is_vacancy else newest


def _named(champion: Promotion | str | None) -> str:
    if champion is None:
        return "nobody"
    return f"v{champion if isinstance(champion, str) else champion.version}"


def _newest_of(query: "Select[Any]", model: str) -> "Select[Any]":
    table = promotions()
    return query.where(table.c.model == model).order_by(table.c.sequence.desc())


def _promotion(row: Mapping[Any, Any]) -> Promotion:
    fields = {name: row[name] for name in Promotion.__dataclass_fields__}
    return Promotion(**{**fields, "promoted_at": datetime.fromisoformat(row["promoted_at"])})


def _outcome(row: Mapping[Any, Any]) -> GuardOutcome:
    fields = {name: row[name] for name in GuardOutcome.__dataclass_fields__}
    return GuardOutcome(**{**fields, "recorded_at": datetime.fromisoformat(row["recorded_at"])})


def written(moment: datetime) -> str:
    """As moments are stored: always of one length and in UTC, so that text sorts like time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _champion_changed(
    candidate: Candidate, expected: str | None, current: Promotion | None
) -> ChampionChanged:
    compared = "no champion" if expected is None else f"champion v{expected}"
    now = "there is none" if current is None else f"v{current.version} is champion"
    since = "" if current is None else f" (promoted {current.promoted_at:%Y-%m-%d %H:%M:%S} UTC)"
    return ChampionChanged(
        f"{candidate.model}: candidate v{candidate.version} was compared with {compared}, but now "
        f"{now}{since}; nothing was promoted. Run the gate again against the present champion"
    )


def check_entry(
    candidate: Candidate | Promotion, actor: str, reason: str, evidence: Mapping[str, Any]
) -> None:
    """Raise LedgerError, with all problems, if a row with this content would say nothing."""
    problems = [
        f"{name} is empty"
        for name, text in (
            ("model", candidate.model),
            ("version", candidate.version),
            ("run_id", candidate.run_id),
            ("fingerprint", candidate.fingerprint),
            ("metric", candidate.metric),
            ("actor", actor),
            ("reason", reason),
        )
        if not text.strip()
    ]
    if not math.isfinite(candidate.value):
        problems.append(f"{candidate.metric or 'metric'} must be finite, got {candidate.value}")
    try:
        json.dumps(dict(evidence), allow_nan=False)
    except (TypeError, ValueError) as error:
        problems.append(f"evidence must be JSON without NaN or infinity: {error}")
    if problems:
        raise LedgerError(
            f"{candidate.model or 'promotion'}: {'; '.join(problems)}; nothing was recorded"
        )
