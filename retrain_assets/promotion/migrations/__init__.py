"""How an older database becomes one of this release: Alembic revisions, applied on first use.

Belongs here: finding out which revision a database has, and applying what is missing. Does not: the
tables (`promotion.tables`), the changes themselves (`versions/`, one file each, numbered).

A new revision: change `tables.py`, write `versions/rNNNN_what.py` after its neighbours (the operations
by hand, from Alembic's `op`), add the number to `REVISIONS`. Revisions only add, so that a release works on
a database that a newer one has upgraded: pods of the old image while a deployment goes on, and after
it was taken back. One that does more takes the next thousand (`1001`), which older releases refuse.

A database that is current costs one query and no import of Alembic.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.errors import LedgerError
from retrain_assets.promotion.tables import REVISIONS, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine, Select

__all__ = ["configuration", "upgrade"]

# Chosen once, at random: on PostgreSQL it keeps two processes from upgrading at the same time.
_LOCK = 7_245_018_310_663_091_517
_SWITCH_SECONDS = 30
_SWITCH_PAUSE = 0.02


def upgrade(engine: "Engine") -> None:
    """Bring the database to the revision of this release; nothing where it is there.

    Several processes may call it at once: one upgrades, in one transaction, and the others wait. A
    kill leaves the database as it was.

    Raises:
        LedgerError: the database has a revision that this release does not know.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses.
    """
    import sqlalchemy as sa

    with engine.connect().execution_options(ledger_write=False) as connection:
        if _is_current(connection):
            return
    if engine.dialect.name == "sqlite":
        _use_write_ahead_log(engine)
    # On sqlite every transaction of this engine takes the file's write lock when it begins.
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        if _revision(connection) != REVISIONS[-1]:
            _apply(connection)


def configuration(connection: "Connection") -> "Config":
    """Alembic's configuration for one connection, which `env.py` uses as it is."""
    from alembic.config import Config

    config = Config()
    # Alembic interpolates %(…)s in its options.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _apply(connection: "Connection") -> None:
    from alembic import command

    command.upgrade(configuration(connection), REVISIONS[-1])


def _is_current(connection: "Connection") -> bool:
    """Whether this release can use the database as it is, in one query; any doubt is left to `_revision`."""
    import sqlalchemy as sa

    try:
        found = connection.execute(_stored_revision()).scalar()
        return found == REVISIONS[-1] or (found is not None and _only_adds(found))
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):
        return False  # no version table, most likely


def _revision(connection: "Connection") -> str | None:
    """The database's revision; this release's own where newer ones have only added to it.

    None where nothing, or a release before migrations, has made it.
    """
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(_stored_revision()).scalar()
    if found is None or found in REVISIONS:
        return found
    if _only_adds(found):
        return REVISIONS[-1]
    raise LedgerError(
        f"the promotion ledger's database has revision {found}, which this release does not know "
        f"(its own is {REVISIONS[-1]}): a newer release has upgraded it; install that release here "
        "too, or restore the database from before the upgrade"
    )


def _only_adds(found: str) -> bool:
    """Whether a revision is a newer one of the same thousand."""
    ours = REVISIONS[-1]
    return found.isdecimal() and len(found) == len(ours) and found[0] == ours[0] and found > ours


def _stored_revision() -> "Select[str]":
    import sqlalchemy as sa

    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
    return sa.select(version.c.version_num)


def _use_write_ahead_log(engine: "Engine") -> None:
    """Let readers work while a writer holds the file; the mode stays with the file.

    sqlite does not wait for its turn here: against another connection's write lock, which a process
    that switches the mode at the same moment has, the pragma fails at once whatever the busy timeout.
    """
    import sqlite3

    import sqlalchemy as sa

    pragma = "PRAGMA journal_mode=WAL"
    until = time.monotonic() + _SWITCH_SECONDS
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        while True:
            try:
                raw.execute(pragma).close()
                return
            except sqlite3.Error as error:
                busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise sa.exc.DBAPIError(pragma, None, error) from error
            time.sleep(_SWITCH_PAUSE)
