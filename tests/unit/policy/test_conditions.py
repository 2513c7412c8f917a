"""The conditions of a policy: their numbers in words, what is unknown, and how they combine."""

from datetime import UTC, datetime, timedelta

import pytest

from retrain_assets.performance.measured import Performance
from retrain_assets.policy import Evidence, History, decide
from retrain_assets.spec.model import Retrain

NOW = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _decide(policy, **evidence):
    known = {"has_champion": True, "partitions": 60, "needed": 30} | evidence
    return decide(
        Retrain.model_validate({"on_drift": False} | policy), Evidence(**known), History(), NOW
    )


def performance(value, reach=0.01, *, kind="realised", direction="maximize", partition=None, n=100):
    return Performance(
        "roc_auc" if direction == "maximize" else "mae", direction, kind, partition, value,
        reach / 1.645, value - reach, value + reach, 0.95, n, "test",
    )  # fmt: skip


UNDECIDED = Performance(
    "roc_auc", "maximize", "realised", None, 0.1, None, None, None, 0.95, 5, "none", "too few rows"
)
FLOOR = {"on_performance": {"floor": 0.7}}


@pytest.mark.parametrize(
    ("value", "action"),
    [(0.75, "wait"), (0.695, "wait"), (0.6901, "wait"), (0.6899, "retrain"), (0.5, "retrain")],
)
def test_a_floor_is_broken_only_with_the_whole_interval(value, action):
    assert _decide(FLOOR, performance=[performance(value)]).action == action


def test_a_metric_to_be_minimized_breaks_the_floor_from_above():
    policy = {"on_performance": {"floor": 3.0}}
    for value, action in ((3.005, "wait"), (3.02, "retrain"), (1.0, "wait")):
        one = performance(value, direction="minimize")
        assert _decide(policy, performance=[one]).action == action


def test_a_drop_counts_the_holdouts_own_interval():
    policy = {"on_performance": {"max_drop": 0.02}}
    seen = [performance(0.7)]
    assert _decide(policy, performance=seen, expected=performance(0.74, 0.01)).action == "retrain"
    assert _decide(policy, performance=seen, expected=performance(0.74, 0.04)).action == "wait"
    assert _decide(policy, performance=seen, expected=performance(0.72, 0.01)).action == "wait"


def test_the_reason_has_the_partition_the_interval_and_the_bound():
    one = performance(0.65, partition="2024-02-29", kind="estimated")
    policy = {"on_performance": {"floor": 0.7, "estimate": True}}
    (reason,) = _decide(policy, performance=[one]).reasons
    assert reason == "estimated roc_auc 0.65 [0.64, 0.66] on 2024-02-29 is beyond the floor 0.7"


@pytest.mark.parametrize(
    "seen",
    [[], [UNDECIDED], [performance(0.5, kind="estimated")]],
    ids=["nothing", "undecided", "only estimated"],
)
def test_what_is_not_known_fires_nothing_and_is_said(seen):
    decision = _decide(FLOOR, performance=seen)
    assert decision.action == "wait"
    assert "the champion's performance is not known yet" in decision.reasons


def test_a_drop_without_a_holdout_is_not_known():
    decision = _decide({"on_performance": {"max_drop": 0.1}}, performance=[performance(0.1)])
    assert "the champion's performance on its holdout is not known" in decision.reasons


def test_k_of_the_last_n_known_partitions_must_be_beyond():
    policy = {"on_performance": {"floor": 0.7, "of_last": 3, "at_least": 2}}
    bad, good = performance(0.6), performance(0.8)
    assert _decide(policy, performance=[bad, bad, good, good]).action == "wait"
    assert _decide(policy, performance=[good, bad, UNDECIDED, bad]).action == "retrain"
    decision = _decide(policy, performance=[bad, good, good])
    assert "1 of the last 3 partitions are beyond the floor 0.7, 2 are asked for" in str(decision)


@pytest.mark.parametrize("estimate", [True, False])
@pytest.mark.parametrize("delay", [0, 1, 5])
def test_labels_that_turned_round_are_answered_although_estimates_see_nothing(estimate, delay):
    rule = {"floor": 0.7, "of_last": 2, "at_least": 2, "estimate": estimate}
    seen = [performance(0.6), performance(0.6), *[performance(0.9, kind="estimated")] * delay]
    decision = _decide({"on_performance": rule}, performance=seen)
    assert decision.trigger == "performance"
    assert "2 of the last 2" in decision.reasons[0]


