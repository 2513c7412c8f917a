"""What each policy asks `decide`."""

from datetime import date, timedelta

import pytest

from retrain_assets.errors import ReplayError
from retrain_assets.replay.policies import RANDOM_DRAWS, chosen_policies, random_policies
from retrain_assets.spec.model import ModelSpec

RETRAIN = {
    "schedule": "0 6 * * 1",
    "max_age": "30d",
    "cooldown": "3d",
    "on_performance": {"max_drop": 0.02},
    "backoff": {"first": "2d", "at_most": "8d"},
}


def spec(**retrain: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "churn",
            "partitions": {"every": "day", "start": date(2024, 1, 1)},
            "source": {"files": "/data/{partition}.parquet"},
            "target": "y",
            "task": "binary",
            "train": {"window": 6, "holdout": 2},
            "retrain": retrain,
        }
    )


def test_by_default_all_policies_that_fit_are_compared() -> None:
    names = [one.name for one in chosen_policies(spec(**RETRAIN), None)]
    assert names == ["never", "every_1", "every_7", "drift", "performance", "combined"]
    prices = {"retraining": 1.0, "per_unit_loss": 10.0}
    assert chosen_policies(spec(cost=prices), None)[-1].name == "cost"


def test_the_reference_and_the_spec_s_own_are_always_there() -> None:
    names = [one.name for one in chosen_policies(spec(), ["every_30", "every_14"])]
    assert names == ["never", "every_14", "every_30", "combined"]


def test_one_reason_alone_keeps_the_guards_and_leaves_the_other_reasons() -> None:
    own = spec(**RETRAIN)
    found = {one.name: one.retrain for one in chosen_policies(own, None)}
    assert found["combined"] == own.retrain
    for name in ("drift", "performance"):
        assert found[name].conditions == (name,)
        assert found[name].schedule is None
        assert found[name].cooldown == timedelta(days=3)
        assert found[name].backoff == own.retrain.backoff
    assert found["every_7"].conditions == ("new_data",)
    assert found["never"].conditions == ()


@pytest.mark.parametrize("name", ["always", "every_0", "every_", "every_x"])
def test_a_policy_that_is_none_is_named_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ReplayError, match=f"no policy named {name}; there are never, every_1"):
        chosen_policies(spec(), [name])


def test_cost_needs_prices() -> None:
    with pytest.raises(ReplayError, match=r"add retrain\.cost"):
        chosen_policies(spec(), ["cost"])


def test_random_draws_as_many_partitions_as_it_is_told_and_the_same_ones_again() -> None:
    keys = [f"2024-01-{n:02d}" for n in range(1, 31)]
    drawn = random_policies(keys, 4, seed=1)
    assert len(drawn) == RANDOM_DRAWS
    assert all(len(one.asked_at) == 4 and one.asked_at <= set(keys) for one in drawn)
    assert drawn == random_policies(keys, 4, seed=1)
    assert len({one.asked_at for one in drawn}) > 1
    assert [one.asked_at for one in random_policies(keys, 0, seed=1)] == [frozenset()]
