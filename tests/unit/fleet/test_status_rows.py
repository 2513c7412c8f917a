"""Status rows: what needs a person first, ages and bounds in words."""

import json
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from retrain_assets.fleet.status import STATES, StatusRow, freshness_of, summary

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_rows_come_by_urgency_and_then_by_name():
    rows = [StatusRow("b", state) for state in STATES] + [StatusRow("a", "broken")]
    for order in list(permutations(rows[:5] + rows[-1:]))[::7]:
        ranked = sorted(order, key=lambda row: row.rank)
        assert [row.state for row in ranked] == ["broken", *STATES[:5]]
        assert [row.model for row in ranked[:2]] == ["a", "b"]


def test_a_row_survives_json():
    row = StatusRow("churn", "healthy", champion="7", value=0.5, trend=(0.1, None, 0.3),
                    week_runs={"monitor success": 3}, links={"run": "http://x/runs/1"})  # fmt: skip
    data = json.loads(json.dumps(row.to_dict()))
    assert set(data) == set(StatusRow.__dataclass_fields__)
    assert StatusRow.from_dict(data) == row


@pytest.mark.parametrize("change", [{"unknown": 1}, {"note": None}])
def test_a_row_of_another_release_is_refused(change):
    data = StatusRow("churn", "healthy").to_dict() | change
    if data["note"] is None:
        del data["note"]
    with pytest.raises(ValueError, match="another release"):
        StatusRow.from_dict(data)


def test_the_newest_value_is_the_one_since_the_promotion():
    assert StatusRow("m", "healthy", value=0.8).newest_value == 0.8
    assert StatusRow("m", "healthy", value=0.8, live=0.0).newest_value == 0.0


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0, "ok"), (26, "ok"), (26.1, "warn"), (48, "warn"), (48.1, "fail"), (-1, "ok")],
)
def test_freshness_is_judged_by_the_windows_of_the_policy(hours, said):
    written = (NOW - hours * HOUR).timestamp()
    state, text = freshness_of(written, 26 * HOUR, 48 * HOUR, NOW)
    assert state == said
    assert bool(text) == (said != "ok")


def test_without_a_warn_window_nothing_is_late_before_it_fails():
    assert freshness_of((NOW - 47 * HOUR).timestamp(), None, 48 * HOUR, NOW) == ("ok", "")


def test_what_was_never_written_is_waited_for_and_not_late():
    assert freshness_of(None, HOUR, 2 * HOUR, NOW) == ("ok", "")


def test_the_summary_of_no_model_says_so():
    assert summary([]) == "0 models"
