"""Fleet files: one template and many rows, each row a spec like any other."""

import json
import sqlite3
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from retrain_assets.cli import main
from retrain_assets.errors import SpecError
from retrain_assets.spec.loading import load_specs, parse_spec
from retrain_assets.spec.rows import typed

TEMPLATE = """\
template:
  name: rec_{city}
  description: Rankings for {city}
  partitions: {every: day, start: 2024-01-01}
  source:
    files: data/{city}/{partition}.parquet
  target: label
  task: binary
  train: {window: 10, holdout: 2}
"""


@pytest.fixture
def load(tmp_path):
    """Load one fleet file, with files beside it."""

    def load(text, **files):
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_text(content, encoding="utf-8")
        (tmp_path / "fleet.yaml").write_text(text, encoding="utf-8")
        return load_specs(tmp_path / "fleet.yaml")

    return load


def _found(specs):
    return [(p.line, p.row, p.path, p.message) for p in specs.problems]


# ------------------------------------------------------------------------------------ expansion


def test_each_row_is_a_model_with_its_values_in_the_template(load, tmp_path):
    found = load(TEMPLATE + "for_each:\n  - {city: berlin}\n  - {city: lyon}\n")
    assert found.problems == []
    assert list(found.models) == ["rec_berlin", "rec_lyon"]
    lyon = found.models["rec_lyon"]
    assert (lyon.row, lyon.file) == (2, tmp_path / "fleet.yaml")
    assert lyon.spec.description == "Rankings for lyon"
    assert lyon.spec.source.files == str(tmp_path / "data/lyon/{partition}.parquet")


def test_a_model_of_a_fleet_is_the_same_as_one_written_by_hand(load, tmp_path):
    found = load(
        TEMPLATE + "for_each:\n  - {city: berlin, retrain.schedule: '0 3 * * *', owner: 'team:x'}\n"
    )
    by_hand = TEMPLATE.removeprefix("template:\n").replace("{city}", "berlin")
    (tmp_path / "one.yaml").write_text(
        "\n".join(line[2:] for line in by_hand.splitlines())
        + "\nowner: team:x\nretrain: {schedule: '0 3 * * *'}\n",
        encoding="utf-8",
    )
    assert found.models["rec_berlin"].spec == parse_spec(tmp_path / "one.yaml")


def test_overrides_are_dotted_or_nested_and_leave_the_rest_of_their_section(load):
    found = load(
        TEMPLATE + "for_each:\n"
        "  - {city: a1, train.holdout: 3, resources.candidate_model.gpu: 1}\n"
        "  - {city: b1, train: {holdout: 4, params: {num_leaves: 7}}, alerts: [ops]}\n"
    )
    a1, b1 = found.specs()
    assert (a1.train.window, a1.train.holdout) == (10, 3)
    assert a1.resources["candidate_model"].gpu == 1
    assert (b1.train.window, b1.train.holdout, b1.train.params) == (10, 4, {"num_leaves": 7})
    assert b1.alerts == ("ops",)
    assert a1.alerts == ()


def test_a_field_that_is_one_column_takes_its_type(load):
    text = TEMPLATE.replace("window: 10", "window: '{days}'") + (
        "for_each:\n  - {city: a1, days: 20}\n  - {city: b1, days: soon}\n"
    )
    found = load(text)
    assert found.models["rec_a1"].spec.train.window == 20
    assert _found(found) == [(9, 2, "train.window", "must be a whole number, got 'soon'")]


def test_dates_and_truth_inside_of_a_text_are_written_as_in_yaml(load):
    text = TEMPLATE.replace("Rankings for", "Live {live} since {since} in")
    found = load(text + "for_each:\n  - {city: a1, live: true, since: 2024-01-31}\n")
    assert found.models["rec_a1"].spec.description == "Live true since 2024-01-31 in a1"


def test_rows_that_share_a_section_by_an_anchor_do_not_share_their_overrides(load):
    found = load(
        TEMPLATE + "for_each:\n"
        "  - {city: a1, tags: &tags {tier: gold}, tags.market: de}\n"
        "  - {city: b1, tags: *tags}\n"
    )
    assert [spec.tags for spec in found.specs()] == [
        {"tier": "gold", "market": "de"},
        {"tier": "gold"},
    ]


def test_braces_that_are_meant_for_somebody_else_stay(load):
    text = TEMPLATE.replace("data/{city}/{partition}.parquet", "${BUCKET}/{city}/{partition}.csv")
    text += "  features: {sql: \"SELECT *, {'a': 1} AS s FROM raw WHERE x ~ 'a{2,3}'\"}\n"
    found = load(text + "for_each: [{city: a1}]\n")
    assert found.problems == []
    spec = found.models["rec_a1"].spec
    assert spec.source.files == "${BUCKET}/a1/{partition}.csv"
    assert spec.features.sql == "SELECT *, {'a': 1} AS s FROM raw WHERE x ~ 'a{2,3}'"


