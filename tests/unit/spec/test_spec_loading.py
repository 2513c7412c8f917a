"""From files to specs: all problems of all files at once, and a broken file harms nobody else."""

import sys

import pytest

from retrain_assets.errors import SpecError
from retrain_assets.spec.loading import load_specs, parse_spec, spec_files

GOOD = """\
name: churn
partitions: {every: day, start: 2024-01-01}
source:
  files: data/{partition}.parquet
target: label
task: binary
train:
  window: 10
  holdout: 2
"""


@pytest.fixture
def problems_of(tmp_path):
    """(line, path, message) of every problem of one file with the given text."""

    def problems_of(text):
        file = tmp_path / "spec.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            parse_spec(file)
        assert {problem.file for problem in caught.value.problems} == {str(file)}
        return [(p.line, p.path, p.message) for p in caught.value.problems]

    return problems_of


def _write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


# ------------------------------------------------------------------ the report, as people see it


def test_the_report_names_file_line_field_rule_value_and_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_specs").mkdir()
    _write(
        tmp_path / "model_specs",
        churn=GOOD + "gate:\n  metric: rocauc\n  confidence: 2\ndrift: {windw: 3}\n",
        good=GOOD.replace("churn", "good"),
        sales=GOOD.replace("window: 10", "window: 1").replace("name: churn\n", ""),
        torn="name: torn\nsource: [\n",
    )
    found = load_specs("model_specs")
    assert list(found.models) == ["good"]
    assert str(SpecError(found.problems)) == (
        "model_specs/churn.yaml: 3 problems\n"
        "  line 11  gate.metric: 'rocauc' is not one of roc_auc, average_precision, log_loss, brier, "
        "accuracy, f1, f1_macro, mae, rmse, mape, r2, pinball@0.1, pinball@0.5, pinball@0.9, "
        "ndcg@5, ndcg@10, map@10 "
        "(did you mean 'roc_auc'?)\n"
        "  line 12  gate.confidence: must be < 1, got 2\n"
        "  line 13  drift.windw: unknown field (did you mean 'window'?); known here: against, window, "
        "min_rows, alpha, thresholds, alert, calibrate, prediction, "
        "multivariate, exclude\n"
        "model_specs/sales.yaml: 2 problems\n"
        "  line 1  name: required field is missing\n"
        "  line 7  train.window: must be >= 2, got 1\n"
        "model_specs/torn.yaml: 1 problem\n"
        "  line 2  not valid YAML: did not find expected node content"
    )


