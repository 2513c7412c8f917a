"""Tables at rest on a local disk and on object stores (in memory, and over HTTP); kills in the middle of a write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from integration.object_store import ObjectStore

from retrain_assets.data.features import build_features
from retrain_assets.data.tables import TableStore, file_stem
from retrain_assets.errors import TableError
from retrain_assets.spec.model import Features

TABLE = pa.table({"x": [1, 2, 3], "s": ["a", None, "c"]})


@pytest.fixture(params=["local", "file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TableStore:
    if request.param == "s3":
        swift: ObjectStore = request.getfixturevalue("object_store")
        request.getfixturevalue("object_store_environment")
        return TableStore(swift.create_bucket("tables") + "/store")
    bases = {
        "local": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://bucket-{uuid.uuid4().hex}/store",
    }
    return TableStore(bases[request.param])


def test_what_was_written_is_read_back(store: TableStore) -> None:
    stored = store.write("churn", "features", "2024-01-01", TABLE)
    assert store.read("churn", "features", ["2024-01-01"]).equals(TABLE)
    assert stored.rows == 3
    assert stored.path.endswith("/store/tables/churn/features/2024-01-01.parquet")
    assert store.fingerprints("churn", "features", ["2024-01-01"]) == {"2024-01-01": stored.sha256}
    described = store.describe("churn", "features", "2024-01-01")
    assert (described.rows, described.size_bytes) == (3, stored.size_bytes)
    assert described.columns == {"x": "int64", "s": "string"}


def test_a_table_without_partitions_is_called_all(store: TableStore) -> None:
    assert not store.exists("churn", "features", None)
    stored = store.write("churn", "features", None, TABLE)
    assert stored.path.endswith("/all.parquet")
    assert store.exists("churn", "features", None)
    assert store.read("churn", "features", [None]).equals(TABLE)
    assert store.partitions("churn", "features") == []
    assert store.fingerprints("churn", "features", [None]) == {"all": stored.sha256}


def test_partitions_are_listed_with_the_keys_that_they_were_written_under(
    store: TableStore,
) -> None:
    keys = ["2024-01-01-05:00", "2024-01-01", "all", ".hidden", "a/b %", "b.tmp"]
    assert store.partitions("churn", "raw") == []
    for key in keys:
        store.write("churn", "raw", key, TABLE)
    store.write("churn", "raw", None, TABLE)
    store.write("churn", "raw_other", "2030-01-01", TABLE)
    assert store.partitions("churn", "raw") == sorted(keys)
    assert store.read("churn", "raw", keys).num_rows == 3 * len(keys)


def test_partitions_written_by_another_store_object_are_seen(store: TableStore) -> None:
    store.write("churn", "raw", "2024-01-01", TABLE)
    assert store.partitions("churn", "raw") == ["2024-01-01"]
    TableStore(store.base).write("churn", "raw", "2024-01-02", TABLE)
    assert store.partitions("churn", "raw") == ["2024-01-01", "2024-01-02"]
    assert store.exists("churn", "raw", "2024-01-02")


def test_rows_come_in_the_order_of_the_partitions_asked_for(store: TableStore) -> None:
    store.write("churn", "raw", "a", pa.table({"x": [1], "y": pa.array([None])}))
    store.write("churn", "raw", "b", pa.table({"x": [2.5, 3.5], "y": ["u", "v"], "z": [1, 2]}))
    table = store.read_with_partition("churn", "raw", ["b", "a"])
    assert table.to_pydict() == {
        "x": [2.5, 3.5, 1.0],
        "y": ["u", "v", None],
        "z": [1, 2, None],
        "__partition__": ["b", "b", "a"],
    }
    assert pa.types.is_dictionary(table.schema.field("__partition__").type)


def test_only_the_asked_columns_are_read_in_that_order(store: TableStore) -> None:
    store.write("churn", "raw", "a", TABLE)
    store.write("churn", "raw", "b", TABLE.select(["s"]))
    assert store.read("churn", "raw", ["a", "b"], columns=["s", "x"]).column_names == ["s", "x"]
    tagged = store.read_with_partition("churn", "raw", ["b", "a"], columns=["x"])
    assert tagged["x"].to_pylist() == [None] * 3 + [1, 2, 3]
    assert tagged["__partition__"].to_pylist() == ["b"] * 3 + ["a"] * 3
    with pytest.raises(TableError, match="no partition of a to b has column nope, nor"):
        store.read("churn", "raw", ["a", "b"], columns=["nope", "s", "nor"])


def test_columns_that_no_partition_shares_still_count_rows(store: TableStore) -> None:
    store.write("churn", "raw", "a", pa.table({"x": [1, 2]}))
    store.write("churn", "raw", "b", pa.table({"y": [3]}))
    table = store.read_with_partition("churn", "raw", ["a", "b"])
    assert table.to_pydict() == {
        "x": [1, 2, None],
        "y": [None, None, 3],
        "__partition__": ["a", "a", "b"],
    }


def test_every_missing_partition_is_named(store: TableStore) -> None:
    store.write("churn", "raw", "2024-01-01", TABLE)
    with pytest.raises(TableError) as caught:
        store.read("churn", "raw", ["2024-01-01", "2024-01-02", "2024-01-03"])
    message = str(caught.value)
    assert "churn/raw: 2 missing partitions: 2024-01-02, 2024-01-03" in message
    assert "tables/churn/raw/2024-01-02.parquet" in message
    assert "materialize them first" in message
    with pytest.raises(TableError, match="1 missing partition: all"):
        store.fingerprints("churn", "raw", [None])
    with pytest.raises(TableError, match="no partition was asked for"):
        store.read("churn", "raw", [])


def test_a_damaged_file_is_named_and_never_read_as_something_else(store: TableStore) -> None:
    stored = store.write("churn", "raw", "2024-01-01", pa.table({"x": list(range(5000))}))
    path = "tables/churn/raw/2024-01-01.parquet"
    content = store.read_bytes(path)
    assert len(content) == stored.size_bytes
    store.write_bytes(path, content[: len(content) // 2])
    with pytest.raises(TableError, match=r"2024-01-01\.parquet: not a readable Parquet file"):
        store.read("churn", "raw", ["2024-01-01"])
    middle = len(content) // 4
    store.write_bytes(path, content[:4] + b"\xff" * middle + content[4 + middle :])
    with pytest.raises(TableError, match=r"2024-01-01\.parquet: damaged Parquet file"):
        store.read("churn", "raw", ["2024-01-01"])


def test_types_that_cannot_be_joined_name_the_partitions(store: TableStore) -> None:
    store.write("churn", "raw", "a", pa.table({"x": [1]}))
    store.write("churn", "raw", "b", pa.table({"x": ["one"]}))
    with pytest.raises(TableError, match="column x is int64 in partition a, string in partition b"):
        store.read("churn", "raw", ["a", "b"])


@pytest.mark.parametrize(
    "other",
    [
        pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
        TABLE.replace_schema_metadata({"pandas": "x"}),
        pa.concat_tables([TABLE, TABLE]).slice(3),
        TABLE.set_column(1, "s", TABLE["s"].combine_chunks().dictionary_encode()),
        TABLE.set_column(1, "s", TABLE["s"].cast(pa.large_string())),
        pa.Table.from_pandas(
            TABLE.to_pandas().set_index(pd.Index([7, 8, 9])), preserve_index=False
        ),
    ],
)
def test_equal_tables_give_equal_bytes(tmp_path: Path, other: pa.Table) -> None:
    store = TableStore(str(tmp_path))
    assert store.write("m", "a", None, TABLE).sha256 == store.write("m", "b", None, other).sha256


def test_other_values_give_other_bytes(tmp_path: Path) -> None:
    store = TableStore(str(tmp_path))
    changed = pa.table({"x": [1, 2, 4], "s": ["a", None, "c"]})
    assert store.write("m", "a", None, TABLE).sha256 != store.write("m", "b", None, changed).sha256


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    store = TableStore(str(tmp_path))
    raw = pa.table({"k": [i * 31 % 101 for i in range(5000)], "x": [i * 0.1 for i in range(5000)]})
    sql = Features(sql="select k, avg(x) as m, random() as r, sum(x) as y from raw group by k")
    digests = {
        store.write("m", f"f{i}", None, build_features(sql, raw, None, target="y")).sha256
        for i in range(3)
    }
    assert len(digests) == 1


def test_bad_names_are_refused(tmp_path: Path) -> None:
    store = TableStore(str(tmp_path))
    for model, table in (("../x", "raw"), ("m", ""), ("m", "a/b"), (".m", "raw")):
        with pytest.raises(TableError, match="name is letters"):
            store.write(model, table, None, TABLE)
    with pytest.raises(TableError, match="must not be empty"):
        store.write("m", "raw", "", TABLE)
    with pytest.raises(TableError, match="unique, got twice: x"):
        store.write("m", "raw", None, pa.Table.from_arrays([[1], [2]], ["x", "x"]))
    for path in ("/etc/passwd", "../x", "a/../../x", "", "a//b"):
        with pytest.raises(TableError, match="relative and without"):
            store.write_bytes(path, b"")


def test_a_folder_that_cannot_be_written_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where a folder should be")
    with pytest.raises(TableError, match=r"cannot be written: (Not a directory|File exists)"):
        TableStore(str(tmp_path)).write("m", "raw", None, TABLE)


@pytest.mark.parametrize("base", ["nosuch://bucket/x", "s4://bucket"])
def test_an_unknown_filesystem_is_an_error(base: str) -> None:
    with pytest.raises(TableError, match="not a usable store"):
        TableStore(base).write("m", "raw", None, TABLE)


def test_credentials_in_the_url_are_refused_without_repeating_them() -> None:
    with pytest.raises(TableError, match="storage_options") as caught:
        TableStore("sftp://user:hunter2@host/x").exists("m", "raw", None)
    assert "hunter2" not in str(caught.value)


def test_documents_are_written_and_read_and_listed(store: TableStore) -> None:
    document = {"b": [1, 2.5, None], "a": {"ü": True}}
    path = store.write_json("churn", "drift", "2024-01-01", document)
    assert path.endswith("/documents/churn/drift/2024-01-01.json")
    assert store.read_json("churn", "drift", "2024-01-01") == document
    assert store.json_partitions("churn", "drift") == ["2024-01-01"]
    assert store.json_exists("churn", "drift", "2024-01-01")
    assert not store.json_exists("churn", "drift", None)
    with pytest.raises(TableError, match="no document for partition 2024-01-02"):
        store.read_json("churn", "drift", "2024-01-02")


def test_many_documents_are_read_at_once_without_those_that_are_missing(store: TableStore) -> None:
    for day in ("2024-01-01", "2024-01-03"):
        store.write_json("churn", "drift", day, {"day": day})
    found = store.read_many_json("churn", "drift", ["2024-01-03", "2024-01-02", "2024-01-01"])
    assert list(found.items()) == [
        ("2024-01-03", {"day": "2024-01-03"}), ("2024-01-01", {"day": "2024-01-01"}),
    ]  # fmt: skip
    assert store.read_many_json("churn", "drift", []) == {}
    store.write_bytes("documents/churn/drift/2024-01-02.json", b"{")
    with pytest.raises(TableError, match=r"2024-01-02\.json: not readable as JSON"):
        store.read_many_json("churn", "drift", ["2024-01-01", "2024-01-02"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: {2, 3}}])
def test_what_is_not_json_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TableError, match="cannot be stored as JSON"):
        TableStore(str(tmp_path)).write_json("m", "report", None, {"v": value})


def test_a_damaged_document_is_named(store: TableStore) -> None:
    store.write_bytes("documents/m/report/all.json", b'{"a": 1')
    with pytest.raises(TableError, match=r"all\.json: not readable as JSON"):
        store.read_json("m", "report", None)


def test_bytes_are_written_and_read(store: TableStore) -> None:
    store.write_bytes("models/m/1.bin", b"\x00\x01")
    assert store.read_bytes("models/m/1.bin") == b"\x00\x01"
    with pytest.raises(TableError, match="no such file"):
        store.read_bytes("models/m/2.bin")


# -- killed writers -------------------------------------------------------------------------------

_HALF = """
import os, signal, sys, pyarrow as pa
from retrain_assets.data import tables
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
tables.os.replace = killed  # everything is on the disk but the rename
tables.TableStore(sys.argv[1]).write("m", "raw", sys.argv[2], pa.table({"x": list(range(100_000))}))
"""

_ENDLESS = """
import sys
from retrain_assets.data.tables import TableStore
store, contents = TableStore(sys.argv[1]), [bytes([letter]) * (32 << 20) for letter in b"ab"]
while True:
    for content in contents:
        store.write_bytes("model.bin", content)
        print("written", flush=True)
