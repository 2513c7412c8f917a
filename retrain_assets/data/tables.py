"""Tables at rest: Parquet files and small documents on a local disk or an object store.

Belongs here: paths, atomic writes, reading several partitions as one table, fingerprints. Does not:
what a table means, partitions as times (`spec.partitions`), and who asks for it.

A file is whole or absent. On a local disk it is written under a temporary name in the same folder,
synced and renamed; on an object store it is one put, or an upload in parts that its last request makes
visible. Equal tables give equal bytes, so the SHA-256
of a file is the fingerprint of its content (for one version of Arrow).

Layout: `{base}/tables/{model}/{table}/{partition}.parquet`,
`{base}/profiles/{model}/{table}/{partition}.profile` (what `drift.stored` knows of a table without
its rows) and `{base}/documents/{model}/{name}/{partition}.json`, with `all` where there are no
partitions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa

from retrain_assets.data.arrow import concatenate, duplicates, plain
from retrain_assets.errors import TableError

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from upath import UPath

__all__ = ["PARTITION_COLUMN", "StoredTable", "TableDescription", "TableStore", "file_stem"]

PARTITION_COLUMN = "__partition__"
"""Column that `TableStore.read_with_partition` adds."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0
_ROW_GROUP = 1 << 20
_READ_AHEAD = 16


@dataclass(frozen=True)
class StoredTable:
    """What was written.

    Attributes:
        path: path or URL of the file.
        sha256: hexadecimal SHA-256 of the file's bytes.
        rows: number of rows.
        size_bytes: size of the file.
    """

    path: str
    sha256: str
    rows: int
    size_bytes: int


@dataclass(frozen=True)
class TableDescription:
    """What a file says about itself, without its rows.

    Attributes:
        path: path or URL of the file.
        rows: number of rows.
        size_bytes: size of the file.
        columns: Arrow type of every column, in order.
    """

    path: str
    rows: int
    size_bytes: int
    columns: dict[str, str]


def file_stem(partition: str | None) -> str:
    """File name, without ending, of a partition key; None (no partitions) is `all`.

    Characters other than letters, digits, `_`, `-` and `.` are percent-encoded, and so is the first
    letter of a key that would look like something else, so that every key has its own name.

    >>> file_stem("2013-01-01"), file_stem("2013-01-01-05:00"), file_stem(None), file_stem("all")
    ('2013-01-01', '2013-01-01-05%3A00', 'all', '%61ll')

    Raises:
        TableError: the key is empty.
    """
    if partition is None:
        return "all"
    if partition == "":
        raise TableError("a partition key must not be empty; without partitions, pass None")
    if partition == "all" or partition.startswith("."):
        return f"%{ord(partition[0]):02X}{quote(partition[1:], safe='')}"
    return quote(partition, safe="")


def _label(partition: str | None) -> str:
    return "all" if partition is None else partition