def test_a_problem_of_the_file_as_a_whole_has_no_line(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(SpecError) as caught:
        parse_spec(file)
    assert str(caught.value) == (
        f"{file}: 1 problem\n  cannot be read: 'utf-8' codec can't decode byte 0xe9 in position 9: "
        "invalid continuation byte"
    )


# --------------------------------------------------------------------------- kinds of problems


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("task: binary", "task: binry", 6, "task",
         "'binry' is not one of binary, multiclass, regression, ranking (did you mean 'binary'?)"),
        ("task: binary", "task: 7", 6, "task",
         "7 is not one of binary, multiclass, regression, ranking"),
        ("name: churn", "name: Churn", 1, "name",
         "must be 2 to 63 lower-case letters, digits or _, beginning with a letter, got 'Churn'"),
        ("name: churn", "name: 5", 1, "name", "must be text, got 5"),
        ("target: label", "target: ''", 5, "target",
         "string should have at least 1 character, got ''"),
        ("window: 10", "window: ten", 8, "train.window", "must be a whole number, got 'ten'"),
        ("window: 10", "window: 10.5", 8, "train.window", "must be a whole number, got 10.5"),
        ("window: 10", "window: 1000000", 8, "train.window", "must be <= 100000, got 1000000"),
        ("holdout: 2", "holdout: two", 9, "train.holdout",
         "must be a whole number or a number, got 'two'"),
        ("holdout: 2", "holdout: -1", 9, "train.holdout", "must be > 0, got -1"),
        ("holdout: 2", "holdout: .inf", 9, "train.holdout",
         "must be a whole number or a number, got inf"),
        ("holdout: 2", "seed: -1", 9, "train.seed", "must be >= 0, got -1"),
        ("holdout: 2", "params: {a: {b: 1}}", 9, "train.params.a",
         "must be text, a whole number, a number, true or false, a list of whole numbers or a list "
         "of numbers, got {'b': 1}"),
        ("holdout: 2", "params: {str: {b: 1}}", 9, "train.params.str",
         "must be text, a whole number, a number, true or false, a list of whole numbers or a list "
         "of numbers, got {'b': 1}"),
        ("holdout: 2", "params: {a: [1, x]}", 9, "train.params.a",
         "must be text, a whole number, a number, true or false, a list of whole numbers or a list "
         "of numbers, got [1, 'x']"),
        ("holdout: 2", "constrained-int: 2", 9, "train.constrained-int",
         "unknown field (did you mean 'trainer'?); known here: window, min_window, holdout, "
         "label_delay, time_column, trainer, params, seed, group, entity, exclude"),
        ("holdout: 2", "params: {objective: l2}", 9, "train.params",
         "'objective' is set from task; remove it from params"),
        ("holdout: 2", "exclude: day", 9, "train.exclude", "must be a list, got 'day'"),
        ("holdout: 2", "exclude:\n  - a\n  - [b]", 11, "train.exclude[1]",
         "must be text, got ['b']"),
        ("task: binary", "task: binary\ndrift: 5", 7, "drift",
         "must be a mapping of fields, got 5"),
        ("task: binary", "task: binary\ndrift:", 7, "drift",
         "must be a mapping of fields, got None"),
        ("task: binary", "task: binary\nretrain: {on_drift: maybe}", 7, "retrain.on_drift",
         "must be true or false, got 'maybe'"),
        ("task: binary", "task: binary\nretrain: {cooldown: 3}", 7, "retrain.cooldown",
         "must be a number and a unit (s, m, h, d or w), for example 36h or 30d, got 3"),
        ("task: binary", "task: binary\nretrain: {timezone: Paris}", 7, "retrain.timezone",
         "'Paris' is not a time zone, for example Europe/Paris"),
        ("task: binary", "task: binary\nretrain: {schedule: daily}", 7, "retrain.schedule",
         "must be a cron expression of five fields (minute hour day month weekday), got 'daily'"),
        ("task: binary", "task: binary\ngate: {min_gain: .nan}", 7, "gate.min_gain",
         "should be a finite number, got nan"),
        ("task: binary", "task: binary\nowner: me", 7, "owner",
         "must be team:name or a mail address, got 'me'"),
        ("task: binary", "task: binary\nalerts: [Ops]", 7, "alerts[0]",
         "must be lower-case letters, digits or _ (the URL is in RETRAIN_ALERT_<NAME>), got 'Ops'"),
        ("task: binary", "task: binary\ntags: {my tag: x}", 7, "tags",
         "a key is at most 63 letters, digits, '_', '-' or '.', after one 'prefix/' or none, "
         "got 'my tag'"),
        ("task: binary", "task: binary\ntags: {retrain/model: x}", 7, "tags",
         "'retrain/model': the prefixes dagster/ and retrain/ are taken"),
        ("task: binary", "task: binary\ntags: {tier: a b}", 7, "tags",
         "tier: a value is at most 63 letters, digits, '_', '-' or '.', got 'a b'"),
        ("{every: day, start: 2024-01-01}", "", 2, "partitions",
         "empty; write `none` for one table, or {every: day, start: 2024-01-31}"),
        ("{every: day, start: 2024-01-01}", "nothing", 2, "partitions",
         "must be a mapping of fields, got 'nothing'"),
        ("every: day", "every: dayly", 2, "partitions.every",
         "'dayly' is not one of hour, day, week, month (did you mean 'day'?)"),
        ("2024-01-01", "yesterday", 2, "partitions.start",
         "must be a date like 2024-01-31, got 'yesterday'"),
        ("2024-01-01", "20240101", 2, "partitions.start",
         "must be a date like 2024-01-31, got 20240101"),
        ("2024-01-01", "2024-01-01, end: 9999-12-31", 2, "partitions.end",
         "must be in the years 1900 to 2199, got 9999-12-31"),
        ("2024-01-01", "2024-01-01 06:00:00", 2, "partitions.start",
         "datetimes provided to dates should have zero time - e.g. be exact dates, "
         "got 2024-01-01T06:00:00"),
        ("2024-01-01", "2024-01-02, end: 2024-01-01", 2, "partitions",
         "end 2024-01-01 is before start 2024-01-02"),
        ("day, start: 2024-01-01", "week, start: 2024-01-02, end: 2024-01-10", 2, "partitions",
         "no whole week lies between 2024-01-02 and 2024-01-10"),
        ("  files: data/{partition}.parquet", "  files: 5", 4, "source.files", "must be text, got 5"),
        ("  files: data/{partition}.parquet", "  sql: {query: SELECT 1}", 4,
         "source.sql.connection", "required field is missing"),
        ("  files: data/{partition}.parquet", "  python: load", 4, "source.python",
         "must name a function as package.module:function, got 'load'"),
    ],
)  # fmt: skip
def test_every_kind_of_mistake_is_found_on_its_line(problems_of, old, new, line, path, message):
    assert old in GOOD
    found = problems_of(GOOD.replace(old, new))
    assert (line, path, message) in found
    # A mistake in one field may break a rule that spans sections, but is itself named once.
    assert [where for _, where, _ in found].count(path) == 1


