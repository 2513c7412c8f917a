"""Validated specs from an earlier load: a thousand files cost a second and a half of YAML and rules.

Belongs here: what an entry stands for, and when it is not believed. Does not: loading (`loading`).

An entry is found by the content of the spec file and of every file that it reads, and holds the
validated specs as JSON, which is validated again. Everything else that a spec's meaning depends on
(this package's code, Python, pydantic) is in the name of the cache file. Functions that specs name
are looked up afresh. A cache that is missing, damaged or not writable changes nothing but the time.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

from retrain_assets import __version__
from retrain_assets.spec.model import ModelSpec

__all__ = ["SpecCache"]

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 2.0
"""A file that was written a moment ago may change again while its time stamp stays."""

Rows = list[tuple[int | None, ModelSpec]]


class SpecCache:
    """The entries of one set of paths, in one file of a folder that exists already."""

    def __init__(self, folder: Path, paths: Iterable[Path | str]) -> None:
        places = "\n".join(sorted(str(Path(path).resolve()) for path in paths))
        name = hashlib.sha256(f"{_code()}\n{places}".encode()).hexdigest()[:16]
        self._file = folder / f"specs-{name}.json"
        self._entries: dict[str, Any] = self._read()
        self._kept: dict[str, Any] = {}
        self._digests: dict[Path, str | None] = {}
        self._folders: dict[Path, Path] = {}
        self._started = time.time()

    def get(self, file: Path) -> Rows | None:
        """The specs of a file with their rows; None where it is not known as it is now."""
        key = self._place(file)
        entry = self._entries.get(key)
        try:
            if not entry or any(self._digest(Path(p)) != d for p, d in entry["files"].items()):
                return None
            rows = [(row, ModelSpec.model_validate_json(text)) for row, text in entry["specs"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _log.debug("ignoring the cached specs of %s: %s", file, error)
            return None
        self._kept[key] = entry
        return rows

    def put(self, file: Path, reads: Sequence[Path], specs: Rows) -> None:
        """Keep the specs of a file that also reads `reads`."""
        files = {place: self._digest(Path(place)) for place in map(self._place, (file, *reads))}
        if None in files.values() or any(map(self._is_fresh, (file, *reads))):
            return
        texts = [(row, spec.model_dump_json()) for row, spec in specs]
        for (_, spec), (_, text) in zip(specs, texts, strict=True):
            if ModelSpec.model_validate_json(text) != spec:
                return
        self._kept[self._place(file)] = {"files": files, "specs": texts}

    def save(self) -> None:
        """Write the entries that were found or kept, if anything changed."""
        folder = self._file.parent
        if self._kept.keys() == self._entries.keys() and all(
            self._kept[key] is self._entries[key] for key in self._kept
        ):
            return
        draft = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            folder.mkdir(exist_ok=True)
            draft.write_text(json.dumps(self._kept), encoding="utf-8")
            draft.replace(self._file)
        except OSError as error:
            _log.debug("the cache of specs cannot be written: %s", error)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.debug("ignoring the cache of specs: %s", error)
            return {}
        return found if isinstance(found, dict) else {}

    def _digest(self, path: Path) -> str | None:
        if path not in self._digests:
            try:
                self._digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError:
                self._digests[path] = None
        return self._digests[path]

    def _place(self, file: Path) -> str:
        """Where relative paths of the file start, and its name: a link is another spec than its target."""
        folder = file.parent
        if folder not in self._folders:
            self._folders[folder] = folder.resolve()
        return str(self._folders[folder] / file.name)

    def _is_fresh(self, path: Path) -> bool:
        return path.stat().st_mtime > self._started - _FRESH_SECONDS


@cache
def _code() -> str:
    """What a spec's meaning depends on beside its files."""
    versions = (__version__, platform.python_version(), pydantic.VERSION)
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return "\n".join((*versions, digest))
