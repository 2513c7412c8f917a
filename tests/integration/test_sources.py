"""Sources against real files, a real HTTP server, SQLite, PostgreSQL and Python functions."""

from __future__ import annotations

import gzip
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from integration.postgres import PASSWORD, PostgresServer

from retrain_assets.data.sources import available_partitions, read_source, source_version
from retrain_assets.errors import RetrainError, SettingsError, SourceError
from retrain_assets.spec.model import Source, SqlSource
from retrain_assets.spec.partitions import PartitionScheme

DAYS = PartitionScheme("day", date(2024, 1, 1), date(2024, 1, 10))
HOURS = PartitionScheme("hour", date(2024, 1, 1))
NOW = datetime(2024, 2, 1, tzinfo=UTC)
SECRET = "hunter2-very-secret"


def shown(error: BaseException) -> str:
    """Everything that a UI could show of an error: message, traceback, causes, contexts."""
    return "".join(traceback.format_exception(error)) + repr(error.__context__)


def write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


# -- local files ----------------------------------------------------------------------------------


def test_a_partition_is_read_from_the_file_that_carries_its_key(tmp_path: Path) -> None:
    write(tmp_path / "2024-01-02.parquet", pa.table({"x": [1, 2]}))
    source = Source(files=f"{tmp_path}/{{partition}}.parquet")
    assert read_source(source, DAYS.window("2024-01-02")).to_pydict() == {"x": [1, 2]}


def test_several_files_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "2024-01-02" / "b.parquet", pa.table({"x": [3.5]}))
    write(tmp_path / "2024-01-02" / "a.parquet", pa.table({"x": [1, 2]}))
    write(tmp_path / "2024-01-03" / "a.parquet", pa.table({"x": [9]}))
    source = Source(files=f"{tmp_path}/{{partition}}/*.parquet")
    assert read_source(source, DAYS.window("2024-01-02"))["x"].to_pylist() == [1.0, 2.0, 3.5]


