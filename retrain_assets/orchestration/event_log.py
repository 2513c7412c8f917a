"""The event log of `retrain now`: Dagster's own sqlite files, written a step at a time.

Belongs here: when and how often events reach those files. Does not: what is stored and how it is read,
which stays Dagster's; other processes use Dagster's class on the same files at the same time.

Dagster's class opens a connection, compiles its statements and commits anew for every event and every
read; that is most of what it adds to a small retraining (docs/decisions/0024-events-a-step-at-a-time.md).
Dagster exports no base of storages, though the setting that loads one is public; this module
imports from where `event_log_storage` in a `dagster.yaml` does.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef
    from sqlalchemy.engine import Connection

__all__ = ["StepwiseEventLog", "stepwise"]

_INDEX = "index"
"""Dagster's file for what all runs share: assets, checks, the status of runs."""

_BUSY_SECONDS = 30  # as Dagster's own connections

_HELD = frozenset(
    {
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
        dg.DagsterEventType.LOADED_INPUT,
        dg.DagsterEventType.STEP_INPUT,
        dg.DagsterEventType.STEP_OUTPUT,
        dg.DagsterEventType.HANDLED_OUTPUT,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    }
)
"""Said between the start and the end of a step or before the start of a run: another event follows."""


def stepwise(instance: "InstanceRef") -> "InstanceRef":
    """The instance for a process that executes runs itself; as it is where events are not in sqlite."""
    events = instance.event_storage_data
    if events is None or events.class_name != SqliteEventLogStorage.__name__:
        return instance
    ours = ConfigurableClassData(__name__, StepwiseEventLog.__name__, events.config_yaml)
    # Without `storage_data` the parts count, which Dagster fills in beside it.
    return instance._replace(storage_data=None, event_storage_data=ours)


class StepwiseEventLog(SqliteEventLogStorage):
    """Keeps its connections, and stores what a step says in one transaction.

    Events of `_HELD` wait for the next other event of their run, or for the next read in this process,
    whichever comes first, so whoever reads here finds what was stored here. Other processes see a
    step's start, its log messages and its end when they happen, the rest with the next of these. A
    kill loses what is held: what a step that did not end had said.

    For one run at a time, in a process that ends with it or goes on with the next.

    Args:
        base_dir: folder of the files; another process has made the one that all runs share.
        inst_data: how Dagster made this object.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._mutex = threading.RLock()
        self._connections: dict[str, Connection] = {}
        self._open: dict[str, Connection] = {}
        self._held: list[dg.EventLogEntry] = []
        self._schema: set[str] = set()
        self._last_read: tuple[object, dg.EventRecordsResult] | None = None
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "StepwiseEventLog":
        """What Dagster calls."""
        return cls(config_value["base_dir"], inst_data)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, or hold it; one that cannot be stored is tried again with the next.

        Raises:
            sqlalchemy.exc.OperationalError: another process writes for longer than 30 s, or the disk
                is full.
        """
        with self._mutex:
            if self._held and self._held[0].run_id != event.run_id:
                self._flush()
            self._held.append(event)
            said = event.dagster_event
            if said is not None and said.is_step_materialization:
                self._last_read = None
            if said is None or said.event_type not in _HELD:
                self._flush()

    def _flush(self) -> None:
        """Store what is held: in the run's file, then in the shared one, as Dagster does."""
        if self._held:
            with self._connected(_INDEX), self._connected(self._held[0].run_id):
                for event in self._held:
                    super().store_event(event)
            self._held = []

    def run_connection(self, run_id: str | None = None) -> "AbstractContextManager[Connection]":
        """A transaction on a run's file, after everything held is stored."""
        return self._reading(str(run_id))

    def index_connection(self) -> "AbstractContextManager[Connection]":
        """A transaction on the shared file, after everything held is stored."""
        return self._reading(_INDEX)

    def has_table(self, table_name: str) -> bool:
        """Whether the schema has this table; Dagster asks for each event of an asset."""
        return self._has(table_name, super().has_table)

    def has_asset_key_col(self, column_name: str) -> bool:
        """Whether assets have this column; Dagster asks twice for each step that has inputs."""
        return self._has(column_name, super().has_asset_key_col)

    def has_secondary_index(self, name: str) -> bool:
        """Whether older homes have been migrated; Dagster asks twice for each step that has inputs."""
        return self._has(name, super().has_secondary_index)

    def _has(self, part: str, look: Callable[[str], bool]) -> bool:
        """Whether the schema has a part, which it does not lose again."""
        if part not in self._schema and look(part):
            self._schema.add(part)
        return part in self._schema

    def fetch_materializations(
        self,
        records_filter: dg.AssetKey | dg.AssetRecordsFilter,
        limit: int,
        cursor: str | None = None,
        ascending: bool = False,
    ) -> dg.EventRecordsResult:
        """Materializations of an asset.

        Dagster asks twice for each result of a check. What was read is the answer to the same question
        once more, unless this process has stored a materialization since; then it is read again.
        """
        with self._mutex:
            question = (records_filter, limit, cursor, ascending)
            if self._last_read is not None and self._last_read[0] == question:
                found, self._last_read = self._last_read[1], None
                return found
            found = super().fetch_materializations(records_filter, limit, cursor, ascending)
            self._last_read = (question, found)
            return found

    def dispose(self) -> None:
        """Store what is held and close the files."""
        with self._mutex:
            self._flush()
            for shard in [*self._connections]:
                self._close(shard)
        super().dispose()

    @contextmanager
    def _reading(self, shard: str) -> "Iterator[Connection]":
        with self._mutex:
            if shard not in self._open:
                self._flush()
            with self._connected(shard) as connection:
                yield connection

    @contextmanager
    def _connected(self, shard: str) -> "Iterator[Connection]":
        """The transaction on a file that is going on, else one of its own."""
        with self._mutex:
            if shard in self._open:
                yield self._open[shard]
                return
            connection = self._connection(shard)
            with connection.begin():
                self._open[shard] = connection
                try:
                    yield connection
                finally:
                    del self._open[shard]

    def _connection(self, shard: str) -> "Connection":
        """The connection to a file; those of earlier runs are closed."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        if shard not in self._connections:
            if shard != _INDEX:
                for earlier in [*self._connections.keys() - {_INDEX} - self._open.keys()]:
                    self._close(earlier)
                self._make(shard)
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=StaticPool,
                connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            )
            self._connections[shard] = engine.connect()
        return self._connections[shard]

    def _close(self, shard: str) -> None:
        connection = self._connections.pop(shard)
        connection.close()
        connection.engine.dispose()

    def _make(self, run_id: str) -> None:
        """The file of a new run, with the schema of the shared one.

        Dagster reads its 150 migrations to make one. It appears complete or not at all, and the one
        of a process that was quicker stays.
        """
        target = Path(self.path_for_shard(run_id))
        if target.exists():
            with super().run_connection(run_id):  # waits for whoever is just making it
                return
        fresh = target.with_suffix(f".{os.getpid()}")
        with (
            closing(sqlite3.connect(self.path_for_shard(_INDEX), _BUSY_SECONDS)) as shared,
            closing(sqlite3.connect(fresh)) as made,
        ):
            made.execute("PRAGMA journal_mode=WAL")
            for (statement,) in shared.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            ):
                made.execute(statement)
            made.executemany(
                "INSERT INTO alembic_version VALUES (?)",
                shared.execute("SELECT version_num FROM alembic_version"),
            )
            made.commit()
        with suppress(FileExistsError):
            os.link(fresh, target)
        fresh.unlink()