def _parsed(path: UPath, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise TableError(f"{path}: not readable as JSON: {error}") from error


def _encode(table: pa.Table) -> bytes:
    """Parquet bytes that depend only on the values, names and types of `table`."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(plain(table), sink, compression="zstd", row_group_size=_ROW_GROUP)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _remove_stale(folder: Path) -> None:
    """Remove temporaries of killed writers.

    Age decides, since a process id says nothing across machines and pods; a live writer touches its
    file far more often than that.
    """
    limit = time.time() - _STALE_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY):
                try:
                    if entry.stat().st_mtime < limit:
                        os.unlink(entry.path)
                except FileNotFoundError:
                    continue  # its writer was alive and has just renamed it


def _replace_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent)
    temporary = path.parent / f".{uuid.uuid4().hex}{_TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself must survive a power cut too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class TableStore:
    """Tables and small documents of all models under one folder or URL.

    Args:
        base: local folder, or URL of any fsspec filesystem that puts an object in one piece.
        storage_options: options of the filesystem, credentials among them.

    Raises:
        TableError: on the first use, where `base` holds credentials or names an unknown filesystem.
    """

    def __init__(self, base: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.base = base
        self.storage_options = dict(storage_options or {})

    def __repr__(self) -> str:
        return f"TableStore({self.base!r})"

    @cached_property
    def _root(self) -> UPath:
        from upath import UPath

        if re.search(r"://[^/]*@", self.base):
            raise TableError(
                "the store's URL must not hold credentials, since paths are shown in the UI; "
                "put them into storage_options"
            )
        try:
            root: UPath = UPath(self.base, **self.storage_options)
            if root.protocol in ("", "file", "local"):
                return UPath(os.path.abspath(root.path))
            _ = root.fs
        except (ValueError, ImportError) as error:
            raise TableError(f"{self.base}: not a usable store: {error}") from error
        return root

    @cached_property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What the filesystem raises when it cannot be used: the S3 client has errors of its own."""
        if self._is_local or "s3" not in self._root.protocol:
            return (OSError,)
        from botocore.exceptions import BotoCoreError

        return (OSError, BotoCoreError)

    @cached_property
    def _is_local(self) -> bool:
        return isinstance(self._root, Path)

    def _folder(self, kind: str, model: str, name: str) -> UPath:
        for what, value in (("model", model), ("table", name)):
            if not _NAME.fullmatch(value):
                raise TableError(
                    f"a {what}'s name is letters, digits, '_', '-' and '.', got {value!r}"
                )
        folder: UPath = self._root / kind / model / name
        return folder

    def _table(self, model: str, table: str, partition: str | None) -> UPath:
        return self._tables(model, table, [partition])[0]

    def _tables(self, model: str, table: str, partitions: Sequence[str | None]) -> list[UPath]:
        # A join of paths takes longer than the read of a small partition.
        folder = self._folder("tables", model, table)
        return [folder / f"{file_stem(partition)}.parquet" for partition in partitions]

    def _profile(self, model: str, table: str, partition: str | None) -> UPath:
        return self._profiles(model, table, [partition])[0]

    def _profiles(self, model: str, table: str, partitions: Sequence[str | None]) -> list[UPath]:
        folder = self._folder("profiles", model, table)
        return [folder / f"{file_stem(partition)}.profile" for partition in partitions]

    def _document(self, model: str, name: str, partition: str | None) -> UPath:
        return self._folder("documents", model, name) / f"{file_stem(partition)}.json"

    # -- bytes ------------------------------------------------------------------------------------

    def _put(self, path: UPath, data: bytes) -> None:
        try:
            if self._is_local:
                _replace_file(Path(path.path), data)
            else:
                path.fs.pipe_file(path.path, data)
        except self._failures as error:
            reason = getattr(error, "strerror", None) or error
            raise TableError(f"{path}: cannot be written: {reason}") from error

    def _get(self, paths: Sequence[UPath]) -> list[bytes | None]:
        """Contents in order, None where there is no such file; object stores are read at once."""
        if self._is_local:
            return [self._get_local(Path(path.path)) for path in paths]
        fs = self._root.fs
        found = fs.cat([path.path for path in paths], on_error="return")
        contents: list[bytes | None] = []
        for path in paths:
            content = found[path.path]
            if isinstance(content, FileNotFoundError):
                contents.append(None)
            elif isinstance(content, BaseException):
                raise TableError(f"{path}: cannot be read: {content}") from content
            else:
                contents.append(content)
        return contents

    def _get_local(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TableError(f"{path}: cannot be read: {error.strerror or error}") from error

    def _is_file(self, path: UPath) -> bool:
        fs = self._root.fs
        # Another process may have written since this one listed the folder.
        fs.invalidate_cache(path.parent.path)
        try:
            return bool(fs.info(path.path)["type"] == "file")
        except FileNotFoundError:
            return False
        except self._failures as error:
            raise TableError(f"{path}: cannot be looked for: {error}") from error

    def _keys(self, folder: UPath, ending: str) -> list[str]:
        fs = self._root.fs
        fs.invalidate_cache(folder.path)
        try:
            paths = fs.ls(folder.path, detail=False)
        except FileNotFoundError:
            return []
        except self._failures as error:
            raise TableError(f"{folder}: cannot be listed: {error}") from error
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        stems = (name.removesuffix(ending) for name in names if name.endswith(ending))
        return sorted(
            unquote(stem) for stem in stems if stem != "all" and stem[:1] not in ("", ".")
        )

    def _relative(self, path: str) -> UPath:
        parts = path.split("/")
        if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise TableError(f"a path in the store is relative and without '..', got {path!r}")
        return self._root.joinpath(*parts)

    def write_bytes(self, path: str, data: bytes) -> str:
        """Write `data` atomically at `path` (relative to the store); returns the full path.

        Raises:
            TableError: the path leaves the store, or cannot be written.
        """
        target = self._relative(path)
        self._put(target, data)
        return str(target)

    def read_bytes(self, path: str) -> bytes:
        """Content of the file at `path` (relative to the store).

        Raises:
            TableError: it is missing or unreadable.
        """
        target = self._relative(path)
        (content,) = self._get([target])
        if content is None:
            raise TableError(f"{target}: there is no such file")
        return content

    def file_exists(self, path: str) -> bool:
        """Whether there is a file at `path` (relative to the store)."""
        return self._is_file(self._relative(path))

    # -- tables -----------------------------------------------------------------------------------

    def write(self, model: str, table: str, partition: str | None, data: pa.Table) -> StoredTable:
        """Write one partition atomically, over what was there.

        Categories are stored as their values; metadata of the schema is not stored.

        Args:
            model: name of the model.
            table: name of the table.
            partition: key, None for a table without partitions.
            data: any number of rows; column names are unique.

        Raises:
            TableError: names are bad, or the file cannot be written.
        """
        path = self._table(model, table, partition)
        if twice := duplicates(data.column_names):
            raise TableError(f"{path}: column names must be unique, got twice: {', '.join(twice)}")
        try:
            content = _encode(data)
        except pa.ArrowException as error:
            raise TableError(f"{path}: cannot be stored as Parquet: {error}") from error
        self._put(path, content)
        digest = hashlib.sha256(content).hexdigest()
        return StoredTable(str(path), digest, data.num_rows, len(content))

    def _missing(
        self, model: str, table: str, missing: list[tuple[str | None, UPath]]
    ) -> TableError:
        keys = ", ".join(_label(key) for key, _ in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        return TableError(
            f"{model}/{table}: {len(missing)} missing partition{'s' * (len(missing) > 1)}: "
            f"{keys}{more} (looked for {missing[0][1]}); materialize them first"
        )

    def _contents(
        self, model: str, table: str, partitions: Sequence[str | None]
    ) -> list[tuple[UPath, bytes]]:
        if not partitions:
            raise TableError(f"{model}/{table}: no partition was asked for")
        paths = self._tables(model, table, partitions)
        contents = self._get(paths)
        missing = [
            (partition, path)
            for partition, path, content in zip(partitions, paths, contents, strict=True)
            if content is None
        ]
        if missing:
            raise self._missing(model, table, missing)
        return [(p, c) for p, c in zip(paths, contents, strict=True) if c is not None]

    def _parquet(self, path: UPath, content: bytes) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(pa.BufferReader(content))
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{path}: not a readable Parquet file: {error}; materialize this partition again"
            ) from error

    def _rows(self, path: UPath, content: bytes, columns: Sequence[str] | None) -> pa.Table:
        file = self._parquet(path, content)
        wanted = None
        if columns is not None:
            names = set(file.schema_arrow.names)
            wanted = [name for name in columns if name in names]
        try:
            return file.read(columns=wanted)
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{path}: damaged Parquet file: {error}; materialize this partition again"
            ) from error

    def _read_pieces(
        self,
        model: str,
        table: str,
        partitions: Sequence[str | None],
        columns: Sequence[str] | None,
    ) -> tuple[pa.Table, list[int]]:
        contents = self._contents(model, table, partitions)
        pieces = [
            (f"partition {_label(partition)}", self._rows(path, content, columns))
            for partition, (path, content) in zip(partitions, contents, strict=True)
        ]
        data = concatenate(pieces, f"{model}/{table}", TableError)
        if columns is not None:
            absent = [name for name in columns if name not in data.column_names]
            if absent:
                raise TableError(
                    f"{model}/{table}: no partition of {_label(partitions[0])} to "
                    f"{_label(partitions[-1])} has column {', '.join(absent)}"
                )
            data = data.select(list(columns))
        return data, [piece.num_rows for _, piece in pieces]

    def read(
        self,
        model: str,
        table: str,
        partitions: Sequence[str | None],
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read partitions, in the order given, as one table.

        A column that a partition lacks is null there; columns of nulls and of whole numbers take
        the wider type of the other partitions.

        Args:
            model: name of the model.
            table: name of the table.
            partitions: keys; `[None]` for a table without partitions.
            columns: columns to read, in this order; by default all.

        Raises:
            TableError: no partitions given; partitions are missing (names all) or damaged (names
                the file); a column exists nowhere, or with types that cannot be joined.
        """
        return self._read_pieces(model, table, partitions, columns)[0]

    def read_with_partition(
        self,
        model: str,
        table: str,
        partitions: Sequence[str | None],
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """As `read`, with the dictionary column `__partition__`, the key that a row comes from."""
        data, rows = self._read_pieces(model, table, partitions, columns)
        indices = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
        labels = pa.array([_label(partition) for partition in partitions], pa.string())
        return data.append_column(PARTITION_COLUMN, pa.DictionaryArray.from_arrays(indices, labels))

    def read_each(
        self, model: str, table: str, partitions: Sequence[str | None]
    ) -> Iterator[pa.Table]:
        """As `read`, one table per partition, of which few are in memory at a time."""
        for start in range(0, len(partitions), _READ_AHEAD):
            for path, content in self._contents(
                model, table, partitions[start : start + _READ_AHEAD]
            ):
                yield self._rows(path, content, None)

    def exists(self, model: str, table: str, partition: str | None) -> bool:
        """Whether the partition has been written."""
        return self._is_file(self._table(model, table, partition))

    def partitions(self, model: str, table: str) -> list[str]:
        """Keys of the partitions that have been written, sorted; one listing call."""
        return self._keys(self._folder("tables", model, table), ".parquet")

    def fingerprints(
        self, model: str, table: str, partitions: Sequence[str | None]
    ) -> dict[str, str]:
        """Hexadecimal SHA-256 of each partition's file, by key (`all` without partitions).

        Raises:
            TableError: partitions are missing or unreadable.
        """
        contents = self._contents(model, table, partitions)
        return {
            _label(partition): hashlib.sha256(content).hexdigest()
            for partition, (_, content) in zip(partitions, contents, strict=True)
        }

    def describe(self, model: str, table: str, partition: str | None) -> TableDescription:
        """Rows, size and columns of one partition.

        Raises:
            TableError: it is missing or damaged.
        """
        ((path, content),) = self._contents(model, table, [partition])
        file = self._parquet(path, content)
        columns = {field.name: str(field.type) for field in file.schema_arrow}
        return TableDescription(str(path), file.metadata.num_rows, len(content), columns)

    # -- profiles ---------------------------------------------------------------------------------

    def write_profile(self, model: str, table: str, partition: str | None, data: bytes) -> None:
        """Write the profile of a partition atomically, over what was there.

        Raises:
            TableError: names are bad, or the file cannot be written.
        """
        self._put(self._profile(model, table, partition), data)

    def read_profiles(
        self, model: str, table: str, partitions: Sequence[str | None]
    ) -> list[bytes | None]:
        """Profiles in the order asked for, None where there is none; one call of an object store.

        Raises:
            TableError: one is unreadable.
        """
        if not partitions:
            return []
        return self._get(self._profiles(model, table, partitions))

    def profile_exists(self, model: str, table: str, partition: str | None) -> bool:
        """Whether the partition has a profile."""
        return self._is_file(self._profile(model, table, partition))

    def remove_profile(self, model: str, table: str, partition: str | None) -> None:
        """Remove a profile, if there is one, before the rows that it describes change."""
        path = self._profile(model, table, partition)
        try:
            # One DELETE; `unlink` asks object stores for a deletion of many, which not all know.
            path.fs.rm_file(path.path)
        except FileNotFoundError:
            return
        except self._failures as error:
            reason = getattr(error, "strerror", None) or error
            raise TableError(f"{path}: cannot be removed: {reason}") from error

    # -- documents --------------------------------------------------------------------------------

    def write_json(self, model: str, name: str, partition: str | None, obj: Any) -> str:
        """Write a small document atomically, with sorted keys; returns its path.

        Raises:
            TableError: `obj` is not JSON (NaN and infinities are not), or cannot be written.
        """
        path = self._document(model, name, partition)
        try:
            text = json.dumps(obj, allow_nan=False, ensure_ascii=False, indent=1, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise TableError(f"{path}: cannot be stored as JSON: {error}") from error
        self._put(path, text.encode())
        return str(path)

    def read_json(self, model: str, name: str, partition: str | None) -> Any:
        """Read a document.

        Raises:
            TableError: it is missing or not JSON.
        """
        path = self._document(model, name, partition)
        (content,) = self._get([path])
        if content is None:
            raise TableError(
                f"{model}/{name}: no document for partition {_label(partition)} "
                f"(looked for {path}); materialize it first"
            )
        return _parsed(path, content)

    def read_many_json(self, model: str, name: str, partitions: Sequence[str]) -> dict[str, Any]:
        """The documents that exist among `partitions`, in their order; one call of an object store.

        Raises:
            TableError: one is unreadable or not JSON.
        """
        if not partitions:
            return {}
        paths = [self._document(model, name, partition) for partition in partitions]
        return {
            partition: _parsed(path, content)
            for partition, path, content in zip(partitions, paths, self._get(paths), strict=True)
            if content is not None
        }

    def json_exists(self, model: str, name: str, partition: str | None) -> bool:
        """Whether the document has been written."""
        return self._is_file(self._document(model, name, partition))

    def json_partitions(self, model: str, name: str) -> list[str]:
        """Keys of the partitions that have the document, sorted; one listing call."""
        return self._keys(self._folder("documents", model, name), ".json")
