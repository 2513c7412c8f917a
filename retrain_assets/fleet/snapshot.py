"""A snapshot: the status of the whole fleet at one moment, and its file.

Belongs here: what a snapshot is, how old, about which specs; `status.json` in RETRAIN_HOME. Does not:
gathering rows, the snapshot of the fleet's sensor (`shared_snapshot`), finding out whether anything has
happened since (the orchestration's).

Reading 1,000 models costs seconds, most of them for imports and for the event log. `retrain status` and
`retrain dashboard` leave what they have read in the file, the sensor `fleet_status` in the ledger's
database, and `retrain status` shows the newer one, with its age, while it is young and about the same
specs.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from retrain_assets.errors import StatusError
from retrain_assets.fleet.status import StatusRow

__all__ = ["Snapshot", "forget", "read_snapshot", "specs_digest", "write_atomically"]

_VERSION = 1
_FILE = "status.json"
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
            "confirmed_at": self.good_until.isoformat(),
            "specs": self.specs,
            "runs_since": self.runs_since.isoformat(),
            "models": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_json(
        cls, text: str | bytes, specs: str, confirmed_at: datetime | None = None
    ) -> "Snapshot | None":
        """The snapshot that `to_dict` was called on; None of another release or about other specs.

        Args:
            text: what somebody has stored.
            specs: digest of the spec files as they are now.
            confirmed_at: until when nothing had happened since.
        """
        try:
            document = json.loads(text)
            if document["version"] != _VERSION or document["specs"] != specs:
                return None
            return cls(
                as_of=datetime.fromisoformat(document["as_of"]),
                specs=specs,
                runs_since=datetime.fromisoformat(document["runs_since"]),
                rows=tuple(StatusRow.from_dict(row) for row in document["models"]),
                confirmed_at=confirmed_at,
            )
        except (KeyError, TypeError, ValueError):
            # A cache that another release or a failing disk wrote: what it stands for is read again.
            return None

    @property
    def good_until(self) -> datetime:
        """Until when it is known to have been so."""
        return self.confirmed_at or self.as_of

    def is_young(self, now: datetime, max_age_seconds: float) -> bool:
        """Whether it may be shown; one from the future may not: a clock is wrong."""
        return 0 <= (now - self.good_until).total_seconds() <= max_age_seconds

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


def read_snapshot(home: Path, specs: str) -> Snapshot | None:
    """The snapshot in `home`, if it is of this release and about these specs.

    Args:
        home: RETRAIN_HOME.
        specs: digest of the spec files as they are now.

    Raises:
        StatusError: the file is there and cannot be read.
    """
    try:
        text = (home / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StatusError(f"{home / _FILE} cannot be read: {error.strerror or error}") from None
    return Snapshot.from_json(text, specs)


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
    """Digest of the names and contents of spec files and of the tables of fleets beside them.

    The same for the same files in another folder: those of an image and of a checkout. Hidden files
    and folders are no spec files; a mounted ConfigMap has such, named after the moment.
    """
    digest = hashlib.blake2b(digest_size=16)
    for given in map(Path, paths):
        folder, files = given.parent, [given]
        if given.is_dir():
            folder, files = given, sorted(_spec_files(given))
        for file in files:
            if file.is_file():
                content = file.read_bytes()
                digest.update(f"{os.path.relpath(file, folder)}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def _spec_files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(_SPEC_ENDINGS) and not name.startswith("."):
                yield Path(where, name)


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
