"""What was computed before, by what it was computed from.

Belongs here: keeping small JSON results in one sqlite file. Does not: what they mean. A key is the hash
of everything that decides the result, so nothing is ever out of date, and a replay that was killed
begins where it stopped. Several processes may use the file at once.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Memo"]

_FORMAT = 1
"""Raised with any change of what a kind's result is made of."""

_COMMIT_EVERY = 200


class Memo:
    """Results by kind and what they were made from.

    Args:
        file: the sqlite file, made where needed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Memo(Path(folder) / "memo.sqlite") as memo:
    ...     memo.get("sum", [1, 2], lambda: 3), memo.get("sum", [1, 2], lambda: 4)
    (3, 3)
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, timeout=60, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What a power cut takes is computed again.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS memo (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
        )
        self._held: dict[str, Any] = {}
        self._unsaved: dict[str, str] = {}

    def __enter__(self) -> "Memo":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.save()
        self._connection.close()

    def get(self, kind: str, made_from: Sequence[Any], compute: Callable[[], Any]) -> Any:
        """The result, computed where it is not known.

        Args:
            kind: what it is.
            made_from: everything that decides it, as JSON.
            compute: gives it, as JSON.
        """
        key = _key(kind, made_from)
        if not self._holds(key):
            self._held[key] = compute()
            self._unsaved[key] = json.dumps(self._held[key], allow_nan=False)
            if len(self._unsaved) >= _COMMIT_EVERY:
                self.save()
        return self._held[key]

    def _holds(self, key: str) -> bool:
        if key in self._held:
            return True
        row = self._connection.execute("SELECT value FROM memo WHERE key = ?", (key,)).fetchone()
        if row is not None:
            self._held[key] = json.loads(row[0])
        return row is not None

    def save(self) -> None:
        """Write what is new, in one transaction."""
        if not self._unsaved:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        # Two replays that computed the same result agree.
        self._connection.executemany(
            "INSERT OR IGNORE INTO memo VALUES (?, ?)", self._unsaved.items()
        )
        self._connection.execute("COMMIT")
        self._unsaved.clear()


def _key(kind: str, made_from: Sequence[Any]) -> str:
    text = json.dumps([_FORMAT, kind, *made_from], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
