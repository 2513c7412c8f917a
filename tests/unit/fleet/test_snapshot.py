"""The snapshot file: shown while it is young and about the same specs, else read again."""

import json
from dataclasses import replace
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
    assert read_snapshot(tmp_path, "specs") == SNAPSHOT
    assert read_snapshot(tmp_path, "others") is None
    assert SNAPSHOT.is_young(_later(60), 60)


@pytest.mark.parametrize(("seconds", "limit"), [(61, 60), (1, 0), (-1, 60)])
def test_one_that_is_old_or_from_the_future_is_not(seconds, limit):
    assert not SNAPSHOT.is_young(_later(seconds), limit)


def test_one_that_was_confirmed_is_as_old_as_that():
    confirmed = replace(SNAPSHOT, confirmed_at=_later(300))
    assert confirmed.is_young(_later(330), 60)
    assert not confirmed.is_young(_later(361), 60)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 99}'])
def test_a_damaged_file_or_one_of_another_release_is_read_again(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert read_snapshot(tmp_path, "specs") is None


def test_a_row_with_a_field_too_few_makes_it_another_release_s(tmp_path):
    document = SNAPSHOT.to_dict()
    del document["models"][0]["note"]
    (tmp_path / "status.json").write_text(json.dumps(document))
    assert read_snapshot(tmp_path, "specs") is None


def test_no_file_is_no_snapshot_and_forgetting_it_is_fine(tmp_path):
    forget(tmp_path)
    assert read_snapshot(tmp_path, "specs") is None
    assert SNAPSHOT.leave(tmp_path) == ""
    forget(tmp_path)
    assert read_snapshot(tmp_path, "specs") is None


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


def test_the_digest_is_that_of_the_same_files_elsewhere(tmp_path):
    for folder in ("image", "checkout"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "a.yaml").write_text("name: a")
        (tmp_path / folder / "sub" / "b.yaml").write_text("name: b")
    # As Kubernetes mounts a ConfigMap.
    hidden = tmp_path / "image" / "..2024_03_01" / "a.yaml"
    hidden.parent.mkdir()
    (tmp_path / "image" / "a.yaml").rename(hidden)
    (tmp_path / "image" / "a.yaml").symlink_to(hidden)
    image, checkout = (specs_digest([tmp_path / folder]) for folder in ("image", "checkout"))
    assert image == checkout