@pytest.mark.parametrize(
    ("text", "path", "meant"),
    [
        ("nam: x", "nam", "name"),
        ("source: {file: x}", "source.file", "files"),
        ("source: {sql: {conection: x}}", "source.sql.conection", "connection"),
        ("contract: {colums: {}}", "contract.colums", "columns"),
        ("contract: {columns: {a: {nulable: true}}}", "contract.columns.a.nulable", "nullable"),
        ("drift: {thresholds: {wassertein: 1}}", "drift.thresholds.wassertein", "wasserstein"),
        ("drift: {alert: {of_lst: 1}}", "drift.alert.of_lst", "of_last"),
        ("freshness: {raw: {fail: 1d}}", "freshness.raw", "raw_data"),
        ("freshness: {raw_data: {fial: 1d}}", "freshness.raw_data.fial", "fail"),
        ("partitions: {evry: day}", "partitions.evry", "every"),
    ],
)
def test_an_unknown_field_at_any_depth_is_named_with_what_was_meant(problems_of, text, path, meant):
    section = text.partition(":")[0]
    kept = "\n".join(
        line for line in GOOD.splitlines()
        if not line.startswith(section) and not (section == "source" and "files" in line)
    )  # fmt: skip
    found = {where: (line, message) for line, where, message in problems_of(f"{kept}\n{text}\n")}
    line, message = found[path]
    assert line == len(kept.splitlines()) + 1
    assert f"(did you mean '{meant}'?); known here: " in message
    assert meant in message.partition("known here: ")[2].split(", ")


def test_a_word_like_no_field_gets_no_suggestion(problems_of):
    ((_, _, message),) = problems_of(GOOD + "zzzz: 1\n")
    assert message.startswith("unknown field; known here: name, renamed_from, description, owner, ")


def test_a_long_or_many_lined_value_is_shown_short_and_on_one_line(problems_of):
    text = GOOD.replace("task: binary", 'task: "bi\\nnary\\u202e' + "x" * 500 + '"')
    ((_, _, message),) = problems_of(text)
    assert message.startswith("'bi\\nnary\\u202exxx")
    assert "x..." in message
    assert len(message) < 200


def test_a_field_whose_name_is_not_printable_is_shown_escaped(problems_of):
    ((line, path, _),) = problems_of(GOOD + '"a\\nb": 1\n')
    assert (line, path) == (10, "'a\\nb'")


