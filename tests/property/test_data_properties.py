"""Properties of tables at rest, the contract and the removal of secrets from messages."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.data.contract import check_contract, offending_rows
from retrain_assets.data.sources import _Secrets
from retrain_assets.data.tables import TableStore, file_stem
from retrain_assets.spec.model import Column, Contract

NUMBERS = st.one_of(st.none(), st.integers(-5, 5).map(float), st.just(-0.0), st.just(math.nan))
COLUMN = st.lists(NUMBERS, min_size=1, max_size=30)
KEYS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.floats(allow_nan=False)),
        st.one_of(st.none(), st.text(max_size=5)),
        st.one_of(st.none(), st.booleans()),
    ),
    max_size=30,
)


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = [("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("b", pa.bool_())]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pa.table(
        {name: pa.array(values, kind) for (name, kind), values in zip(kinds, columns, strict=True)}
    )


@given(KEYS)
def test_a_file_name_gives_its_key_back_and_is_safe(key: str) -> None:
    stem = file_stem(key)
    assert unquote(stem) == key
    assert stem != "all"
    assert not stem.startswith(".")
    assert set(stem).isdisjoint("/\\:*?[]")
    assert stem.isascii()


@given(KEYS, KEYS)
def test_two_keys_never_share_a_file(one: str, other: str) -> None:
    assert (file_stem(one) == file_stem(other)) == (one == other)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.lists(st.integers(0, 30), max_size=4))
def test_any_table_comes_back_and_its_bytes_do_not_depend_on_chunks(
    rows: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    table = table_of(rows)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    with tempfile.TemporaryDirectory() as folder:
        store = TableStore(folder)
        whole = store.write("m", "t", "whole", table)
        chunked = store.write("m", "t", "chunked", pa.concat_tables(pieces))
        assert whole.sha256 == chunked.sha256
        assert store.read("m", "t", ["chunked"]).equals(table)


@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_reading_is_concatenation_in_the_order_asked_for(
    parts: list[list[tuple[Any, ...]]], random: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = TableStore(folder)
        for number, rows in enumerate(parts):
            store.write("m", "t", str(number), table_of(rows))
        order = list(range(len(parts)))
        random.shuffle(order)
        table = store.read_with_partition("m", "t", [str(number) for number in order])
        assert table.drop_columns(["__partition__"]).equals(
            table_of([row for number in order for row in parts[number]])
        )
        expected = [str(number) for number in order for _ in parts[number]]
        assert table["__partition__"].to_pylist() == expected


def is_null(value: float | None) -> bool:
    return value is None or math.isnan(value)


@given(COLUMN, st.integers(-5, 5), st.integers(-5, 5), st.floats(0, 1))
def test_the_contract_counts_what_a_loop_over_the_rows_counts(
    values: list[float | None], one: int, other: int, rate: float
) -> None:
    low, high = min(one, other), max(one, other)
    rule = Column(min=low, max=high, max_null_rate=rate, allowed=(-5, 0, 1, 2, 3))
    table = pa.table({"x": pa.array(values, pa.float64())})
    found = {
        breach.rule: breach.count for breach in check_contract(table, Contract(columns={"x": rule}))
    }
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    nulls = len(values) - len(numbers)
    expected = {
        "max_null_rate": nulls if nulls > rate * len(values) else 0,
        "min": sum(number < low for number in numbers),
        "max": sum(number > high for number in numbers),
        "allowed": sum(number not in (-5, 0, 1, 2, 3) for number in numbers),
    }
    assert found == {rule: count for rule, count in expected.items() if count}


@given(st.lists(st.tuples(NUMBERS, st.sampled_from(["a", "b", None])), min_size=1, max_size=30))
def test_unique_counts_what_a_counter_counts(rows: list[tuple[float | None, str | None]]) -> None:
    keys = [(None if is_null(number) else number, text) for number, text in rows]
    counts = Counter(keys)
    table = pa.table({"a": pa.array([n for n, _ in rows], pa.float64()), "b": [t for _, t in rows]})
    found = check_contract(table, Contract(unique=("a", "b")))
    assert sum(breach.count for breach in found) == sum(counts[key] > 1 for key in keys)


@given(COLUMN, st.integers(-5, 5))
def test_rows_are_kept_aside_exactly_when_they_break_a_rule(
    values: list[float | None], low: int
) -> None:
    contract = Contract(columns={"x": Column(min=low, nullable=False)})
    table = pa.table({"n": list(range(len(values))), "x": pa.array(values, pa.float64())})
    kept = offending_rows(table, contract)
    bad = [n for n, value in enumerate(values) if is_null(value) or value < low]  # type: ignore[operator]
    assert kept["n"].to_pylist() == bad
    good = table.filter(pa.array([n not in set(bad) for n in range(len(values))]))
    assert check_contract(good, contract.model_copy(update={"min_rows": 0})) == []


@given(
    st.text("abcdefgXYZ0123456789@:/?#%&=+ ", min_size=3, max_size=20),
    st.sampled_from(["http://u:{}@host/x", "postgresql://u:{}@h:1/d", "s3://b/k?token={}", "{}"]),
    st.sampled_from(["failed: {}", "cannot open '{}'", "{} {}", 'bad "{}" here']),
    st.booleans(),
)
def test_no_message_keeps_a_secret_of_the_environment(
    secret: str, template: str, message: str, quoted: bool
) -> None:
    import os

    value = template.format(quote(secret, safe="") if quoted else secret)
    os.environ["RETRAIN_TEST_SECRET"] = value
    try:
        secrets = _Secrets.of(["${RETRAIN_TEST_SECRET}"])
    finally:
        del os.environ["RETRAIN_TEST_SECRET"]
    marked = message.replace("{}", "\0{}\0")
    for said in (value, *({secret} if quoted and template != "{}" else ())):
        text = secrets.redact(marked.format(*([said] * message.count("{}"))))
        assert said not in text.split("\0")[1::2]