def test_values_of_rows_are_not_filled_in_a_second_time(load):
    found = load(
        TEMPLATE.replace("for {city}", "{note}") + "for_each: [{city: a1, note: '{city}'}]\n"
    )
    assert found.models["rec_a1"].spec.description == "Rankings {city}"


# ----------------------------------------------------------------------- files and databases


def test_rows_come_from_a_csv_file_whose_empty_cells_override_nothing(load):
    found = load(
        TEMPLATE + "for_each: {file: rows.csv}\n",
        rows_csv="city,train.holdout,retrain.schedule,alerts\n"
        "berlin,3,0 3 * * *,[ops]\n"
        "\n"
        "lyon,,,\n",
    )
    assert found.problems == []
    lyon, berlin = found.models["rec_lyon"], found.models["rec_berlin"]
    assert (berlin.spec.train.holdout, berlin.spec.retrain.schedule) == (3, "0 3 * * *")
    assert berlin.spec.alerts == ("ops",)
    assert (lyon.row, lyon.spec.train.holdout, lyon.spec.retrain.schedule) == (2, 2, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("-0.5", -0.5), ("1e3", 1000.0), ("TRUE", True), ("NO", "NO"), ("007", "007"),
     ("9E", "9E"), ("2024-01-31", "2024-01-31"), ("{a: 1}", {"a": 1}), ('"7"', "7"), ("1:30", "1:30")],
)  # fmt: skip
def test_cells_are_typed_without_the_surprises_of_yaml_1_1(text, value):
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_rows_come_from_a_parquet_file(load, tmp_path):
    table = pa.table({"city": ["berlin", "lyon"], "train.holdout": [None, 3], "rate": [0.5, None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    found = load(TEMPLATE + "for_each: {file: rows.parquet, ignore: [rate]}\n")
    assert found.problems == []
    assert [spec.train.holdout for spec in found.specs()] == [2, 3]


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEET_URL", f"sqlite:///{tmp_path / 'config.db'}")
    connection = sqlite3.connect(tmp_path / "config.db")
    connection.execute("CREATE TABLE models (city TEXT, holdout INTEGER, since DATE)")
    connection.executemany(
        "INSERT INTO models VALUES (?, ?, ?)",
        [("berlin", 3, date(2024, 1, 31).isoformat()), ("lyon", None, "2024-02-01")],
    )
    connection.commit()
    connection.close()


SQL = "for_each:\n  sql:\n    connection: ${FLEET_URL}\n    query: >\n      "


@pytest.mark.usefixtures("database")
def test_rows_come_from_a_database(load):
    query = 'SELECT city, holdout AS "train.holdout", since AS "partitions.start" FROM models ORDER BY 1'
    found = load(TEMPLATE + SQL + query + "\n")
    assert found.problems == []
    berlin, lyon = found.specs()
    assert (berlin.train.holdout, berlin.partitions.start) == (3, date(2024, 1, 31))
    assert (lyon.train.holdout, lyon.partitions.start) == (2, date(2024, 2, 1))


@pytest.mark.usefixtures("database")
def test_a_failing_query_quarantines_the_fleet_without_showing_the_address(load, tmp_path):
    found = load(TEMPLATE + SQL + "SELECT * FROM absent\n")
    (broken,) = found.broken
    assert (broken.name, broken.row) == ("fleet", None)
    message = broken.problems[0].message
    assert "no such table: absent" in message
    assert "for_each.sql" in message
    assert str(tmp_path) not in message


def test_a_connection_that_is_not_set_is_named(load, monkeypatch):
    monkeypatch.delenv("FLEET_URL", raising=False)
    found = load(TEMPLATE + SQL + "SELECT 1 AS city\n")
    assert [(line, path) for line, _, path, _ in _found(found)] == [(11, "for_each.sql")]
    assert "environment variable FLEET_URL not set" in found.problems[0].message


# ------------------------------------------------------------------------------- what goes wrong


def test_one_bad_row_is_quarantined_alone_and_the_report_says_where(load):
    found = load(
        TEMPLATE + "for_each:\n"
        "  - {city: berlin}\n"
        "  - city: lyon\n"
        "    train.holdout: 12\n"
        "    retrain: {schedul: daily}\n"
        "  - {city: Bad City}\n"
        "  - {town: kiel}\n"
    )
    assert list(found.models) == ["rec_berlin"]
    assert [(b.name, b.row) for b in found.broken] == [
        ("rec_lyon", 2),
        ("rec_Bad City", 3),
        ("rec_{city}", 4),
    ]
    assert str(SpecError(found.problems)).splitlines()[1:] == [
        "  line 2, row 3  name: must be 2 to 63 lower-case letters, digits or _, beginning with a "
        "letter, got 'rec_Bad City'",
        "  line 2, row 4  name: {city}: the row has no value in column 'city'; give it one",
        "  line 3, row 4  description: {city}: the row has no value in column 'city'; give it one",
        "  line 6, row 4  source.files: {city}: the row has no value in column 'city'; give it one",
        "  line 14, row 2  retrain.schedul: unknown field (did you mean 'schedule'?); known here: "
        + found.problems[0].message.partition("known here: ")[2],
        "  line 16, row 4  town: column 'town' is used nowhere: write {town} in the template, name "
        "it after a field (retrain.schedule), or list it in for_each.ignore",
    ]


def test_a_rule_between_sections_points_to_the_row_that_breaks_it(load):
    found = load(TEMPLATE + "for_each:\n  - {city: a1}\n  - {city: lyon, train.holdout: 12}\n")
    assert _found(found) == [
        (12, 2, "train.holdout", "must be below train.window (10), got 12"),
    ]


def test_a_bad_row_of_a_csv_file_is_quarantined_alone(load):
    found = load(
        TEMPLATE + "for_each: {file: rows.csv}\n",
        rows_csv="city,train.holdout\nberlin,3\nlyon\nkiel,[3\noslo,x\n",
    )
    assert list(found.models) == ["rec_berlin"]
    assert [(b.name, b.row) for b in found.broken] == [
        ("fleet_row_2", 2),
        ("fleet_row_3", 3),
        ("rec_oslo", 4),
    ]
    assert _found(found) == [
        (10, 2, "", "the row has 1 cells, the header 2; quote commas in cells"),
        (10, 3, "", "column 'train.holdout': '[3' is no YAML list, mapping or quoted text: "
         "expected ',' or ']', but got '<stream end>'"),
        (10, 4, "train.holdout", "must be a whole number or a number, got 'x'"),
    ]  # fmt: skip


def test_the_same_problem_of_many_rows_is_reported_once(load):
    rows = "".join(f"  - {{city: c{n}}}\n" for n in range(8))
    found = load(TEMPLATE.replace("task: binary", "task: binry") + "for_each:\n" + rows)
    assert len(found.broken) == 8
    lines = str(SpecError(found.problems)).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("fleet.yaml: 1 problem")
    assert lines[1].startswith("  line 8, rows 1, 2, 3, 4, 5 and 3 more  task: 'binry'")


@pytest.mark.parametrize(
    ("rows", "line", "path", "message"),
    [
        ("for_each: {file: no.csv}", 10, "for_each.file", "cannot be read: "),
        ("for_each: {file: rows.txt}", 10, "for_each.file", "must be the path of a .csv or .parquet"),
        ("for_each: {sql: SELECT 1}", 10, "for_each.sql", "must be {connection: ${URL}, query: SELECT"),
        ("for_each: []", 10, "for_each", "there are no rows; one row makes one model"),
        ("for_each: 3", 10, "for_each", "must be a list of rows, {file: rows.csv} or {sql: "),
        ("for_each: {flie: a.csv}", 10, "for_each.flie", "unknown field; known here: file, sql"),
        ("name: x\nfor_each: [{city: a1}]", 10, "name", "unknown field of a fleet file; known here"),
        ("", 0, "for_each", "required field is missing: a fleet file has template and for_each"),
    ],
)  # fmt: skip
def test_a_fleet_that_cannot_be_read_is_quarantined_as_a_whole(load, rows, line, path, message):
    found = load(TEMPLATE + rows + "\n")
    (broken,) = found.broken
    assert broken.row is None
    (problem,) = broken.problems
    assert (problem.line, problem.row, problem.path) == (line, 0, path)
    assert message in problem.message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("city,ownr", "column 'ownr' is used nowhere (did you mean 'owner'?): write {ownr} in"),
        ("town,owner", "column 'town' is used nowhere"),
        ("city,city", "column 'city' is there twice"),
        ("city,", "column 2 has no name"),
        ("owner,description", "{city}: the rows have no such column"),
    ],
)
def test_a_header_that_does_not_fit_is_one_problem_and_not_one_per_row(load, header, message):
    found = load(TEMPLATE + "for_each: {file: rows.csv}\n", rows_csv=f"{header}\na,b\nc,d\n")
    assert found.models == {}
    (broken,) = found.broken
    assert broken.row is None
    assert message in broken.problems[0].message


def test_the_same_name_twice_quarantines_both_rows_and_the_file_that_has_it_too(load, tmp_path):
    one = TEMPLATE.removeprefix("template:\n").replace("{city}", "lyon")
    (tmp_path / "one.yaml").write_text("\n".join(line[2:] for line in one.splitlines()) + "\n")
    load(TEMPLATE + "for_each:\n  - {city: lyon}\n  - {city: a1}\n  - {city: lyon}\n")
    found = load_specs(tmp_path)
    assert list(found.models) == ["rec_a1"]
    fleet, file = tmp_path / "fleet.yaml", tmp_path / "one.yaml"
    assert [(b.file, b.row, b.rivals) for b in found.broken] == [
        (fleet, 1, (file,)),
        (fleet, 3, (file,)),
        (file, None, (fleet,)),
    ]
    assert [(p.line, p.message) for p in found.problems] == [
        (2, f"'rec_lyon' is also the name in row 3, {file}; names must be unique"),
        (2, f"'rec_lyon' is also the name in row 1, {file}; names must be unique"),
        (1, f"'rec_lyon' is also the name in row 1 of {fleet}, row 3 of {fleet}; names must be unique"),
    ]  # fmt: skip


def test_a_value_given_twice_in_one_row_is_no_override(load):
    found = load(TEMPLATE + "for_each:\n  - {city: a1, train: {holdout: 3}, train.holdout: 4}\n")
    assert _found(found) == [
        (11, 1, "train.holdout", "train.holdout is given twice in this row"),
    ]


def test_a_fleet_is_not_one_model(tmp_path):
    (tmp_path / "fleet.yaml").write_text(TEMPLATE + "for_each: [{city: a1}]\n")
    with pytest.raises(SpecError, match="describes a fleet, not one model"):
        parse_spec(tmp_path / "fleet.yaml")


# --------------------------------------------------------------------------------------- expand


def _expand(tmp_path, *arguments):
    return CliRunner().invoke(main, ["expand", str(tmp_path / "fleet.yaml"), *arguments])


def test_expand_prints_specs_that_make_the_same_models(load, tmp_path):
    found = load(TEMPLATE + "for_each:\n  - {city: a1, owner: 'team:x'}\n  - {city: b1}\n")
    result = _expand(tmp_path)
    assert result.exit_code == 0
    first, second = result.stdout.split("---\n")
    assert first.startswith("# row 1\nname: rec_a1\n")
    for name, text in (("rec_a1", first), ("rec_b1", second)):
        (tmp_path / "alone.yaml").write_text(text)
        assert parse_spec(tmp_path / "alone.yaml") == found.models[name].spec


def test_expand_leaves_broken_rows_out_and_says_why(load, tmp_path):
    load(TEMPLATE + "for_each:\n  - {city: a1, train.holdout: 30}\n  - {city: b1}\n")
    result = _expand(tmp_path)
    assert result.exit_code == 1
    assert result.stdout.startswith("# row 2\nname: rec_b1\n")
    assert "line 11, row 1  train.holdout: must be below train.window (10), got 30" in result.stderr
    document = json.loads(_expand(tmp_path, "--json").stdout)
    assert [(m["row"], m["spec"]["name"]) for m in document["models"]] == [(2, "rec_b1")]
    assert [p["row"] for p in document["problems"]] == [1]


def test_expand_shows_one_model_or_says_which_there_are(load, tmp_path):
    load(TEMPLATE + "for_each:\n  - {city: a1}\n  - {city: b1}\n")
    assert _expand(tmp_path, "--model", "rec_b1").stdout.startswith("# row 2\nname: rec_b1\n")
    result = _expand(tmp_path, "--model", "rec_c1")
    assert result.exit_code == 2
    assert result.stderr.endswith("makes no model rec_c1; it makes rec_a1, rec_b1\n")


# ---------------------------------------------------------------------------------------- scale


def test_a_thousand_rows_load_and_three_broken_ones_harm_nobody(load):
    rows = [f"c{n:04d},{2 + n % 5},0 {n % 24} * * *,1" for n in range(1000)]
    rows[10] = "c0010,99,0 3 * * *,1"
    rows[500] = "c0500,2,every day,1"
    rows[999] = "c0000,2,0 3 * * *,1"
    found = load(
        TEMPLATE + "for_each: {file: rows.csv}\n",
        rows_csv="city,train.holdout,retrain.schedule,resources.candidate_model.gpu\n"
        + "\n".join(rows),
    )
    assert len(found.models) == 996
    assert [broken.row for broken in found.broken] == [1, 11, 501, 1000]
    assert found.models["rec_c0998"].spec.retrain.schedule == "0 14 * * *"