# ---------------------------------------------------------------- rules that span several fields


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("  window: 10\n", "", 7, "train.window",
         "required with partitions (how many to train on)"),
        ("holdout: 2", "holdout: 2.5", 9, "train.holdout",
         "must be a whole number of partitions, got 2.5"),
        ("holdout: 2", "holdout: 10", 9, "train.holdout",
         "must be below train.window (10), got 10"),
        ("holdout: 2", "holdout: 2\n  min_window: 2", 10, "train.min_window",
         "must be above holdout and at most window (10), got 2"),
        ("holdout: 2", "holdout: 2\n  min_window: 11", 10, "train.min_window",
         "must be above holdout and at most window (10), got 11"),
        ("holdout: 2", "holdout: 2\n  time_column: at", 10, "train.time_column",
         "only with partitions: none (partitions order time)"),
        ("holdout: 2", "holdout: 2\n  group: query", 10, "train.group", "only for ranking"),
        ("holdout: 2", "holdout: 2\n  exclude: [a, label]", 10, "train.exclude",
         "'label' is the target, which is never an input"),
        ("task: binary", "task: ranking", 7, "train.group",
         "required for ranking (the column that names the query)"),
        ("task: binary", "task: binary\ngate: {metric: rmse}", 7, "gate.metric",
         "'rmse' does not fit task binary; use one of roc_auc, average_precision, log_loss, brier, "
         "accuracy, f1"),
        ("{partition}.parquet", "all.parquet", 4, "source.files",
         "needs {partition} where the partition key stands"),
        ("  files: data/{partition}.parquet\n", "  lag: 1h\n", 3, "source",
         "needs exactly one of files, sql, python, got none"),
        ("target: label", "  python: json:loads\ntarget: label", 3, "source",
         "needs exactly one of files, sql, python, got files, python"),
        ("target: label", "  options: {a: 1}\ntarget: label", 3, "source",
         "options belong to python or available"),
        (".parquet", ".avro", 3, "source", "cannot tell the format from "),
        ("task: binary", "task: binary\nfeatures: {sql: SELECT 1, python: json:loads}", 7,
         "features", "takes sql or python, not both"),
        ("task: binary", "task: binary\nfeatures: {lookback: 1}", 7, "features",
         "lookback needs sql or python"),
        ("task: binary", "task: binary\ncontract: {min_rows: 5, max_rows: 4}", 7, "contract",
         "max_rows 4 is below min_rows 5"),
        ("task: binary", "task: binary\ncontract:\n  columns:\n    a: {min: 2, max: 1}", 9,
         "contract.columns.a", "min 2 is above max 1"),
        ("task: binary", "task: binary\ncontract:\n  columns:\n    a: {type: string, min: 2}", 9,
         "contract.columns.a", "min and max are for numbers, not for type string"),
        ("task: binary",
         "task: binary\ncontract:\n  columns:\n    a: {nullable: false, max_null_rate: 0.1}", 9,
         "contract.columns.a", "max_null_rate says nothing where nullable is false"),
        ("task: binary", "task: binary\ndrift: {alert: {of_last: 2, at_least: 3}}", 7,
         "drift.alert", "at_least 3 is more than of_last 2"),
        ("task: binary", "task: binary\nfreshness: {raw_data: {warn: 2d, fail: 1d}}", 7,
         "freshness.raw_data", "warn must be shorter than fail"),
        ("task: binary", "task: binary\nfreshness: {raw_data: {warn: 30s, fail: 1d}}", 7,
         "freshness.raw_data", "warn and fail must be at least 1m"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_the_field_to_change(problems_of, old, new, line, path, message):
    assert old in GOOD
    ((found_line, found_path, found),) = problems_of(GOOD.replace(old, new))
    assert (found_line, found_path) == (line, path)
    assert found.startswith(message)


def test_without_partitions_everything_that_needs_them_is_named_at_once(problems_of):
    text = """\
name: churn
partitions: none
source: {files: "data/{partition}.parquet"}
features: {sql: SELECT 1, lookback: 2}
target: label
task: binary
train:
  window: 10
  min_window: 5
  holdout: 2
  label_delay: 1
drift:
  window: 2
retrain:
  max_age: 3d
"""
    assert problems_of(text) == [
        (3, "source.files", "{partition} needs partitions, got partitions: none"),
        (4, "features.lookback", "only with partitions"),
        (8, "train.window", "only with partitions"),
        (9, "train.min_window", "only with partitions"),
        (10, "train.holdout", "with partitions: none it is a share below 1, got 2"),
        (11, "train.label_delay", "only with partitions"),
        (13, "drift.window", "only with partitions"),
        (15, "retrain.max_age",
         "with partitions: none, age is measured when data is read; add retrain.schedule"),
    ]  # fmt: skip


# --------------------------------------------------------------------- files and folders of specs


def test_two_files_with_one_name_are_both_quarantined_and_the_others_load(tmp_path):
    _write(tmp_path, a=GOOD, b="description: x\n" + GOOD, c=GOOD.replace("churn", "sales"))
    found = load_specs(tmp_path)
    assert list(found.models) == ["sales"]
    assert [(spec.name, spec.file.name, spec.problems[0].line) for spec in found.broken] == [
        ("churn", "a.yaml", 1),
        ("churn", "b.yaml", 2),
    ]
    assert [str(spec.problems[0]) for spec in found.broken] == [
        f"line 1  name: 'churn' is also the name in {tmp_path / 'b.yaml'}; names must be unique",
        f"line 2  name: 'churn' is also the name in {tmp_path / 'a.yaml'}; names must be unique",
    ]
    assert found.broken[0].rivals == (tmp_path / "b.yaml",)


def test_a_broken_file_does_not_take_the_name_from_a_valid_one(tmp_path):
    _write(tmp_path, a=GOOD, b=GOOD + "zzz: 1\n")
    found = load_specs(tmp_path)
    assert list(found.models) == ["churn"]
    assert [spec.name for spec in found.broken] == ["churn"]


def test_the_same_file_given_twice_is_read_once(tmp_path):
    _write(tmp_path, a=GOOD)
    found = load_specs([tmp_path, tmp_path / "a.yaml", str(tmp_path / "a.yaml")])
    assert list(found.models) == ["churn"]
    assert not found.broken


def test_folders_are_searched_in_order_without_hidden_files_and_folders(tmp_path):
    for name in ("b.yaml", "a.yml", "sub/c.yaml", ".hidden.yaml", "..data/d.yaml", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    (tmp_path / "folder.yaml").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in spec_files([tmp_path])]
    assert names == ["a.yml", "b.yaml", "sub/c.yaml"]


def test_a_hidden_folder_that_holds_the_given_one_hides_nothing(tmp_path):
    folder = tmp_path / ".cache" / "specs"
    folder.mkdir(parents=True)
    _write(folder, a=GOOD)
    assert list(load_specs(folder).models) == ["churn"]


def test_an_empty_folder_has_no_specs_and_no_problems(tmp_path):
    found = load_specs(tmp_path)
    assert (found.models, found.broken, found.problems) == ({}, (), [])


def test_every_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SpecError) as caught:
        load_specs([tmp_path / "no", tmp_path, tmp_path / "nothing.yaml"])
    assert str(caught.value) == (
        f"{tmp_path / 'no'}: 1 problem\n  no such file or folder; give --specs DIR or a path\n"
        f"{tmp_path / 'nothing.yaml'}: 1 problem\n"
        "  no such file or folder; give --specs DIR or a path"
    )


