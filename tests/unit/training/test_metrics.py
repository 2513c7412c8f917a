"""Metrics against scikit-learn and against brute force; resampling against repetition."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import sklearn.metrics as sk

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import METRICS, MINIMIZED
from retrain_assets.training.metrics import get_metric, group_codes

N = 400


def test_what_the_specs_say_about_directions_is_what_the_metrics_say():
    names = {name for each in METRICS.values() for name in each}
    assert {name for name in names if get_metric(name).direction == "minimize"} == MINIMIZED


def binary(seed=0, *, ties=True):
    rng = np.random.default_rng(seed)
    y_true = (rng.random(N) < 0.3).astype(int)
    y_score = np.clip(0.25 * y_true + rng.random(N) * 0.75, 0, 1)
    return y_true, np.round(y_score, 1) if ties else y_score


def multiclass(seed=0, k=4):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, k, N)
    logits = rng.normal(size=(N, k)) + 1.2 * np.eye(k)[y_true]
    return y_true, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def regression(seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.normal(50, 10, N)
    return y_true, y_true + rng.normal(1, 4, N)


def ranking(seed=0, groups=40, size=12):
    rng = np.random.default_rng(seed)
    group = np.repeat([f"q{i}" for i in range(groups)], size)
    relevance = rng.integers(0, 4, groups * size)
    score = np.round(relevance + rng.normal(0, 1.5, groups * size))
    shuffled = rng.permutation(groups * size)
    return relevance[shuffled], score[shuffled], group[shuffled]


def sample_of(task, seed=0):
    made = {"binary": binary, "multiclass": multiclass, "regression": regression}
    if task == "ranking":
        return ranking(seed)
    return *made[task](seed), None


REFERENCE = {
    ("binary", "roc_auc"): lambda y, s, w: sk.roc_auc_score(y, s, sample_weight=w),
    ("binary", "average_precision"): lambda y, s, w: sk.average_precision_score(
        y, s, sample_weight=w
    ),
    ("binary", "log_loss"): lambda y, s, w: sk.log_loss(
        y, np.clip(s, 1e-15, 1 - 1e-15), sample_weight=w
    ),
    ("binary", "brier"): lambda y, s, w: sk.brier_score_loss(y, s, sample_weight=w),
    ("binary", "accuracy"): lambda y, s, w: sk.accuracy_score(y, s >= 0.5, sample_weight=w),
    ("binary", "f1"): lambda y, s, w: sk.f1_score(y, s >= 0.5, sample_weight=w),
    ("multiclass", "log_loss"): lambda y, s, w: sk.log_loss(y, s, sample_weight=w),
    ("multiclass", "accuracy"): lambda y, s, w: sk.accuracy_score(y, s.argmax(1), sample_weight=w),
    ("multiclass", "f1_macro"): lambda y, s, w: sk.f1_score(
        y, s.argmax(1), average="macro", sample_weight=w
    ),
    ("regression", "mae"): lambda y, s, w: sk.mean_absolute_error(y, s, sample_weight=w),
    ("regression", "rmse"): lambda y, s, w: sk.root_mean_squared_error(y, s, sample_weight=w),
    ("regression", "mape"): lambda y, s, w: sk.mean_absolute_percentage_error(
        y, s, sample_weight=w
    ),
    ("regression", "r2"): lambda y, s, w: sk.r2_score(y, s, sample_weight=w),
    **{
        ("regression", f"pinball@{level}"): lambda y, s, w, level=level: sk.mean_pinball_loss(
            y, s, alpha=level, sample_weight=w
        )
        for level in (0.1, 0.5, 0.9)
    },
}


@pytest.mark.parametrize(("task", "name"), REFERENCE)
def test_the_value_is_scikit_learns(task, name):
    y_true, y_score, _ = sample_of(task)
    expected = REFERENCE[task, name](y_true, y_score, None)
    assert get_metric(name).evaluate(y_true, y_score) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("task", "name"), REFERENCE)
def test_bootstrap_counts_act_as_scikit_learns_sample_weights(task, name):
    y_true, y_score, _ = sample_of(task, seed=1)
    weights = np.random.default_rng(2).multinomial(N, np.full(N, 1 / N), size=20)
    values = get_metric(name).resampled(y_true, y_score, weights)
    expected = [REFERENCE[task, name](y_true, y_score, w) for w in weights]
    np.testing.assert_allclose(values, expected, rtol=1e-10)


@pytest.mark.parametrize("task", METRICS)
def test_every_metric_of_a_spec_exists_and_names_itself(task):
    for name in METRICS[task]:
        metric = get_metric(name)
        assert (metric.name, metric.needs_groups) == (name, task == "ranking")


@pytest.mark.parametrize("k", [5, 10])
def test_ndcg_is_scikit_learns_with_exponential_gains_and_averaged_ties(k):
    relevance, score, group = ranking()
    expected = [
        sk.ndcg_score([2.0 ** relevance[group == g] - 1], [score[group == g]], k=k)
        for g in dict.fromkeys(group)
    ]
    metric = get_metric(f"ndcg@{k}")
    np.testing.assert_allclose(metric.per_group(relevance, score, group), expected, rtol=1e-12)
    value = metric.evaluate(relevance, score, groups=group)
    assert value == pytest.approx(np.mean(expected), rel=1e-12)


def brute_force_map(relevance, score, k):
    values = []
    for order in permutations(range(len(score))):
        if all(score[a] >= score[b] for a, b in pairwise(order)):
            hits = (np.asarray(relevance)[list(order)] > 0).astype(float)
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            values.append((hits * precision)[:k].sum() / min(k, hits.sum()))
    return np.mean(values)


@pytest.mark.parametrize("seed", range(6))
def test_map_with_ties_is_the_mean_over_all_orders_of_the_tied_rows(seed):
    from retrain_assets.training import metrics

    rng = np.random.default_rng(seed)
    relevance, score = rng.integers(0, 3, 7), rng.integers(0, 3, 7).astype(float)
    relevance[0] = 1
    codes = np.zeros(7, dtype=int)
    for k in (2, 3, 10):
        rule = metrics._average_precision_at(k)
        value = rule.combine(rule.statistics(relevance.astype(float), score, codes))
        assert value[0] == pytest.approx(brute_force_map(relevance, score, k), rel=1e-12)


@pytest.mark.parametrize("name", METRICS["ranking"])
def test_drawing_a_group_twice_is_having_it_twice(name):
    relevance, score, group = ranking(groups=6)
    metric = get_metric(name)
    units = list(dict.fromkeys(group))
    counts = np.array([[2, 0, 1, 0, 3, 1]])
    rows, names = [], []
    for unit, count in zip(units, counts[0], strict=True):
        for copy in range(count):
            rows.append(np.flatnonzero(group == unit))
            names.append(np.full(len(rows[-1]), f"{unit}/{copy}"))
    picked, labels = np.concatenate(rows), np.concatenate(names)
    expected = metric.evaluate(relevance[picked], score[picked], groups=labels)
    value = metric.resampled(relevance, score, counts, groups=group)[0]
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", METRICS["ranking"])
def test_groups_with_nothing_relevant_are_left_out(name):
    metric = get_metric(name)
    relevance, score, group = np.array([0, 0, 1, 0]), np.arange(4.0), np.array(["a", "a", "b", "b"])
    assert metric.n_units(relevance, groups=group) == 2
    assert metric.evaluate(relevance, score, groups=group) == metric.evaluate(
        relevance[2:], score[2:], groups=group[2:]
    )
    assert np.isnan(metric.per_group(relevance, score, group)[0])
    with pytest.raises(TrainingError, match="no group has a row of positive relevance"):
        metric.evaluate(relevance[:2], score[:2], groups=group[:2])


def test_blocks_give_the_same_values_as_one_block(monkeypatch):
    from retrain_assets.training import metrics

    weights = np.random.default_rng(3).integers(0, 3, (11, N))
    y_true, y_score = binary()
    whole = {n: get_metric(n).resampled(y_true, y_score, weights) for n in METRICS["binary"]}
    monkeypatch.setattr(metrics, "_BLOCK", 2 * N)
    for name, values in whole.items():
        in_blocks = get_metric(name).resampled(y_true, y_score, weights)
        np.testing.assert_allclose(in_blocks, values, rtol=1e-13)


def test_weights_may_be_small_integers_and_come_in_several_calls():
    y_true, y_score = binary()
    weights = np.random.default_rng(3).integers(0, 3, (10, N), dtype=np.uint8)
    sample = get_metric("roc_auc").resampler(y_true, y_score)
    parts = np.concatenate([sample(weights[:4]), sample(weights[4:])])
    assert np.array_equal(parts, get_metric("roc_auc").resampled(y_true, y_score, weights))


@pytest.mark.parametrize(
    ("name", "y_true", "y_score", "rule"),
    [
        ("roc_auc", [1, 1], [0.2, 0.4], "y_true holds one class only"),
        ("average_precision", [0, 0], [0.2, 0.4], "y_true holds no positive"),
        ("f1", [0, 0], [0.2, 0.4], "neither y_true nor the predictions hold a positive"),
        ("r2", [0.1, 0.1, 0.1], [1.0, 2.0, 3.0], "y_true is constant"),
        ("mape", [0.0, 2.0], [1.0, 2.0], "y_true holds zeros"),
    ],
)
def test_an_undefined_value_is_an_error_alone_and_nan_in_a_resample(name, y_true, y_score, rule):
    metric = get_metric(name)
    with pytest.raises(TrainingError, match=f"{name} is undefined on these .* rows: {rule}"):
        metric.evaluate(y_true, y_score)
    assert np.isnan(metric.resampled(y_true, y_score, np.ones((1, len(y_true)))))


def test_a_resample_without_rows_is_nan_for_every_metric():
    for task, names in METRICS.items():
        y_true, y_score, groups = sample_of(task)
        for name in names:
            metric = get_metric(name)
            zero = np.zeros((2, metric.n_units(y_true, groups=groups)))
            assert np.isnan(metric.resampled(y_true, y_score, zero, groups=groups)).all()


def test_mape_is_defined_in_resamples_that_miss_the_zero():
    values = get_metric("mape").resampled([0.0, 2.0], [1.0, 3.0], [[0, 2], [1, 1]])
    assert values[0] == 0.5
    assert np.isnan(values[1])


def test_f1_macro_ignores_classes_that_occur_nowhere():
    scores = np.eye(3)[[0, 1, 1]]
    assert get_metric("f1_macro").evaluate([0, 1, 1], scores) == 1


def test_log_loss_of_a_certain_mistake_is_finite():
    assert get_metric("log_loss").evaluate([1], [0.0]) == pytest.approx(-np.log(1e-15))


def test_gain_is_positive_when_the_candidate_is_better():
    assert get_metric("roc_auc").gain(0.8, 0.7) == pytest.approx(0.1)
    assert get_metric("log_loss").gain(0.3, 0.4) == pytest.approx(0.1)
    gains = get_metric("mae").gain(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert gains.tolist() == [1, -1]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("roc_auc", ([0, 2], [0.1, 0.2]), "roc_auc: y_true must be 0 or 1, got 2"),
        ("roc_auc", ([0, 1], [0.1, np.nan]), "y_score must be finite, got nan or infinity in 1 of"),
        ("brier", ([0, 1], [0.1, 1.2]), r"probabilities in \[0, 1\], got 0.1 to 1.2"),
        ("mae", ([1.0, 2.0], [[1.0], [2.0]]), r"must have the shape \(n,\), got \(2, 1\)"),
        ("f1_macro", ([0, 1], [0.1, 0.2]), r"must have the shape \(n, classes\), got \(2,\)"),
        ("log_loss", ([0, 3], [[0.5, 0.5], [0.5, 0.5]]), "class indices 0 to 1, got 3"),
        ("log_loss", ([0, 1], [[0.5, 0.4], [0.5, 0.5]]), "sum to 1, got 1 other rows of 2"),
        ("mae", ([], []), r"shape \(n,\) with n > 0 and y_score as many rows"),
        ("ndcg@10", ([1, 0], [0.1, 0.2]), "ndcg@10: needs the group of each row, got none"),
    ],
)
def test_malformed_input_names_the_rule_and_the_value(name, arguments, message):
    with pytest.raises(TrainingError, match=message):
        get_metric(name).evaluate(*arguments)


def test_relevance_beyond_the_largest_grade_is_refused():
    with pytest.raises(TrainingError, match="relevance must be between 0 and 30, got 31"):
        get_metric("ndcg@10").evaluate([31, 0], [0.1, 0.2], groups=["a", "a"])


def test_scores_without_a_column_for_each_class_are_refused():
    with pytest.raises(TrainingError, match=r"a column for each of the 3 classes, got shape"):
        get_metric("accuracy").evaluate([0, 1], np.eye(2), classes=["a", "b", "c"])


def test_weights_of_another_length_or_below_zero_are_refused():
    metric = get_metric("mae")
    with pytest.raises(TrainingError, match=r"shape \(resamples, 2\), one column per row"):
        metric.resampled([1, 2], [1, 2], np.ones((4, 3)))
    with pytest.raises(TrainingError, match="weights must not be negative, got -1"):
        metric.resampled([1, 2], [1, 2], [[1, -1]])


def test_groups_are_numbered_in_order_of_first_appearance():
    assert group_codes([30, 10, 30, 20]).tolist() == [0, 1, 0, 2]
    with pytest.raises(TrainingError, match="groups must be given for every row, got 1 nulls"):
        group_codes(np.array(["a", None], dtype=object))


def test_an_unknown_metric_lists_the_known_ones():
    with pytest.raises(TrainingError, match="'auc' is not a metric; use one of roc_auc, "):
        get_metric("auc")


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task in METRICS for name in METRICS[task]]
)
def test_influence_is_the_derivative_with_respect_to_each_units_weight(task, name):
    y_true, y_score, groups = sample_of(task, seed=3)
    metric = get_metric(name)
    units = metric.n_units(y_true, groups=groups)
    influence = metric.influence(y_true, y_score, groups=groups)
    step = 1e-5
    up, down = (np.ones((units, units)) + sign * step * np.eye(units) for sign in (1, -1))
    resampled = [metric.resampled(y_true, y_score, w, groups=groups) for w in (up, down)]
    numeric = units * (resampled[0] - resampled[1]) / (2 * step)
    assert influence.shape == (units,)
    np.testing.assert_allclose(influence, numeric, atol=2e-5 * np.abs(numeric).max())
    assert abs(influence.sum()) < 1e-8 * np.abs(influence).sum()


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_influence_on_an_undefined_metric_is_nan(name):
    assert np.isnan(get_metric(name).influence([0, 0, 0], [0.1, 0.2, 0.3])).all()


def test_influence_of_rows_on_other_undefined_metrics_is_nan():
    assert np.isnan(get_metric("f1").influence([0, 0], [0.1, 0.2])).all()
    assert np.isnan(get_metric("mape").influence([0.0, 1.0], [0.1, 0.2])).all()
    assert np.isnan(get_metric("r2").influence([1.0, 1.0], [0.1, 0.2])).all()


def test_a_perfect_model_has_no_influence_on_its_rmse():
    assert get_metric("rmse").influence([1.0, 2.0], [1.0, 2.0]).tolist() == [0, 0]
