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
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef
    from sqlalchemy.engine import Connection, Engine

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
        self._engines: dict[str, Engine] = {}
        self._open: dict[str, Connection] = {}
        self._held: list[dg.EventLogEntry] = []
        self._tables: set[str] = set()
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
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def dispose(self) -> None:
        """Store what is held and close the files."""
        with self._mutex:
            self._flush()
            for engine in self._engines.values():
                engine.dispose()
            self._engines = {}
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
            with self._engine(shard).begin() as connection:
                self._open[shard] = connection
                try:
                    yield connection
                finally:
                    del self._open[shard]

    def _engine(self, shard: str) -> "Engine":
        """An engine with one connection; those of earlier runs are closed."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        if shard not in self._engines:
            if shard != _INDEX:
                for earlier in [*self._engines.keys() - {_INDEX} - self._open.keys()]:
                    self._engines.pop(earlier).dispose()
                self._make(shard)
            self._engines[shard] = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=StaticPool,
                connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            )
        return self._engines[shard]

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
