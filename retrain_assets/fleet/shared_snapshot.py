"""The snapshot of the fleet's sensor, in the ledger's database, where every process finds it.

Belongs here: leaving, confirming and reading it. Does not: what it says and the command's own file
(`snapshot`), finding out whether anything has happened since (the orchestration's).

On Kubernetes the daemon and whoever asks for the status share no disk, but they share the ledger. One
row for each state of the spec files; a row is replaced, not added to, and means nothing but time saved.
"""

import json
import zlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.promotion.database import LostRace, insert_row
from retrain_assets.promotion.ledger import Ledger, written
from retrain_assets.promotion.tables import status_snapshots

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["SharedSnapshot"]

_KEPT = timedelta(days=1)
"""Of spec files that nobody has any more; a deployment that is rolled back finds its own for as long."""


class SharedSnapshot:
    """What the sensor `fleet_status` has read and confirmed last.

    Args:
        ledger: whose database it is in.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database

    def leave(self, snapshot: Snapshot) -> None:
        """Put it in the place of an older one of the same specs; a newer one stays.

        Raises:
            LedgerError: the database cannot be used.
        """
        text = json.dumps(snapshot.to_dict(), separators=(",", ":"))
        try:
            with self._database.transaction(write=True) as connection:
                self._remove_older(connection, snapshot)
                insert_row(
                    connection,
                    status_snapshots(),
                    {
                        "specs": snapshot.specs,
                        "as_of": written(snapshot.as_of),
                        "body": zlib.compress(text.encode()),
                    },
                )
        except LostRace:
            return  # another daemon, in the middle of a deployment, has read later

    def _remove_older(self, connection: "Connection", snapshot: Snapshot) -> None:
        import sqlalchemy as sa

        table = status_snapshots()
        replaced = (table.c.specs == snapshot.specs) & (table.c.as_of <= written(snapshot.as_of))
        forgotten = table.c.as_of < written(snapshot.as_of - _KEPT)
        connection.execute(sa.delete(table).where(replaced | forgotten))

    def confirm(self, since: datetime, now: datetime) -> bool:
        """Say that nothing has happened between `since` and now: what was read in between is as good as new.

        Of what somebody slower had begun to read before it is not said, however late he left it.

        Returns:
            Whether there is a snapshot that this is about.

        Raises:
            LedgerError: the database cannot be used.
        """
        import sqlalchemy as sa

        table = status_snapshots()
        with self._database.transaction(write=True) as connection:
            confirmed = connection.execute(
                sa.update(table)
                .where(table.c.as_of >= written(since))
                .values(confirmed_at=written(now))
            )
            return confirmed.rowcount > 0

    def read(self, specs: str) -> Snapshot | None:
        """The one about these specs; None where there is none of this release.

        Args:
            specs: digest of the spec files, see `snapshot.specs_digest`.

        Raises:
            LedgerError: the database cannot be used.
        """
        import sqlalchemy as sa

        table = status_snapshots()
        query = sa.select(table.c.body, table.c.confirmed_at).where(table.c.specs == specs)
        with self._database.transaction() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        try:
            text = zlib.decompress(row.body)
        except zlib.error:
            return None  # torn, or of another release: as what `from_json` does not understand
        confirmed = None if row.confirmed_at is None else datetime.fromisoformat(row.confirmed_at)
        return Snapshot.from_json(text, specs, confirmed)

    def forget(self) -> None:
        """Remove it: whoever changes a champion by hand wants to see it at once.

        Raises:
            LedgerError: the database cannot be used.
        """
        import sqlalchemy as sa

        with self._database.transaction(write=True) as connection:
            connection.execute(sa.delete(status_snapshots()))
