"""`retrain`: exit codes, JSON, and that it starts fast."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from retrain_assets import __version__
from retrain_assets.cli import main
from retrain_assets.promotion.intervals import MIN_CLUSTERS
from retrain_assets.spec.loading import parse_spec
from retrain_assets.spec.schema import json_schema, template

ROOT = Path(__file__).parents[2]
WRITING = {"new", "schema", "rollback", "promote", "reject", "profile"}
GOOD = template("churn")
BROKEN = GOOD.replace("task: binary", "task: binry")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `retrain ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(main, arguments)

    return run


@pytest.fixture
def specs(tmp_path):
    folder = tmp_path / "model_specs"
    folder.mkdir()
    return folder


def _process(*arguments, cwd, **environment):
    """The real command in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "retrain_assets.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ------------------------------------------------------------------------------------------ check


def test_check_is_0_when_every_spec_is_valid(run, specs):
    (specs / "churn.yaml").write_text(GOOD)
    result = run("check")
    assert (result.exit_code, result.output) == (0, "1 valid spec\n")


def test_check_is_1_with_the_report_when_a_spec_is_broken(run, specs):
    (specs / "churn.yaml").write_text(BROKEN)
    (specs / "sales.yaml").write_text(template("sales"))
    result = run("check")
    assert result.exit_code == 1
    line = BROKEN.splitlines().index("task: binry                          # binary, multiclass, "
                                      "regression, ranking") + 1  # fmt: skip
    assert result.output == (
        "model_specs/churn.yaml: 1 problem\n"
        f"  line {line}  task: 'binry' is not one of binary, multiclass, regression, ranking "
        "(did you mean 'binary'?)\n"
        "1 valid spec, 1 broken\n"
    )


def test_check_is_2_when_a_path_does_not_exist_and_says_so_on_stderr(run):
    result = run("check", "nowhere")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "nowhere: 1 problem\n  no such file or folder; give --specs DIR or a path\n"
    )


