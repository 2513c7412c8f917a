"""The ledger's database: connections, transactions and errors.

Belongs here: how the database is reached. Does not: its tables (`tables`), how they change
(`migrations`), what is read and written (`ledger`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

__all__ = ["Database", "LostRace", "insert_row"]

_CONNECT_SECONDS = 5
_BUSY_SECONDS = 30


class Database:
    """One database, sqlite (default) or PostgreSQL (`postgresql+psycopg2://`).

    Connects when first used and holds no connection between calls, so that an instance may live in
    a daemon, be used from several threads and survive a fork. The first use of an instance brings
    the tables to this release's revision.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None
        self._current = False

    @contextmanager
    def transaction(self, *, write: bool = False) -> "Iterator[Connection]":
        """A transaction on a database that has the tables; committed unless the body raises.

        Args:
            write: whether the body writes. On sqlite such transactions take turns from their
                beginning, so that what the body reads first still holds when it writes.

        Raises:
            LedgerError: the database cannot be reached or refuses; the message names the URL without
                its password.
        """
        import sqlalchemy as sa

        engine = self.engine()
        try:
            if not self._current:
                from retrain_assets.promotion.migrations import upgrade

                upgrade(engine)
                self._current = True
            with engine.connect() as connection:
                connection = connection.execution_options(ledger_write=write)
                with connection.begin():
                    yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(
                f"promotion ledger {_shown(engine)}: {_cause(error, engine)}; check that the "
                "database runs, that its disk has space, that the URL is right and that the user may "
                "create and write tables"
            ) from None

    def engine(self) -> "Engine":
        """SQLAlchemy's engine, which connects to nothing until it is used."""
        if self._engine is None:
            self._engine = _engine(self._url)
        return self._engine


class LostRace(Exception):
    """Another writer inserted the same sequence first; never leaves `promotion`."""


def insert_row(connection: "Connection", table: "Table", values: Mapping[str, Any]) -> None:
    """Insert one row; LostRace where its unique key is taken."""
    import sqlalchemy as sa

    try:
        connection.execute(sa.insert(table).values(**values))
    except sa.exc.IntegrityError:
        raise LostRace from None


def _engine(url: str) -> "Engine":
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        # The text of SQLAlchemy's error may repeat the URL, and with it the password.
        raise LedgerError(
            "promotion ledger: the URL is not a SQLAlchemy URL; write for example "
            "sqlite:////data/ledger.db or postgresql+psycopg2://user:password@host:5432/database"
        ) from None
    sqlite = parsed.get_backend_name() == "sqlite"
    options = {"timeout": _BUSY_SECONDS} if sqlite else {"connect_timeout": _CONNECT_SECONDS}
    try:
        engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=options)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise LedgerError(
            f"promotion ledger: no driver for '{parsed.drivername}' ({error}); use sqlite:///… or "
            "postgresql+psycopg2://… and install retrain-assets[postgres]"
        ) from None
    if sqlite:
        _begin_explicitly(engine)
    return engine


def _begin_explicitly(engine: "Engine") -> None:
    """Let the ledger, not the sqlite3 module, say when a transaction begins.

    A transaction that reads first and then writes fails at once when another wrote in between,
    whatever the busy timeout; BEGIN IMMEDIATE waits for its turn instead.
    """
    import sqlalchemy as sa

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    def on_begin(connection: "Connection") -> None:
        write = connection.get_execution_options().get("ledger_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)


def _shown(engine: "Engine") -> str:
    """The URL without password and without its query, which may hold one too."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def _cause(error: Exception, engine: "Engine") -> str:
    """The driver's own words: SQLAlchemy's would repeat the statement and its values."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    password = engine.url.password
    return text.replace(str(password), "***") if password else text
