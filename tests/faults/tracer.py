"""Kills the process at its n-th state-changing step, whatever code takes it.

A step is what another process could see after a crash: a file opened for writing, a rename or a
removal under the watched folder, an INSERT, UPDATE, DELETE or schema change, and the commit of a
transaction that had one. The kill comes *before* the step, so that killing at every step visits every
state between two of them, in this package's code, in MLflow's and in pyarrow's callers alike.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STATEMENTS = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")


class Tracer:
    """Counts the steps of this process under `folder`; dies at step `kill_at` (1 is the first).

    Args:
        folder: files outside are not state (temporary folders).
        kill_at: the step; None only counts.
    """

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        self.steps: list[str] = []
        self._folder = str(folder)
        self._kill_at = kill_at

    def install(self) -> None:
        """Watch from now on; there is no way back but the end of the process."""
        sys.addaudithook(self._audit)
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", self._statement)
        sa.event.listen(sa.engine.Engine, "commit", self._commit)

    def _reached(self, step: str) -> None:
        self.steps.append(step)
        if len(self.steps) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._file("write", path)
        elif event in ("os.rename", "os.link"):
            self._file(event.removeprefix("os."), arguments[1])
        elif event in ("os.remove", "os.truncate"):
            self._file(event.removeprefix("os."), arguments[0])

    def _file(self, what: str, path: object) -> None:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if isinstance(text, str) and text.startswith(self._folder):
            self._reached(f"{what} {text.removeprefix(self._folder).lstrip('/')}")

    def _statement(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split(None, 3)
        if words[0].upper() in _STATEMENTS:
            connection.info["written"] = True
            self._reached(" ".join(words[:3]))

    def _commit(self, connection: Any) -> None:
        if connection.info.pop("written", False):
            self._reached("COMMIT")


def in_a_fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its exit code, negative for the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