def test_a_link_to_nowhere_is_quarantined(tmp_path):
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nothing")
    _write(tmp_path, a=GOOD)
    found = load_specs(tmp_path)
    assert list(found.models) == ["churn"]
    assert [spec.name for spec in found.broken] == ["gone"]
    assert "cannot be read: [Errno 2] No such file" in found.broken[0].problems[0].message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: kept\nzzz: 1\n", "kept"),
        ("zzz: 1\n", "file"),
        ("name: 5\n", "file"),
        ("name: ''\n", "file"),
        ("name: [\n", "file"),
        ("", "file"),
        ("- name: x\n", "file"),
    ],
)
def test_a_broken_spec_goes_by_its_name_where_it_can_be_read(tmp_path, text, name):
    _write(tmp_path, file=text)
    assert [spec.name for spec in load_specs(tmp_path).broken] == [name]


def test_specs_come_sorted_by_name_whatever_their_files_are_called(tmp_path):
    _write(tmp_path, a=GOOD.replace("churn", "zz"), z=GOOD.replace("churn", "aa"))
    found = load_specs(tmp_path)
    assert [spec.name for spec in found.specs()] == ["aa", "zz"]
    assert [loaded.file.name for loaded in found.models.values()] == ["z.yaml", "a.yaml"]


# -------------------------------------------------------------- what is read beside the file


