"""Feature transforms: SQL, Python, neither; the rules for the result; determinism."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from retrain_assets.data.features import build_features, null_rate, numeric_summaries
from retrain_assets.errors import FeatureError
from retrain_assets.spec.model import Features

RAW = pa.table({"k": ["b", "a", None, "b"], "x": [1, 2, 3, 4], "y": [0, 1, 0, 1]})

# Transforms that specs below name as `module:function`.


def doubled(raw: pd.DataFrame) -> pd.DataFrame:
    raw["x"] *= 2  # in place, on purpose
    return raw


def with_history(raw: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(earlier=len(history))


def shifted_index(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.set_index(pd.Index([9, 8, 7, 6])).assign(c=pd.Categorical(["u", "v", "u", None]))


def failing(raw: pd.DataFrame) -> pd.DataFrame:
    return raw[["nonsense"]]


def no_frame(raw: pd.DataFrame) -> int:
    return len(raw)


def mixed(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(odd=[1, "a", 2, "b"])


def numbered(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.rename(columns={"x": 7})


def twice(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([raw, raw], axis=1)


def python(function: Callable[..., object], lookback: int = 0) -> Features:
    return Features(python=f"{__name__}:{function.__name__}", lookback=lookback)


def sql(text: str, raw: pa.Table = RAW, history: pa.Table | None = None, **more: int) -> pa.Table:
    return build_features(Features(sql=text, **more), raw, history, target="y")


def test_without_a_transform_the_raw_table_is_the_feature_table() -> None:
    assert build_features(Features(), RAW, None, target="y").equals(RAW)


def test_sql_reads_raw_in_its_order() -> None:
    table = sql("select x * 10 as z, y from raw where x > 1")
    assert table.to_pydict() == {"z": [20, 30, 40], "y": [1, 0, 1]}


def test_sql_reads_history_with_lookback_and_an_empty_one_at_the_beginning() -> None:
    text = "select y, (select count(*) from history) as n from raw"
    assert sql(text, RAW, RAW.slice(0, 3), lookback=2)["n"].to_pylist() == [3] * 4
    assert sql(text, RAW, None, lookback=2)["n"].to_pylist() == [0] * 4


def test_history_without_lookback_is_an_error_that_says_so() -> None:
    with pytest.raises(FeatureError, match=r"history(?s:.)*lookback"):
        sql("select y, 1 as n from raw join history using (x)", RAW, RAW)


def test_zero_rows_are_allowed_and_keep_their_types() -> None:
    table = sql("select * from raw", RAW.slice(0, 0))
    assert table.num_rows == 0
    assert table.schema == RAW.schema
    assert build_features(python(doubled), RAW.slice(0, 0), None, target="y").num_rows == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select *\nfrom raw\nwhere nocolumn > 1", r"nocolumn(?s:.)*LINE 3"),
        ("select x,\n y frm raw r s", r"syntax error(?s:.)*LINE 2"),
        ("select cast(k as int) as c, y from raw", "Could not convert string"),
        ("select 1 as a, 2 as a, y from raw", "unique, got twice: a"),
        ("select x from raw", "target 'y' is missing; the table has x"),
        ("select y from raw", "at least one column beside the target"),
        ("select y, [x] as l from raw", "column l is list"),
        ("select y, {'a': x} as s from raw", "column s is struct"),
        ("select y, interval 1 day as i from raw", "column i is month_day_nano_interval"),
        ("select y, 'a'::blob as b from raw", "column b is binary"),
        ("-- nothing", "must end with a SELECT"),
    ],
)
def test_sql_that_fails_or_gives_a_bad_table_is_a_feature_error(text: str, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        sql(text)


@pytest.mark.parametrize(
    "text",
    [
        "select *, 1 as y from read_csv('/etc/passwd')",
        "copy raw to '/tmp/retrain-assets-must-not-exist.csv'",
        "attach '/tmp/retrain-assets-must-not-exist.db'",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_sql_cannot_leave_its_sandbox(text: str) -> None:
    with pytest.raises(FeatureError):
        sql(text)


def test_sql_cannot_name_python_variables_of_this_process() -> None:
    secret = pa.table({"x": [1], "y": [2]})
    assert secret.num_rows == 1
    with pytest.raises(FeatureError, match="secret"):
        sql("select * from secret")


def test_wide_sums_and_decimals_become_floats_and_categories_text() -> None:
    raw = RAW.append_column("d", pa.array([Decimal("1.25")] * 4))
    table = sql(
        "select k::enum('a', 'b') as k, sum(x) as s, max(d) as d, 1 as y from raw group by k order by k",
        raw,
    )
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {"k": "string", "s": "double", "d": "double", "y": "int32"}
    assert table["s"].to_pylist() == [2.0, 5.0, 3.0]
    assert build_features(Features(), raw, None, target="y").schema.field("d").type == pa.float64()


def test_times_with_a_zone_stay_in_utc() -> None:
    moment = dt.datetime(2024, 3, 1, 5, tzinfo=dt.UTC)
    raw = pa.table({"t": [moment], "y": [1]})
    table = sql("select date_trunc('day', t) as day, hour(t) as hour, y from raw", raw)
    assert table.schema.field("day").type == pa.timestamp("us", "UTC")
    assert table.to_pylist() == [{"day": moment.replace(hour=0), "hour": 5, "y": 1}]


def test_sql_gives_the_same_table_every_time_even_with_random_and_groups() -> None:
    raw = pa.table(
        {
            "k": [str(i * 7919 % 997) for i in range(20_000)],
            "x": [i * 0.1 for i in range(20_000)],
            "y": [1] * 20_000,
        }
    )
    text = (
        "select k, sum(x) as s, avg(x) as m, any_value(random()) as r, 1 as y from raw group by k"
    )
    first, second = sql(text, raw), sql(text, raw)
    assert first.num_rows == 997
    assert first.equals(second)


def test_a_function_may_work_in_place_without_touching_the_raw_rows() -> None:
    table = build_features(python(doubled), RAW, None, target="y")
    assert table["x"].to_pylist() == [2, 4, 6, 8]
    assert RAW["x"].to_pylist() == [1, 2, 3, 4]


def test_a_function_gets_history_with_lookback_only() -> None:
    some = build_features(python(with_history, 1), RAW, RAW, target="y")
    none = build_features(python(with_history, 1), RAW, None, target="y")
    assert some["earlier"].to_pylist() == [4] * 4
    assert none["earlier"].to_pylist() == [0] * 4


def test_a_frame_s_index_is_ignored_and_its_text_is_arrow_text() -> None:
    table = build_features(python(shifted_index), RAW, None, target="y")
    assert table.column_names == ["k", "x", "y", "c"]
    assert table.schema.field("k").type == pa.string()
    assert table.schema.field("c").type == pa.string()
    assert table["k"].to_pylist() == ["b", "a", None, "b"]
    assert table.schema.metadata is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (failing, "failing raised KeyError"),
        (no_frame, "must return a pandas DataFrame, got int"),
        (mixed, "cannot be stored as one type: .*odd"),
        (numbered, "column names must be text, got 7"),
        (twice, "unique, got twice: k, x, y"),
    ],
)
def test_a_function_that_fails_or_returns_something_odd_is_named(
    function: Callable[..., object], message: str
) -> None:
    with pytest.raises(FeatureError, match=message):
        build_features(python(function), RAW, None, target="y")


def test_the_function_s_own_exception_stays_chained() -> None:
    with pytest.raises(FeatureError) as caught:
        build_features(python(failing), RAW, None, target="y")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("path", "message"),
    [("no_such_package.x:f", "no_such_package"), ("json:no_function", "json has no function")],
)
def test_a_function_that_does_not_exist_is_named(path: str, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        build_features(Features(python=path), RAW, None, target="y")


def test_null_rate_counts_cells_and_nan() -> None:
    table = pa.table({"a": [1.0, float("nan"), None], "b": ["x", None, "z"]})
    assert null_rate(table) == pytest.approx(0.5)
    assert null_rate(pa.table({"a": pa.array([], pa.int64())})) == 0.0


def test_summaries_ignore_nulls_and_leave_out_text() -> None:
    table = pa.table(
        {
            "a": [1.0, float("nan"), 3.0, None],
            "b": ["x"] * 4,
            "n": pa.array([None] * 4, pa.int64()),
            "t": [True, False] * 2,
        }
    )
    found = numeric_summaries(table)
    assert set(found) == {"a", "n", "t"}
    assert (found["a"].mean, found["a"].min, found["a"].max, found["a"].null_rate) == (2, 1, 3, 0.5)
    assert (found["n"].mean, found["n"].min, found["n"].null_rate) == (None, None, 1.0)
    assert found["t"].mean == 0.5