def test_estimates_beyond_the_bound_count_only_where_they_are_asked_for():
    rule = {"floor": 0.7, "of_last": 2, "at_least": 2}
    seen = [performance(0.9), performance(0.6), performance(0.6, kind="estimated")]
    assert _decide({"on_performance": rule}, performance=seen).action == "wait"
    asked = {"on_performance": rule | {"estimate": True}}
    assert _decide(asked, performance=seen).trigger == "performance"


def test_an_alarm_that_does_not_move_the_predictions_is_no_reason_where_that_is_asked():
    policy = {"on_drift": True, "needs_prediction_drift": True}
    outcomes = [
        (None, "wait", "drift of the predictions is not known"),
        (False, "wait", "the champion's predictions have not drifted"),
        (True, "retrain", "and the champion's predictions have drifted"),
    ]
    for moved, action, words in outcomes:
        decision = _decide(policy, drift_alarm=True, prediction_drift=moved)
        assert decision.action == action
        assert words in " ".join(decision.reasons)


def test_an_alarm_whose_score_is_unknown_is_no_reason_where_a_score_is_asked():
    policy = {"on_drift": True, "min_drift_score": 0.5}
    assert _decide(policy, drift_alarm=True).action == "wait"
    assert _decide(policy, drift_alarm=True, drift_score=0.49).action == "wait"
    assert _decide(policy, drift_alarm=True, drift_score=0.5).action == "retrain"


@pytest.mark.parametrize(
    ("policy", "evidence", "trigger", "reason"),
    [
        ({"on_new_partitions": 7}, {"new_partitions": 7}, "new_data",
         "7 new partitions since the last retraining (on_new_partitions 7)"),
        ({"on_change": True}, {"changed": True}, "change",
         "features, target, task or train changed since the last retraining"),
    ],
)  # fmt: skip
def test_new_data_and_change_retrain_and_say_why(policy, evidence, trigger, reason):
    decision = _decide(policy, **evidence)
    assert (decision.action, decision.trigger, decision.reasons) == ("retrain", trigger, (reason,))
    unknown = dict.fromkeys(evidence)
    assert _decide(policy, **unknown).action == "wait"
    less = {name: 6 if value == 7 else False for name, value in evidence.items()}
    assert _decide(policy, **less).action == "wait"


TWO = {"max_age": "10d", "on_new_partitions": 5}


@pytest.mark.parametrize(
    ("combination", "actions"),
    [
        ({}, ["wait", "retrain", "retrain", "retrain"]),
        ({"combine": "all"}, ["wait", "wait", "wait", "retrain"]),
        ({"at_least": 2}, ["wait", "wait", "wait", "retrain"]),
    ],
)
def test_conditions_combine_as_the_spec_says(combination, actions):
    found = [
        _decide(TWO | combination, champion_age=age, new_partitions=new).action
        for age, new in ((DAY, 1), (11 * DAY, 1), (DAY, 5), (11 * DAY, 5))
    ]
    assert found == actions


def test_a_condition_that_waits_for_another_says_so():
    decision = _decide(TWO | {"combine": "all"}, champion_age=11 * DAY, new_partitions=1)
    assert decision.trigger is None
    assert decision.fired == ("age",)
    assert decision.reasons == (
        "the champion's data is 11.0 days old, more than 10.0 days",
        "but only 1 of 2 conditions that are needed hold",
        "1 new partitions since the last retraining (on_new_partitions 5)",
    )


def test_the_schedule_and_the_first_champion_need_no_second_condition():
    policy = TWO | {"combine": "all", "schedule": "0 6 * * 1"}
    assert _decide(policy, asked="schedule").action == "retrain"
    assert _decide(policy, has_champion=False).trigger == "first"


def test_a_policy_without_conditions_never_retrains_by_itself():
    assert _decide({"combine": "any"}, drift_alarm=True, changed=True).action == "wait"


def test_all_reasons_are_given_not_only_the_first():
    decision = _decide(TWO, champion_age=11 * DAY, new_partitions=9)
    assert decision.fired == ("age", "new_data")
    assert len(decision.reasons) == 2
