"""The cost of staleness: what counts as lost, what is forecast, what is noise."""

import random
from dataclasses import replace

import pytest

from retrain_assets.performance.measured import Performance
from retrain_assets.policy import Evidence, History, decide
from retrain_assets.policy.cost import staleness_cost
from retrain_assets.spec.model import Cost, Retrain

COST = Cost(retraining=10, per_unit_loss=100)


def auc(value, se=0.001, n=500):
    reach = 1.645 * se
    return Performance(
        "roc_auc",
        "maximize",
        "realised",
        None,
        value,
        se,
        value - reach,
        value + reach,
        0.95,
        n,
        "t",
    )


UNKNOWN = Performance(
    "roc_auc", "maximize", "estimated", None, None, None, None, None, 0.95, 9, "none", "9 rows"
)
EXPECTED = auc(0.8)


def drops(*values, se=0.001):
    return [auc(0.8 - value, se) for value in values]


def test_what_was_lost_is_the_sum_of_drops_times_the_price():
    found = staleness_cost(COST, drops(0.01, 0.02), EXPECTED)
    assert found.lost == pytest.approx(3.0)
    assert found.forecast == pytest.approx(1.5), "too few for a trend: the mean"
    assert (found.known, found.partitions, found.trend) == (2, 2, 0.0)


def test_an_estimate_is_forecast_like_what_is_not_known():
    blind = replace(auc(0.8), kind="estimated")
    seen = drops(0.01, 0.02)
    assert staleness_cost(COST, [*seen, blind], EXPECTED) == staleness_cost(
        COST, [*seen, UNKNOWN], EXPECTED
    )
    assert staleness_cost(COST, [blind], EXPECTED) is None


def test_a_growing_loss_is_forecast_along_its_line():
    found = staleness_cost(COST, drops(0.01, 0.02, 0.03, 0.04, 0.05), EXPECTED)
    assert found.trend == pytest.approx(0.01)
    assert found.forecast == pytest.approx(6.0)
    assert found.exceeds(20.9)
    assert not found.exceeds(21.1)


def test_a_shrinking_loss_is_not_forecast_to_vanish():
    found = staleness_cost(COST, drops(0.05, 0.04, 0.03, 0.02, 0.01), EXPECTED)
    assert found.trend == 0
    assert found.forecast == pytest.approx(3.0)


def test_a_good_week_does_not_pay_for_a_bad_one():
    found = staleness_cost(COST, drops(*[-0.05] * 7, 0.03, 0.03), EXPECTED)
    assert found.lost == pytest.approx(6.0)


def test_partitions_without_performance_cost_what_the_line_says():
    found = staleness_cost(COST, [*drops(0.02, 0.02), UNKNOWN, UNKNOWN], EXPECTED)
    assert found.lost == pytest.approx(8.0)
    assert (found.known, found.partitions) == (2, 4)


def test_nothing_known_is_unknown():
    assert staleness_cost(COST, [UNKNOWN], EXPECTED) is None
    assert staleness_cost(COST, [], EXPECTED) is None
    assert staleness_cost(COST, drops(0.1), UNKNOWN) is None


def test_per_thousand_rows_a_large_partition_costs_more():
    cost = Cost(retraining=10, per_unit_loss=100, per="1000 rows")
    small, large = auc(0.7, n=100), auc(0.7, n=5000)
    assert staleness_cost(cost, [small], EXPECTED).lost == pytest.approx(1.0)
    assert staleness_cost(cost, [large], EXPECTED).lost == pytest.approx(50.0)


def test_a_metric_to_be_minimized_loses_upwards():
    def error(value):
        return Performance(
            "mae",
            "minimize",
            "realised",
            None,
            value,
            0.01,
            value - 0.1,
            value + 0.1,
            0.95,
            50,
            "t",
        )

    assert staleness_cost(COST, [error(3.5)], error(3.0)).lost == pytest.approx(50.0)
    assert staleness_cost(COST, [error(2.5)], error(3.0)).lost == 0


def test_a_loss_within_noise_is_not_shown_however_much_it_would_cost():
    dear = Cost(retraining=0.001, per_unit_loss=1000)
    assert not staleness_cost(dear, drops(0.02, se=0.05), EXPECTED).exceeds(0.001)
    assert staleness_cost(dear, drops(0.02, se=0.005), EXPECTED).exceeds(0.001)


def test_the_holdouts_own_error_does_not_average_out_over_partitions():
    uncertain = auc(0.8, se=0.02)
    assert not staleness_cost(COST, drops(*[0.03] * 50), uncertain).shown
    assert staleness_cost(COST, drops(*[0.05] * 50), uncertain).shown


def test_on_a_stationary_stream_it_fires_at_most_once_in_a_hundred_partitions():
    """Retraining is nearly free here, so that only the test against noise holds it back."""
    cost, rng, fired, partitions = Cost(retraining=1e-9, per_unit_loss=1), random.Random(4), 0, 0
    while partitions < 10_000:
        expected, since = auc(0.8 + rng.gauss(0, 0.005), 0.005), []
        while partitions < 10_000:
            partitions += 1
            since.append(auc(0.8 + rng.gauss(0, 0.02), 0.02))
            if staleness_cost(cost, since[-60:], expected).exceeds(cost.retraining):
                fired += 1
                break
    assert 0 < fired <= 100


def test_the_break_even_point_is_the_best_period_of_linear_staleness():
    """A loss of a per partition and a price C: sqrt(2 C / a) partitions between retrainings."""
    a, price = 0.002, 100 * 0.002 * 20**2 / 2
    cost, since = Cost(retraining=price, per_unit_loss=100), []
    while not (since and staleness_cost(cost, since, EXPECTED).exceeds(price)):
        since.append(auc(0.8 - a * len(since)))
    assert 18 <= len(since) <= 21


def test_decide_looks_at_the_partitions_since_the_last_retraining_only():
    from datetime import UTC, datetime

    policy = Retrain(on_drift=False, cost=COST)

    def ask(new):
        evidence = Evidence(
            has_champion=True, partitions=50, needed=10, expected=EXPECTED,
            performance=drops(0.5, 0.5, 0.01, 0.01), new_partitions=new,
        )  # fmt: skip
        return decide(policy, evidence, History(), datetime(2024, 3, 1, tzinfo=UTC))

    assert ask(4).trigger == "cost"
    assert ask(4).reasons == (
        "not retraining has cost 102 and the next partition 25.5 more, above the 10 of a retraining",
    )
    assert ask(2).action == "wait"
    assert ask(0).action == "wait"