def test_check_is_2_in_a_folder_without_specs_of_its_own(run):
    result = run("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "model_specs: 1 problem" in result.stderr


def test_check_of_an_empty_folder_says_what_to_do(run, specs):
    result = run("check")
    assert (result.exit_code, result.output) == (
        0,
        "0 valid specs\nno spec file found; `retrain new NAME` writes one\n",
    )


def test_check_takes_files_and_folders(run, specs, tmp_path):
    (specs / "churn.yaml").write_text(GOOD)
    (tmp_path / "broken.yaml").write_text(BROKEN.replace("churn", "other"))
    assert run("check", "model_specs", "broken.yaml").exit_code == 1
    assert run("check", "model_specs/churn.yaml").exit_code == 0
    assert run("check", "--specs", "model_specs").exit_code == 0


def test_check_json_is_one_object_with_the_valid_models_and_all_problems(run, specs):
    (specs / "churn.yaml").write_text(GOOD)
    (specs / "broken.yaml").write_text("name: broken\nzzz: 1\n")
    result = run("check", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["valid"] == ["churn"]
    assert [(p["line"], p["path"]) for p in document["problems"]] == [
        (1, "partitions"), (1, "source"), (1, "target"), (1, "task"), (2, "zzz"),
    ]  # fmt: skip
    assert {p["file"] for p in document["problems"]} == {"model_specs/broken.yaml"}
    assert all(set(p) == {"file", "line", "path", "message", "row"} for p in document["problems"])


def test_check_json_without_problems_is_0(run, specs):
    (specs / "churn.yaml").write_text(GOOD)
    result = run("check", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"valid": ["churn"], "problems": [], "warnings": []}


def test_check_warns_of_a_holdout_of_too_few_partitions_and_is_0(run, specs):
    (specs / "churn.yaml").write_text(GOOD.replace("holdout: 7", "holdout: 3"))
    result = run("check")
    assert result.exit_code == 0
    assert "1 valid spec" in result.stdout
    line = next(n for n, text in enumerate(GOOD.splitlines(), 1) if "  holdout: 7" in text)
    expected = f"warning model_specs/churn.yaml line {line}  train.holdout: with 3 of them"
    assert result.stdout.startswith(expected)
    (warning,) = json.loads(run("check", "--json").stdout)["warnings"]
    assert warning["path"] == "train.holdout"
    (specs / "churn.yaml").write_text(GOOD.replace("holdout: 7", f"holdout: {MIN_CLUSTERS}"))
    assert "warning" not in run("check").stdout


@pytest.mark.parametrize(
    ("retrain", "warned"),
    [
        ("{on_performance: {max_drop: 0.1}, combine: all}", "retrain.combine"),
        ("{cost: {retraining: 1, per_unit_loss: 9}, combine: all}", "retrain.combine"),
        ("{on_performance: {max_drop: 0.1}, on_change: true, at_least: 2}", "retrain.at_least"),
        ("{on_performance: {max_drop: 0.1}}", None),
        ("{on_performance: {max_drop: 0.1}, max_age: 9d, at_least: 2}", None),
        ("{on_performance: {max_drop: 0.1}, on_drift: false, combine: all}", None),
        ("{on_performance: {max_drop: 0.1}, combine: all, schedule: '0 6 * * 1'}", None),
        ("{max_age: 9d, combine: all}", None),
    ],
)
def test_check_warns_where_a_loss_alone_is_never_answered(run, specs, retrain, warned):
    text = re.sub(r"(?m)^retrain:.*\n(?:[ #].*\n)*", "", GOOD) + f"\nretrain: {retrain}\n"
    (specs / "churn.yaml").write_text(text)
    result = json.loads(run("check", "--json").stdout)
    assert result["problems"] == []
    assert [warning["path"] for warning in result["warnings"]] == ([warned] if warned else [])


# -------------------------------------------------------------------------------------------- new


def test_new_writes_a_spec_that_passes_check(run, specs):
    result = run("new", "churn")
    assert (result.exit_code, result.output) == (
        0,
        "wrote model_specs/churn.yaml: say where the data is, then run `retrain check`\n",
    )
    assert parse_spec(specs / "churn.yaml").name == "churn"
    assert run("check").exit_code == 0


def test_new_makes_the_folder(run, tmp_path):
    assert run("new", "churn", "--specs", "deep/er").exit_code == 0
    assert (tmp_path / "deep" / "er" / "churn.yaml").is_file()


def test_new_never_overwrites(run, specs):
    (specs / "churn.yaml").write_text("precious")
    result = run("new", "churn")
    assert result.exit_code == 2
    assert result.stderr == "model_specs/churn.yaml exists; choose another name, or edit it\n"
    assert (specs / "churn.yaml").read_text() == "precious"


def test_new_does_not_write_through_a_link_either(run, specs, tmp_path):
    (specs / "churn.yaml").symlink_to(tmp_path / "elsewhere")
    assert run("new", "churn").exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["Churn", "a", "9lives", "my-model", "../evil", "a b", "x: y", ""])
def test_new_refuses_a_name_that_is_none_and_writes_nothing(run, tmp_path, name):
    result = run("new", name)
    assert result.exit_code == 2
    assert "name" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["yes", "no", "on", "off", "true", "null", "name"])
def test_new_takes_every_name_that_a_spec_may_have(run, specs, name):
    assert run("new", name).exit_code == 0
    assert parse_spec(specs / f"{name}.yaml").name == name


