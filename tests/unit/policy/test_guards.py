"""What holds a retraining back, whom, and what would end it."""

from datetime import UTC, datetime, timedelta

import pytest

from retrain_assets.policy import Evidence, History, PastRun, decide
from retrain_assets.spec.model import Retrain

NOW = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _decide(policy, history=None, **evidence):
    known = {"has_champion": True, "partitions": 60, "needed": 30, "drift_alarm": True} | evidence
    return decide(
        Retrain.model_validate(policy), Evidence(**known), History(**(history or {})), NOW
    )


def runs(*ago, seconds=100.0):
    return [PastRun(timedelta(days=days), seconds) for days in ago]


def test_bad_data_vetoes_all_but_a_person_and_says_what_is_wrong():
    for asked, action in ((None, "wait"), ("schedule", "wait"), ("on_demand", "retrain")):
        decision = _decide({}, bad_data="40% nulls in fare", asked=asked)
        assert decision.action == action
    assert _decide({}, bad_data="40% nulls in fare").reasons[-1] == (
        "but the newest data is bad (40% nulls in fare); it must be mended first"
    )
    assert _decide({}, bad_data="").action == "retrain"


def test_too_few_new_partitions_say_how_many_more_are_needed():
    decision = _decide(
        {"min_new_partitions": 7}, {"last_retraining": NOW - 9 * DAY}, new_partitions=3
    )
    assert decision.held == ("new_data",)
    assert decision.reasons[-1].endswith("min_new_partitions is 7, 4 more")


def test_changed_code_needs_no_new_data_but_keeps_the_cool_down():
    policy = {"on_drift": False, "on_change": True}
    same_data = {"last_retraining": NOW}
    assert _decide(policy, same_data, changed=True).action == "retrain"
    held = _decide(policy | {"cooldown": "2d"}, same_data, changed=True)
    assert held.held == ("cooldown",)


@pytest.mark.parametrize(
    ("rejections", "days"), [(0, 0), (1, 2), (2, 4), (3, 8), (4, 10), (10_000, 10)]
)
def test_the_back_off_doubles_with_each_rejection_up_to_its_bound(rejections, days):
    policy = {"backoff": {"first": "2d", "at_most": "10d"}}
    for age, action in ((days - 0.5, "wait"), (days + 0.5, "retrain")):
        if age > 0:
            history = {"last_retraining": NOW - age * DAY, "rejections": rejections}
            assert _decide(policy, history).action == action


def test_the_back_off_says_how_often_and_until_when():
    history = {"last_retraining": NOW - DAY, "rejections": 2}
    decision = _decide({"backoff": {"first": "2d", "at_most": "10d"}}, history)
    assert decision.reasons[-1] == (
        "but the last 2 candidates were rejected: back-off of 4.0 days, which ends with data up to "
        "2024-03-04"
    )


def test_unknown_rejections_and_runs_hold_nothing_back():
    policy = {
        "backoff": {"first": "2d", "at_most": "10d"},
        "budget": {"runs_per_week": 1},
    }
    assert _decide(policy, {"last_retraining": NOW - DAY}).action == "retrain"


def test_a_budget_of_runs_counts_seven_days_and_says_when_it_frees():
    policy = {"budget": {"runs_per_week": 2}}
    assert _decide(policy, {"runs": runs(1, 7)}).action == "retrain"
    decision = _decide(policy, {"runs": runs(1, 6, 3)})
    assert decision.held == ("budget",)
    assert decision.reasons[-1] == (
        "but the budget of 7 days is used up (3 of 2 retrainings); it frees in 4.0 days"
    )


def test_a_budget_of_compute_frees_when_enough_has_left_the_week():
    policy = {"budget": {"compute_seconds_per_week": 250}}
    assert _decide(policy, {"runs": runs(1, 2)}).action == "retrain"
    decision = _decide(policy, {"runs": runs(1, 2, 5, 6)})
    assert decision.reasons[-1] == (
        "but the budget of 7 days is used up (400 of 250 compute seconds); it frees in 2.0 days"
    )


def test_of_two_budgets_the_later_one_frees():
    policy = {"budget": {"runs_per_week": 1, "compute_seconds_per_week": 50}}
    decision = _decide(policy, {"runs": runs(2, 5)})
    assert decision.reasons[-1].endswith("it frees in 5.0 days")


def test_every_guard_that_holds_is_named_in_order():
    policy = {
        "cooldown": "5d",
        "min_new_partitions": 3,
        "backoff": {"first": "9d", "at_most": "9d"},
        "budget": {"runs_per_week": 1},
    }
    history = {
        "in_flight": True, "last_retraining": NOW - DAY, "rejections": 1, "runs": runs(1),
    }  # fmt: skip
    decision = _decide(policy, history, bad_data="empty", new_partitions=1, partitions=3)
    assert decision.action == "wait"
    assert decision.held == (
        "enough_data", "in_flight", "bad_data", "new_data", "cooldown", "backoff", "budget",
    )  # fmt: skip
    assert all(reason.startswith("but ") for reason in decision.reasons[1:])


def test_a_person_goes_beyond_everything_but_missing_data():
    policy = {"cooldown": "5d", "budget": {"runs_per_week": 1}}
    history = {"in_flight": True, "last_retraining": NOW, "rejections": 9, "runs": runs(1)}
    assert _decide(policy, history, asked="on_demand").action == "retrain"
    assert _decide(policy, history, asked="on_demand", partitions=3).action == "wait"
