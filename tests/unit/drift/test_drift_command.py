"""`retrain drift` and `retrain profile`: exit codes, output, garbage in."""

import json
import re
import subprocess
import sys

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from retrain_assets.drift import command
from retrain_assets.drift.columns import column_family
from retrain_assets.spec.model import Multivariate, Thresholds


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(3)

    def table(shift):
        n = 2000
        return pa.table(
            {
                "hour": rng.normal(13 + shift, 3, n),
                "same": rng.normal(size=n),
                "carrier": rng.choice(["AA", "UA"], n),
                "list": [[1]] * n,
            }
        )

    paths = [str(tmp_path / f"{name}.parquet") for name in ("reference", "stable", "moved")]
    for path, shift in zip(paths, (0, 0, 2), strict=True):
        pq.write_table(table(shift), path)
    return paths


def _run(*arguments):
    group = click.Group(commands={"drift": command.drift, "profile": command.profile})
    result = CliRunner().invoke(group, list(map(str, arguments)))
    # A SystemExit is the command's own exit; anything else is a traceback that a user would see.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_drift_is_printed_and_exits_3(files):
    result = _run("drift", files[0], files[2])
    assert result.exit_code == 3
    assert "drifted: 1 of 3 features drifted" in result.output
    assert re.search(r"hour +drifted .*mean 1[23]\.?\d* → 1[45]", result.output)


def test_stable_exits_0(files):
    result = _run("drift", files[0], files[1])
    assert (result.exit_code, result.output.split(":")[0]) == (0, "stable")


def test_the_last_line_of_json_has_flags_and_statistics(files):
    result = _run("drift", files[0], files[2], "--json")
    document = json.loads(result.output.strip().splitlines()[-1])
    assert document["flags"] == {"hour": True, "same": False, "carrier": False}
    assert document["columns"]["hour"]["statistics"]["ks"] > 0.2
    assert document["exact"] is True
    assert (result.exit_code, document["verdict"]) == (3, "drifted")


def test_a_profile_takes_the_place_of_either_file(files, tmp_path):
    profile = tmp_path / "reference.profile"
    made = _run("profile", files[0], "-o", profile)
    assert made.exit_code == 0
    assert "2,000 rows, 3 columns" in made.output
    assert "'list': type list<" in made.output
    for sides in ((profile, files[2]), (files[2], profile), (profile, profile)):
        result = _run("drift", *sides, "--json")
        flags = json.loads(result.output.strip().splitlines()[-1])["flags"]
        assert flags["hour"] is (sides[0] != sides[1])


def test_the_page_is_self_contained_and_sorted_by_severity(files, tmp_path):
    page = tmp_path / "report.html"
    assert _run("drift", files[0], files[2], "--html", page).exit_code == 3
    text = page.read_text()
    assert not re.search(r"(src|href)=|https?://|<script|@import", text)
    assert text.index("<h3>hour<") < text.index("<h3>same<")


def test_csv_files_are_read(tmp_path):
    for name, shift in (("a", 0), ("b", 5)):
        rows = "\n".join(f"{i % 17 + shift},{'xy'[i % 2]},2013-01-0{i % 9 + 1}" for i in range(500))
        (tmp_path / f"{name}.csv").write_text("n,t,day\n" + rows)
    result = _run("drift", tmp_path / "a.csv", tmp_path / "b.csv", "--json")
    assert json.loads(result.output)["flags"] == {"n": True, "t": False, "day": False}


def test_a_csv_file_that_is_too_large_for_memory_goes_through_a_file(tmp_path, monkeypatch):
    from retrain_assets.drift import columns

    monkeypatch.setattr(columns, "_CSV_IN_MEMORY", 0)
    test_csv_files_are_read(tmp_path)


def test_partitions_of_the_reference_raise_the_thresholds(tmp_path):
    rng = np.random.default_rng(8)
    paths = []
    for k in range(10):
        path = tmp_path / f"{k}.parquet"
        pq.write_table(pa.table({"x": rng.normal(np.sin(k), 1, 1000)}), path)
        like = ["--like", paths[0]] if paths else []
        paths.append(tmp_path / f"{k}.profile")
        assert _run("profile", path, "-o", paths[-1], *like).exit_code == 0
    today = tmp_path / "today.parquet"
    pq.write_table(pa.table({"x": rng.normal(-0.9, 1, 1000)}), today)
    calibration = [item for path in paths for item in ("--calibrate", path)]
    assert _run("drift", paths[0], today).exit_code == 3
    calm = _run("drift", paths[0], today, *calibration)
    assert calm.exit_code == 0
    too_few = _run("drift", paths[0], today, *calibration[:6])
    assert (too_few.exit_code, "needs at least 8 partitions" in too_few.output) == (2, True)


