"""Tables to read column by column, as often as needed: Arrow tables, Parquet and CSV files.

Belongs here: opening files, what kind of values a column holds, Arrow arrays as the kernels take
them. Does not: counting and comparing.

A Parquet column is read on its own, text as dictionaries (six to ten times cheaper than strings).
Columns of up to `KEPT_ROWS` rows are kept while they are compared; longer ones are read anew for
each pass, so that memory does not grow with the number of rows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from retrain_assets.drift.kernels import Values
from retrain_assets.errors import DriftError

__all__ = [
    "KEPT_ROWS", "NUMERIC_FAMILIES", "ArrowSource", "ParquetSource", "Source", "blocks",
    "category_counts", "column_family", "csv_source", "numeric_pieces", "numeric_values", "open_table",
    "sampled", "time_unit",
]  # fmt: skip

KEPT_ROWS = 3_000_000
_BLOCK_VALUES = 500_000
_BATCH_ROWS = 1 << 18
_CSV_IN_MEMORY = 64 << 20

NUMERIC_FAMILIES = ("number", "timestamp", "date", "time of day", "duration")


def column_family(kind: pa.DataType) -> str | None:
    """What an Arrow type holds: number, boolean, text, timestamp, date, time of day, duration.

    "null" for a column of nulls only, None for types that cannot be compared. Dictionaries are
    text whatever their values are: who encodes integers says that they are labels.
    """
    types = pa.types
    families = {
        "number": (types.is_integer, types.is_floating, types.is_decimal),
        "boolean": (types.is_boolean,),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "timestamp": (types.is_timestamp,),
        "date": (types.is_date,),
        "time of day": (types.is_time,),
        "duration": (types.is_duration,),
        "null": (types.is_null,),
    }
    if types.is_dictionary(kind):
        return "text" if column_family(kind.value_type) is not None else None
    for family, tests in families.items():
        if any(test(kind) for test in tests):
            return family
    return None


class Source(Protocol):
    """A table that can be read column by column, several times."""

    schema: pa.Schema
    rows: int

    def block(self, names: Sequence[str]) -> None:
        """Prepare to read these columns next; what was kept of others may go."""

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """The column from its start, in row order."""


class ArrowSource:
    """An Arrow table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema: pa.Schema = table.schema
        self.rows: int = table.num_rows

    def block(self, names: Sequence[str]) -> None:
        """Nothing to prepare."""

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """The column's own chunks."""
        yield from self._table.column(name).chunks


class ParquetSource:
    """A Parquet file.

    Raises:
        DriftError: there is no such file, or it is not readable as Parquet.
    """

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.path = path
        try:
            metadata = pq.read_metadata(path)
            schema = metadata.schema.to_arrow_schema()
            texts = [field.name for field in schema if column_family(field.type) == "text"]
            self._file = pq.ParquetFile(path, read_dictionary=texts, metadata=metadata)
        except FileNotFoundError:
            raise DriftError(f"{path}: there is no such file") from None
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "Parquet file", error) from None
        self.schema: pa.Schema = schema
        self.rows: int = metadata.num_rows
        self._kept: dict[str, list[pa.Array]] = {}

    def block(self, names: Sequence[str]) -> None:
        """Read the columns at once where they are short enough to be kept."""
        self._kept = {}
        if self.rows > KEPT_ROWS:
            return
        with _readable(self.path):
            table = self._file.read(columns=list(names), use_threads=False)
        self._kept = {name: table.column(name).chunks for name in names}

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """From memory where kept, else from the file."""
        if name in self._kept:
            yield from self._kept[name]
            return
        with _readable(self.path):
            for group in range(self._file.num_row_groups):
                if self._file.metadata.row_group(group).num_rows <= KEPT_ROWS:
                    # Batches would read all row groups ahead.
                    table = self._file.read_row_group(group, columns=[name], use_threads=False)
                    yield from table.column(0).chunks
                    continue
                batches = self._file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=[name], use_threads=False
                )
                for batch in batches:
                    yield batch.column(0)