def test_relative_files_start_at_the_spec_file(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    _write(tmp_path / "specs", churn=GOOD)
    monkeypatch.chdir(tmp_path)
    assert parse_spec("specs/churn.yaml").source.files == str(
        tmp_path / "specs" / "data" / "{partition}.parquet"
    )


@pytest.mark.parametrize(
    "files",
    ["/abs/{partition}.csv", "s3://bucket/{partition}.csv", "${DATA}/{partition}.csv"],
)
def test_absolute_paths_urls_and_references_are_left_alone(tmp_path, files):
    _write(tmp_path, churn=GOOD.replace("data/{partition}.parquet", files))
    assert parse_spec(tmp_path / "churn.yaml").source.files == files


def test_a_sql_file_is_read_relative_to_the_spec_and_changes_the_hash(tmp_path, monkeypatch):
    (tmp_path / "specs" / "sql").mkdir(parents=True)
    _write(tmp_path / "specs", churn=GOOD + "features: {sql: sql/churn.sql}\n")
    sql = tmp_path / "specs" / "sql" / "churn.sql"
    sql.write_text("SELECT 1 AS label")
    monkeypatch.chdir(tmp_path)
    before = parse_spec("specs/churn.yaml")
    assert before.features.sql == "SELECT 1 AS label"
    sql.write_text("SELECT 2 AS label")
    after = parse_spec("specs/churn.yaml")
    assert before.section_hash("features") != after.section_hash("features")
    assert before.training_hash == after.training_hash


def test_sql_in_the_spec_and_in_a_file_have_the_same_hash(tmp_path):
    (tmp_path / "a.sql").write_text("SELECT * FROM raw")
    _write(
        tmp_path,
        a=GOOD + "features: {sql: a.sql}\n",
        b=GOOD + "features: {sql: SELECT * FROM raw}\n",
    )
    a, b = parse_spec(tmp_path / "a.yaml"), parse_spec(tmp_path / "b.yaml")
    assert a.section_hash("features") == b.section_hash("features")


def test_sql_that_only_ends_like_a_file_name_is_sql(tmp_path):
    _write(
        tmp_path, a=GOOD + 'features:\n  sql: |\n    SELECT *\n    FROM "raw.sql"\n    -- x.sql\n'
    )
    assert parse_spec(tmp_path / "a.yaml").features.sql.startswith("SELECT *\n")


def test_a_sql_file_that_cannot_be_read_is_a_problem_with_its_line(problems_of, tmp_path):
    text = GOOD + "features:\n  sql: no.sql\n"
    assert problems_of(text) == [
        (11, "features.sql", f"cannot read '{tmp_path / 'no.sql'}': No such file or directory")
    ]
    (tmp_path / "no.sql").write_bytes(b"SELECT '\xff'")
    ((line, path, message),) = problems_of(text)
    assert (line, path) == (11, "features.sql")
    assert message.startswith(f"cannot read '{tmp_path / 'no.sql'}': 'utf-8' codec can't decode")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("description: for ${WHO}\n", "description"),
        ("tags: {tier: '${TIER}'}\n", "tags.tier"),
        ("alerts: [a, '${OPS}']\n", "alerts[1]"),
        ("contract: {columns: {a: {allowed: ['${X}']}}}\n", "contract.columns.a.allowed[0]"),
        ("features: {sql: 'SELECT ${X}'}\n", "features.sql"),
    ],
)
def test_environment_references_outside_connections_are_refused(problems_of, text, path):
    name = text.partition("${")[2].partition("}")[0]
    assert (
        10,
        path,
        f"${{{name}}}: environment references are read only in source.files, "
        "source.storage_options and source.sql.connection",
    ) in problems_of(GOOD + text)


