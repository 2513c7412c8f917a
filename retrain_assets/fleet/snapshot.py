"""A snapshot: the status of the whole fleet at one moment, and its file.

Belongs here: reading and writing `status.json` in RETRAIN_HOME, and telling whether it may be shown.
Does not: gathering rows, and finding out whether anything has happened since (the orchestration's).

Reading 1,000 models costs seconds, most of them for imports and for the event log. Whoever has just
read them leaves the snapshot behind (the sensor `fleet_status`, `retrain dashboard`, `retrain status`
itself), and `retrain status` shows it, with its age, while it is young and about the same specs. It stays
young for as long as the sensor confirms that nothing has happened since.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from retrain_assets.errors import StatusError
from retrain_assets.fleet.status import StatusRow

__all__ = ["Snapshot", "confirm", "forget", "read_snapshot", "specs_digest", "write_atomically"]

_VERSION = 1
_FILE = "status.json"
_CONFIRMED = "status_confirmed.json"
_SPEC_ENDINGS = (".yaml", ".yml", ".csv", ".parquet")


@dataclass(frozen=True)
class Snapshot:
    """Rows of all models.

    Attributes:
        as_of: when they were read, UTC.
        specs: digest of the spec files that they are about, see `specs_digest`.
        runs_since: from when on runs are counted in `week_seconds`; later than 7 days ago only
            where there were too many runs to read.
        rows: what needs a person first.
        confirmed_at: until when nothing had happened since, UTC; None where nobody has looked.
    """

    as_of: datetime
    specs: str
    runs_since: datetime
    rows: tuple[StatusRow, ...]
    confirmed_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        return {
            "version": _VERSION,
            "as_of": self.as_of.isoformat(),
            "confirmed_at": (self.confirmed_at or self.as_of).isoformat(),
            "specs": self.specs,
            "runs_since": self.runs_since.isoformat(),
            "models": [row.to_dict() for row in self.rows],
        }

    def leave(self, home: Path) -> str:
        """Leave it in `home` for others, atomically; the last of two writers stays.

        Returns:
            Why it could not be written, "" where it was: on a read-only disk everybody reads for
            himself, which is slower and no less right.
        """
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        try:
            write_atomically(home / _FILE, text)
        except StatusError as error:
            return str(error)
        return ""


def read_snapshot(home: Path, specs: str, now: datetime, max_age_seconds: float) -> Snapshot | None:
    """The snapshot in `home`, if it is young, of this release and about these specs.

    Args:
        home: RETRAIN_HOME.
        specs: digest of the spec files as they are now.
        now: the moment.
        max_age_seconds: the oldest that is put up with, counted from when it was last confirmed.

    Raises:
        StatusError: the file is there and cannot be read.
    """
    try:
        text = (home / _FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StatusError(f"{home / _FILE} cannot be read: {error.strerror or error}") from None
    try:
        document = json.loads(text)
        if document["version"] != _VERSION or document["specs"] != specs:
            return None
        as_of = datetime.fromisoformat(document["as_of"])
        confirmed = _confirmed(home, as_of)
        if not 0 <= (now - (confirmed or as_of)).total_seconds() <= max_age_seconds:
            return None
        return Snapshot(
            as_of=as_of,
            specs=specs,
            runs_since=datetime.fromisoformat(document["runs_since"]),
            rows=tuple(StatusRow.from_dict(row) for row in document["models"]),
            confirmed_at=confirmed,
        )
    except (KeyError, TypeError, ValueError):
        # A cache that another release or a failing disk wrote: what it stands for is read again.
        return None


def confirm(home: Path, since: datetime, now: datetime) -> str:
    """Say that nothing has happened between `since` and now: what was read in between is as good as new.

    Of a snapshot that somebody slower had begun to read before, and may leave later, it is not said.

    Returns:
        Why it could not be written, "" where it was, as `Snapshot.leave`.
    """
    text = json.dumps({"since": since.isoformat(), "confirmed_at": now.isoformat()})
    try:
        write_atomically(home / _CONFIRMED, text)
    except StatusError as error:
        return str(error)
    return ""


def _confirmed(home: Path, as_of: datetime) -> datetime | None:
    """When the snapshot that was read at `as_of` was last confirmed; None where it was not, or not since."""
    try:
        document = json.loads((home / _CONFIRMED).read_text(encoding="utf-8"))
        since, until = (
            datetime.fromisoformat(document[name]) for name in ("since", "confirmed_at")
        )
        return until if since <= as_of < until else None
    except (OSError, KeyError, TypeError, ValueError):
        # Nobody has confirmed it, or a failing disk wrote that: the snapshot is as old as it says.
        return None


def forget(home: Path) -> None:
    """Remove the snapshot: whoever changes a champion by hand wants to see it at once.

    Raises:
        StatusError: it cannot be removed.
    """
    try:
        (home / _FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StatusError(f"{home / _FILE} cannot be removed: {error.strerror or error}") from None


def specs_digest(paths: Iterable[Path | str]) -> str:
    """Digest of the names and contents of spec files and of the tables of fleets beside them."""
    digest = hashlib.blake2b(digest_size=16)
    for given in map(Path, paths):
        files = (
            sorted(path for path in given.rglob("*") if path.suffix in _SPEC_ENDINGS)
            if given.is_dir()
            else [given]
        )
        for file in files:
            if file.is_file():
                content = file.read_bytes()
                digest.update(f"{file.absolute()}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that no reader ever sees half of.

    Raises:
        StatusError: it cannot be written.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StatusError(f"{path} cannot be written: {error.strerror or error}") from None
