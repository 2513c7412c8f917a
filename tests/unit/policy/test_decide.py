"""`decide`: which trigger fires, which guard overrules it, and what it says about that."""

from datetime import UTC, datetime, timedelta

import pytest

from retrain_assets.policy import Decision, Evidence, History, decide
from retrain_assets.spec.model import Retrain

NOW = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _decide(policy=None, *, in_flight=False, last=None, now=NOW, **evidence):
    known = {"has_champion": True, "partitions": 60, "needed": 30} | evidence
    return decide(
        Retrain.model_validate(policy or {}), Evidence(**known), History(in_flight, last), now
    )


def test_a_quiet_model_waits_and_says_what_each_condition_lacks():
    assert _decide(drift_alarm=False, drift_score=0.1) == Decision(
        "wait", None, ("no trigger fired", "no drift alarm (score 0.10)")
    )


@pytest.mark.parametrize(
    ("policy", "evidence", "trigger", "reason"),
    [
        ({}, {"has_champion": False}, "first", "there is no champion yet"),
        ({}, {"drift_alarm": True}, "drift", "the drift alarm is raised"),
        ({"max_age": "30d"}, {"champion_age": 31 * DAY}, "age",
         "the champion's data is 31.0 days old, more than 30.0 days"),
        ({"schedule": "0 6 * * 1"}, {"asked": "schedule"}, "schedule", "scheduled at '0 6 * * 1'"),
        ({}, {"asked": "on_demand"}, "on_demand", "somebody asked for it"),
    ],
)  # fmt: skip
def test_each_trigger_retrains_and_says_why(policy, evidence, trigger, reason):
    assert _decide(policy, **evidence) == Decision("retrain", trigger, (reason,), (trigger,))


def test_of_several_triggers_the_first_in_the_documented_order_is_named():
    evidence = {"has_champion": False, "drift_alarm": True, "champion_age": 99 * DAY}
    policy = {"max_age": "1d"}
    changes = [
        {"asked": "on_demand"}, {"asked": "schedule"}, {}, {"has_champion": True},
        {"has_champion": True, "drift_alarm": False},
    ]  # fmt: skip
    order = [_decide(policy, **(evidence | change)).trigger for change in changes]
    assert order == ["on_demand", "schedule", "first", "drift", "age"]


def test_an_alarm_with_on_drift_off_waits_and_says_that_it_is_off():
    decision = _decide({"on_drift": False}, drift_alarm=True)
    assert decision == Decision(
        "wait",
        None,
        ("no trigger fired", "the drift alarm is raised, but retrain.on_drift is off"),
    )


def test_an_alarm_with_on_drift_off_does_not_hide_the_age():
    decision = _decide({"on_drift": False, "max_age": "1d"}, drift_alarm=True, champion_age=2 * DAY)
    assert (decision.action, decision.trigger) == ("retrain", "age")


@pytest.mark.parametrize(
    ("age", "action"),
    [(30 * DAY, "wait"), (30 * DAY + timedelta(seconds=1), "retrain"), (None, "wait")],
)
def test_a_champion_is_too_old_only_beyond_max_age(age, action):
    assert _decide({"max_age": "30d"}, champion_age=age).action == action


def test_without_max_age_no_champion_is_too_old():
    assert _decide(champion_age=9999 * DAY).action == "wait"


@pytest.mark.parametrize(
    "evidence",
    [{"has_champion": False}, {"drift_alarm": True}, {"asked": "schedule"}, {"asked": "on_demand"}],
)
def test_too_little_data_overrules_every_trigger_and_says_how_much_is_missing(evidence):
    decision = _decide(partitions=29, needed=30, **evidence)
    assert decision.action == "wait"
    assert decision.trigger is not None
    assert decision.reasons[1:] == ("but only 29 of 30 partitions exist",)
    assert _decide(partitions=30, needed=30, **evidence).action == "retrain"


@pytest.mark.parametrize(
    ("evidence", "action"),
    [
        ({"has_champion": False}, "hold"), ({"drift_alarm": True}, "hold"),
        ({"asked": "schedule"}, "hold"), ({"asked": "on_demand"}, "retrain"), ({}, "wait"),
    ],
)  # fmt: skip
def test_a_retraining_in_flight_holds_everything_but_a_person_and_nothing(evidence, action):
    assert _decide(in_flight=True, **evidence).action == action


