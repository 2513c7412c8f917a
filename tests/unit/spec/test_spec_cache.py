"""The cache of validated specs saves time and nothing else: what is loaded is what is in the files."""

import json
import os

import pytest

from retrain_assets.spec import loading
from retrain_assets.spec.loading import load_specs

SPEC = """\
name: churn
partitions: {every: day, start: 2024-01-01, end: 2024-05-01}
source: {files: "data/{partition}.parquet", lag: 36h, storage_options: {a: "${KEY}"}}
contract: {columns: {x: {type: float, min: 0, allowed: [1, 2.5]}}}
features: {sql: churn.sql}
target: label
task: binary
train: {window: 10, holdout: 4, params: {num_leaves: 7, rate: 0.1, flag: true, many: [1, 2]}}
retrain: {schedule: "0 3 * * *", max_age: 30d, cost: {retraining: 5, per_unit_loss: 2}}
resources: {candidate_model: {gpu: 1, memory: 4Gi}}
"""
FLEET = """\
template:
  name: rec_{city}
  partitions: none
  source: {python: "shop:load", available: "shop:available"}
  target: label
  task: binary
  train: {holdout: 0.25}
for_each: {file: cities.csv}
"""


@pytest.fixture
def specs(tmp_path, monkeypatch):
    folder = tmp_path / "specs"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shop.py").write_text("def load(): ...\ndef available(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    _write(folder / "churn.yaml", SPEC)
    _write(folder / "churn.sql", "SELECT * FROM raw")
    _write(folder / "fleet.yaml", FLEET)
    _write(folder / "cities.csv", "city,owner\nberlin,team:a\nlyon,\n")
    return folder


def _write(file, text):
    """Write a file that is a minute old, as files are that nobody is editing."""
    file.write_text(text)
    past = file.stat().st_mtime - 60
    os.utime(file, (past, past))


@pytest.fixture
def load(specs, tmp_path):
    return lambda: load_specs(specs, cache_folder=tmp_path / "home" / "cache")


@pytest.fixture
def parsed(monkeypatch):
    """Names of the files that were read as YAML since the last look."""
    names = []
    real = loading._read
    monkeypatch.setattr(loading, "_read", lambda file: names.append(file.name) or real(file))

    def look():
        found = sorted(names)
        names.clear()
        return found

    return look


def test_the_second_load_parses_nothing_and_finds_the_same(load, specs, parsed):
    first = load()
    assert parsed() == ["churn.yaml", "fleet.yaml"]
    assert load() == first == load_specs(specs)
    assert parsed() == ["churn.yaml", "fleet.yaml"]  # of the load without a cache
    assert list(first.models) == ["churn", "rec_berlin", "rec_lyon"]


@pytest.mark.parametrize(
    ("name", "text", "again"),
    [
        ("churn.yaml", SPEC.replace("10", "12"), "churn.yaml"),
        ("churn.sql", "SELECT 1 AS label FROM raw", "churn.yaml"),
        ("cities.csv", "city,owner\nberlin,team:b\n", "fleet.yaml"),
        ("churn.yaml", SPEC.replace("binary", "binry"), "churn.yaml"),
        ("cities.csv", "city,ownr\nberlin,team:b\n", "fleet.yaml"),
    ],
)
def test_a_change_of_any_file_that_a_spec_reads_is_seen(load, specs, parsed, name, text, again):
    load()
    _write(specs / name, text)
    parsed()
    found = load()
    assert parsed() == [again]
    assert found == load_specs(specs)
    (specs / name).unlink()
    assert load() == load_specs(specs)


def test_a_file_of_the_same_size_and_time_with_other_content_is_seen(load, specs):
    load()
    stat = (specs / "churn.yaml").stat()
    (specs / "churn.yaml").write_text(SPEC.replace("window: 10", "window: 11"))
    os.utime(specs / "churn.yaml", (stat.st_atime, stat.st_mtime))
    assert load().models["churn"].spec.train.window == 11


def test_a_function_that_is_gone_is_found_out_though_no_spec_file_changed(load, tmp_path):
    assert load().problems == []
    (tmp_path / "lib" / "shop.py").write_text("def load(): ...\n")
    assert [problem.path for problem in load().problems] == ["source.available"] * 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace("binary", "binry"),
        lambda text: json.dumps({key: {"files": {}} for key in json.loads(text)}),
        lambda text: json.dumps({key: [] for key in json.loads(text)}),
    ],
    ids=["empty", "torn", "a list", "a bad spec", "no specs", "no entry"],
)
def test_a_damaged_cache_is_ignored_and_written_again(load, specs, tmp_path, parsed, damage):
    load()
    (file,) = (tmp_path / "home" / "cache").iterdir()
    whole = file.read_text()
    file.write_text(damage(whole))
    parsed()
    assert load() == load_specs(specs)
    assert file.read_text() == whole
    parsed()
    load()
    assert parsed() == []


def test_the_cache_of_other_code_is_another_one(load, tmp_path, monkeypatch, parsed):
    load()
    parsed()
    monkeypatch.setattr("retrain_assets.spec.cache._code", lambda: "another release")
    load()
    assert parsed() == ["churn.yaml", "fleet.yaml"]
    assert len(list((tmp_path / "home" / "cache").iterdir())) == 2


def test_without_a_home_or_the_right_to_write_there_is_just_no_cache(specs, tmp_path):
    nowhere = tmp_path / "nothing" / "cache"
    assert load_specs(specs, cache_folder=nowhere).problems == []
    assert not nowhere.parent.exists()
    (tmp_path / "home" / "cache").write_text("a file where the folder should be")
    assert load_specs(specs, cache_folder=tmp_path / "home" / "cache").problems == []


def test_a_file_that_was_written_a_moment_ago_is_not_kept(load, specs, parsed):
    (specs / "churn.yaml").write_text(SPEC)
    load()
    parsed()
    load()
    assert parsed() == ["churn.yaml"]
