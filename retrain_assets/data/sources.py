r"""Where raw rows come from: files behind any fsspec URL, SQL databases, Python functions.

Belongs here: reading one partition, finding out which partitions there are, telling whether an
unpartitioned source has changed. Does not: rules about content (`contract`), storing (`tables`).

No message contains a secret: paths are shown as the spec spells them (`${NAME}` unreplaced), text of
libraries is cleaned of the environment's values and of passwords, and where it is not, the library's
exception is not chained, because the UI would show it.

Times bound into SQL are UTC: PostgreSQL gets timestamps with time zone in a session in UTC, SQLite
text `YYYY-MM-DD HH:MM:SS` (as its own functions write it), others timestamps without time zone.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa

from retrain_assets.data.arrow import concatenate, duplicates, from_pandas, plain
from retrain_assets.errors import RetrainError, SourceError
from retrain_assets.spec.model import Source, SqlSource
from retrain_assets.spec.partitions import Every, PartitionScheme, Window
from retrain_assets.spec.types import environment_references, resolve_environment

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Reported", "available_partitions", "import_function", "read_source", "source_version"]

T = TypeVar("T")

_PLACEHOLDER = "{partition}"
_KEY_PATTERNS: dict[Every, str] = {
    "hour": r"\d{4}-\d{2}-\d{2}-\d{2}:\d{2}",
    "day": r"\d{4}-\d{2}-\d{2}",
    "week": r"\d{4}-\d{2}-\d{2}",
    "month": r"\d{4}-\d{2}-\d{2}",
}
_VERSION_FIELDS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "mtime", "LastModified", "Last-Modified",
    "last_modified", "updated", "created",
)  # fmt: skip
_SECRET_OPTION = re.compile(r"secret|token|password|passwd|key|credential|auth", re.IGNORECASE)
_SQL_PARAMETERS = ("partition_start", "partition_end", "partition_key")
_SQL_CHUNK = 50_000
_CONNECT_SECONDS = 10
_EXISTENCE_THREADS = 8


# -- secrets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Secrets:
    """Texts that no message may contain."""

    values: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], options: Iterable[tuple[str, str]] = ()) -> _Secrets:
        """From fields as the spec spells them, and named options whose name says that they are."""
        found: set[str] = set()
        for text in texts:
            found.update(os.environ.get(name, "") for name in environment_references(text))
            found.update(_url_secrets(resolve_environment(text, "source")))
        found.update(value for name, value in options if _SECRET_OPTION.search(name))
        found.discard("")
        return cls(tuple(sorted(found, key=lambda secret: (-len(secret), secret))))

    def redact(self, text: str) -> str:
        """`text` with `***` for every secret, and without credentials and queries in URLs."""
        for secret in self.values:
            text = text.replace(secret, "***")
        return _shown_url(text)


def _url_secrets(url: str) -> set[str]:
    """Password and query values of a URL, also of one that is not well-formed."""
    found: set[str] = set()
    if match := re.search(r"://(.*)@", url, re.DOTALL):
        password = match[1].partition(":")[2] or match[1]
        found |= {password, unquote(password)}
    if "://" in url:
        query = url.partition("?")[2].partition("#")[0]
        for pair in filter(None, re.split("[&;]", query)):
            value = pair.partition("=")[2] or pair
            found |= {value, unquote(value)}
    return found


def _shown_url(text: str) -> str:
    """`text` with the credentials and queries of the URLs in it blanked."""
    text = re.sub(r"://[^\s'\"]*@", "://***@", text)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]*", r"\1?***", text)


def _guarded(subject: str, secrets: _Secrets, action: Callable[[], T]) -> T:
    """Run I/O of a plug-in library and turn whatever it raises into a SourceError without secrets.

    The one broad except of this module: fsspec filesystems and database drivers are plug-ins that
    raise classes of their own (botocore's, aiohttp's). The error is raised after the except block,
    so that not even its context leads to the original, whose text may hold a secret.
    """
    try:
        return action()
    except RetrainError:
        raise
    except Exception as error:  # noqa: BLE001
        problem = _problem(error, secrets)
    raise SourceError(f"{subject}: {problem}")


def _problem(error: Exception, secrets: _Secrets) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, ImportError):
        return f"a library is missing: {secrets.redact(str(error))}"
    # A database driver's own words; SQLAlchemy's would add the statement and its parameters.
    error = getattr(error, "orig", None) or error
    text = secrets.redact(str(error)).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """The files of a source on their filesystem.

    Attributes:
        fs: fsspec filesystem.
        path: path on it, with `{partition}` and `*`.
        shown: the path as the spec spells it, for messages.
        secrets: what messages must not contain.
        format: parquet or csv.
    """

    fs: Any
    path: str
    shown: str
    secrets: _Secrets
    format: str

    @property
    def lists(self) -> bool:
        """Whether the filesystem can list; HTTP cannot (links on an index page are no listing)."""
        protocol = self.fs.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        return not names & {"http", "https"}

    def guarded(self, action: Callable[[], T], shown: str | None = None) -> T:
        """`action` with its errors as SourceErrors about these files."""
        return _guarded(f"source.files {shown or self.shown}", self.secrets, action)


def _option(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value.lower(), value)


def _open_files(source: Source) -> _Files:
    assert source.files is not None
    from fsspec.core import url_to_fs

    url = resolve_environment(source.files, "source.files")
    options = {
        name: resolve_environment(value, f"source.storage_options.{name}")
        for name, value in source.storage_options.items()
    }
    secrets = _Secrets.of([source.files, *source.storage_options.values()], options.items())
    shown = _shown_url(source.files)
    values = {name: _option(value) for name, value in options.items()}
    fs, path = _guarded(f"source.files {shown}", secrets, lambda: url_to_fs(url, **values))
    return _Files(fs, path, shown, secrets, source.file_format or "parquet")


def _at(text: str, window: Window | None) -> str:
    return text if window is None else text.replace(_PLACEHOLDER, window.key)


def _require_placeholder(source: Source, partitioned: bool) -> None:
    assert source.files is not None
    if partitioned and _PLACEHOLDER not in source.files:
        raise SourceError(
            f"source.files {_shown_url(source.files)}: needs {_PLACEHOLDER} where the partition key "
            "stands, or every partition would read the same files"
        )
    if not partitioned and _PLACEHOLDER in source.files:
        raise SourceError(
            f"source.files {_shown_url(source.files)}: has {_PLACEHOLDER}, but the model has "
            "`partitions: none`; name the files with `*`"
        )


def _glob(files: _Files, path: str, detail: bool = False) -> Any:
    """Files that match `path`, in which only `*` is special."""
    if not files.lists:
        raise SourceError(
            f"source.files {files.shown}: `*` needs a filesystem that lists files, and HTTP does not; "
            "name one file"
        )
    # A brace is not special to glob; brackets and question marks are, and are meant literally here.
    pattern = re.sub(r"[\[?]", lambda special: f"[{special[0]}]", path)
    files.fs.invalidate_cache()
    return files.fs.glob(pattern, detail=detail)


def _matching(files: _Files, path: str, shown: str) -> list[str]:
    if "*" not in path:
        return [path]
    found: list[str] = sorted(files.guarded(lambda: _glob(files, path), shown))
    if not found:
        raise SourceError(f"source.files {shown}: no file matches")
    return found


def _decompressed(name: str, content: bytes) -> bytes:
    codec = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(os.path.splitext(name)[1].lower())
    if codec is None:
        return content
    with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
        plain_bytes: bytes = stream.read()
    return plain_bytes


def _parse(format_: str, name: str, content: bytes) -> pa.Table:
    if format_ == "parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(pa.BufferReader(content)).read()
    from pyarrow import csv

    text = _decompressed(name, content)
    # One block: Arrow takes the types from the first block only, and they must not depend on where
    # a block happens to end.
    return csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(block_size=max(len(text) + 1, 1 << 16)),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )


def _read_files(source: Source, window: Window | None) -> pa.Table:
    _require_placeholder(source, window is not None)
    files = _open_files(source)
    shown = _at(files.shown, window)
    paths = _matching(files, _at(files.path, window), shown)
    if len(paths) == 1:
        contents = [files.guarded(lambda: files.fs.cat_file(paths[0]), shown)]
    else:
        found = files.guarded(lambda: files.fs.cat(paths), shown)
        contents = [found[path] for path in paths]
    pieces = []
    for path, content in zip(paths, contents, strict=True):
        name = path.partition("?")[0].rpartition("/")[2]
        try:
            pieces.append((name, _parse(files.format, name, content)))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise SourceError(
                f"source.files {shown}: {name} is not readable as {files.format}: {error}"
            ) from error
    return concatenate(pieces, f"source.files {shown}", SourceError)


def _path_pattern(path: str, every: Every) -> re.Pattern[str]:
    """Expression that a path with `{partition}` and `*` stands for, with the group `partition`."""
    group = iter([f"(?P<partition>{_KEY_PATTERNS[every]})"])
    parts = []
    for part in re.split(r"(\{partition\}|\*\*|\*)", path):
        if part == _PLACEHOLDER:
            parts.append(next(group, "(?P=partition)"))
        else:
            parts.append({"*": "[^/]*", "**": ".*"}.get(part, re.escape(part)))
    return re.compile("".join(parts))


def _require_root(files: _Files) -> None:
    """A missing bucket or folder is an error; only what lies in it may not have come yet."""
    fixed = re.split(r"\{partition\}|\*", files.path)[0].rpartition("/")[0]
    local = "file" in files.fs.protocol
    root = fixed if local else fixed.lstrip("/").partition("/")[0]
    if root and not files.guarded(lambda: files.fs.exists(root)):
        raise SourceError(
            f"source.files {files.shown}: the {'folder' if local else 'bucket'} does not exist, or "
            "may not be listed"
        )


def _listed_keys(files: _Files, every: Every) -> set[str]:
    paths = files.guarded(lambda: _glob(files, files.path.replace(_PLACEHOLDER, "*")))
    pattern = _path_pattern(files.path, every)
    keys = {match["partition"] for path in paths if (match := pattern.fullmatch(path))}
    if not paths:
        _require_root(files)
    return keys


def _has_file(files: _Files, key: str) -> bool:
    """Whether the file of one key is there, told from a server that does not answer."""
    shown = files.shown.replace(_PLACEHOLDER, key)

    def look() -> bool:
        try:
            files.fs.info(files.path.replace(_PLACEHOLDER, key))
        except FileNotFoundError as error:
            # fsspec reports everything as missing: refused connections, wrong credentials.
            status = getattr(error.__cause__, "status", None)
            if error.__cause__ is None or status in (404, 410):
                return False
            raise error.__cause__ from None
        return True

    return files.guarded(look, shown)


def _existing_keys(files: _Files, keys: Sequence[str]) -> set[str]:
    from concurrent.futures import ThreadPoolExecutor

    if "*" in files.path:
        _glob(files, files.path)
    with ThreadPoolExecutor(_EXISTENCE_THREADS) as pool:
        there = pool.map(lambda key: _has_file(files, key), keys)
        return {key for key, exists in zip(keys, there, strict=True) if exists}


# -- SQL ------------------------------------------------------------------------------------------


def _engine(sql: SqlSource) -> sa.Engine:
    import sqlalchemy as sa

    text = resolve_environment(sql.connection, "source.sql.connection")
    problem = ""
    try:
        url = sa.make_url(text)
        arguments = {}
        if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
            arguments["connect_timeout"] = _CONNECT_SECONDS
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
    except ImportError as error:
        problem = f"the database driver {error.name} is not installed"
    except (sa.exc.ArgumentError, ValueError):
        # The library's text quotes pieces of the URL, so it is not passed on.
        problem = (
            "not a usable SQLAlchemy URL; write dialect+driver://user:password@host:port/database "
            "with special characters of the password percent-encoded, and install the dialect"
        )
    raise SourceError(f"source.sql.connection {_shown_url(sql.connection)}: {problem}")


def _sql_parameters(
    names: Iterable[str], window: Window | None, dialect: str
) -> dict[str, str | datetime]:
    used = sorted(names)
    if unknown := [name for name in used if name not in _SQL_PARAMETERS]:
        raise SourceError(
            f"source.sql.query: binds :{', :'.join(unknown)}, but only "
            f":{', :'.join(_SQL_PARAMETERS)} are known; write \\: for a colon that is meant as one"
        )
    if window is None:
        if used:
            raise SourceError(
                f"source.sql.query: binds :{', :'.join(used)}, but the model has `partitions: none`"
            )
        return {}

    def moment(value: datetime) -> str | datetime:
        if dialect == "sqlite":
            return f"{value:%Y-%m-%d %H:%M:%S}"
        return value if dialect == "postgresql" else value.replace(tzinfo=None)

    values = {
        "partition_start": moment(window.start),
        "partition_end": moment(window.end),
        "partition_key": window.key,
    }
    return {name: values[name] for name in used}


def _sql_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    arrays = []
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(names)
    for name, values in zip(names, columns, strict=True):
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise SourceError(
                f"source.sql.query: column {name} cannot be stored as one type: {error}; "
                "cast it in the query"
            ) from error
    return pa.Table.from_arrays(arrays, names=list(names))


def _fetch(result: sa.CursorResult[Any]) -> pa.Table:
    names = list(result.keys())
    if twice := duplicates(names):
        raise SourceError(
            f"source.sql.query: column names must be unique, got twice: {', '.join(twice)}"
        )
    pieces = [
        (f"rows from {number * _SQL_CHUNK}", _sql_columns(names, rows))
        for number, rows in enumerate(result.partitions(_SQL_CHUNK))
    ]
    return concatenate(
        pieces or [("no rows", _sql_columns(names, []))], "source.sql.query", SourceError
    )


def _read_sql(sql: SqlSource, window: Window | None) -> pa.Table:
    import sqlalchemy as sa

    engine = _engine(sql)
    statement = sa.text(sql.query)
    parameters = _sql_parameters(statement.compile().params, window, engine.dialect.name)
    secrets = _Secrets.of([sql.connection])
    subject = f"source.sql {_shown_url(sql.connection)}"

    def read() -> pa.Table:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TIME ZONE 'UTC'")
            result = connection.execute(
                statement, parameters, execution_options={"stream_results": True}
            )
            if not result.returns_rows:
                raise SourceError(f"{subject}: the query must be a SELECT, it returns no rows")
            return _fetch(result)

    return _guarded(subject, secrets, read)


# -- Python ---------------------------------------------------------------------------------------


def import_function(path: str, field: str, failure: type[RetrainError]) -> Callable[..., Any]:
    """The function that `path` (`package.module:function`) names.

    Args:
        path: dotted path.
        field: field of the spec, for messages.
        failure: class of the error.

    Raises:
        failure: the module cannot be imported, or has no such function.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # User code runs here and may raise anything; the original stays chained.
        raise failure(
            f"{field}: {module_name} cannot be imported: {type(error).__name__}: {error}; "
            "is the package installed, or its folder on PYTHONPATH?"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise failure(f"{field}: {module_name} has no function '{name}'")
    return function  # type: ignore[no-any-return]


def _call(path: str, field: str, what: str, *arguments: Any, **options: Any) -> Any:
    function = import_function(path, field, SourceError)
    try:
        return function(*arguments, **options)
    except Exception as error:
        # The user's code may raise anything; the original stays chained.
        raise SourceError(
            f"{field}: {path}{what} raised {type(error).__name__}: {error}"
        ) from error


def _read_python(source: Source, window: Window | None) -> pa.Table:
    assert source.python is not None
    what = "" if window is None else f" for partition {window.key}"
    result = _call(source.python, "source.python", what, window, **source.options)
    if isinstance(result, pa.Table):
        return result
    import pandas as pd

    if isinstance(result, pd.DataFrame):
        return from_pandas(result, f"source.python: result of {source.python}{what}", SourceError)
    raise SourceError(
        f"source.python: {source.python}{what} must return a pandas DataFrame or a pyarrow Table, "
        f"got {type(result).__name__}"
    )


def _reported_keys(source: Source, scheme: PartitionScheme) -> set[str]:
    assert source.available is not None
    reported = _call(source.available, "source.available", "", **source.options)
    if isinstance(reported, str | bytes) or not isinstance(reported, Iterable):
        raise SourceError(
            f"source.available: {source.available} must return partition keys, "
            f"got {type(reported).__name__}"
        )
    keys = list(reported)
    pattern = re.compile(_KEY_PATTERNS[scheme.every])
    for key in keys:
        if not isinstance(key, str) or not pattern.fullmatch(key):
            raise SourceError(
                f"source.available: {source.available} must return keys of the form "
                f"{scheme.format} ({scheme.every} partitions), got {key!r}"
            )
    return set(keys)


# -- what the rest of the package calls -----------------------------------------------------------


def read_source(source: Source, window: Window | None) -> pa.Table:
    """Raw rows of one partition.

    Args:
        source: the spec's section.
        window: the partition; None with `partitions: none`.

    Returns:
        Table in the plain form: categories as their values, no schema metadata.

    Raises:
        SourceError: files are missing or unreadable, the server does not answer, the query or the
            function fails, or the result is no table. It never contains a secret of the spec.
        SettingsError: an environment variable is not set.
    """
    if source.kind == "files":
        table = _read_files(source, window)
    elif source.sql is not None:
        table = _read_sql(source.sql, window)
    else:
        table = _read_python(source, window)
    return plain(table)


def _ended(scheme: PartitionScheme, until: datetime, after: str | None) -> list[str]:
    """Keys of partitions that ended by `until`, only those behind `after`."""
    if after is None:
        return scheme.keys(until)
    try:
        begin = scheme.parse(after).date()
    except ValueError:  # the spec's start or end has moved since
        return [key for key in scheme.keys(until) if key > after]
    tail = PartitionScheme(scheme.every, begin, scheme.end)
    return [key for key in tail.keys(until) if key > after]


Reported = dict[tuple[str, ...], set[str]]
"""What sources have answered: keys by what was asked."""


def available_partitions(
    source: Source,
    scheme: PartitionScheme,
    now: datetime,
    after: str | None = None,
    reported: Reported | None = None,
) -> list[str]:
    """Keys of the ended partitions that the source has, oldest first.

    The function in `available` is believed. Otherwise files are listed (one call; over HTTP one
    existence check per key), and SQL and Python sources are taken to have every partition. In both
    cases only partitions that ended at least `lag` ago count.

    Args:
        source: the spec's section.
        scheme: the model's partitions.
        now: present time, aware.
        after: only later keys are of interest; bounds the work.
        reported: answers so far of a caller that asks for many models at once; those with the same
            listing share one.

    Raises:
        SourceError: the source cannot be asked, or `available` fails or returns no keys.
        SettingsError: an environment variable is not set.
    """
    lag = timedelta(0) if source.available else source.lag or timedelta(0)
    candidates = _ended(scheme, now - lag, after)
    if not candidates:
        return []
    if source.available is not None:
        question = (source.available, scheme.every, repr(sorted(source.options.items())))
        there = _once(reported, question, lambda: _reported_keys(source, scheme))
    elif source.kind == "files":
        _require_placeholder(source, True)
        files = _open_files(source)
        if files.lists:
            question = (source.files or "", scheme.every, repr(source.storage_options))
            there = _once(reported, question, lambda: _listed_keys(files, scheme.every))
        else:
            there = _existing_keys(files, candidates)
    else:
        return candidates
    return [key for key in candidates if key in there]


def _once(
    reported: Reported | None, question: tuple[str, ...], ask: Callable[[], set[str]]
) -> set[str]:
    if reported is None:
        return ask()
    if question not in reported:
        reported[question] = ask()
    return reported[question]


def _file_versions(files: _Files) -> Iterator[tuple[str, Any, str]]:
    """Name, size and change mark of every file, by name."""
    if "*" in files.path:
        found = files.guarded(lambda: _glob(files, files.path, detail=True))
        if not found:
            raise SourceError(f"source.files {files.shown}: no file matches")
    else:
        files.guarded(files.fs.invalidate_cache)
        found = {files.path: files.guarded(lambda: files.fs.info(files.path))}
    for path, info in sorted(found.items()):
        marks = [str(info[field]) for field in _VERSION_FIELDS if info.get(field) is not None]
        yield path, info.get("size"), marks[0] if marks else ""


def source_version(source: Source) -> str | None:
    """A token that changes when an unpartitioned source changes, None where nobody can tell.

    For files it is made of their names, sizes and ETags or modification times, without reading
    them; for other sources, of what `available` returns.

    Raises:
        SourceError: the files are missing or cannot be listed, or `available` fails.
        SettingsError: an environment variable is not set.
    """
    if source.kind == "files":
        _require_placeholder(source, False)
        state: Any = list(_file_versions(_open_files(source)))
    elif source.available is not None:
        state = _call(source.available, "source.available", "", **source.options)
        if isinstance(state, Iterable) and not isinstance(state, str | bytes | dict):
            state = list(state)
    else:
        return None
    return hashlib.sha256(json.dumps(state, default=str, sort_keys=True).encode()).hexdigest()