def _parquet(path, table, cut=None):
    pq.write_table(table, path)
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_truncated_file_is_a_clear_error(files, tmp_path, cut):
    path = tmp_path / "cut.parquet"
    _parquet(path, pa.table({"hour": np.arange(5000.0)}), cut)
    for sides in ((files[0], path), (path, files[0])):
        result = _run("drift", *sides)
        assert result.exit_code == 2
        assert result.output.startswith(f"{path}: not a readable Parquet file")


def test_a_file_that_is_damaged_inside_is_a_clear_error(files, tmp_path):
    path = tmp_path / "damaged.parquet"
    _parquet(path, pa.table({"hour": np.random.default_rng(1).normal(size=5000)}))
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    result = _run("drift", files[0], path)
    assert result.exit_code == 2
    assert "damaged.parquet: not a readable Parquet file" in result.output


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage\n1,2,3\n4", b"a,a\n1,2\n", b"a\n"])
def test_a_strange_csv_file_is_a_clear_error_or_undecided(tmp_path, content):
    path = tmp_path / "strange.csv"
    path.write_bytes(content)
    result = _run("drift", path, path)
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.output
    assert (
        "strange.csv" in result.output or "undecided" in result.output or "unique" in result.output
    )


def test_a_missing_file_or_folder_is_named(files, tmp_path):
    for path in (tmp_path / "absent.parquet", tmp_path):
        result = _run("drift", files[0], path)
        assert (result.exit_code, result.output.split(":")[0]) == (2, str(path))


def test_no_column_in_common_is_drift_and_unknown_ones_are_an_error(files, tmp_path):
    path = tmp_path / "other.parquet"
    _parquet(path, pa.table({"other": np.arange(500.0)}))
    result = _run("drift", files[0], path)
    assert result.exit_code == 3
    assert result.output.count("missing from current") == 3
    assert "not compared: `other`" in result.output
    unknown = _run("drift", files[0], files[1], "-c", "hours")
    assert (unknown.exit_code, "'hours': is in neither table" in unknown.output) == (2, True)


@pytest.mark.parametrize(
    ("current", "code", "words"),
    [
        (pa.table({"x": pa.nulls(300, pa.float64())}), 3, "null rate 0.0% → 100.0%"),
        (pa.table({"x": pa.nulls(300)}), 3, "null rate 0.0% → 100.0%"),
        (pa.table({"x": ["a"] * 300}), 3, "was number (double), is text (string)"),
        (pa.table({"x": pa.array([1.0])}), 0, "undecided"),
        (pa.table({"x": pa.array([], pa.float64())}), 0, "undecided"),
        (pa.table({"x": [[1]] * 300}), 3, "was number (double), is list<"),
        (pa.table({"x": [b"a"] * 300}), 3, "was number (double), is binary"),
        (pa.table({"x": np.full(300, np.nan)}), 3, "null rate 0.0% → 100.0%"),
        (pa.table({"x": np.full(300, np.inf)}), 3, "KS 1.00"),
        (pa.table({}), 0, "undecided"),
        (pa.table([[1.0] * 300] * 2, names=["x", "x"]), 2, "must be unique, occurs more than once"),
    ],
)  # fmt: skip
def test_garbage_in_is_told(tmp_path, current, code, words):
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    _parquet(paths[0], pa.table({"x": np.random.default_rng(1).normal(size=300)}))
    _parquet(paths[1], current)
    result = _run("drift", *paths)
    assert (result.exit_code, words in result.output) == (code, True), result.output


def test_a_column_of_lists_is_left_out_aloud_and_its_change_of_type_is_drift(files, tmp_path):
    kept = _run("drift", files[0], files[1], "--json")
    assert list(json.loads(kept.output)["left_out"]) == ["list"]
    assert "left out: `list`, type list<" in _run("drift", files[0], files[1]).output
    flat = tmp_path / "flat.parquet"
    table = pq.read_table(files[1])
    _parquet(flat, table.set_column(3, "list", pa.array(np.ones(2000))))
    profile = tmp_path / "reference.profile"
    _run("profile", files[0], "-o", profile)
    for reference in (files[0], profile):
        result = _run("drift", reference, flat)
        assert result.exit_code == 3
        assert re.search(r"list +drifted .*was list<.*>, is number \(double\)", result.output)
    asked_for = _run("drift", files[0], files[1], "-c", "list")
    assert (asked_for.exit_code, "cannot be compared" in asked_for.output) == (2, True)


def test_missing_and_new_columns_are_both_told(tmp_path):
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    values = np.random.default_rng(1).normal(size=300)
    _parquet(paths[0], pa.table({"x": values, "gone": values}))
    _parquet(paths[1], pa.table({"x": values, "new": values}))
    result = _run("drift", *paths)
    assert result.exit_code == 3
    assert re.search(r"gone +drifted .*missing from current", result.output)
    assert f"only in {paths[1]}, not compared: `new`" in result.output