class _readable:  # noqa: N801
    """Turns what Arrow says of a damaged file into a `DriftError`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (pa.ArrowException, OSError)):
            raise _unreadable(self.path, "Parquet file", error) from None


def _unreadable(path: str, what: str, error: BaseException) -> DriftError:
    return DriftError(f"{path}: not a readable {what}: {error}; write it again")


def blocks(names: Sequence[str], rows: int) -> Iterator[list[str]]:
    """Names in groups that are worth reading at once without holding much."""
    size = max(1, min(64, _BLOCK_VALUES // max(1, rows)))
    for start in range(0, len(names), size):
        yield list(names[start : start + size])


def csv_source(path: str) -> Source:
    """A CSV file with a header; a large one goes through a temporary Parquet file.

    Raises:
        DriftError: it is missing, empty, or a column changes its type where rows are streamed.
    """
    import pyarrow.csv as csv

    options = csv.ConvertOptions(strings_can_be_null=True)
    try:
        if os.path.getsize(path) <= _CSV_IN_MEMORY:
            return ArrowSource(csv.read_csv(path, convert_options=options))
        return _SpooledCsv(path, options)
    except FileNotFoundError:
        raise DriftError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "CSV file", error) from None


class _SpooledCsv(ParquetSource):
    """A CSV file as a temporary Parquet file, so that columns can be read one by one."""

    def __init__(self, path: str, options: Any) -> None:
        import pyarrow.csv as csv
        import pyarrow.parquet as pq

        folder = tempfile.mkdtemp(prefix="retrain-drift-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        spool = str(Path(folder, "table.parquet"))
        with csv.open_csv(path, convert_options=options) as reader:
            duplicates = _duplicates(reader.schema.names)
            if duplicates:
                raise DriftError(f"{path}: column names must be unique, got twice: {duplicates}")
            with pq.ParquetWriter(spool, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        super().__init__(spool)
        self.path = path


def _duplicates(names: Sequence[str]) -> str:
    return ", ".join(sorted({f"'{name}'" for name in names if list(names).count(name) > 1}))


def open_table(path: str) -> Source:
    """A Parquet or CSV file by its content: Parquet begins with `PAR1`.

    Raises:
        DriftError: it is missing, a folder, or unreadable.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise DriftError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DriftError(f"{path}: cannot be read: {error.strerror or error}") from None
    if head == b"PAR1" or path.endswith((".parquet", ".pq")):
        return ParquetSource(path)
    return csv_source(path)


def sampled(source: Source, names: Sequence[str], rows: int, seed: int) -> pa.Table:
    """`rows` rows (all, where there are no more) of some columns, drawn without replacement, in order.

    Read column by column; the same arguments give the same rows.
    """
    wanted = np.arange(source.rows)
    if rows < source.rows:
        drawn = np.random.default_rng(seed).choice(source.rows, rows, replace=False, shuffle=False)
        wanted = np.sort(drawn)
    columns: dict[str, pa.ChunkedArray] = {}
    for group in blocks(names, source.rows):
        source.block(group)
        for name in group:
            pieces, start = [], 0
            for chunk in source.chunks(name):
                inside = wanted[np.searchsorted(wanted, start) :]
                inside = inside[: np.searchsorted(inside, start + len(chunk))]
                pieces.append(chunk.take(pa.array(inside - start)))
                start += len(chunk)
            kind = pieces[0].type if pieces else source.schema.field(name).type
            columns[name] = pa.chunked_array(pieces, kind)
    return pa.table(columns)


def time_unit(family: str | None) -> float:
    """What one unit of the numbers of `numeric_pieces` is, in seconds; 1 for plain numbers."""
    return 1e-6 if family in NUMERIC_FAMILIES[1:] else 1.0


def numeric_pieces(source: Source, name: str, *, as_float: bool = False) -> Iterator[Values]:
    """A numeric or time column as the kernels take it.

    Whole numbers stay whole (unless `as_float`), decimals become floats; timestamps, dates, times
    and durations become whole microseconds (finer ones are cut off). Integers beyond 2**63 become
    floats.
    """
    for chunk in source.chunks(name):
        if not pa.types.is_null(chunk.type):
            yield _values(chunk, as_float)


