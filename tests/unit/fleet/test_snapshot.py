"""The snapshot file: shown while it is young and about the same specs, else read again."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from retrain_assets.errors import StatusError
from retrain_assets.fleet.snapshot import (
    Snapshot,
    forget,
    read_snapshot,
    specs_digest,
    write_atomically,
)
from retrain_assets.fleet.status import StatusRow

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
SNAPSHOT = Snapshot(NOW, "specs", NOW - timedelta(days=7), (StatusRow("churn", "healthy"),))


def _later(seconds):
    return NOW + timedelta(seconds=seconds)


def test_a_young_snapshot_of_the_same_specs_is_shown(tmp_path):
    assert SNAPSHOT.leave(tmp_path) == ""
    assert read_snapshot(tmp_path, "specs", _later(60), 60) == SNAPSHOT


@pytest.mark.parametrize(
    ("specs", "seconds", "limit"),
    [("others", 1, 60), ("specs", 61, 60), ("specs", 1, 0), ("specs", -1, 60)],
)
def test_one_that_is_old_from_the_future_or_of_other_specs_is_not(tmp_path, specs, seconds, limit):
    assert SNAPSHOT.leave(tmp_path) == ""
    assert read_snapshot(tmp_path, specs, _later(seconds), limit) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 99}'])
def test_a_damaged_file_or_one_of_another_release_is_read_again(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert read_snapshot(tmp_path, "specs", NOW, 60) is None


def test_a_row_with_a_field_too_few_makes_it_another_release_s(tmp_path):
    document = SNAPSHOT.to_dict()
    del document["models"][0]["note"]
    (tmp_path / "status.json").write_text(json.dumps(document))
    assert read_snapshot(tmp_path, "specs", NOW, 60) is None


def test_no_file_is_no_snapshot_and_forgetting_it_is_fine(tmp_path):
    forget(tmp_path)
    assert read_snapshot(tmp_path, "specs", NOW, 60) is None
    assert SNAPSHOT.leave(tmp_path) == ""
    forget(tmp_path)
    assert read_snapshot(tmp_path, "specs", NOW, 60) is None


def test_writing_leaves_no_temporary_behind_and_says_what_is_wrong(tmp_path):
    write_atomically(tmp_path / "new" / "page.html", "x")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StatusError, match=r"file/page\.html cannot be written: "):
        write_atomically(tmp_path / "file" / "page.html", "x")


def test_where_nothing_can_be_written_it_says_so_and_raises_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/status.json cannot be written: " in SNAPSHOT.leave(tmp_path / "file")


def test_the_digest_changes_with_specs_and_tables_of_fleets_and_with_nothing_else(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a")
    found = [specs_digest([tmp_path])]
    (tmp_path / "README.md").write_text("text")
    assert specs_digest([tmp_path]) == found[0]
    for name, text in (("a.yaml", "name: b"), ("routes.csv", "x"), ("sub/b.yml", "name: b")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        found.append(specs_digest([tmp_path]))
    (tmp_path / "a.yaml").rename(tmp_path / "c.yaml")
    found.append(specs_digest([tmp_path]))
    assert len(set(found)) == 5
