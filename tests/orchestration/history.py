"""A fleet's past in seconds: what one model has in the databases, copied for the others.

Belongs here: rows of Dagster's sqlite storages and of the ledger. Does not: what they say (the benchmarks
and tests that write the one model's through the API, and measure).

Through the API an event costs some ten milliseconds, so that a month of a thousand models would take an
hour.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["copy_days", "copy_ledger", "copy_models", "copy_runs", "give_to_runs"]


def copy_models(home: Path, model: str, others: Collection[str], *, after: int = 0) -> int:
    """Asset events of one model, those behind event `after`, for all others; the last event's id.

    Args:
        home: the instance's folder, with storage in its default places.
    """
    with _transaction(home / "history" / "runs" / "index.db") as database:
        for other in others:
            _copy(
                database,
                "event_logs",
                "asset_key LIKE :prefix AND id > :after",
                {
                    "asset_key": "replace(asset_key, :old, :new)",
                    "event": "replace(event, :old, :new)",
                },
                {
                    "prefix": f'["{model}", %',
                    "after": after,
                    "old": f'"{model}"',
                    "new": f'"{other}"',
                },
            )
        _latest(database, model, others)
        (last,) = database.execute("SELECT max(id) FROM event_logs").fetchone()
    return int(last)


def give_to_runs(home: Path, runs: Mapping[str, str], *, after: int) -> None:
    """Make runless events, those behind event `after`, events of runs.

    Args:
        runs: by model the id of its run.
    """
    with _transaction(home / "history" / "runs" / "index.db") as database:
        for model, run_id in runs.items():
            names = {
                "prefix": f'["{model}", %', "after": after, "run": run_id,
                "old": '"run_id": ""', "new": f'"run_id": "{run_id}"',
            }  # fmt: skip
            database.execute(
                "UPDATE event_logs SET run_id = :run, event = replace(event, :old, :new) "
                "WHERE asset_key LIKE :prefix AND id > :after",
                names,
            )
            database.execute(
                "UPDATE asset_keys SET last_run_id = :run, "
                "last_materialization = replace(last_materialization, :old, :new) "
                "WHERE asset_key LIKE :prefix",
                names,
            )


def _latest(database: sqlite3.Connection, model: str, others: Collection[str]) -> None:
    """Rows of `asset_keys`: each holds the last event, with its id."""
    columns = _columns(database, "asset_keys")
    chosen = f"SELECT {', '.join(columns)} FROM asset_keys WHERE asset_key LIKE ?"
    rows = [
        dict(zip(columns, row, strict=True)) for row in database.execute(chosen, [f'["{model}", %'])
    ]
    for row in rows:
        old = _last_event(database, row["asset_key"])
        for other in others:
            key = row["asset_key"].replace(f'"{model}"', f'"{other}"')
            text = row["last_materialization"].replace(f'"{model}"', f'"{other}"')
            new = _last_event(database, key)
            assert f'"storage_id": {old}' in text
            text = text.replace(f'"storage_id": {old}', f'"storage_id": {new}')
            values = [
                {**row, "asset_key": key, "last_materialization": text}[name] for name in columns
            ]
            database.execute(
                f"INSERT OR REPLACE INTO asset_keys ({', '.join(columns)}) "
                f"VALUES ({', '.join('?' * len(columns))})",
                values,
            )


def _last_event(database: sqlite3.Connection, key: str) -> int:
    query = "SELECT max(id) FROM event_logs WHERE asset_key = ? AND dagster_event_type = ?"
    return int(database.execute(query, [key, "ASSET_MATERIALIZATION"]).fetchone()[0])


def copy_days(home: Path, partition: str, others: Collection[str]) -> None:
    """The events of one partition, for other partitions."""
    with _transaction(home / "history" / "runs" / "index.db") as database:
        for other in others:
            _copy(
                database,
                "event_logs",
                "partition = :old",
                {"partition": ":new", "event": "replace(event, :old, :new)"},
                {"old": partition, "new": other},
            )


def copy_runs(home: Path, times: int) -> None:
    """Every run of the instance so often again, with its tags, a day earlier each time."""
    with _transaction(home / "history" / "runs.db") as database:
        last = {
            table: database.execute(f"SELECT max(id) FROM {table}").fetchone()[0]
            for table in ("runs", "run_tags")
        }
        for n in range(1, times + 1):
            renamed = "substr(run_id, 1, 30) || :end"
            runs = {
                "run_id": renamed,
                "run_body": f"replace(run_body, run_id, {renamed})",
                "create_timestamp": "datetime(create_timestamp, :days)",
                "update_timestamp": "datetime(update_timestamp, :days)",
            }
            for table, values in (("runs", runs), ("run_tags", {"run_id": renamed})):
                _copy(
                    database, table, "id <= :last", values,
                    {"last": last[table], "end": f"{n:06}", "days": f"-{n} days"},
                )  # fmt: skip


def copy_ledger(path: Path, model: str, others: Collection[str]) -> None:
    """What the ledger has of one model, for all others.

    Args:
        path: the ledger's sqlite file.
    """
    with _transaction(path) as database:
        named = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = [name for (name,) in database.execute(named).fetchall()]
        for table in tables:
            columns = _columns(database, table)
            if "model" not in columns:
                continue
            # A digest of what was decided, which differs between models.
            digest = {"state": ":new || substr(state, -24)"} if "state" in columns else {}
            for other in others:
                values = {"model": ":new", **digest}
                _copy(database, table, "model = :old", values, {"old": model, "new": other})


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path)
    try:
        with database:
            yield database
    finally:
        database.close()


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    """All but the number that the database gives."""
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "id"]


def _copy(
    database: sqlite3.Connection,
    table: str,
    where: str,
    values: Mapping[str, str],
    parameters: Mapping[str, object],
) -> None:
    """Rows of a table once more, with other values in some columns."""
    columns = _columns(database, table)
    chosen = ", ".join(values.get(name, name) for name in columns)
    database.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table} WHERE {where}",
        parameters,
    )