def test_environment_references_in_connections_are_kept_and_not_read(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    source = "sql: {connection: 'postgresql+psycopg2://${NO_SUCH_VARIABLE}/x', query: SELECT 1}"
    _write(
        tmp_path,
        a=GOOD.replace("files: data/{partition}.parquet", source),
        b=GOOD.replace("churn", "sales").replace(
            "target:", "  storage_options: {key: '${NO_SUCH_VARIABLE}'}\ntarget:"
        ),
    )
    found = load_specs(tmp_path)
    assert not found.problems
    assert "${NO_SUCH_VARIABLE}" in found.models["churn"].spec.source.sql.connection
    assert found.models["sales"].spec.source.storage_options == {"key": "${NO_SUCH_VARIABLE}"}


# --------------------------------------------------------------------- functions the spec names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must never be run, with a module that binds some names."""
    folder = tmp_path / "a_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "sources.py").write_text(
        "raise SystemExit('imported')\nimport os as system\ndef load(window): ...\nthing = 1\n"
    )
    (folder / "star.py").write_text("from os.path import *\n")
    (folder / "torn.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_package"
    assert not [name for name in sys.modules if name.startswith("a_package")]


@pytest.mark.parametrize(
    "function",
    ["sources:load", "sources:thing", "sources:system", "star:join", "torn:anything"],
)
def test_functions_are_found_without_running_the_module(tmp_path, package, function):
    _write(
        tmp_path,
        a=GOOD.replace("files: data/{partition}.parquet", f"python: {package}.{function}"),
    )
    assert parse_spec(tmp_path / "a.yaml").source.python == f"{package}.{function}"


def test_a_function_that_is_not_there_is_a_problem_with_its_line(problems_of, package):
    text = GOOD.replace(
        "files: data/{partition}.parquet",
        f"python: {package}.sources:laod\n  available: {package}.no.where:available",
    )
    assert problems_of(text + "features: {python: no_such_package:transform}\n") == [
        (4, "source.python",
         "'a_package.sources:laod': module 'a_package.sources' has no 'laod' "
         "(did you mean 'load'?)"),
        (5, "source.available",
         "'a_package.no.where:available': there is no module 'a_package.no.where'; install its "
         "package in this environment or add its folder to PYTHONPATH"),
        (11, "features.python",
         "'no_such_package:transform': there is no module 'no_such_package'; install its package "
         "in this environment or add its folder to PYTHONPATH"),
    ]  # fmt: skip


@pytest.mark.parametrize("dotted", ["json:loads", "xml.etree.ElementTree:parse", "math:sqrt"])
def test_functions_of_installed_modules_are_found(tmp_path, dotted):
    _write(tmp_path, a=GOOD.replace("files: data/{partition}.parquet", f"python: {dotted}"))
    assert parse_spec(tmp_path / "a.yaml").source.python == dotted


def test_a_name_inside_a_class_is_not_a_function_of_the_module(problems_of, tmp_path, monkeypatch):
    (tmp_path / "a_module.py").write_text("class A:\n    def load(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = problems_of(GOOD.replace("files: data/{partition}.parquet", "python: a_module:load"))
    assert [path for _, path, _ in found] == ["source.python"]
