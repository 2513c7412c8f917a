"""`retrain diff`: which models a change of the spec files touches, and in what."""

import json
import subprocess

import pytest
from click.testing import CliRunner

from retrain_assets.cli import main

SPEC = """\
name: churn
partitions: {every: day, start: 2024-01-01}
source: {files: "data/{partition}.parquet"}
features: {sql: churn.sql}
target: label
task: binary
train: {window: 10, holdout: 4}
"""
FLEET = """\
template:
  name: rec_{city}
  partitions: {every: day, start: 2024-01-01}
  source: {files: "data/{city}/{partition}.parquet"}
  target: label
  task: binary
  train: {window: 10, holdout: 4}
for_each: {file: cities.csv}
"""


@pytest.fixture
def git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    return git


@pytest.fixture
def specs(tmp_path, git):
    folder = tmp_path / "sub" / "model_specs"
    folder.mkdir(parents=True)
    (folder / "churn.yaml").write_text(SPEC)
    (folder / "churn.sql").write_text("SELECT * FROM raw")
    (folder / "fleet.yaml").write_text(FLEET)
    (folder / "cities.csv").write_text("city,train.holdout\nberlin,5\nlyon,\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    return folder


@pytest.fixture
def diff(specs):
    def diff(*arguments):
        return CliRunner().invoke(main, ["diff", "HEAD", "--specs", str(specs), *arguments])

    return diff


def test_nothing_differs_from_what_was_committed(diff):
    assert diff().output == "no model differs from HEAD\n"


def test_only_the_row_that_changed_differs_and_only_what_it_changes(diff, specs):
    (specs / "cities.csv").write_text("city,train.holdout,gate.floor\nberlin,5,0.6\nlyon,,\n")
    assert diff().output == "changed  rec_berlin  gate -> candidate_model, promoted_model\n"


def test_a_change_of_the_template_touches_all_of_its_models(diff, specs):
    (specs / "fleet.yaml").write_text(
        FLEET.replace("task: binary", "task: binary\n  drift: {window: 2}")
    )
    assert diff().output.splitlines() == [
        "changed  rec_berlin  drift -> drift_report",
        "changed  rec_lyon  drift -> drift_report",
    ]


def test_a_change_of_a_sql_file_is_a_change_of_its_model(diff, specs):
    (specs / "churn.sql").write_text("SELECT 1 AS label FROM raw")
    (change,) = json.loads(diff("--json").output)["changes"]
    assert (change["kind"], change["model"], change["sections"]) == (
        "changed",
        "churn",
        ["features"],
    )
    assert change["assets"] == ["features", "drift_report", "candidate_model", "promoted_model"]


def test_what_says_when_and_for_whom_touches_no_asset(diff, specs):
    (specs / "churn.yaml").write_text(SPEC + "owner: team:x\nretrain: {schedule: '0 3 * * *'}\n")
    assert diff().output == "changed  churn  owner, retrain -> no asset\n"


def test_rows_that_come_and_go_are_models_that_come_and_go(diff, specs):
    (specs / "cities.csv").write_text("city,train.holdout\noslo,3\nlyon,\n")
    assert diff().output == "removed  rec_berlin\nadded    rec_oslo\n"


def test_a_renamed_model_is_recognised_and_reminded_of_renamed_from(diff, specs):
    (specs / "churn.yaml").write_text(SPEC.replace("name: churn", "name: leavers"))
    assert diff().output == (
        "renamed  leavers (was churn)  name -> raw_data, features, drift_report, candidate_model, "
        "promoted_model  add `renamed_from: churn`, or it starts without a champion\n"
    )
    (specs / "churn.yaml").write_text(
        SPEC.replace("name: churn", "name: leavers\nrenamed_from: churn") + "gate: {floor: 0.6}\n"
    )
    (change,) = json.loads(diff("--json").output)["changes"]
    assert (change["kind"], change["before"], change["note"]) == ("renamed", "churn", "")
    assert change["sections"] == ["name", "renamed_from", "gate"]


def test_a_spec_that_is_broken_now_is_said_and_the_exit_code_is_1(diff, specs):
    (specs / "churn.yaml").write_text(SPEC.replace("binary", "binry"))
    result = diff()
    assert result.exit_code == 1
    assert result.output.startswith("broken   churn  line 6  task: 'binry' is not one of binary")


def test_files_that_are_not_committed_yet_are_new_models(diff, specs):
    (specs / "new.yaml").write_text(SPEC.replace("name: churn", "name: fresh").replace("10", "12"))
    assert diff().output == "added    fresh\n"


def test_a_folder_that_was_not_there_before_has_only_new_models(specs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.yaml").write_text(SPEC.replace("churn.sql", "SELECT * FROM raw"))
    result = CliRunner().invoke(main, ["diff", "HEAD", "--specs", str(other)])
    assert result.output == "added    churn\n"


@pytest.mark.parametrize("revision", ["nonsense", "--output=x", "HEAD~5"])
def test_an_unknown_revision_is_an_error(specs, revision):
    result = CliRunner().invoke(main, ["diff", "--specs", str(specs), "--", revision])
    assert result.exit_code == 2
    assert f"there is no revision '{revision}' in " in result.stderr


def test_outside_of_a_repository_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "specs").mkdir()
    result = CliRunner().invoke(main, ["diff", "HEAD", "--specs", str(tmp_path / "specs")])
    assert result.exit_code == 2
    assert result.stderr.endswith("is in no Git repository; `retrain diff` compares with one\n")
