"""The section `retrain`: what it refuses, what it asks for, and what `on_change` compares."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from retrain_assets.spec.code import training_code
from retrain_assets.spec.model import ModelSpec, Retrain

SPEC = {
    "name": "churn",
    "partitions": {"every": "day", "start": "2024-01-01"},
    "source": {"python": "json:loads"},
    "target": "y",
    "task": "binary",
    "train": {"window": 10, "holdout": 2},
}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"on_performance": {}}, "give floor, max_drop or both"),
        ({"on_performance": {"floor": 0.6, "at_least": 2}}, "at_least 2 is more than of_last 1"),
        ({"cost": {"retraining": 0, "per_unit_loss": 1}}, "greater than 0"),
        ({"backoff": {"first": "2d", "at_most": "1d"}}, "at_most must not be shorter than first"),
        ({"budget": {}}, "give runs_per_week, compute_seconds_per_week or both"),
        ({"at_least": 2}, r"at_least asks for 2 conditions, but 1 are on \(drift\)"),
        ({"at_least": 2, "max_age": "1d", "combine": "all"}, "combine: all or at_least, not both"),
        ({"on_new_partitions": 3, "min_new_partitions": 4}, "which would hold it back"),
        ({"on_drift": False, "min_drift_score": 0.4}, "say more of on_drift: true"),
        ({"on_drift": False, "needs_prediction_drift": True}, "say more of on_drift: true"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(section, problem):
    with pytest.raises(ValidationError, match=problem):
        Retrain.model_validate(section)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"on_new_partitions": 3}, "retrain.on_new_partitions: only with partitions"),
        ({"min_new_partitions": 3}, "retrain.min_new_partitions: only with partitions"),
        ({"follow_up": 3}, "retrain.follow_up: only with partitions"),
        ({"cost": {"retraining": 1, "per_unit_loss": 1}}, "retrain.cost: only with partitions"),
        ({"on_performance": {"floor": 0.6}}, "retrain.on_performance: only with partitions"),
    ],
)
def test_what_counts_partitions_needs_them(section, problem):
    whole = SPEC | {"partitions": None, "train": {}, "retrain": {"schedule": "0 6 * * 1"} | section}
    whole["source"] = {"files": "a.csv"}
    with pytest.raises(ValidationError, match=problem):
        ModelSpec.model_validate(whole)


def test_the_defaults_are_the_drift_alarm_alone():
    policy = Retrain()
    assert policy.conditions == ("drift",)
    assert policy.conditions_needed == 1


def test_how_many_conditions_are_needed_follows_from_those_that_are_on():
    two = {"max_age": timedelta(days=9), "on_change": True}
    assert Retrain(**two).conditions == ("drift", "age", "change")
    assert Retrain(**two, combine="all").conditions_needed == 3
    assert Retrain(**two, at_least=2).conditions_needed == 2
    assert Retrain(on_drift=False, combine="all").conditions_needed == 1, "none is never enough"


def test_training_code_covers_what_is_trained_and_nothing_else():
    before = training_code(ModelSpec.model_validate(SPEC))
    same = SPEC | {"retrain": {"max_age": "9d"}, "gate": {"min_gain": 0.1}, "drift": {"window": 2}}
    assert training_code(ModelSpec.model_validate(same)) == before
    for change in (
        {"target": "z"},
        {"train": {"window": 11, "holdout": 2}},
        {"features": {"sql": "SELECT 1"}},
        {"features": {"python": "json:loads"}},
    ):
        assert training_code(ModelSpec.model_validate(SPEC | change)) != before
