"""The promotion ledger: the append-only SQL table that says which version is champion.

Belongs here: compare-and-set promotion and the questions asked of the history. Does not: whether a
candidate deserves it (`gate`), where its files are (`registry`, whose aliases only follow this
table), the table itself (`tables`), connections (`database`).

Rows are only ever inserted. `(model, sequence)` is unique, so that of two writers that saw the same
champion one inserts `sequence + 1` and the other gets `ChampionChanged`.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import ChampionChanged, LedgerError
from retrain_assets.promotion.database import Database
from retrain_assets.promotion.tables import outcomes, promotions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

__all__ = ["Candidate", "GuardOutcome", "Ledger", "Promotion", "rollback_target"]

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
    """One row of the ledger: a version that became champion.

    Attributes:
        sequence: 1 for the model's first promotion, then without gaps.
        expected_version: the champion that it replaced; None for the first.
        kind: `promotion`, or `rollback` to a version that was champion before.
        actor: who promoted (a person, or the run).
        reason: why, for people.
        evidence: what the decision rested on (the gate's report), JSON.
        promoted_at: when, UTC.
        (the others: as in `Candidate`)
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
        """The promotion in force, None if nothing was ever promoted."""
        rows = self._select(lambda query: _newest_of(query, model).limit(1))
        return rows[0] if rows else None

    def champions(self, models: Collection[str] | None = None) -> dict[str, Promotion]:
        """Promotions in force by model, in one query; models without a champion are left out.

        Args:
            models: the models asked for; all of the ledger if None.
        """

        def newest(query: "Select[Any]") -> "Select[Any]":
            import sqlalchemy as sa

            table = promotions()
            top = sa.select(table.c.model, sa.func.max(table.c.sequence).label("top"))
            # Longer lists would pass the databases' limit of bound parameters.
            if models is not None and len(models) <= _IN_LIMIT:
                top = top.where(table.c.model.in_(sorted(models)))
            last = top.group_by(table.c.model).subquery()
            both = sa.and_(table.c.model == last.c.model, table.c.sequence == last.c.top)
            return query.join(last, both).order_by(table.c.model)

        found = {row.model: row for row in self._select(newest)}
        if models is None:
            return found
        return {model: row for model, row in found.items() if model in set(models)}

    def previous(self, model: str) -> Promotion | None:
        """The promotion before the one in force: where a rollback would go; None if there is none."""
        rows = self._select(lambda query: _newest_of(query, model).limit(2))
        return rows[1] if len(rows) == 2 else None

    def history(self, model: str) -> list[Promotion]:
        """All promotions of a model, oldest first."""
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
        _check_entry(candidate, actor, reason, evidence)
        try:
            return self._compare_and_set(candidate, expected_champion, actor, reason, evidence)
        except _LostRace:
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
            "recorded_at": outcome.recorded_at.isoformat(timespec="microseconds"),
        }
        table = outcomes()
        try:
            with self.database.transaction(write=True) as connection:
                _insert(connection, values, table)
        except _LostRace:
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
        expected_champion: str,
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
            expected_champion: version of the champion that is rolled back.
            actor: who does it.
            reason: why, for people.
            because: JSON-compatible evidence for the rollback, kept as `evidence["rollback"]` beside
                that of the version's own promotion.

        Raises:
            ChampionChanged: the champion is another one by now; nothing was written.
            LedgerError: there is no such earlier champion, or the database cannot be reached.
        """
        import sqlalchemy as sa

        try:
            with self.database.transaction(write=True) as connection:
                rows = (
                    connection.execute(_newest_of(sa.select(promotions()), model)).mappings().all()
                )
                past = [_promotion(row) for row in rows]
                target = rollback_target(model, past, to_version)
                if target.version == past[0].version:
                    return past[0]
                if past[0].version != expected_champion:
                    raise ChampionChanged(
                        f"{model}: v{expected_champion} was to be rolled back, but "
                        f"v{past[0].version} is champion now; nothing was changed"
                    )
                values = {
                    **vars(target),
                    "sequence": past[0].sequence + 1,
                    "expected_version": past[0].version,
                    "kind": "rollback",
                    "actor": actor,
                    "reason": reason,
                    "evidence": _rollback_evidence(target, because),
                    "promoted_at": datetime.now(UTC).isoformat(timespec="microseconds"),
                }
                _insert(connection, values)
        except _LostRace:
            current = self.champion(model)
            now = f"v{current.version}" if current else "nobody"
            raise ChampionChanged(
                f"{model}: somebody else changed the champion at the same time, {now} is champion "
                "now; nothing was changed"
            ) from None
        return _promotion(values)

    def _compare_and_set(
        self,
        candidate: Candidate,
        expected: str | None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
    ) -> Promotion:
        import sqlalchemy as sa

        with self.database.transaction(write=True) as connection:
            query = _newest_of(sa.select(promotions()), candidate.model).limit(1)
            row = connection.execute(query).mappings().first()
            current = None if row is None else _promotion(row)
            if current is not None and current.version == candidate.version:
                return current
            if (None if current is None else current.version) != expected:
                raise _champion_changed(candidate, expected, current)
            values = {
                **vars(candidate),
                "sequence": 1 if current is None else current.sequence + 1,
                "expected_version": expected,
                "kind": "promotion",
                "actor": actor,
                "reason": reason,
                "evidence": dict(evidence),
                "promoted_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            }
            _insert(connection, values)
        return _promotion(values)

    def _select(self, narrow: Any) -> list[Promotion]:
        import sqlalchemy as sa

        with self.database.transaction() as connection:
            rows = connection.execute(narrow(sa.select(promotions()))).mappings().all()
        return [_promotion(row) for row in rows]


class _LostRace(Exception):
    """Another writer inserted the sequence first; never leaves this module."""


def rollback_target(model: str, past: Sequence[Promotion], to_version: str | None) -> Promotion:
    """The promotion that a rollback goes back to.

    Args:
        model: name of the model, for errors.
        past: its promotions, newest first.
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
    versions = list(dict.fromkeys(row.version for row in past))
    if to_version is None:
        if past[0].kind == "rollback":
            return past[0]
        if len(versions) == 1:
            raise LedgerError(
                f"{model}: v{versions[0]} is the only version that was ever champion; "
                "there is none to go back to"
            )
        to_version = next(row.version for row in past if row.version != past[0].version)
    for row in past:
        if row.version == to_version:
            return row
    listed = ", ".join(f"v{version}" for version in versions)
    raise LedgerError(f"{model}: v{to_version} was never champion; these were: {listed}")


