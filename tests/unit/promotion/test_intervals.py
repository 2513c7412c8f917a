"""Bounds of a paired gain: against textbook formulas, brute force and published numbers."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from retrain_assets.promotion.intervals import (
    MIN_CLUSTERS,
    MIN_UNITS,
    GainInterval,
    bootstrap,
    delong,
    detectable,
    jackknife,
    linear,
    mcnemar,
    method_of,
    time_blocks,
)
from retrain_assets.promotion.quantiles import binomial_mid_p
from retrain_assets.spec.model import METRICS
from retrain_assets.training.metrics import get_metric

N = 200
RNG = np.random.default_rng(0)
Y = (RNG.random(N) < 0.3).astype(int)
A, B = (Y + RNG.normal(0, 1, N) for _ in range(2))


def gain_and_influence(metric: str, y=Y, a=A, b=B):
    measure = get_metric(metric)
    values = [measure.evaluate(y, s) for s in (a, b)]
    return measure.gain(*values), measure.gain(measure.influence(y, a), measure.influence(y, b))


def test_a_mean_loss_gets_the_paired_t_interval() -> None:
    y, a, b = RNG.normal(size=(3, 50))
    gain, influence = gain_and_influence("mae", y, a, b)
    found = linear(gain, influence, 0.05)
    difference = np.abs(b - y) - np.abs(a - y)
    expected = stats.ttest_1samp(difference, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_rmse_gets_the_delta_method() -> None:
    y, a, b = RNG.normal(size=(3, 50))
    gain, influence = gain_and_influence("rmse", y, a, b)
    squares = np.stack([(a - y) ** 2, (b - y) ** 2])
    roots = np.sqrt(squares.mean(axis=1))
    gradient = np.array([-1 / (2 * roots[0]), 1 / (2 * roots[1])])
    variance = gradient @ np.cov(squares) @ gradient / 50
    assert linear(gain, influence, 0.05).se == pytest.approx(math.sqrt(variance))


def test_clusters_are_the_sample() -> None:
    codes = np.repeat(np.arange(20), 10)
    loss = RNG.normal(size=N)
    found = linear(0.0, loss - loss.mean(), 0.05, codes=codes)
    means = loss.reshape(20, 10).mean(axis=1)
    assert found.se == pytest.approx(means.std(ddof=1) / math.sqrt(20))
    assert (found.dof, found.drawn) == (19, 20)


def test_delong_is_the_variance_of_the_placements_of_all_pairs() -> None:
    gain, influence = gain_and_influence("roc_auc")
    placements = []
    for score in (A, B):
        wins = (score[Y == 1][:, None] > score[Y == 0]) + 0.5 * (
            score[Y == 1][:, None] == score[Y == 0]
        )
        placements.append((wins.mean(axis=1), wins.mean(axis=0)))
    positive, negative = (placements[0][i] - placements[1][i] for i in (0, 1))
    parts = positive.var(ddof=1) / len(positive), negative.var(ddof=1) / len(negative)
    found = delong(gain, influence, Y, 0.05)
    assert found.se == pytest.approx(math.sqrt(sum(parts)))
    dof = sum(parts) ** 2 / (
        parts[0] ** 2 / (len(positive) - 1) + parts[1] ** 2 / (len(negative) - 1)
    )
    assert found.dof == pytest.approx(dof)
    assert found.low == pytest.approx(gain - stats.t(dof).ppf(0.95) * found.se)


def test_mcnemar_on_the_published_example() -> None:
    """Fagerland, Lydersen & Laake 2013, table 1: mid-p 0.039 two-sided, exact 0.070; Fagerland 2014,
    Tango's interval (-0.517, -0.026). There n = 21, below our minimum."""
    from retrain_assets.promotion.intervals import _tango_low

    assert 2 * binomial_mid_p(7, 8) == pytest.approx(0.039, abs=5e-4)
    z = stats.norm.ppf(0.975)
    assert _tango_low(1, 7, 21, z) == pytest.approx(-0.517, abs=5e-4)
    assert -_tango_low(7, 1, 21, z) == pytest.approx(-0.026, abs=5e-4)