def test_a_hold_says_what_it_waits_for():
    assert _decide(in_flight=True, drift_alarm=True) == Decision(
        "hold",
        "drift",
        ("the drift alarm is raised", "but a retraining is in flight"),
        ("drift",),
        ("in_flight",),
    )


@pytest.mark.parametrize(
    ("evidence", "action"),
    [
        ({"has_champion": False}, "wait"), ({"drift_alarm": True}, "wait"),
        ({"champion_age": 99 * DAY}, "wait"), ({"asked": "schedule"}, "retrain"),
        ({"asked": "on_demand"}, "retrain"),
    ],
)  # fmt: skip
def test_the_cool_down_holds_back_what_comes_by_itself(evidence, action):
    policy = {"max_age": "30d", "cooldown": "3d"}
    assert _decide(policy, last=NOW - 2 * DAY, **evidence).action == action
    assert _decide(policy, last=NOW - 3 * DAY, **evidence).action == "retrain"


def test_the_cool_down_says_how_long_ago_and_how_long_it_lasts():
    decision = _decide({"cooldown": "1w"}, drift_alarm=True, last=NOW - timedelta(hours=36))
    assert decision.reasons == (
        "the drift alarm is raised",
        "but the last retraining is 1.5 days of data ago, less than the cool-down of 7.0 days, "
        "which ends with data up to 2024-03-06 12:00",
    )


@pytest.mark.parametrize("policy", [{}, {"cooldown": "3d"}])
@pytest.mark.parametrize("last", [NOW, NOW + DAY])
def test_the_same_data_is_not_retrained_on_by_itself_cool_down_or_not(policy, last):
    decision = _decide(policy, drift_alarm=True, last=last)
    assert decision.action == "wait"
    assert decision.reasons[1] == "but no data has come since the last retraining"
    assert _decide(policy, asked="schedule", last=last).action == "retrain"
    assert _decide(policy, asked="on_demand", last=last).action == "retrain"


FOLLOW = Retrain(follow_up=14)


@pytest.mark.parametrize("by", ["drift", "performance", "cost", "follow_up"])
def test_a_champion_that_answered_a_change_is_followed_up_once_there_is_new_data(by):
    known = Evidence(True, 60, 30, promoted_by=by, new_partitions=14)
    decision = decide(FOLLOW, known, History(last_retraining=NOW - 14 * DAY), NOW)
    assert (decision.action, decision.trigger) == ("retrain", "follow_up")
    assert f"14 partitions have come since '{by}' brought the champion" in decision.reasons[0]


@pytest.mark.parametrize(
    "known",
    [
        {"promoted_by": "drift", "new_partitions": 13},
        {"promoted_by": "schedule", "new_partitions": 14},
        {"promoted_by": "first", "new_partitions": 14},
        {"promoted_by": None, "new_partitions": 14},
        {"promoted_by": "drift", "new_partitions": None},
    ],
    ids=["too early", "schedule", "first", "rejected since", "not known"],
)
def test_nothing_else_is_followed_up(known):
    assert decide(FOLLOW, Evidence(True, 60, 30, **known), History(), NOW).action == "wait"
    assert decide(Retrain(), Evidence(True, 60, 30, **known), History(), NOW).action == "wait"


def test_a_follow_up_needs_no_other_condition_and_is_held_by_the_guards():
    policy = Retrain(follow_up=1, combine="all", max_age=9 * DAY, cooldown=5 * DAY)
    known = Evidence(True, 60, 30, promoted_by="cost", new_partitions=3)
    assert decide(policy, known, History(last_retraining=NOW - 5 * DAY), NOW).trigger == "follow_up"
    held = decide(policy, known, History(last_retraining=NOW - 3 * DAY), NOW)
    assert held.held == ("cooldown",)


def test_without_a_cool_down_new_data_is_enough():
    assert _decide(drift_alarm=True, last=NOW - timedelta(hours=1)).action == "retrain"


def test_a_model_that_was_never_retrained_has_no_cool_down():
    assert _decide({"cooldown": "99d"}, drift_alarm=True, last=None).action == "retrain"
