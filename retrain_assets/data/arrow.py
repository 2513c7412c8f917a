"""Arrow tables in the one form that this package passes on and stores.

Belongs here: normal types, joining tables with differing schemas, pandas to Arrow, null masks.
Does not: files (`tables`), where rows come from (`sources`), rules about content (`contract`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retrain_assets.errors import RetrainError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["concatenate", "duplicates", "from_pandas", "null_mask", "plain"]


def duplicates(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in the order of their first occurrence."""
    return [name for name in dict.fromkeys(names) if list(names).count(name) > 1]


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return pa.timestamp("us", kind.tz)  # Parquet has no seconds, and partitions may differ
    return kind


def plain(table: pa.Table) -> pa.Table:
    """`table` without what does not belong to its values.

    Categories become their values, the variants of strings become `string`, coarse timestamps
    become microseconds, metadata (also that of pandas) is dropped, chunks are joined.
    """
    fields = [pa.field(field.name, _plain_type(field.type)) for field in table.schema]
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(table.columns, fields, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)).combine_chunks()


def _conflicts(pieces: Sequence[tuple[str, pa.Table]]) -> list[str]:
    """One line per column whose types cannot be joined, with a piece for each type."""
    holders: dict[str, dict[pa.DataType, str]] = {}
    for name, table in pieces:
        for field in table.schema:
            holders.setdefault(field.name, {}).setdefault(field.type, name)
    lines = []
    for column, types in holders.items():
        schemas = [pa.schema([(column, kind)]) for kind in types]
        try:
            pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException:
            where = ", ".join(f"{kind} in {name}" for kind, name in types.items())
            lines.append(f"column {column} is {where}")
    return lines


def concatenate(
    pieces: Sequence[tuple[str, pa.Table]], subject: str, failure: type[RetrainError]
) -> pa.Table:
    """Join tables, in order, under one schema.

    A column that a piece lacks is null there; a column of nulls takes the other pieces' type; whole
    numbers become floats where another piece has floats.

    Args:
        pieces: at least one (name, table); the name is for messages.
        subject: what is joined, for messages.
        failure: class of the error.

    Raises:
        failure: a column's types cannot be joined; names the columns, types and pieces.
    """
    tables = [table for _, table in pieces]
    if len(tables) == 1:
        return tables[0]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        lines = "; ".join(_conflicts(pieces)) or str(error)
        raise failure(
            f"{subject}: columns must have one type in all parts, but {lines}; "
            "cast the column in the source or the feature transform"
        ) from error


def from_pandas(frame: pd.DataFrame, subject: str, failure: type[RetrainError]) -> pa.Table:
    """Arrow table of a DataFrame in the `plain` form; NaN becomes null, the index is ignored.

    Raises:
        failure: a column name is not text or occurs twice, or a column mixes types.
    """
    odd = [repr(name) for name in frame.columns if not isinstance(name, str)]
    if odd:
        raise failure(f"{subject}: column names must be text, got {', '.join(odd)}")
    if twice := duplicates(list(frame.columns)):
        raise failure(f"{subject}: column names must be unique, got twice: {', '.join(twice)}")
    try:
        return plain(pa.Table.from_pandas(frame, preserve_index=False))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = "; ".join(str(argument) for argument in error.args)
        raise failure(f"{subject}: a column cannot be stored as one type: {reason}") from error


def null_mask(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """True where a value is null; NaN counts as null. Shape (rows,)."""
    import pyarrow.compute as pc

    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.is_null(
        column, nan_is_null=pa.types.is_floating(column.type)
    ).to_numpy()
    return mask
