"""Rows of a fleet file: an inline list, a CSV or Parquet file, or what a database query returns.

Belongs here: reading them, and the type of a cell. Does not: what a row makes of the template
(`fleet`).
"""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from retrain_assets.errors import SettingsError, SourceError
from retrain_assets.spec.model import Source, SqlSource

__all__ = ["ForEach", "Row", "RowsError", "read_rows", "typed"]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False}
_MANY_ROWS = 100_000
_KINDS = "a list of rows, {file: rows.csv} or {sql: {connection: ${URL}, query: SELECT …}}"


class RowsError(Exception):
    """The rows as a whole cannot be read.

    Attributes:
        path: the field of `for_each` that is to blame, from the top of the file.
        row: 1-based number of the row where it was noticed, 0 for all of them.
    """

    def __init__(self, path: tuple[str | int, ...], message: str, row: int = 0) -> None:
        self.path = path
        self.row = row
        super().__init__(message)


@dataclass(frozen=True)
class Row:
    """One row of a fleet.

    Attributes:
        number: 1-based, without the header.
        values: by column; empty cells are left out.
        texts: what stood in the cell, where that is something else than the value (CSV).
        problem: why the row cannot be used, "" where it can.
    """

    number: int
    values: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class ForEach:
    """All rows.

    Attributes:
        rows: in their order.
        inline: whether they stand in the fleet file itself, so that each has a line of its own.
        columns: the columns of a file or query, in order; () for an inline list.
        ignore: columns that are there for people or other programs.
        files: files that were read.
    """

    rows: tuple[Row, ...]
    inline: bool = False
    columns: tuple[str, ...] = ()
    ignore: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()


def read_rows(data: Any, base_dir: Path) -> ForEach:
    """The rows that `for_each` of a fleet file stands for; file paths start at `base_dir`.

    Raises:
        RowsError: no such file, no connection, no rows, a field that does not exist.
    """
    if isinstance(data, list):
        found = ForEach(tuple(_inline(data)), inline=True)
    elif not isinstance(data, dict):
        raise RowsError(("for_each",), f"must be {_KINDS}, got {data!r:.80}")
    else:
        found = _from_outside(data, base_dir)
    if not found.rows:
        raise RowsError(("for_each",), "there are no rows; one row makes one model")
    if len(found.rows) > _MANY_ROWS:
        raise RowsError(("for_each",), f"more than {_MANY_ROWS} rows; split the fleet")
    return found


def _inline(data: list[Any]) -> Iterator[Row]:
    for number, value in enumerate(data, start=1):
        if isinstance(value, dict):
            yield Row(number, value)
        else:
            yield Row(number, {}, problem=f"a row is a mapping of columns, got {value!r:.80}")


def _from_outside(data: dict[str, Any], base_dir: Path) -> ForEach:
    unknown = [key for key in data if key not in ("file", "sql", "ignore")]
    if unknown:
        message = "unknown field; known here: file, sql, ignore"
        raise RowsError(("for_each", unknown[0]), message)
    if len(data.keys() & {"file", "sql"}) != 1:
        raise RowsError(("for_each",), f"must be {_KINDS}")
    ignore = data.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(name, str) for name in ignore):
        raise RowsError(("for_each", "ignore"), f"must be a list of column names, got {ignore!r}")
    files: tuple[Path, ...] = ()
    if "sql" in data:
        columns, rows = _query(data["sql"])
    else:
        file = _file(data["file"], base_dir)
        columns, rows = _parquet(file) if file.suffix == ".parquet" else _csv(file)
        files = (file,)
    return ForEach(tuple(rows), columns=columns, ignore=frozenset(ignore), files=files)


def _file(value: Any, base_dir: Path) -> Path:
    if not isinstance(value, str) or not value.endswith((".csv", ".parquet")):
        message = f"must be the path of a .csv or .parquet file beside this one, got {value!r:.80}"
        raise RowsError(("for_each", "file"), message)
    return base_dir / value


