"""Paired comparison and recommendation."""

import numpy as np
import pytest

from retrain_assets.replay.result import PolicyResult, paired, recommend

KEYS = [f"2024-{n:04d}" for n in range(120)]
WEIGHTS = np.ones(120)


def policy(name: str, retrainings: float, gain: float, cost: float | None = None) -> PolicyResult:
    return PolicyResult(
        name, 0.7 + gain, retrainings, retrainings, 0, 0, 1.0, gain, None, None, cost,
        f"retrain: {name}", {},
    )  # fmt: skip


def served(seed: int, level: float) -> np.ndarray:
    return level + np.random.default_rng(seed).normal(0, 0.02, 120)


def test_policies_that_differ_by_noise_are_not_told_apart() -> None:
    found = paired(served(1, 0.7), served(2, 0.7), WEIGHTS, KEYS)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_partitions_without_a_value_do_not_count() -> None:
    ours, theirs = np.full(120, 0.8), np.full(120, 0.7)
    ours[:10], theirs[20:30] = np.nan, np.nan
    found = paired(ours, theirs, WEIGHTS, KEYS)
    assert found is not None
    assert found.gain == pytest.approx(0.1)
    assert paired(np.full(120, np.nan), theirs, WEIGHTS, KEYS) is None


def test_of_policies_as_good_the_one_that_retrains_least_is_recommended() -> None:
    values = {"never": served(0, 0.7), "every_1": served(1, 0.75), "drift": served(2, 0.748)}
    policies = [policy("never", 0, 0.0), policy("every_1", 120, 0.05), policy("drift", 6, 0.048)]
    found = recommend(policies, values, WEIGHTS, KEYS, matters=0.007)
    assert found is not None
    assert (found.policy, found.spec) == ("drift", "retrain: drift")
    assert "every_1 served best with 120 retrainings, but drift with 6" in found.reason


def test_never_is_recommended_where_nothing_is_gained() -> None:
    values = {"never": served(0, 0.7), "every_1": served(1, 0.701)}
    policies = [policy("never", 0, 0.0), policy("every_1", 120, 0.001)]
    found = recommend(policies, values, WEIGHTS, KEYS, matters=0.007)
    assert found is not None
    assert found.policy == "never"


def test_prices_decide_where_there_are_any() -> None:
    values = {"never": served(0, 0.7), "every_1": served(1, 0.75), "drift": served(2, 0.74)}
    policies = [
        policy("never", 0, 0.0, cost=0.0),
        policy("every_1", 120, 0.05, cost=70.0),
        policy("drift", 6, 0.04, cost=-34.0),
    ]
    found = recommend(policies, values, WEIGHTS, KEYS, matters=0.007)
    assert found is not None
    assert found.policy == "drift"
    assert "-34 against never" in found.reason


def test_one_policy_alone_is_no_choice() -> None:
    assert recommend([policy("never", 0, 0.0)], {}, WEIGHTS, KEYS, matters=0.0) is None
