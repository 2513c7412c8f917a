"""The decision ledger: why a model was retrained or not, what came of it, which data is bad.

Belongs here: writing and reading the tables `decisions`, `judgements` and `data_states`. Does not:
deciding (`policy`), what a promotion brought afterwards (`ledger.outcomes`), promotions themselves.

Rows are only ever inserted. A decision is a state of affairs: one that is met again, by every tick of a
sensor or after a kill, leaves one row. What came of it is a row of its own, written by the run that
judged the candidate and found by the digest that the run carries as a tag.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retrain_assets.policy.record import Entry
from retrain_assets.promotion.tables import data_states, decisions, judgements

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

    from retrain_assets.promotion.ledger import Ledger

__all__ = ["Decisions", "Judgement"]

_IN_LIMIT = 500


@dataclass(frozen=True)
class Judgement:
    """What came of a retraining.

    Attributes:
        run_id: the Dagster run that judged the candidate.
        state: of the decision that asked for the run.
        partition, version: of the candidate.
        training_code: what it was trained with (`spec.code.training_code`).
        verdict: `promote`, `reject`, `undecided`, `awaiting` (a person), or `refused` (a person had
            taken this model down before).
        sentence: the verdict in one line.
        expected_gain: the gain that the gate saw on the holdout; None without a champion.
        compute_seconds: that the run's steps took; None where they are not known.
        judged_at: UTC.
    """

    model: str
    run_id: str
    state: str
    partition: str | None
    version: str
    training_code: str
    verdict: str
    sentence: str
    expected_gain: float | None
    compute_seconds: float | None
    judged_at: datetime


class Decisions:
    """Decisions of all models in the ledger's database.

    Every method raises LedgerError when the database cannot be reached or refuses.
    """

    def __init__(self, ledger: "Ledger") -> None:
        self._database = ledger.database

    # -- decisions --------------------------------------------------------------------------------

    def record(self, entries: Collection[Entry]) -> int:
        """Write those that are new, in one transaction; returns how many are.

        Where none is new, which is nearly every tick, it costs one query and no write lock.
        """
        if not entries:
            return 0
        with self._database.transaction() as connection:
            known = _states(connection, [entry.state for entry in entries])
        new = {entry.state: entry for entry in entries if entry.state not in known}
        if new:
            rows = [
                {**asdict(entry), "reasons": list(entry.reasons),
                 "decided_at": _written(entry.decided_at), "data_time": _written(entry.data_time)}
                for entry in new.values()
            ]  # fmt: skip
            with self._database.transaction(write=True) as connection:
                _insert_new(connection, decisions(), rows, ["model", "state"])
        return len(new)

    def last(self, model: str, n: int) -> list[Entry]:
        """The last `n` decisions of a model, newest first."""
        import sqlalchemy as sa

        table = decisions()
        query = sa.select(table).where(table.c.model == model).order_by(table.c.id.desc()).limit(n)
        with self._database.transaction() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def newest(self, models: Collection[str]) -> dict[str, Entry]:
        """The last decision by model, in one query."""
        with self._database.transaction() as connection:
            rows = connection.execute(_newest(decisions(), models)).mappings().all()
        return {row["model"]: _entry(row) for row in rows if row["model"] in models}

    def triggers(self, states: Collection[str]) -> dict[str, str]:
        """What started the retraining that each of these decisions asked for, in batched queries."""
        import sqlalchemy as sa

        table, wanted, found = decisions(), sorted(states), dict[str, str]()
        with self._database.transaction() as connection:
            for start in range(0, len(wanted), _IN_LIMIT):
                part = table.c.state.in_(wanted[start : start + _IN_LIMIT])
                query = sa.select(table.c.state, table.c.trigger).where(part)
                found |= {state: trigger for state, trigger in connection.execute(query) if trigger}
        return found

    # -- what came of them ------------------------------------------------------------------------

    def record_judgement(self, judgement: Judgement) -> None:
        """Write what a run made of a candidate; of a step that is retried the first row stays."""
        row = {**asdict(judgement), "judged_at": _written(judgement.judged_at)}
        with self._database.transaction(write=True) as connection:
            _insert_new(connection, judgements(), [row], ["model", "run_id"])

    def judged(self, models: Collection[str]) -> dict[str, Judgement]:
        """The last judgement by model, in one query."""
        with self._database.transaction() as connection:
            rows = connection.execute(_newest(judgements(), models)).mappings().all()
        return {row["model"]: _judgement(row) for row in rows if row["model"] in models}

    def judgements(self, model: str) -> list[Judgement]:
        """All judgements of a model, oldest first."""
        import sqlalchemy as sa

        table = judgements()
        query = sa.select(table).where(table.c.model == model).order_by(table.c.id)
        with self._database.transaction() as connection:
            return [_judgement(row) for row in connection.execute(query).mappings()]

    def rejection_counts(self) -> dict[str, int]:
        """How many judgements promoted nothing and asked nobody, by model; one query."""
        import sqlalchemy as sa

        table = judgements()
        query = sa.select(table.c.model, sa.func.count()).where(
            table.c.verdict.in_(("reject", "undecided", "refused"))
        )
        with self._database.transaction() as connection:
            rows = connection.execute(query.group_by(table.c.model)).all()
        return {model: int(count) for model, count in rows}

    def rejections(self, models: Collection[str]) -> dict[str, int]:
        """By model, candidates that did not pass since the last promotion, each version of a
        partition once. One query."""
        import sqlalchemy as sa

        table = judgements()
        columns = (table.c.model, table.c.verdict, table.c.partition, table.c.version)
        query = _narrowed(sa.select(*columns), table, models).order_by(table.c.id)
        found: dict[str, set[tuple[str | None, str]]] = {name: set() for name in models}
        with self._database.transaction() as connection:
            for model, verdict, partition, version in connection.execute(query):
                if verdict == "promote" and model in found:
                    found[model].clear()
                elif verdict in ("reject", "undecided") and model in found:
                    found[model].add((partition, version))
        return {name: len(candidates) for name, candidates in found.items()}

    # -- data -------------------------------------------------------------------------------------

    def record_data(self, model: str, problems: Mapping[str | None, str]) -> None:
        """Record what is wrong with partitions, "" where nothing is any more.

        Writes only what is new: a partition that was never bad leaves no row.
        """
        with self._database.transaction() as connection:
            known = _problems(connection, model, list(problems))
        now = _written(datetime.now(UTC))
        rows = [
            {"model": model, "partition": key or "", "problem": problem, "recorded_at": now}
            for key, problem in problems.items()
            if known.get(key or "", "") != problem
        ]
        if rows:
            import sqlalchemy as sa

            with self._database.transaction(write=True) as connection:
                connection.execute(sa.insert(data_states()), rows)

    def bad_data(self, models: Collection[str]) -> dict[str, tuple[str, str]]:
        """By model its newest partition that was ever bad, and its problem ("" when mended).

        One query.
        """
        import sqlalchemy as sa

        table = data_states()
        top = _narrowed(
            sa.select(table.c.model, sa.func.max(table.c.partition).label("top")), table, models
        )
        newest = top.group_by(table.c.model).subquery()
        both = sa.and_(table.c.model == newest.c.model, table.c.partition == newest.c.top)
        query = sa.select(table).join(newest, both).order_by(table.c.id)
        with self._database.transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return {row["model"]: (row["partition"], row["problem"]) for row in rows}


def _states(connection: "Connection", states: Sequence[str]) -> set[str]:
    import sqlalchemy as sa

    column = decisions().c.state
    found: set[str] = set()
    for start in range(0, len(states), _IN_LIMIT):
        part = sa.select(column).where(column.in_(states[start : start + _IN_LIMIT]))
        found |= set(connection.execute(part).scalars())
    return found


def _problems(
    connection: "Connection", model: str, partitions: Sequence[str | None]
) -> dict[str, str]:
    import sqlalchemy as sa

    table = data_states()
    query = sa.select(table.c.partition, table.c.problem).where(table.c.model == model)
    rows = connection.execute(query.order_by(table.c.id)).all()
    wanted = {key or "" for key in partitions}
    return {partition: problem for partition, problem in rows if partition in wanted}


def _insert_new(
    connection: "Connection", table: "Table", rows: Sequence[Mapping[str, Any]], key: list[str]
) -> None:
    """Insert rows whose key is not taken: of two writers one writes each."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialects: Mapping[str, Any] = {"postgresql": postgresql, "sqlite": sqlite}
    insert = dialects[connection.dialect.name].insert(table)
    connection.execute(insert.on_conflict_do_nothing(index_elements=key), list(rows))


def _newest(table: "Table", models: Collection[str]) -> "Select[Any]":
    import sqlalchemy as sa

    top = _narrowed(sa.select(sa.func.max(table.c.id)), table, models).group_by(table.c.model)
    return sa.select(table).where(table.c.id.in_(top))


def _narrowed(query: "Select[Any]", table: "Table", models: Collection[str]) -> "Select[Any]":
    if len(models) > _IN_LIMIT:
        return query  # all, which is what a caller with so many models asks for
    return query.where(table.c.model.in_(sorted(models)))


def _entry(row: Mapping[Any, Any]) -> Entry:
    fields = {name: row[name] for name in Entry.__dataclass_fields__}
    return Entry(
        **{**fields, "reasons": tuple(row["reasons"]),
           "decided_at": datetime.fromisoformat(row["decided_at"]),
           "data_time": datetime.fromisoformat(row["data_time"])}
    )  # fmt: skip


def _judgement(row: Mapping[Any, Any]) -> Judgement:
    fields = {name: row[name] for name in Judgement.__dataclass_fields__}
    return Judgement(**{**fields, "judged_at": datetime.fromisoformat(row["judged_at"])})


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