# -- CSV ------------------------------------------------------------------------------------------


def typed(text: str) -> Any:
    """The value of a cell: true, false, a number, a YAML [list] or {mapping}, else the text.

    YAML 1.2's rules, not 1.1's: `no`, `on` and `007` are text, and so is a date. Text that looks
    like one of the others stands in quotes: "'12'".

    >>> [typed(text) for text in ("7", "0.5", "true", "NO", "007", "0 3 * * *", "[ops]", "'7'")]
    [7, 0.5, True, 'NO', '007', '0 3 * * *', ['ops'], '7']

    Raises:
        ValueError: brackets or quotes that do not close.
    """
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] not in ("[", "{", "'", '"'):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error)
        raise ValueError(
            f"{text!r:.80} is no YAML list, mapping or quoted text: {reason}"
        ) from None


def _csv(file: Path) -> tuple[tuple[str, ...], list[Row]]:
    where = ("for_each", "file")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = [cells for cells in csv.reader(stream, strict=True) if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RowsError(where, f"{file} cannot be read: {error}") from None
    if not lines:
        raise RowsError(where, f"{file} is empty; its first line names the columns")
    header = [name.strip() for name in lines[0]]
    _check_header(header, str(file))
    return tuple(header), [
        _csv_row(number, header, cells) for number, cells in enumerate(lines[1:], start=1)
    ]


def _check_header(header: list[str], subject: str) -> None:
    if "" in header:
        message = f"{subject}: column {header.index('') + 1} has no name"
        raise RowsError(("for_each",), message)
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise RowsError(("for_each",), f"{subject}: column {twice[0]!r} is there twice")


def _csv_row(number: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        problem = f"the row has {len(cells)} cells, the header {len(header)}; quote commas in cells"
        return Row(number, {}, problem=problem)
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name, cell in zip(header, map(str.strip, cells), strict=True):
        if not cell:
            continue
        texts[name] = cell
        try:
            values[name] = typed(cell)
        except ValueError as error:
            return Row(number, values, texts, f"column {name!r}: {error}")
        if isinstance(values[name], str):
            texts[name] = values[name]
    return Row(number, values, texts)


# -- Parquet and SQL ------------------------------------------------------------------------------


def _parquet(file: Path) -> tuple[tuple[str, ...], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise RowsError(("for_each", "file"), f"{file} cannot be read: {error}") from None
    _check_header(table.column_names, str(file))
    return tuple(table.column_names), _plain_rows(table.to_pylist())


def _query(data: Any) -> tuple[tuple[str, ...], list[Row]]:
    where = ("for_each", "sql")
    wanted = {"connection", "query"}
    if not isinstance(data, dict) or set(data) != wanted or not all(map(_is_text, data.values())):
        message = f"must be {{connection: ${{URL}}, query: SELECT …}}, got {data!r:.80}"
        raise RowsError(where, message)
    from retrain_assets.data.sources import read_source

    try:
        table = read_source(Source(sql=SqlSource(**data)), None)
    except (SettingsError, SourceError) as error:
        message = str(error).replace("source.sql", "for_each.sql")
        raise RowsError(where, f"the rows cannot be read: {message}") from None
    return tuple(table.column_names), _plain_rows(table.to_pylist())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _plain_rows(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(number, _plain(values)) for number, values in enumerate(rows, start=1)]


def _plain(value: Any) -> Any:
    """Without what is missing, and decimals, which NUMERIC columns have and YAML has not, as numbers."""
    if isinstance(value, dict):
        present = {name: item for name, item in value.items() if not _missing(item)}
        return {name: _plain(item) for name, item in present.items()}
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _missing(value: Any) -> bool:
    """Null, or the NaN that stands for it where a file or a driver knows no other."""
    return value is None or (isinstance(value, float) and math.isnan(value))