@pytest.mark.parametrize(
    ("better", "worse", "n"), [(12, 2, 50), (5, 5, 100), (0, 9, 40), (300, 150, 5000)]
)
def test_mcnemar_inverts_the_score_test(better: int, worse: int, n: int) -> None:
    """Chance of `worse` maximized numerically under each difference instead of in closed form."""

    def statistic(d: float) -> float:
        def minus_log_likelihood(q: float) -> float:
            chances = q + d, q, 1 - 2 * q - d
            counts = better, worse, n - better - worse
            return -sum(
                c * math.log(max(p, 1e-300)) for c, p in zip(counts, chances, strict=True) if c
            )

        low, high = max(0.0, -d), (1 - d) / 2
        q = optimize.minimize_scalar(
            minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        return (better - worse - n * d) / math.sqrt(n * (2 * q + d - d * d))

    found = mcnemar(better, worse, n, 0.05)
    assert found.low is not None
    assert found.high is not None
    if found.low != 0:
        assert statistic(found.low) == pytest.approx(stats.norm.ppf(0.95), abs=1e-3)
    if found.high != 0:
        assert statistic(found.high) == pytest.approx(-stats.norm.ppf(0.95), abs=1e-3)


def test_mcnemar_excludes_0_only_where_the_mid_p_test_does() -> None:
    for better, worse in product(range(12), repeat=2):
        found = mcnemar(better, worse, 60, 0.05)
        assert found.low is not None
        if found.low > 0:
            assert binomial_mid_p(better, better + worse) <= 0.05
    assert mcnemar(4, 0, 60, 0.05).low > 0  # mid-p 1/32
    assert mcnemar(3, 0, 60, 0.05).low <= 0  # mid-p 1/16
    same = mcnemar(0, 0, 60, 0.05)
    assert (same.gain, same.low, same.high) == (0, 0, 0)


def resampled(metric: str, y, a, b, resamples: int, seed: int = 99):
    measure = get_metric(metric)
    weights = np.random.default_rng(seed).multinomial(len(y), np.ones(len(y)) / len(y), resamples)
    return measure.gain(measure.resampled(y, a, weights), measure.resampled(y, b, weights))


def test_the_bootstrap_is_scipys_percentile_but_for_the_expansion() -> None:
    """On 3,000 rows the expansion is nothing, and both have resampling noise."""
    rng = np.random.default_rng(1)
    x = rng.exponential(size=3000)
    y, a, b = np.ones(3000), x + 1, np.ones(3000)
    gain, influence = gain_and_influence("mape", y, a, b)
    found = bootstrap(gain, resampled("mape", y, a, b, 4000), influence, 0.05)
    expected = stats.bootstrap(
        (-x,), np.mean, confidence_level=0.9, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.003)
    assert found.high == pytest.approx(expected.high, abs=0.003)


def test_the_bootstrap_is_wider_than_the_percentiles_on_few_clusters() -> None:
    codes = np.arange(12)
    u = np.random.default_rng(0).normal(size=12)
    u -= u.mean()
    weights = np.random.default_rng(1).multinomial(12, np.ones(12) / 12, 4000)
    gains = weights @ u / 12
    found = bootstrap(0.0, gains, u, 0.05, codes=codes)
    assert found.low is not None
    assert found.low < np.quantile(gains, 0.05)


def test_the_bootstrap_beyond_the_resamples_falls_back_on_the_wider_of_two_bounds() -> None:
    gain, influence = gain_and_influence("average_precision")
    gains = resampled("average_precision", Y, A, B, 200)
    found = bootstrap(gain, gains, influence, 1e-4)
    plain = linear(gain, influence, 1e-4)
    assert found.low is not None
    assert plain.low is not None
    assert found.low <= min(gains.min(), plain.low) + 1e-12


def test_the_bootstrap_with_undefined_resamples_has_no_bound() -> None:
    gain, influence = gain_and_influence("average_precision")
    gains = resampled("average_precision", Y, A, B, 200)
    gains[:11] = np.nan
    found = bootstrap(gain, gains, influence, 0.05)
    assert found.low is None
    assert found.problem == (
        "undefined in 11 of 200 resamples, more than 5%, so the gain has no bound"
    )
    gains[10] = 0
    assert bootstrap(gain, gains, influence, 0.05).low is not None


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_swapping_the_models_mirrors_every_interval(alpha: float) -> None:
    def mirrored(one: GainInterval, other: GainInterval) -> bool:
        return (one.low, one.high) == (-other.high, -other.low)

    gain, u = gain_and_influence("roc_auc")
    gains = resampled("average_precision", Y, A, B, 300)
    codes = np.arange(N) // 10
    assert mirrored(linear(gain, u, alpha), linear(-gain, -u, alpha))
    assert mirrored(delong(gain, u, Y, alpha), delong(-gain, -u, Y, alpha))
    assert mirrored(mcnemar(20, 9, N, alpha), mcnemar(9, 20, N, alpha))
    for c in (None, codes):
        assert mirrored(
            bootstrap(gain, gains, u, alpha, codes=c), bootstrap(-gain, -gains, -u, alpha, codes=c)
        )


def test_too_small_samples_have_no_bound_and_say_why() -> None:
    for found in (
        linear(0.1, np.zeros(MIN_UNITS - 1), 0.05),
        mcnemar(3, 2, MIN_UNITS - 1, 0.05),
        bootstrap(0.1, np.zeros(200), np.zeros(MIN_UNITS - 1), 0.05),
    ):
        assert found.low is None
        assert found.high is None
        assert found.problem == "29 units are fewer than the 30 that a bound needs"
    found = linear(0.1, np.zeros(100), 0.05, codes=np.arange(100) % (MIN_CLUSTERS - 1))
    assert found.problem == "3 clusters of rows are fewer than the 4 that a bound needs"
    assert detectable(found, 0.05) is None


def test_the_detectable_gain_is_detected_with_80_percent() -> None:
    rng = np.random.default_rng(4)
    smallest = (stats.t(99).ppf(0.95) + stats.t(99).ppf(0.8)) / 10
    found = 0
    for _ in range(1000):
        sample = rng.normal(smallest, 1, 100)
        interval = linear(float(sample.mean()), sample - sample.mean(), 0.05)
        assert interval.low is not None
        found += interval.low > 0
        exact = detectable(interval, 0.05)
        assert exact == pytest.approx(smallest, rel=0.4)
    assert 760 <= found <= 840


def test_every_metric_has_a_method() -> None:
    methods = {name: method_of(name) for names in METRICS.values() for name in names}
    assert methods["roc_auc"] == "delong"
    assert methods["accuracy"] == "mcnemar"
    assert {methods[m] for m in ("mae", "log_loss", "ndcg@10", "map@10")} == {"paired t"}
    assert {methods[m] for m in ("f1", "f1_macro", "r2")} == {"bootstrap"}


@pytest.mark.parametrize(
    ("partitions", "blocks"),
    [(3, None), (4, 4), (10, 10), (14, 14), (23, 23), (24, 12), (60, 12), (168, 12), (365, 17)],
)
def test_blocks_are_consecutive_partitions(partitions: int, blocks: int | None) -> None:
    keys = np.repeat([f"{k:04d}" for k in range(partitions)], 3)
    shuffled = np.random.default_rng(0).permutation(len(keys))
    codes = time_blocks(keys[shuffled])
    if blocks is None:
        assert codes is None
        return
    assert codes is not None
    assert sorted(set(codes.tolist())) == list(range(blocks))
    in_order = codes[np.argsort(shuffled)]
    assert (np.diff(in_order) >= 0).all()
    assert all(len(set(part)) == 1 for part in in_order.reshape(-1, 3).tolist())
    sizes = np.bincount(codes)
    assert sizes.min() * 2 > sizes.max() or blocks == partitions


def test_the_jackknife_of_a_mean_over_equal_clusters_is_the_t_interval() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(6), 20)
    loss = rng.normal(0.2, 1, 120) + rng.normal(0, 0.5, 6)[codes]
    plain = linear(loss.mean(), loss - loss.mean(), 0.05, codes=codes)
    left_out = np.array([loss[codes != cluster].mean() for cluster in range(6)])
    found = jackknife(loss.mean(), left_out, 0.05)
    assert (found.low, found.high, found.se) == pytest.approx((plain.low, plain.high, plain.se))
    assert (found.method, found.drawn, found.dof) == ("jackknife", 6, 5)