def test_new_says_why_it_cannot_write(run, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("new", "churn", "--specs", "file")
    assert result.exit_code == 2
    assert result.stderr == "file cannot be made: File exists\n"


# ---------------------------------------------------------------------------------- schema, status


def test_schema_prints_the_schema(run):
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()


def test_schema_prints_what_is_in_the_repository(run):
    assert run("schema").stdout == (ROOT / "model_specs" / "schema.json").read_text()


def test_schema_write_puts_it_beside_the_specs(run, specs):
    result = run("schema", "--write")
    assert (result.exit_code, result.output) == (
        0,
        "wrote model_specs/schema.json\nwrote model_specs/fleet.schema.json\n",
    )
    assert json.loads((specs / "schema.json").read_text()) == json_schema()
    assert (specs / "fleet.schema.json").read_text() == run("schema", "--fleet").stdout


def test_schema_says_why_it_cannot_write(run):
    result = run("schema", "--write")
    assert result.exit_code == 2
    assert result.stderr == (
        "model_specs/schema.json cannot be written: No such file or directory\n"
    )


def test_status_names_the_models_that_do_not_exist(run, specs):
    (specs / "churn.yaml").write_text(GOOD)
    result = run("status", "sales", "churn", "other", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "no model named other, sales in model_specs; known: churn\n"


def test_status_is_2_when_the_folder_does_not_exist(run):
    result = run("status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no such file or folder" in result.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_status_of_a_new_folder_shows_waiting_models_and_broken_specs_first(
    specs, tmp_path, as_json
):
    (specs / "churn.yaml").write_text(GOOD)
    (specs / "broken.yaml").write_text(BROKEN.replace("name: churn", "name: broken"))
    result = _process(
        "status",
        *(["--json"] if as_json else []),
        cwd=tmp_path,
        RETRAIN_HOME=str(tmp_path / "home"),
    )
    assert result.returncode == 1, result.stderr
    if as_json:
        rows = json.loads(result.stdout)["models"]
        assert {row["model"]: row["state"] for row in rows} == {
            "broken": "broken", "churn": "waiting",
        }  # fmt: skip
    else:
        lines = result.stdout.splitlines()
        assert [line.split()[:2] for line in lines[1:3]] == [
            ["broken", "broken"], ["churn", "waiting"],
        ]  # fmt: skip


# ------------------------------------------------------------------------------------ help, usage


def test_help_lists_the_commands_and_shows_examples(run):
    result = run("--help")
    assert result.exit_code == 0
    assert "Examples:\n    retrain new churn " in result.output
    listed = re.findall(r"^  (\w+) ", result.output.partition("Commands:")[2], flags=re.MULTILINE)
    assert set(listed) == set(main.commands)


@pytest.mark.parametrize("command", sorted(main.commands))
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help_with_an_example(run, command, option):
    result = run(command, option)
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +retrain {command}\b", result.output)
    assert max(map(len, result.output.splitlines())) <= 100


@pytest.mark.parametrize("command", sorted(set(main.commands) - WRITING - {"dashboard"}))
def test_every_reading_command_has_json(command):
    assert "--json" in [opt for p in main.commands[command].params for opt in p.opts]


def test_the_version_is_the_package_s(run):
    assert run("--version").output == f"retrain, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["check", "--nonsense"], ["new"]])
def test_a_wrong_usage_is_2(run, arguments):
    assert run(*arguments).exit_code == 2


# -------------------------------------------------------------------------- in processes of its own


def test_the_exit_codes_are_those_of_the_process(specs, tmp_path):
    (specs / "churn.yaml").write_text(GOOD)
    fine = _process("check", cwd=tmp_path)
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, "1 valid spec\n", "")
    (specs / "churn.yaml").write_text(BROKEN)
    findings = _process("check", "--json", cwd=tmp_path)
    assert findings.returncode == 1
    assert len(json.loads(findings.stdout)["problems"]) == 1
    assert _process("check", "nowhere", cwd=tmp_path).returncode == 2


def test_a_report_can_be_printed_where_the_terminal_knows_no_unicode(specs, tmp_path):
    (specs / "churn.yaml").write_text("- ü\n", encoding="utf-8")
    result = _process("check", cwd=tmp_path, PYTHONIOENCODING="ascii:backslashreplace", LC_ALL="C")
    assert result.returncode == 1
    assert "must be a mapping of fields" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check"], ["schema"], ["new", "sales"], ["status", "no_such_model"]]
)
def test_a_command_loads_no_heavy_library_that_it_does_not_need(specs, tmp_path, arguments):
    (specs / "churn.yaml").write_text(GOOD)
    heavy = ["dagster", "mlflow", "pandas", "numpy", "pyarrow", "scipy", "lightgbm", "sqlalchemy",
             "duckdb", "matplotlib", "apprise", "fsspec"]  # fmt: skip
    code = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted(set({heavy}) & set(sys.modules))))\n"
        "from retrain_assets.cli import main\n"
        f"main({arguments!r})\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.splitlines()[-1] == "LOADED []", result.stderr
