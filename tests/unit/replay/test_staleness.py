"""Loss by age of a model."""

import numpy as np
import pytest

from retrain_assets.replay.staleness import MIN_MODELS, Age, staleness_curve, suggested_age


def aging(per_partition: float, noise: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Models 10 partitions apart that lose so much with every partition, on harder and easier days."""
    rng = np.random.default_rng(seed)
    starts = np.arange(0, 200, 10)
    day = rng.normal(0.8, 0.1, 200)
    age = np.arange(200)[None, :] - starts[:, None]
    values = day - per_partition * age + rng.normal(0, noise, age.shape)
    values[age < 0] = np.nan
    return values, np.ones(200), starts


def test_the_curve_is_the_loss_against_the_youngest_model_whatever_the_day() -> None:
    curve = staleness_curve(*aging(0.001, 0.0), span=10)
    assert [age.first for age in curve[:3]] == [1, 11, 21]
    assert [age.loss for age in curve[:3]] == pytest.approx([0.0, 0.01, 0.02])


def test_a_bound_that_is_passed_for_good_is_suggested() -> None:
    curve = staleness_curve(*aging(0.001, 0.02), span=10)
    found = suggested_age(curve, 0.05)
    assert found is not None
    assert 50 <= found <= 80


@pytest.mark.parametrize("seed", range(20))
def test_models_that_do_not_age_get_no_suggestion(seed: int) -> None:
    assert suggested_age(staleness_curve(*aging(0.0, 0.02, seed), span=10), 0.005) is None


def test_one_span_above_the_bound_between_others_is_chance() -> None:
    spans = [Age(n, n + 4, loss, loss - 0.01, loss + 0.01, 9) for n, loss in
             ((1, 0.0), (6, 0.2), (11, 0.0), (16, 0.2), (21, 0.2))]  # fmt: skip
    assert suggested_age(spans, 0.05) == 15


def test_too_few_models_of_an_age_have_no_interval() -> None:
    values, weights, starts = aging(0.001, 0.01)
    curve = staleness_curve(values, weights, starts, span=10)
    assert all((age.low is None) == (age.models < MIN_MODELS) for age in curve)
    assert curve[-1].models == 1


def test_a_model_is_compared_with_the_youngest_whose_value_is_known() -> None:
    """The third model served two partitions only: after them the second is the youngest again."""
    nan = np.nan
    values = np.array([[1.0] * 8, [nan, nan, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
                       [nan, nan, nan, nan, 7.0, 7.0, nan, nan]])  # fmt: skip
    curve = staleness_curve(values, np.ones(8), np.array([0, 2, 4]), span=2)
    assert [(age.first, age.loss, age.models) for age in curve] == [
        (1, 0.0, 3),
        (3, pytest.approx((2.0 + 4.0) / 2), 2),
        (5, pytest.approx((6.0 + 0.0) / 2), 2),
        (7, 2.0, 1),
    ]
