"""From raw rows to a feature table, by the user's SQL, by their Python function, or unchanged.

Belongs here: running the transform, the rules for its result, small summaries of a table. Does not:
reading and writing tables (`tables`), what the columns are used for.

The same input gives the same table, bit for bit: SQL runs on one thread, with rows in their order,
in UTC and with a fixed seed; it reads nothing but `raw` and `history`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retrain_assets.data.arrow import duplicates, from_pandas, null_mask, plain
from retrain_assets.data.sources import import_function
from retrain_assets.errors import FeatureError
from retrain_assets.spec.model import Features

if TYPE_CHECKING:
    import duckdb

__all__ = ["NumericSummary", "build_features", "null_rate", "numeric_summaries"]


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "preserve_insertion_order": True,
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # Without this, SQL could name any Python variable of this process as a table.
            "python_enable_replacements": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SELECT setseed(0.5)")
    connection.execute("SET lock_configuration = true")
    return connection


def _located(connection: duckdb.DuckDBPyConnection, sql: str, text: str) -> str:
    """DuckDB's message with the line: `sql` leaves it out where `execute` gives it."""
    import duckdb

    if "\nLINE " in text:
        return text
    try:
        connection.execute(sql)
    except duckdb.Error as error:
        return str(error)
    return text


def _run_sql(sql: str, raw: pa.Table, history: pa.Table | None) -> pa.Table:
    import duckdb

    with _connect() as connection:
        connection.register("raw", raw)
        if history is not None:
            connection.register("history", history)
        try:
            relation = connection.sql(sql)
            if relation is None:
                raise FeatureError("features.sql: must end with a SELECT, got no result")
            if twice := duplicates(relation.columns):
                raise FeatureError(
                    f"features.sql: column names must be unique, got twice: {', '.join(twice)}"
                )
            table = relation.to_arrow_table()
        except duckdb.Error as error:
            text = _located(connection, sql, str(error))
            if history is None and "history" in text:
                text += "\n`history` is there only with features.lookback"
            raise FeatureError(f"features.sql: {text}") from error
    return _rename_utc(table)


def _rename_utc(table: pa.Table) -> pa.Table:
    """DuckDB's `Etc/UTC` as `UTC`, the name that every other source of timestamps uses."""
    fields = [
        pa.field(field.name, pa.timestamp(field.type.unit, "UTC"))
        if pa.types.is_timestamp(field.type) and field.type.tz == "Etc/UTC"
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _run_python(path: str, raw: pa.Table, history: pa.Table | None) -> pa.Table:
    import pandas as pd

    function: Callable[..., Any] = import_function(path, "features.python", FeatureError)
    # Copies, since Arrow hands out read-only views and a transform may work in place.
    frames = [table.to_pandas().copy() for table in (raw, history) if table is not None]
    try:
        result = function(*frames)
    except Exception as error:
        raise FeatureError(
            f"features.python: {path} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(result, pd.DataFrame):
        raise FeatureError(
            f"features.python: {path} must return a pandas DataFrame, got {type(result).__name__}"
        )
    return from_pandas(result, f"features.python: result of {path}", FeatureError)


def _is_odd(kind: pa.DataType) -> bool:
    """Types that no model can use and that Parquet or pandas would not give back."""
    return bool(
        pa.types.is_nested(kind)
        or pa.types.is_interval(kind)
        or pa.types.is_binary(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )


def _check(table: pa.Table, target: str) -> None:
    names = table.column_names
    problems = []
    if target not in names:
        problems.append(f"target '{target}' is missing; the table has {', '.join(names) or 'none'}")
    if not [name for name in names if name != target]:
        problems.append("at least one column beside the target is needed")
    if twice := duplicates(names):
        problems.append(f"column names must be unique, got twice: {', '.join(twice)}")
    problems.extend(
        f"column {field.name} is {field.type}; make it numbers, text, booleans or times"
        for field in table.schema
        if _is_odd(field.type)
    )
    if problems:
        raise FeatureError("features: " + "\n  ".join(problems))


def _decimals_as_floats(table: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name, pa.float64() if pa.types.is_decimal(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def build_features(
    features: Features, raw: pa.Table, history: pa.Table | None, *, target: str
) -> pa.Table:
    """The feature table (with the target) of one partition.

    Args:
        features: the spec's section.
        raw: raw rows of the partition; may have no rows.
        history: raw rows of the `lookback` earlier partitions, oldest first. None means that there
            are none: with lookback, the transform then sees an empty table.
        target: name of the column that is predicted.

    Returns:
        Table in the plain form (categories as text, decimals and DuckDB's wide sums as floats).

    Raises:
        FeatureError: the transform failed (with DuckDB's message and line, or the function's
            exception), or its result lacks the target or any other column, repeats a name or has a
            nested, binary or interval column.
    """
    if not features.lookback:
        history = None
    elif history is None:
        history = raw.schema.empty_table()
    if features.sql is not None:
        table = _run_sql(features.sql, raw, history)
    elif features.python is not None:
        table = _run_python(features.python, raw, history)
    else:
        table = raw
    _check(table, target)
    return plain(_decimals_as_floats(plain(table)))


@dataclass(frozen=True)
class NumericSummary:
    """One numeric column at a glance; mean, min and max are None where all values are null.

    Attributes:
        mean: arithmetic mean of the values.
        min: smallest value.
        max: largest value.
        null_rate: share of nulls and NaNs, 0 to 1.
    """

    mean: float | None
    min: float | None
    max: float | None
    null_rate: float


def null_rate(table: pa.Table) -> float:
    """Share of cells that are null or NaN, from 0 to 1; 0 for a table without cells."""
    cells = table.num_rows * table.num_columns
    nulls = sum(int(null_mask(column).sum()) for column in table.columns)
    return nulls / cells if cells else 0.0


def numeric_summaries(table: pa.Table) -> dict[str, NumericSummary]:
    """Mean, range and null rate of every column of numbers or booleans, by name.

    >>> numeric_summaries(pa.table({"x": [1, 3, None, None]}))["x"]
    NumericSummary(mean=2.0, min=1.0, max=3.0, null_rate=0.5)
    """
    import pyarrow.compute as pc

    summaries = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_boolean(kind)
        ):
            continue
        nulls = null_mask(column)
        values = column.filter(pa.array(~nulls)).cast(pa.float64())
        ends = pc.min_max(values)
        summaries[field.name] = NumericSummary(
            mean=pc.mean(values).as_py(),
            min=ends["min"].as_py(),
            max=ends["max"].as_py(),
            null_rate=float(nulls.mean()) if len(nulls) else 0.0,
        )
    return summaries
