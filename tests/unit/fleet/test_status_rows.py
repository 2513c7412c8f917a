"""Status rows: what needs a person comes first, and everything fits a terminal."""

import io
import json
from itertools import permutations

import pytest
from rich.console import Console

from retrain_assets.fleet.status import StatusRow, status_notes, status_table

STATES = ["broken", "failing", "approval", "drifting", "waiting", "retraining", "healthy"]


def _printed(*rows, width=80):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(status_table(rows))
    return out.getvalue()


def _lines(*rows, width=80):
    return [line.rstrip() for line in _printed(*rows, width=width).splitlines()]


def test_rows_come_by_urgency_and_then_by_name():
    rows = [StatusRow("b", state) for state in STATES] + [StatusRow("a", "broken")]
    for order in list(permutations(rows))[::97]:
        ranked = sorted(order, key=lambda row: row.rank)
        assert [row.state for row in ranked] == ["broken", *STATES]
        assert [row.model for row in ranked[:2]] == ["a", "b"]


def test_the_table_is_sorted_whatever_order_the_rows_come_in():
    lines = _lines(StatusRow("x", "healthy"), StatusRow("y", "failing"), StatusRow("a", "waiting"))
    assert [line.split()[0] for line in lines] == ["model", "y", "a", "x"]


def test_the_table_shows_what_is_known():
    row = StatusRow(
        "churn", "healthy", owner="team:ops", champion="7", metric="roc_auc", value=0.81234,
        newest="2024-02-29", verdict="stable", drift_score=0.12, last_run="SUCCESS",
    )  # fmt: skip
    assert [line.split() for line in _lines(row)] == [
        ["model", "state", "champion", "metric", "newest", "data", "drift", "last", "run"],
        ["churn", "healthy", "v7", "roc_auc", "0.8123", "2024-02-29", "stable", "success"],
    ]


def test_what_is_not_known_is_a_dash():
    assert _lines(StatusRow("churn", "waiting"))[1].split() == ["churn", "waiting"] + ["-"] * 5


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [("rmse", 0.0, "rmse 0"), ("rmse", 123456.0, "rmse 1.235e+05"), ("rmse", None, "-"),
     (None, 0.5, "-")],
)  # fmt: skip
def test_a_metric_is_shown_with_its_value_or_not_at_all(metric, value, shown):
    (_, line) = _lines(StatusRow("m", "healthy", metric=metric, value=value))
    assert line.split() == ["m", "healthy", "-", *shown.split(), "-", "-", "-"]


def test_a_full_row_fits_eighty_columns():
    row = StatusRow(
        "daily_departures", "retraining", champion="12", metric="roc_auc", value=0.81234,
        newest="2024-02-29", verdict="drifted", last_run="STARTED",
    )  # fmt: skip
    lines = _lines(row)
    assert len(lines) == 2
    assert lines[1].endswith("started")


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/x]"])
def test_the_name_in_a_broken_spec_is_shown_as_it_is(name):
    assert name in _printed(StatusRow(name, "broken"))


def test_notes_are_one_line_per_model_in_the_order_of_the_table():
    rows = [
        StatusRow("c", "healthy", note="fine"),
        StatusRow("b", "waiting"),
        StatusRow("a", "failing", note="[Errno 2] no such file"),
    ]
    assert status_notes(rows) == ["a: [Errno 2] no such file", "c: fine"]


def test_a_row_is_json_with_every_field():
    row = StatusRow("churn", "healthy", champion="7", value=0.5)
    data = json.loads(json.dumps(row.to_dict()))
    assert StatusRow(**data) == row
    assert set(data) == set(StatusRow.__dataclass_fields__)