"""


def test_a_writer_killed_before_its_rename_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    store, folder = TableStore(str(tmp_path)), tmp_path / "tables" / "m" / "raw"
    store.write("m", "raw", "old", TABLE)
    before = store.fingerprints("m", "raw", ["old"])
    for key in ("new", "old"):
        run = subprocess.run([sys.executable, "-c", _HALF, str(tmp_path), key], check=False)
        assert run.returncode == -signal.SIGKILL
    left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
    assert len(left) == 2
    assert not store.exists("m", "raw", "new")
    assert store.partitions("m", "raw") == ["old"]
    assert store.fingerprints("m", "raw", ["old"]) == before
    with pytest.raises(TableError, match="missing partition: new"):
        store.read("m", "raw", ["new"])

    store.write("m", "raw", "new", TABLE)
    assert set(left) <= set(os.listdir(folder)), "a young temporary may belong to a live writer"
    an_hour_ago = time.time() - 3700
    for name in left:
        os.utime(folder / name, (an_hour_ago, an_hour_ago))
    store.write("m", "raw", "new", TABLE)
    assert sorted(os.listdir(folder)) == ["new.parquet", "old.parquet"]


def test_killing_a_busy_writer_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    store = TableStore(str(tmp_path))
    for delay in (0.0, 0.013, 0.041):
        with subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            time.sleep(delay)
            process.kill()
        content = store.read_bytes("model.bin")
        assert len(content) == 32 << 20
        assert len(set(content)) == 1


def test_a_failed_write_removes_its_temporary(tmp_path: Path) -> None:
    store = TableStore(str(tmp_path))
    (tmp_path / "tables" / "m" / "raw" / f"{file_stem('p')}.parquet").mkdir(parents=True)
    with pytest.raises(TableError, match="cannot be written: Is a directory"):
        store.write("m", "raw", "p", TABLE)
    assert os.listdir(tmp_path / "tables" / "m" / "raw") == ["p.parquet"]
