"""Columns become the same numbers at training and at serving."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.training.encoding import (
    Encoding,
    class_labels,
    drop_null_targets,
    encode_target,
    feature_names,
    fit_encoding,
)

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def fitted(**columns):
    return fit_encoding(pa.table(columns), list(columns))


def encoded(encoding, **columns):
    return encoding.matrix(pd.DataFrame(columns))[:, 0].tolist()


def test_each_arrow_type_has_its_kind():
    encoding = fitted(
        text=pa.array(["b", "a", None]),
        large=pa.array(["b", "a", None], pa.large_string()),
        dictionary=pa.array(["b", "a", None]).dictionary_encode(),
        codes=pa.array([20, 10, None]).dictionary_encode(),
        flag=[True, None, False],
        whole=[1, 2, None],
        real=[0.5, None, 1.0],
        money=pa.array([Decimal("1.10"), Decimal("2.20"), None]),
        moment=pa.array([NOON, NOON, None]),
        day=[date(2024, 1, 1), None, date(2024, 1, 2)],
        nothing=pa.nulls(3),
        unfilled=pa.nulls(3, pa.string()),
    )
    assert {c.name: (c.kind, c.values) for c in encoding.columns} == {
        "text": ("category", ("a", "b")),
        "large": ("category", ("a", "b")),
        "dictionary": ("category", ("a", "b")),
        "codes": ("category", (10, 20)),
        "flag": ("boolean", ()),
        "whole": ("number", ()),
        "real": ("number", ()),
        "money": ("number", ()),
        "moment": ("timestamp", ()),
        "day": ("timestamp", ()),
        "nothing": ("empty", ()),
        "unfilled": ("empty", ()),
    }
    assert encoding.categorical == [0, 1, 2, 3]
    assert Encoding.from_json(encoding.to_json()) == encoding


def test_unseen_categories_and_nulls_are_missing():
    encoding = fitted(carrier=["DL", "AA", "DL"])
    values = encoded(encoding, carrier=["AA", "DL", "ZZ", None])
    np.testing.assert_array_equal(values, [0, 1, np.nan, np.nan])


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_text_is_the_same_in_every_pandas_type(dtype):
    encoding = fitted(carrier=["DL", "AA"])
    frame = pd.DataFrame({"carrier": pd.Series(["DL", None, "AA", "ZZ"], dtype=dtype)})
    np.testing.assert_array_equal(encoding.matrix(frame)[:, 0], [1, np.nan, 0, np.nan])


def test_number_categories_are_found_as_integers_and_as_floats():
    encoding = fitted(shelf=pa.array([7, 3, 7]).dictionary_encode())
    assert encoded(encoding, shelf=[3, 7]) == [0, 1]
    np.testing.assert_array_equal(encoded(encoding, shelf=[3.0, np.nan, 9.0]), [0, np.nan, np.nan])
    assert encoded(encoding, shelf=pd.Categorical([7, 3])) == [1, 0]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([True, False, None], dtype=object),
        pd.Series([True, False, None], dtype="boolean"),
        pd.Series([1.0, 0.0, np.nan]),
    ],
)
def test_truth_values_are_zero_one_and_missing(values):
    np.testing.assert_array_equal(encoded(fitted(flag=[True, False]), flag=values), [1, 0, np.nan])


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([Decimal("1.5"), None], dtype=object),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series(["1.5", None], dtype=object),
    ],
)
def test_numbers_are_floats(values):
    np.testing.assert_array_equal(encoded(fitted(size=[1.5, 2.0]), size=values), [1.5, np.nan])


@pytest.mark.parametrize(
    "value",
    [
        pd.Series([NOON.replace(tzinfo=None)], dtype="datetime64[ns]"),
        pd.Series([NOON.replace(tzinfo=None)], dtype="datetime64[s]"),
        pd.Series([NOON], dtype="datetime64[us, UTC]"),
        pd.Series(["2024-01-01T13:00:00+01:00"]),
        pd.Series([NOON], dtype=object),
    ],
)
def test_an_instant_is_one_number_in_every_form(value):
    assert encoded(fitted(at=[NOON]), at=value) == [NOON.timestamp()]


def test_dates_are_midnight_utc_and_far_dates_are_numbers_too():
    table = pa.table({"day": [date(2024, 1, 1), date(9999, 12, 31), None]})
    encoding = fit_encoding(table, ["day"])
    frame = table.to_pandas(date_as_object=False)
    expected = [datetime(2024, 1, 1, tzinfo=UTC).timestamp(), 253402214400.0, np.nan]
    np.testing.assert_array_equal(encoding.matrix(frame)[:, 0], expected)


def test_absent_columns_are_missing_and_order_and_extra_columns_do_not_matter():
    encoding = fitted(a=[1, 2], b=["x", "y"])
    frame = pd.DataFrame({"extra": [0], "b": ["y"], "a": [5]})
    assert encoding.matrix(frame).tolist() == [[5, 1]]
    np.testing.assert_array_equal(encoding.matrix(frame[["b"]]), [[np.nan, 1]])


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        ([1.0], ["many"], "feature 'x' was trained as number, got object values that are not"),
        (["1"], [1], "trained as category, got int64 values that are not .numbers where text"),
        ([True], ["yes"], "trained as boolean, got object"),
        ([NOON], [5], "trained as timestamp, got int64 values that are not .numbers where times"),
    ],
)
def test_values_of_another_kind_are_refused_not_scored_as_missing(trained, given, message):
    with pytest.raises(TrainingError, match=message):
        encoded(fitted(x=trained), x=given)


def test_a_table_without_any_feature_or_with_one_twice_is_refused():
    encoding = fitted(a=[1])
    with pytest.raises(TrainingError, match=r"none of the model's 1 feature columns \(a\) is in"):
        encoding.matrix(pd.DataFrame({"b": [1]}))
    with pytest.raises(TrainingError, match="got twice: a"):
        encoding.matrix(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_columns_that_cannot_be_features_are_named_together():
    table = pa.table({"tags": [["a"]], "blob": [b"x"], "ok": [1]})
    with pytest.raises(TrainingError, match=r"tags \(list<.*>\), blob \(binary\); convert them"):
        fit_encoding(table, table.column_names)
    with pytest.raises(TrainingError, match="absent: gone, the table has"):
        fit_encoding(table, ["gone"])
    with pytest.raises(TrainingError, match="no feature columns"):
        fit_encoding(table, [])


def test_features_are_all_columns_but_target_group_and_excluded():
    columns = ["id", "a", "b", "y", "query"]
    assert feature_names(columns, target="y", group="query", exclude=["id"]) == ["a", "b"]
    with pytest.raises(TrainingError, match=r"train\.exclude: ident not in the feature table"):
        feature_names(columns, target="y", exclude=["ident"])
    with pytest.raises(TrainingError, match="no feature columns are left"):
        feature_names(["y"], target="y")


def test_rows_without_a_label_are_dropped_and_counted():
    kept, dropped = drop_null_targets(pa.table({"y": [1.0, None, float("nan")]}), "y")
    assert (kept.num_rows, dropped) == (1, 2)
    with pytest.raises(TrainingError, match="target 'z' is not in the feature table"):
        drop_null_targets(pa.table({"y": [1]}), "z")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([True, False], (False, True)),
        ([1, 0, 1], (0, 1)),
        ([1.0, 0.0], (0, 1)),
        (["no", "yes"], ("no", "yes")),
    ],
)
def test_classes_are_sorted_labels_and_the_last_is_positive(values, classes):
    column = pa.chunked_array([values])
    assert class_labels(column, "y") == classes
    assert [type(c) for c in class_labels(column, "y")] == [type(c) for c in classes]
    indices = encode_target(column, target="y", task="binary", classes=classes)
    assert indices.tolist() == [int(v == classes[1]) for v in values]


@pytest.mark.parametrize(
    ("values", "task", "classes", "message"),
    [
        (["a", "c"], "multiclass", ("a", "b"), "1 of 2 rows have a class .* not trained on .'c'."),
        ([0.5], "binary", (0, 1), "got fractions"),
        ([1], "binary", ("no", "yes"), "the model's classes are 'no', 'yes', got int64"),
        ([1.0, float("inf")], "regression", None, "must be finite, got 1 infinite"),
        (["a"], "regression", None, "task regression needs numbers, got string"),
        ([True], "regression", None, "needs numbers, got bool"),
        ([1.5, -1.0], "ranking", None, "a whole number from 0 to 30, got -1, 1.5; map it"),
        ([None, 1], "regression", None, "got 1 nulls"),
    ],
)
def test_a_target_that_does_not_fit_names_rule_and_value(values, task, classes, message):
    with pytest.raises(TrainingError, match=message):
        encode_target(pa.chunked_array([values]), target="y", task=task, classes=classes)