def test_names_with_brackets_and_question_marks_are_meant_literally(tmp_path: Path) -> None:
    write(tmp_path / "a[1]?" / "2024-01-02-x.parquet", pa.table({"x": [1]}))
    source = Source(files=f"{tmp_path}/a[1]?/{{partition}}-*.parquet")
    assert read_source(source, DAYS.window("2024-01-02")).num_rows == 1
    assert available_partitions(source, DAYS, NOW) == ["2024-01-02"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_keeps_types_and_tells_nulls_from_empty_text(tmp_path: Path, ending: str) -> None:
    text = b'n,x,s,t,b\n1,,NA,2024-01-01T05:00:00Z,true\n2,1.5,"NA",2024-01-02T05:00:00Z,false\n'
    content = gzip.compress(text) if ending == "csv.gz" else text
    (tmp_path / f"2024-01-01.{ending}").write_bytes(content)
    table = read_source(
        Source(files=f"{tmp_path}/{{partition}}.{ending}"), DAYS.window("2024-01-01")
    )
    kinds = [str(field.type) for field in table.schema]
    assert kinds == ["int64", "double", "string", "timestamp[us, tz=UTC]", "bool"]
    assert table["x"].to_pylist() == [None, 1.5]
    assert table["s"].to_pylist() == [None, "NA"]


def test_a_csv_column_s_type_comes_from_the_whole_file(tmp_path: Path) -> None:
    rows = "".join(f"{i},\n" for i in range(300_000)) + "0.5,late\n"
    (tmp_path / "data.csv").write_text("x,s\n" + rows)
    table = read_source(Source(files=f"{tmp_path}/data.csv"), None)
    assert [str(field.type) for field in table.schema] == ["double", "string"]


def test_parquet_of_pandas_loses_its_metadata_and_categories(tmp_path: Path) -> None:
    pd.DataFrame({"c": pd.Categorical(["a", "b"])}).to_parquet(tmp_path / "x.parquet")
    table = read_source(Source(files=f"{tmp_path}/x.parquet"), None)
    assert table.schema == pa.schema([("c", pa.string())])
    assert table.schema.metadata is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 half a file", r"x.parquet is not readable as parquet"),
        ("x.csv", b"a,b\n1,2\n3\n", r"x.csv is not readable as csv.*Expected 2 columns, got 1"),
        (
            "x.csv.gz",
            gzip.compress(b"a\n1\n" * 9999, mtime=0)[:40],
            r"x.csv.gz is not readable as csv",
        ),
        ("x.csv", b"", r"x.csv is not readable as csv"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_source(Source(files=f"{tmp_path}/{name}"), None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = Source(files=f"{tmp_path}/{{partition}}.parquet")
    with pytest.raises(SourceError, match=r"2024-01-02\.parquet: there is no such file"):
        read_source(source, DAYS.window("2024-01-02"))
    with pytest.raises(SourceError, match=r"2024-01-02-\*\.parquet: no file matches"):
        read_source(Source(files=f"{tmp_path}/{{partition}}-*.parquet"), DAYS.window("2024-01-02"))


def test_a_path_without_the_partition_is_refused_with_partitions_and_the_reverse() -> None:
    with pytest.raises(SourceError, match=r"needs \{partition\}"):
        read_source(Source(files="/x.parquet"), DAYS.window("2024-01-02"))
    with pytest.raises(SourceError, match=r"needs \{partition\}"):
        available_partitions(Source(files="/x.parquet"), DAYS, NOW)
    with pytest.raises(
        SourceError, match=r"has \{partition\}, but the model has `partitions: none`"
    ):
        read_source(Source(files="/{partition}.parquet"), None)


def test_available_partitions_are_the_listed_files_that_belong_to_ended_partitions(
    tmp_path: Path,
) -> None:
    names = ["2024-01-03", "2024-01-01", "2023-12-31", "2024-01-11", "2024-13-01", "notes"]
    for name in names:
        (tmp_path / f"d={name}").mkdir()
        (tmp_path / f"d={name}" / "rows.csv").touch()
    source = Source(files=f"{tmp_path}/d={{partition}}/rows.csv")
    assert available_partitions(source, DAYS, NOW) == ["2024-01-01", "2024-01-03"]
    assert available_partitions(source, DAYS, NOW, after="2024-01-01") == ["2024-01-03"]
    assert available_partitions(source, DAYS, datetime(2024, 1, 3, 23, tzinfo=UTC)) == [
        "2024-01-01"
    ]
    lagging = source.model_copy(update={"lag": timedelta(days=2)})
    assert available_partitions(lagging, DAYS, datetime(2024, 1, 5, tzinfo=UTC)) == ["2024-01-01"]


def test_hourly_keys_and_repeated_placeholders_are_recognised(tmp_path: Path) -> None:
    key = "2024-01-01-05:00"
    write(tmp_path / key / f"{key}-1.parquet", pa.table({"x": [1]}))
    write(tmp_path / key / "2024-01-01-06:00-1.parquet", pa.table({"x": [1]}))
    source = Source(files=f"{tmp_path}/{{partition}}/{{partition}}-*.parquet")
    assert available_partitions(source, HOURS, NOW) == [key]
    assert read_source(source, HOURS.window(key)).num_rows == 1


def test_files_that_come_later_are_seen_by_the_same_process(tmp_path: Path) -> None:
    source = Source(files=f"{tmp_path}/{{partition}}.csv")
    assert available_partitions(source, DAYS, NOW) == []
    (tmp_path / "2024-01-04.csv").touch()
    assert available_partitions(source, DAYS, NOW) == ["2024-01-04"]


def test_a_missing_folder_is_an_error_and_not_an_empty_source(tmp_path: Path) -> None:
    source = Source(files=f"{tmp_path}/unmounted/{{partition}}.csv")
    with pytest.raises(SourceError, match="folder does not exist"):
        available_partitions(source, DAYS, NOW)


def test_the_version_of_files_changes_when_and_only_when_they_change(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    source = Source(files=f"{tmp_path}/*.csv")
    first = source_version(source)
    assert first == source_version(source)
    (tmp_path / "b.csv").write_text("x\n1\n")
    second = source_version(source)
    (tmp_path / "b.csv").write_text("x\n2\n")
    third = source_version(source)
    assert len({first, second, third}) == 3
    with pytest.raises(SourceError, match="no file matches"):
        source_version(Source(files=f"{tmp_path}/*.parquet", format="parquet"))


# -- other filesystems ----------------------------------------------------------------------------


def test_an_object_store_is_listed_and_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket-c/in/2024-01-02.csv", b"x\n1\n")
    memory.pipe_file("/bucket-c/in/2024-01-05.csv", b"x\n2\n")
    source = Source(files="memory://bucket-c/in/{partition}.csv")
    assert available_partitions(source, DAYS, NOW) == ["2024-01-02", "2024-01-05"]
    assert read_source(source, DAYS.window("2024-01-05"))["x"].to_pylist() == [2]
    with pytest.raises(SourceError, match="bucket does not exist"):
        available_partitions(Source(files="memory://no-bucket/{partition}.csv"), DAYS, NOW)


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without index pages, counts requests, refuses paths with `forbidden`."""

    seen: list[str]

    def __init__(self, seen: list[str], *args: Any, **kwargs: Any) -> None:
        self.seen = seen
        super().__init__(*args, **kwargs)

    def log_message(self, *args: Any) -> None:
        return

    def list_directory(self, path: Any) -> None:
        self.send_error(403)

    def send_head(self) -> Any:
        self.seen.append(f"{self.command} {self.path}")
        if "forbidden" in self.path:
            self.send_error(403)
            return None
        return super().send_head()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Base URL, folder that is served, and the requests so far."""
    seen: list[str] = []
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Quiet, seen, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_over_http_are_read_and_found_by_asking_for_each(
    http: tuple[str, Path, list[str]],
) -> None:
    base, folder, seen = http
    for day in ("02", "03", "09"):
        (folder / f"2024-01-{day}.csv").write_text(f"x\n{int(day)}\n")
    source = Source(files=f"{base}/{{partition}}.csv")
    assert read_source(source, DAYS.window("2024-01-03"))["x"].to_pylist() == [3]
    assert available_partitions(source, DAYS, NOW) == ["2024-01-02", "2024-01-03", "2024-01-09"]
    seen.clear()
    assert available_partitions(source, DAYS, NOW, after="2024-01-08") == ["2024-01-09"]
    assert {request.split()[1] for request in seen} == {"/2024-01-09.csv", "/2024-01-10.csv"}


def test_http_has_no_globs_and_says_so(http: tuple[str, Path, list[str]]) -> None:
    source = Source(files=f"{http[0]}/{{partition}}-*.csv")
    with pytest.raises(SourceError, match="HTTP does not"):
        read_source(source, DAYS.window("2024-01-03"))
    with pytest.raises(SourceError, match="HTTP does not"):
        available_partitions(source, DAYS, NOW)


def test_a_refusal_over_http_is_not_taken_for_an_absent_file(
    http: tuple[str, Path, list[str]],
) -> None:
    source = Source(files=f"{http[0]}/forbidden/{{partition}}.csv")
    with pytest.raises(SourceError, match="403"):
        available_partitions(source, DAYS, NOW)


def test_an_http_server_that_is_down_is_an_error_and_not_an_empty_source() -> None:
    source = Source(files="http://127.0.0.1:9/{partition}.csv")
    with pytest.raises(SourceError, match="Connect"):
        available_partitions(source, DAYS, NOW)
    with pytest.raises(SourceError, match="Connect"):
        read_source(source, DAYS.window("2024-01-03"))


def test_the_version_of_a_file_over_http_follows_its_headers(
    http: tuple[str, Path, list[str]],
) -> None:
    base, folder, _ = http
    (folder / "all.csv").write_text("x\n1\n")
    source = Source(files=f"{base}/all.csv")
    first = source_version(source)
    assert first == source_version(source)
    (folder / "all.csv").write_text("x\n12\n")
    assert source_version(source) != first


# -- SQL ------------------------------------------------------------------------------------------

QUERY = (
    "select id, price, name, at, flag from sales "
    "where at >= :partition_start and at < :partition_end order by id"
)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/shop.db"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "create table sales (id integer, price real, name text, at text, flag integer, day text)"
        )
        connection.exec_driver_sql(
            "insert into sales values (1, 1.5, 'a', '2024-01-02 00:00:00', 1, '2024-01-02'), "
            "(2, null, null, '2024-01-02 23:59:59.999', 0, '2024-01-02'), "
            "(3, 2.5, 'c', '2024-01-03 00:00:00', 1, '2024-01-03'), "
            "(4, 9.0, 'd', '2024-01-01 23:59:59', 1, '2024-01-01')"
        )
    return url


def sql(url: str, query: str = QUERY) -> Source:
    return Source(sql=SqlSource(connection=url, query=query))


def test_sqlite_gets_the_half_open_window(sqlite: str) -> None:
    table = read_source(sql(sqlite), DAYS.window("2024-01-02"))
    assert table["id"].to_pylist() == [1, 2]
    assert table["price"].to_pylist() == [1.5, None]
    assert [str(field.type) for field in table.schema][:3] == ["int64", "double", "string"]


def test_only_the_parameters_that_the_query_uses_are_bound(sqlite: str) -> None:
    query = "select id, ':partition_key' as s from sales where day = :partition_key".replace(
        "':", r"'\:"
    )
    table = read_source(sql(sqlite, query), DAYS.window("2024-01-03"))
    assert table.to_pydict() == {"id": [3], "s": [":partition_key"]}
    assert read_source(sql(sqlite, "select id from sales"), None).num_rows == 4


def test_a_result_without_rows_keeps_its_columns(sqlite: str) -> None:
    table = read_source(sql(sqlite), DAYS.window("2024-01-09"))
    assert table.num_rows == 0
    assert table.column_names == ["id", "price", "name", "at", "flag"]


def test_a_long_result_is_joined_from_its_chunks(sqlite: str) -> None:
    query = (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 120000) "
        "select i, case when i > 100000 then i + 0.5 end as late from n"
    )
    table = read_source(sql(sqlite, query), None)
    assert table["i"].to_pylist() == list(range(1, 120_001))
    assert table["late"].null_count == 100_000
    assert table.schema.field("late").type == pa.float64()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select * from nosuch", "no such table: nosuch"),
        ("select id, id from sales", "unique, got twice: id"),
        ("select * from sales where id = :day", "binds :day, but only :partition_start"),
        ("delete from sales", "must be a SELECT"),
        ("select id as x from sales where id = 1 union all select 'a'", "column x .* one type"),
    ],
)
def test_a_query_that_cannot_be_used_is_explained(sqlite: str, query: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_source(sql(sqlite, query), DAYS.window("2024-01-02"))
    assert read_source(sql(sqlite, "select id from sales"), None).num_rows == 4


def test_a_query_with_a_window_is_refused_without_partitions(sqlite: str) -> None:
    with pytest.raises(SourceError, match="binds :partition_end, :partition_start, but the model"):
        read_source(sql(sqlite), None)


def test_postgres_types_and_both_kinds_of_timestamps_survive(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.create_database("sources_types")
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql(
            "create table sales (id int, at timestamptz, local timestamp, price numeric(8, 2), "
            "share float8, name text, flag bool, day date)"
        )
        connection.exec_driver_sql(
            "insert into sales select i, '2024-01-02 00:00:00+00'::timestamptz + (i - 1) * '12 hours'"
            "::interval, '2024-01-02 00:00:00'::timestamp + (i - 1) * '12 hours'::interval, i + 0.25, "
            "case when i = 1 then i * 0.5 end, 'n' || i, i = 1, '2024-01-02' from generate_series(0, 3) i"
        )
    for column in ("at", "local"):
        query = f"select * from sales where {column} >= :partition_start and {column} < :partition_end order by id"
        table = read_source(sql(url, query), DAYS.window("2024-01-02"))
        assert table["id"].to_pylist() == [1, 2]
    kinds = {field.name: field.type for field in table.schema}
    assert kinds["at"] == pa.timestamp("us", "UTC")
    assert kinds["local"] == pa.timestamp("us")
    assert pa.types.is_decimal(kinds["price"])
    assert kinds["flag"] == pa.bool_()
    assert kinds["day"] == pa.date32()
    assert table["at"][0].as_py() == datetime(2024, 1, 2, tzinfo=UTC)
    assert table["price"].to_pylist() == [Decimal("1.25"), Decimal("2.25")]
    assert table["share"].to_pylist() == [0.5, None]


def test_postgres_errors_are_the_server_s_words(postgres_server: PostgresServer) -> None:
    with pytest.raises(SourceError, match='relation "nosuch" does not exist'):
        read_source(sql(postgres_server.url(), "select * from nosuch"), None)


# -- secrets --------------------------------------------------------------------------------------


def assert_secret_is_kept(source: Source, *needles: str, match: str = "") -> None:
    with pytest.raises(RetrainError, match=match) as caught:
        read_source(source, None)
    text = shown(caught.value)
    for needle in needles:
        assert needle not in text


def test_a_wrong_password_is_reported_without_the_password(
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres_server.url(password=SECRET)
    monkeypatch.setenv("WAREHOUSE", url)
    literal, whole = sql(url, "select 1 as x"), sql("${WAREHOUSE}", "select 1 as x")
    for source in (literal, whole):
        assert_secret_is_kept(source, SECRET, PASSWORD, match="password authentication failed")
    monkeypatch.setenv("PGPASS", SECRET)
    part = url.replace(SECRET, "${PGPASS}")
    assert_secret_is_kept(
        sql(part, "select 1 as x"), SECRET, match="password authentication failed"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://user:{SECRET}/with-slash@127.0.0.1:1/db",
        f"postgresql+psycopg2://user@127.0.0.1:{SECRET}/db",
        f"postgresql+psycopg2//user:{SECRET}@127.0.0.1/db",
        f"{SECRET}://user@127.0.0.1/db",
        SECRET,
        f"nosuchdialect://user:{SECRET}@127.0.0.1/db",
        f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql+psycopg2://user@127.0.0.1:1/db?password={SECRET}",
        f"postgresql+psycopg2://user@127.0.0.1:1/db?nosuchoption={SECRET}",
        f"postgresql+psycopg2://user:{SECRET}@[::1/db",
    ],
)
def test_a_malformed_or_unreachable_url_gives_no_secret_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE", url)
    assert_secret_is_kept(sql("${WAREHOUSE}", "select 1 as x"), SECRET, match="source.sql")


@pytest.mark.parametrize(
    "url",
    [
        f"nosuchprotocol://user:{SECRET}@host/x.csv",
        f"http://user:{SECRET}@127.0.0.1:9/x.csv",
        f"http://127.0.0.1:9/x.csv?token={SECRET}",
        f"http://127.0.0.1:{SECRET}/x.csv",
        f"http://user:{SECRET}@[::1/x.csv",
        f"/nowhere/{SECRET}/x.csv",
    ],
)
def test_a_file_url_gives_no_secret_away(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", url)
    assert_secret_is_kept(Source(files="${BUCKET}", format="csv"), SECRET, match="source.files")


def test_storage_options_are_read_from_the_environment_and_kept_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    source = Source(
        files="memory://x/none.csv", storage_options={"token": "${TOKEN}", "skip": "false"}
    )
    assert_secret_is_kept(source, SECRET, match="no such file")
    monkeypatch.delenv("TOKEN")
    with pytest.raises(
        SettingsError, match=r"source\.storage_options\.token: environment variable TOKEN"
    ):
        read_source(source, None)


def test_a_database_that_is_down_is_a_clear_error() -> None:
    url = f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:9/db"
    assert_secret_is_kept(
        sql(url, "select 1 as x"), SECRET, match=r"(?s)\*\*\*@127.0.0.1:9.*refused"
    )


# -- Python ---------------------------------------------------------------------------------------

HERE = __name__
STATE: dict[str, Any] = {"keys": []}


def load_frame(window: Any, rows: int = 1) -> pd.DataFrame:
    key = None if window is None else window.key
    return pd.DataFrame({"key": [key] * rows, "hours": [24.0] * rows})


def load_arrow(window: Any) -> pa.Table:
    return pa.table({"days": [(window.end - window.start).days]})


def load_badly(window: Any) -> pd.DataFrame:
    raise LookupError("the feed is closed")


def load_list(window: Any) -> list[int]:
    return [1]


def load_mixed(window: Any) -> pd.DataFrame:
    return pd.DataFrame({"odd": [1, "a"]})


def keys() -> list[str]:
    found: list[str] = STATE["keys"]
    return found


def test_a_function_gets_the_window_and_its_options() -> None:
    source = Source(python=f"{HERE}:load_frame", options={"rows": 2})
    table = read_source(source, DAYS.window("2024-01-02"))
    assert table.to_pydict() == {"key": ["2024-01-02"] * 2, "hours": [24.0] * 2}
    assert read_source(source, None)["key"].to_pylist() == [None, None]
    arrow = read_source(Source(python=f"{HERE}:load_arrow"), DAYS.window("2024-01-02"))
    assert arrow.to_pydict() == {"days": [1]}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (f"{HERE}:load_badly", "load_badly for partition 2024-01-02 raised LookupError: the feed"),
        (f"{HERE}:load_list", "must return a pandas DataFrame or a pyarrow Table, got list"),
        (f"{HERE}:load_mixed", "a column cannot be stored as one type.*odd"),
        (f"{HERE}:load_nothing", "has no function 'load_nothing'"),
        ("no_such_package:load", "no_such_package cannot be imported"),
    ],
)
def test_a_function_that_fails_is_named(function: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_source(Source(python=function), DAYS.window("2024-01-02"))
    if "load_badly" in function:
        assert isinstance(caught.value.__cause__, LookupError)


def test_without_available_every_partition_that_ended_a_lag_ago_is_there() -> None:
    source = Source(python=f"{HERE}:load_frame", lag=timedelta(hours=6))
    early, late = datetime(2024, 1, 3, 5, tzinfo=UTC), datetime(2024, 1, 3, 6, tzinfo=UTC)
    assert available_partitions(source, DAYS, early) == ["2024-01-01"]
    assert available_partitions(source, DAYS, late) == ["2024-01-01", "2024-01-02"]
    assert available_partitions(source, DAYS, NOW, after="2024-01-09") == ["2024-01-10"]
    assert available_partitions(source, DAYS, NOW, after="2024-01-10") == []
    assert available_partitions(source, DAYS, NOW, after="2023-06-01") == DAYS.keys(NOW)


def test_what_available_reports_is_believed_within_the_model_s_partitions() -> None:
    source = Source(python=f"{HERE}:load_frame", available=f"{HERE}:keys")
    STATE["keys"] = ["2024-01-05", "2024-01-02", "2019-01-01"]
    assert available_partitions(source, DAYS, NOW) == ["2024-01-02", "2024-01-05"]
    STATE["keys"] = ["2024/01/05"]
    with pytest.raises(SourceError, match=r"keys of the form %Y-%m-%d .* got '2024/01/05'"):
        available_partitions(source, DAYS, NOW)
    STATE["keys"] = "2024-01-05"
    with pytest.raises(SourceError, match="must return partition keys, got str"):
        available_partitions(source, DAYS, NOW)


def test_the_version_of_a_function_follows_what_available_returns() -> None:
    source = Source(python=f"{HERE}:load_frame", available=f"{HERE}:keys")
    STATE["keys"] = ["v1"]
    first = source_version(source)
    assert first == source_version(source)
    STATE["keys"] = ["v2"]
    assert source_version(source) != first
    assert source_version(Source(python=f"{HERE}:load_frame")) is None