@pytest.mark.parametrize("empty", [pa.nulls(300, pa.float64()), pa.nulls(300)])
def test_a_reference_without_any_value_is_told(tmp_path, empty):
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    _parquet(paths[0], pa.table({"x": empty}))
    _parquet(paths[1], pa.table({"x": np.random.default_rng(1).normal(size=300)}))
    result = _run("drift", *paths)
    assert (result.exit_code, "null rate 100.0% → 0.0%" in result.output) == (3, True)
    assert _run("drift", paths[0], paths[0]).exit_code == 0


def test_many_distinct_strings_are_compared_by_length_and_tokens(tmp_path):
    rng = np.random.default_rng(2)
    paths = []
    for name, words in (("a", "id"), ("b", "id"), ("c", "key no")):
        values = [f"{words} {i}" for i in rng.integers(0, 10**12, 150_000)]
        paths.append(tmp_path / f"{name}.parquet")
        _parquet(paths[-1], pa.table({"x": values}))
    assert _run("drift", paths[0], paths[1]).exit_code == 0
    moved = _run("drift", paths[0], paths[2])
    assert moved.exit_code == 3
    assert "too many distinct values to compare one by one" in moved.output
    assert "mean length" in moved.output


def test_the_thresholds_for_large_effects_are_those_of_a_spec():
    assert vars(command._Thresholds()) == Thresholds().model_dump()


def test_a_comparison_imports_nothing_heavy(files):
    code = (
        "import sys\nfrom retrain_assets.drift.command import drift\n"
        f"try: drift([{files[0]!r}, {files[2]!r}])\nexcept SystemExit: pass\n"
        "heavy = {'scipy', 'pandas', 'matplotlib', 'pydantic', 'sklearn', 'dagster', 'mlflow'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_every_column_family_of_arrow_is_known():
    assert column_family(pa.list_(pa.int8())) is None


@pytest.fixture
def correlated(tmp_path):
    """Two files whose columns by themselves are alike, with a label that is not; a counter as well."""
    rng = np.random.default_rng(8)

    def write(name, rho, rate, first):
        x, y = rng.normal(size=(2, 3000))
        y = rho * x + np.sqrt(1 - rho**2) * y
        late, serial = rng.random(3000) < rate, np.arange(first, first + 3000)
        path = str(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({"x": x, "y": y, "late": late, "serial": serial}), path)
        return path

    return write("reference", 0.9, 0.3, 0), write("current", 0.0, 0.6, 3000)


def test_multivariate_finds_what_no_column_shows_and_names_what_it_left_out(correlated):
    options = ("--exclude", "late", "--multivariate")
    result = _run("drift", *correlated, "--exclude", "serial", *options)
    assert result.exit_code == 3
    assert result.output.startswith("drifted: all columns together: told apart from the reference")
    assert "0 of 2 features drifted" in result.output
    assert "`x` and `y`: rank correlation 0." in result.output
    named = _run("drift", *correlated, *options).output
    assert "not among all columns together: serial: the two ranges do not overlap" in named
    assert _run("drift", *correlated, "--exclude", "serial", "-x", "late").exit_code == 0


def test_multivariate_is_in_the_json_and_on_the_page(correlated, tmp_path):
    page = tmp_path / "report.html"
    result = _run("drift", *correlated, "--multivariate", "--json", "--html", page)
    found = json.loads(result.output.splitlines()[-1])["multivariate"]
    assert 0.7 < found["low"] < found["auc"] < found["high"] < 1
    assert set(found["shares"]) == {"x", "y", "late"}
    assert found["correlations"][0]["first"] == "x"
    assert "told apart from the reference with AUC 0." in page.read_text()


def test_large_effects_need_an_auc_of_the_default_of_a_spec():
    assert command._Multivariate() == command._Multivariate(Multivariate().auc, Multivariate().rows)


def test_a_target_is_shown_apart_and_is_no_feature(correlated, tmp_path):
    page = tmp_path / "report.html"
    result = _run("drift", *correlated, "-x", "serial", "--target", "late", "--html", page)
    assert (result.exit_code, result.output.split(":")[0]) == (0, "stable")
    assert result.output.count("the target `late` moved: 'false' 70.6% → 39.1%") == 1
    assert "label, not counted as a feature:" in result.output
    assert "label: late" in page.read_text()
    document = json.loads(
        _run("drift", *correlated, "--target", "late", "--json").output.splitlines()[-1]
    )
    assert "late" not in document["flags"]
    assert document["label"]["drifted"]
    assert document["multivariate"] is None


def test_a_profile_is_no_side_of_a_multivariate_comparison_but_knows_labels(correlated, tmp_path):
    made = str(tmp_path / "reference.profile")
    _run("profile", correlated[0], "-o", made)
    result = _run("drift", made, correlated[1], "--multivariate")
    assert result.exit_code == 2
    assert "reference: multivariate drift needs rows, got a stored profile" in result.output
    assert (
        "the target `late` moved" in _run("drift", made, correlated[1], "--target", "late").output
    )


def test_a_target_that_no_file_has_is_an_error(correlated):
    result = _run("drift", *correlated, "--target", "churned")
    assert result.exit_code == 2
    assert "'churned': is in neither table" in result.output