def _rollback_evidence(target: Promotion, because: Mapping[str, Any] | None) -> dict[str, Any]:
    own = {name: value for name, value in target.evidence.items() if name != "rollback"}
    return own if because is None else {**own, "rollback": dict(because)}


def _insert(
    connection: "Connection", values: Mapping[str, Any], table: "Table | None" = None
) -> None:
    import sqlalchemy as sa

    try:
        connection.execute(sa.insert(promotions() if table is None else table).values(**values))
    except sa.exc.IntegrityError:
        raise _LostRace from None


def _newest_of(query: "Select[Any]", model: str) -> "Select[Any]":
    table = promotions()
    return query.where(table.c.model == model).order_by(table.c.sequence.desc())


def _promotion(row: Mapping[Any, Any]) -> Promotion:
    fields = {name: row[name] for name in Promotion.__dataclass_fields__}
    return Promotion(**{**fields, "promoted_at": datetime.fromisoformat(row["promoted_at"])})


def _outcome(row: Mapping[Any, Any]) -> GuardOutcome:
    fields = {name: row[name] for name in GuardOutcome.__dataclass_fields__}
    return GuardOutcome(**{**fields, "recorded_at": datetime.fromisoformat(row["recorded_at"])})


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


def _check_entry(
    candidate: Candidate, actor: str, reason: str, evidence: Mapping[str, Any]
) -> None:
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
            f"{candidate.model or 'promotion'}: {'; '.join(problems)}; nothing was promoted"
        )
