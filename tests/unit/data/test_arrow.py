"""The plain form of a table, and joining tables with differing schemas."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from retrain_assets.data.arrow import concatenate, from_pandas, null_mask, plain
from retrain_assets.errors import SourceError, TableError


def join(*pieces: pa.Table) -> pa.Table:
    return concatenate([(f"part {i}", piece) for i, piece in enumerate(pieces)], "m/t", TableError)


def test_plain_turns_categories_and_text_variants_into_text_and_drops_metadata() -> None:
    table = pa.table(
        {
            "c": pa.array(["a", None, "a"]).dictionary_encode(),
            "l": pa.array(["x", "y", "z"], pa.large_string()),
            "v": pa.array(["x", "y", "z"], pa.string_view()),
        },
        metadata={"pandas": "{}"},
    )
    result = plain(table)
    assert {str(field.type) for field in result.schema} == {"string"}
    assert result.schema.metadata is None
    assert result["c"].to_pylist() == ["a", None, "a"]


def test_plain_joins_chunks() -> None:
    table = pa.concat_tables([pa.table({"x": [1]}), pa.table({"x": [2]})])
    assert plain(table)["x"].num_chunks == 1


def test_joining_keeps_order_and_promotes_nulls_and_whole_numbers() -> None:
    joined = join(
        pa.table({"x": [1, 2], "s": pa.array([None, None])}),
        pa.table({"x": [0.5], "s": ["a"], "new": [True]}),
    )
    assert joined.to_pydict() == {
        "x": [1.0, 2.0, 0.5],
        "s": [None, None, "a"],
        "new": [None, None, True],
    }


def test_types_that_cannot_be_joined_are_named_with_the_column_and_the_parts() -> None:
    with pytest.raises(TableError) as caught:
        join(pa.table({"x": [1], "y": [1]}), pa.table({"x": ["a"], "y": [1.5]}))
    message = str(caught.value)
    assert "m/t: columns must have one type" in message
    assert "column x is int64 in part 0, string in part 1" in message
    assert "column y" not in message


def test_nan_and_missing_of_pandas_become_null() -> None:
    frame = pd.DataFrame({"x": [1.0, float("nan")], "s": ["a", None]}, index=[5, 6])
    table = from_pandas(frame, "f", SourceError)
    assert table.to_pydict() == {"x": [1.0, None], "s": ["a", None]}


def test_null_mask_sees_nulls_and_nan_across_chunks() -> None:
    column = pa.chunked_array([[1.0, None], [float("nan")]])
    assert null_mask(column).tolist() == [False, True, True]
    assert null_mask(pa.chunked_array([["a", None]])).tolist() == [False, True]
