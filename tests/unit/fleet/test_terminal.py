"""Status on a terminal: 80 columns hold a row, a fleet stays readable."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from retrain_assets.fleet.status import STATES, StatusRow
from retrain_assets.fleet.terminal import sparkline, status_lines, status_notes, status_table

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def _lines(*rows, width=80):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(status_table(rows, NOW))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_table_is_sorted_whatever_order_the_rows_come_in():
    lines = _lines(StatusRow("x", "healthy"), StatusRow("y", "failing"), StatusRow("a", "waiting"))
    assert [line.split()[0] for line in lines] == ["model", "y", "a", "x"]


def test_every_state_can_be_shown():
    lines = _lines(*(StatusRow("m", state) for state in STATES))
    assert [line.split()[1] for line in lines[1:]] == list(STATES)


def test_the_table_shows_what_is_known():
    row = StatusRow(
        "churn", "healthy", champion="7", promoted_at=(NOW - timedelta(days=5)).isoformat(),
        metric="roc_auc", value=0.81234, newest="2024-02-29", verdict="stable",
        last_run="SUCCESS", last_run_at=(NOW - timedelta(minutes=9)).isoformat(),
    )  # fmt: skip
    assert [line.split() for line in _lines(row)] == [
        ["model", "state", "champion", "metric", "data", "drift", "run"],
        ["churn", "healthy", "v7", "5d", "0.8123", "roc_auc", "2024-02-29", "stable", "9m"],
    ]


def test_what_is_not_known_is_a_dash():
    assert _lines(StatusRow("churn", "waiting"))[1].split() == ["churn", "waiting"] + ["-"] * 5


@pytest.mark.parametrize(
    ("fields", "shown"),
    [({"metric": "rmse", "value": 0.0}, "0 rmse"),
     ({"metric": "rmse", "value": 123456.0}, "1.235e+05 rmse"),
     ({"metric": "rmse"}, "-"),
     ({"value": 0.5}, "-"),
     ({"metric": "auc", "value": 0.5, "live": 0.4, "meets": False}, "0.4! auc")],
)  # fmt: skip
def test_a_metric_is_shown_with_its_value_or_not_at_all(fields, shown):
    (_, line) = _lines(StatusRow("m", "healthy", **fields))
    assert line.split() == ["m", "healthy", "-", *shown.split(), "-", "-", "-"]


def test_a_full_row_fits_eighty_columns():
    row = StatusRow(
        "daily_departures_of_newark_and_jersey", "retraining", champion="12", promoted_at=NOW.isoformat(),
        metric="average_precision", value=0.81234, newest="2024-02-29", verdict="drifted",
        trend=(0.1,) * 20, last_run="STARTED", last_run_at=NOW.isoformat(),
    )  # fmt: skip
    lines = _lines(row)
    assert len(lines) == 2
    assert lines[1].endswith("0.8123 averag… 2024-02-29 ▁▁▁▁▁▁ 0s")
    assert "…" in lines[1].split()[0]


def test_columns_stay_aligned_and_coloured():
    rows = [StatusRow("a", "failing", newest="2024"), StatusRow("模型", "healthy", newest="2025")]
    lines = _lines(*rows)
    first, second = (cell_len(line[: line.index("20")]) for line in lines[1:])
    assert first == second
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(
        status_table(rows, NOW)
    )
    assert "\x1b[31mfailing" in out.getvalue()
    assert "\x1b[32mhealthy" in out.getvalue()


def test_a_terminal_that_is_too_narrow_cuts_lines_off():
    lines = _lines(StatusRow("daily_departures", "retraining", newest="2024-02-29"), width=30)
    assert len(lines) == 2
    assert max(map(cell_len, lines)) <= 30


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/x]"])
def test_the_name_in_a_broken_spec_is_shown_as_it_is(name):
    assert name in "\n".join(_lines(StatusRow(name, "broken")))


def test_a_sparkline_has_one_mark_per_partition_and_stays_in_its_line():
    assert sparkline((0.0, 1.0, 7.0, -1.0, None)) == "▁██▁ "


def test_of_a_few_models_everything_is_told():
    rows = [
        StatusRow("c", "healthy", decision="waited: nothing new", decided_at="2024-02-29T10:00:00"),
        StatusRow("b", "waiting"),
        StatusRow("a", "failing", note="[Errno 2] no such file", stale="raw_data was late"),
    ]
    assert status_notes(rows) == [
        "a: [Errno 2] no such file",
        "a: raw_data was late",
        "c: last decision 2024-02-29 10:00 UTC, waited: nothing new",
    ]


def test_of_many_models_those_that_need_somebody_share_lines():
    rows = [StatusRow(f"m{i}", "failing", note="the source is down") for i in range(50)]
    rows += [
        StatusRow("x", "failing", note="another thing"),
        StatusRow("y", "healthy", note="fine"),
    ]
    rows += [StatusRow("z", "healthy", stale="raw_data is late", decision="waited: nothing new")]
    assert status_notes(rows) == [
        "x: another thing",
        "m0, m1, m10 and 47 more: the source is down",
        "z: raw_data is late",
    ]


def test_the_summary_tells_each_group_of_several_most_urgent_first():
    rows = [StatusRow(f"r{i}", "healthy", group="recommenders") for i in range(3)]
    rows += [StatusRow("p", "failing", group="prices"), StatusRow("q", "healthy", group="prices")]
    rows += [StatusRow("alone", "healthy", group="alone")]
    assert status_lines(rows) == [
        "6 models: 1 failing, 5 healthy",
        "  prices: 2 models: 1 failing, 1 healthy",
        "  recommenders: 3 models: 3 healthy",
    ]
    assert status_lines(rows[-1:]) == ["1 model: 1 healthy"]