def test_the_jackknife_says_why_it_has_no_bound() -> None:
    found = jackknife(0.1, np.array([0.1, np.nan, 0.1, 0.2]), 0.05)
    assert found.low is None
    assert found.problem == "the gain has no value without one of the clusters"
    assert "3 clusters of rows are fewer than the 4" in jackknife(0.1, np.ones(3), 0.05).problem


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "mae"])
def test_a_few_uneven_days_promote_an_equal_model_as_rarely_as_asked(metric: str) -> None:
    """Five days of 20 to 80 rows; each model is better on some days: the plain rule for rows fails."""
    measure = get_metric(metric)
    missed: dict[str, list[int]] = {"few days": [], "rows alone": []}
    for trial in range(400):
        rng = np.random.default_rng([trial, 11])
        codes = np.repeat(np.arange(5), rng.integers(20, 80, 5))
        y = rng.integers(0, 2, len(codes)) if metric != "mae" else rng.normal(size=len(codes))
        signal = (2 * y - 1) if metric != "mae" else y
        scores = [
            signal + rng.normal(0, 1, len(codes)) + rng.normal(0, 1, 5)[codes] for _ in range(2)
        ]
        weights = (np.arange(5)[:, None] != codes).astype(float)
        left_out = measure.gain(*(measure.resampled(y, s, weights) for s in scores))
        gain = measure.gain(*(measure.evaluate(y, s) for s in scores))
        found = jackknife(gain, left_out, 0.05)
        alone = linear(gain, measure.gain(*(measure.influence(y, s) for s in scores)), 0.05)
        for name, interval in (("few days", found), ("rows alone", alone)):
            assert interval.low is not None
            assert interval.high is not None
            missed[name] += [interval.low > 0, interval.high < 0]
    assert 0.025 < np.mean(missed["few days"]) < 0.08
    assert np.mean(missed["rows alone"]) > 2 * np.mean(missed["few days"])