_DTYPES = {"double": "float64", "float": "float32", "int64": "int64", "int32": "int32"}


def _values(array: pa.Array, as_float: bool) -> Values:
    types, kind = pa.types, array.type
    if types.is_timestamp(kind) or types.is_duration(kind) or types.is_time(kind):
        array = _microseconds(array)
    elif types.is_date(kind):
        days = types.is_date32(kind)
        array = array.view(pa.int32() if days else pa.int64()).cast(pa.int64())
        array = _times(array, 86_400_000_000 if days else 1000)
    elif types.is_integer(kind):
        array = _whole(array)
    elif not types.is_float32(kind) and not types.is_float64(kind):
        array = array.cast(pa.float32() if types.is_float16(kind) else pa.float64())
    if as_float and types.is_integer(array.type):
        array = array.cast(pa.float64(), safe=False)
    # Arrow's own answer, to_pandas_dtype(), would import pandas.
    dtype = np.dtype(_DTYPES[str(array.type)])
    validity, data = array.buffers()
    if data is None or not len(array):
        return Values(np.empty(0, dtype=dtype))
    numbers = np.frombuffer(data, dtype=dtype)[array.offset : array.offset + len(array)]
    if validity is None or not array.null_count:
        return Values(numbers)
    return Values(numbers, np.frombuffer(validity, dtype=np.uint8), array.offset)


def _whole(array: pa.Array) -> pa.Array:
    width, unsigned = array.type.bit_width, pa.types.is_unsigned_integer(array.type)
    if width < 32 or (width == 32 and not unsigned):
        return array.cast(pa.int32())
    if not unsigned or width == 32:
        return array.cast(pa.int64())
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        return array.cast(pa.float64(), safe=False)


def _microseconds(array: pa.Array) -> pa.Array:
    unit = array.type.unit
    storage = pa.int32() if array.type.bit_width == 32 else pa.int64()
    whole = array.view(storage).cast(pa.int64())
    if unit == "ns":
        import pyarrow.compute as pc

        return pc.divide(whole, pa.scalar(1000, pa.int64()))
    return _times(whole, {"s": 10**6, "ms": 10**3, "us": 1}[unit])


def _times(array: pa.Array, factor: int) -> pa.Array:
    if factor == 1:
        return array
    import pyarrow.compute as pc

    try:
        return pc.multiply_checked(array, pa.scalar(factor, pa.int64()))
    except pa.ArrowInvalid:
        return pc.multiply(array.cast(pa.float64()), float(factor))


def numeric_values(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The non-null values of a numeric, time or all-null column, shape (non-null,), in row order.

    Integers as they are (int64 or uint64), everything else float64: decimals rounded, timestamps
    and dates as seconds since 1970-01-01 UTC, times and durations as seconds. NaN counts as null.
    """
    import pyarrow.compute as pc

    kind, values = column.type, column.drop_null()
    if pa.types.is_integer(kind):
        wide = pa.uint64() if pa.types.is_unsigned_integer(kind) else pa.int64()
        return np.asarray(values.cast(wide).to_numpy())
    if column_family(kind) in ("timestamp", "date", "time of day", "duration"):
        units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
        if pa.types.is_date32(kind):
            return np.asarray(values.cast(pa.int32()).to_numpy() * 86400.0)
        per_second = 10**3 if pa.types.is_date64(kind) else units[kind.unit]
        storage = pa.int32() if kind.bit_width == 32 else pa.int64()
        return np.asarray(values.cast(storage).to_numpy() / per_second)
    numbers = np.asarray(pc.cast(values, pa.float64()).to_numpy(), dtype=np.float64)
    return numbers[~np.isnan(numbers)]


def category_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Rows per non-null category of a text, boolean, dictionary or all-null column."""
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    counted = pc.value_counts(column.cast(pa.large_string()).drop_null())
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return dict(zip(values, counts, strict=True))
