"""The data contract: each rule, its counts, examples and offending rows."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from retrain_assets.data.contract import Breach, breach_report, check_contract, offending_rows
from retrain_assets.spec.model import Column, Contract


def check(table: pa.Table, columns: dict[str, Any] | None = None, **rules: Any) -> list[Breach]:
    contract = Contract(
        columns={name: Column(**rule) for name, rule in (columns or {}).items()}, **rules
    )
    return check_contract(table, contract)


def only(breaches: list[Breach]) -> Breach:
    assert len(breaches) == 1, breaches
    return breaches[0]


def test_a_table_that_keeps_every_rule_has_no_breach() -> None:
    table = pa.table(
        {"id": [1, 2], "x": [0.5, None], "c": ["a", "b"], "t": [dt.date(2024, 1, 1)] * 2}
    )
    columns = {
        "id": {"type": "int", "nullable": False, "min": 1},
        "x": {"type": "float", "max_null_rate": 0.5, "min": 0, "max": 1},
        "c": {"type": "string", "allowed": ("a", "b")},
        "t": {"type": "timestamp"},
    }
    assert check(table, columns, unique=("id",), max_rows=2, extra="forbid") == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2]), "float"),
        (pa.array([1, 2], pa.uint8()), "int"),
        (pa.array([Decimal("1.5"), None]), "float"),
        (pa.array([None, None]), "string"),
        (pa.array(["a", "b"]).dictionary_encode(), "string"),
        (pa.array(["a"], pa.large_string()), "string"),
        (pa.array([True]), "bool"),
        (pa.array([0], pa.timestamp("ns", "UTC")), "timestamp"),
        (pa.array([1.0, None]), "int"),
    ],
)
def test_a_column_of_a_compatible_type_passes(values: pa.Array, expected: str) -> None:
    assert check(pa.table({"x": values}), {"x": {"type": expected}}) == []


@pytest.mark.parametrize(
    ("values", "expected", "count"),
    [
        (pa.array([1.0, 2.0]), "int", 2),
        (pa.array([1.0, None, 2.5]), "int", 1),
        (pa.array(["1", "x", None, "2"]), "int", 1),
        (pa.array(["1.5", "-2e3", ".5", "n/a"]), "float", 1),
        (pa.array(["1", "2"]), "int", 2),
        (pa.array([True, False]), "int", 2),
        (pa.array([1, None]), "string", 1),
        (pa.array([1]), "bool", 1),
        (pa.array(["2024-01-01"]), "timestamp", 1),
    ],
)
def test_a_wrong_type_counts_the_values_that_are_wrong(
    values: pa.Array, expected: str, count: int
) -> None:
    breach = only(check(pa.table({"x": values}), {"x": {"type": expected}}))
    assert (breach.rule, breach.column, breach.count) == ("type", "x", count)
    assert breach.limit == expected
    assert str(values.type) in breach.detail


def test_the_examples_of_a_mistyped_column_are_the_values_that_do_not_fit() -> None:
    table = pa.table({"x": ["1", "two", "3", "four"]})
    breach = only(check(table, {"x": {"type": "int"}}))
    assert breach.examples == ({"x": "two"}, {"x": "four"})


def test_missing_extra_and_repeated_columns_are_all_reported_at_once() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "a", "z"])
    found = check(table, {"a": {"type": "int"}, "b": {}}, extra="forbid", unique=("c",))
    assert [(b.rule, b.column) for b in found] == [
        ("duplicate_column", "a"),
        ("missing_column", "b"),
        ("missing_column", "c"),
        ("extra_column", "z"),
    ]


def test_nan_counts_as_null() -> None:
    table = pa.table({"x": [1.0, float("nan"), None]})
    breach = only(check(table, {"x": {"nullable": False, "min": 0, "max": 5}}))
    assert (breach.rule, breach.count, breach.total) == ("null", 2, 3)


@pytest.mark.parametrize(("rate", "broken"), [(0.5, False), (0.49, True)])
def test_a_null_rate_at_its_limit_passes_and_above_it_does_not(rate: float, broken: bool) -> None:
    found = check(pa.table({"x": [1, None]}), {"x": {"max_null_rate": rate}})
    assert [b.rule for b in found] == (["max_null_rate"] if broken else [])


def test_bounds_are_inclusive_and_name_at_most_three_rows() -> None:
    table = pa.table({"x": [-1, 0, 10, 11, 12, 13, 14, None]})
    low, high = check(table, {"x": {"min": 0, "max": 10}})
    assert (low.rule, low.count, low.examples) == ("min", 1, ({"x": -1},))
    assert (high.rule, high.count, high.total) == ("max", 4, 8)
    assert high.examples == ({"x": 11}, {"x": 12}, {"x": 13})


def test_bounds_on_text_are_a_breach_of_type() -> None:
    breach = only(check(pa.table({"x": ["a"]}), {"x": {"min": 0}}))
    assert (breach.rule, breach.limit) == ("type", "number")


@pytest.mark.parametrize(
    ("values", "allowed", "count"),
    [
        (pa.array(["a", "b", None]), ("a",), 1),
        (pa.array([1, 2, 3]), (1, 2.0, "3"), 1),
        (pa.array([1, 0]), (True, False), 2),
        (pa.array([True, False]), (True,), 1),
        (pa.array([True, False]), (1, 0), 2),
        (pa.array([1.5, 2.0, float("nan")]), (2, 1.5), 0),
        (pa.array([1, 300], pa.int16()), (1, 99999), 1),
        (pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)]), ("2024-01-01",), 1),
        (pa.array([Decimal("1.50"), Decimal("2.50")]), (1.5,), 1),
        (pa.array([None, None]), ("a",), 0),
    ],
)
def test_allowed_compares_values_of_the_column_s_own_type(
    values: pa.Array, allowed: tuple[Any, ...], count: int
) -> None:
    found = check(pa.table({"x": values}), {"x": {"allowed": allowed}})
    assert sum(b.count for b in found) == count
    assert {b.rule for b in found} <= {"allowed"}


def test_unique_is_about_the_combination_and_counts_every_row_involved() -> None:
    table = pa.table({"a": [1, 1, 1, 2, None, None], "b": ["x", "x", "y", "x", None, None]})
    breach = only(check(table, unique=("a", "b")))
    assert (breach.rule, breach.column, breach.count) == ("unique", "a, b", 4)
    assert breach.examples[0] == {"a": 1, "b": "x"}


def test_unique_over_many_wide_columns_does_not_overflow() -> None:
    rows = 3000
    columns = {f"c{i}": list(range(rows)) for i in range(12)}
    assert check(pa.table(columns), unique=tuple(columns)) == []
    columns = {name: [*values, 7] for name, values in columns.items()}
    assert only(check(pa.table(columns), unique=tuple(columns))).count == 2


def test_row_counts_have_a_lower_and_an_upper_bound() -> None:
    table = pa.table({"x": [1, 2, 3]})
    assert only(check(table, min_rows=4)).rule == "min_rows"
    assert only(check(table, max_rows=2)).rule == "max_rows"
    assert check(table, min_rows=3, max_rows=3) == []


def test_an_empty_table_breaks_only_the_rules_about_tables() -> None:
    table = pa.table({"x": pa.array([], pa.string())})
    rules = {"x": {"type": "int", "nullable": False, "allowed": (1,)}}
    assert [b.rule for b in check(table, rules, unique=("x",))] == ["min_rows"]
    assert check(table, rules, min_rows=0) == []


def test_chunks_and_slices_do_not_change_what_is_found() -> None:
    whole = pa.table({"x": [5, 1, 9, 1, None, 3], "c": list("abcabd")})
    pieces = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 1), whole.slice(3)])
    contract = Contract(
        columns={"x": Column(min=2, max_null_rate=0.1), "c": Column(allowed=("a", "b"))},
        unique=("x",),
    )
    assert check_contract(pieces, contract) == check_contract(whole, contract)
    assert offending_rows(pieces, contract).equals(offending_rows(whole, contract))


def test_offending_rows_come_once_each_with_all_their_rules() -> None:
    table = pa.table({"id": [1, 2, 2, 4], "x": [-1.0, 5.0, None, 3.0]})
    contract = Contract(
        columns={"x": Column(nullable=False, min=0, max=4)}, unique=("id",), min_rows=10
    )
    assert offending_rows(table, contract).to_pylist() == [
        {"id": 1, "x": -1.0, "__rule__": "x: min"},
        {"id": 2, "x": 5.0, "__rule__": "x: max; id: unique"},
        {"id": 2, "x": None, "__rule__": "x: null; id: unique"},
    ]


def test_offending_rows_of_a_good_table_are_none_with_the_same_columns() -> None:
    kept = offending_rows(pa.table({"x": [1]}), Contract())
    assert kept.num_rows == 0
    assert kept.column_names == ["x", "__rule__"]


def test_whole_floats_with_nulls_from_pandas_pass_as_int() -> None:
    table = pa.Table.from_pandas(pd.DataFrame({"x": [1, None, 3]}))
    assert table.schema.field("x").type == pa.float64()
    assert check(table, {"x": {"type": "int", "min": 1}}) == []


def test_the_report_names_subject_rule_count_limit_and_rows() -> None:
    table = pa.table(
        {"delay": [-99.0, 5.0, None, None], "wide": ["y" * 300] * 4, "carrier": ["AA", "??"] * 2}
    )
    found = check(
        table,
        {
            "delay": {"type": "float", "min": -60, "max_null_rate": 0.25},
            "carrier": {"allowed": ("AA", "UA")},
            "tail": {},
        },
        min_rows=1000,
        unique=("carrier",),
    )
    report = breach_report(found, "flight_delay raw_data 2013-01-01")
    assert report.splitlines()[0] == (
        "flight_delay raw_data 2013-01-01: breaks 6 rules of its data contract"
    )
    assert "the table: min_rows: must have at least 1,000 rows, got 4" in report
    assert "column tail: missing_column: is missing (the table has delay, wide, carrier)" in report
    assert "column delay: max_null_rate: null in 2 of 4 rows (50.00%), allowed is 25.00%" in report
    assert "column delay: min: must be >= -60; 1 of 4 rows (25.00%)" in report
    assert "column carrier: allowed: must be one of 'AA', 'UA'; 2 of 4 rows (50.00%)" in report
    assert "column carrier: unique: must be unique together; 4 of 4 rows" in report
    assert 'for example {"delay": -99.0, "wide": "yyy' in report
    assert 'for example {"carrier": "??", "delay":' in report
    assert all(len(line) < 220 for line in report.splitlines())
    assert "change `contract` in the spec" in report


def test_the_report_of_dates_and_types_is_plain_text() -> None:
    table = pa.table({"t": [dt.datetime(2024, 1, 1)], "n": ["x"]})
    found = check(table, {"t": {"type": "int"}, "n": {"type": "int"}})
    report = breach_report(found, "m")
    assert "must be int; 1 of 1 rows (100.00%) is not (the column is timestamp[us])" in report
    assert "2024-01-01" in report
