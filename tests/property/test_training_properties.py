"""Splits never leak time, and metrics keep the promises that resampling relies on."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import METRICS, Train
from retrain_assets.spec.partitions import PartitionScheme
from retrain_assets.training.metrics import get_metric
from retrain_assets.training.split import plan_window, split_rows

pytestmark = pytest.mark.filterwarnings("error")


@st.composite
def plans(draw):
    scheme = PartitionScheme(
        draw(st.sampled_from(["hour", "day", "week", "month"])), date(2020, 1, 1), None
    )
    window = draw(st.integers(2, 12))
    holdout = draw(st.integers(1, window - 1))
    train = Train(window=window, holdout=holdout, label_delay=draw(st.integers(0, 4)))
    keys = scheme.between(
        scheme.key_of(scheme.first), scheme.shift(scheme.key_of(scheme.first), 29)
    )
    existing = draw(st.sets(st.sampled_from(keys)))
    return scheme, draw(st.sampled_from(keys)), train, draw(st.integers(2, window)), existing


@given(plans())
def test_no_holdout_or_future_key_is_ever_trained_on_whatever_exists(case):
    scheme, key, train, min_window, existing = case
    try:
        plan = plan_window(scheme, key, train, min_window, existing)
    except TrainingError:
        return
    assert plan.train_keys
    assert plan.holdout_keys
    starts = [scheme.parse(k) for k in plan.keys]
    assert starts == sorted(set(starts))
    latest = scheme.shift(key, -train.label_delay)
    assert scheme.parse(plan.holdout_keys[-1]) <= scheme.parse(latest)
    cut = scheme.parse(scheme.shift(latest, 1 - int(train.holdout)))
    assert all(scheme.parse(k) < cut for k in plan.train_keys)
    assert all(scheme.parse(k) >= cut for k in plan.holdout_keys)
    assert set(plan.keys) <= existing
    assert set(plan.keys) | set(plan.missing_keys) == set(scheme.trailing(latest, train.window))
    assert len(plan.keys) >= min_window


@given(plans())
def test_a_window_with_enough_partitions_is_never_refused(case):
    scheme, key, train, min_window, _ = case
    latest = scheme.shift(key, -train.label_delay)
    window = scheme.trailing(latest, train.window) if latest else []
    if len(window) < max(min_window, int(train.holdout) + 1):
        with pytest.raises(TrainingError):
            plan_window(scheme, key, train, min_window, window)
    else:
        assert list(plan_window(scheme, key, train, min_window, window).keys) == window


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1),
    st.floats(0.01, 0.99),
)
def test_rows_of_one_moment_never_fall_on_both_sides_and_time_never_runs_back(values, holdout):
    order = np.array(values)
    train, held = split_rows(len(order), holdout, order)
    assert sorted([*train, *held]) == list(range(len(order)))
    assert order[train].max() < order[held].min()


def draw_sample(task, rng, n):
    """A random sample with many ties."""
    if task == "binary":
        return rng.integers(0, 2, n), rng.integers(0, 5, n) / 4, None
    if task == "multiclass":
        scores = rng.integers(1, 4, (n, 3)).astype(float)
        return rng.integers(0, 3, n), scores / scores.sum(axis=1, keepdims=True), None
    if task == "regression":
        return rng.integers(1, 6, n).astype(float), rng.integers(0, 6, n).astype(float), None
    return rng.integers(0, 3, n), rng.integers(0, 3, n).astype(float), rng.integers(0, 4, n)


CASES = [(task, name) for task, names in METRICS.items() for name in names]


@pytest.mark.parametrize(("task", "name"), CASES)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_a_resample_is_worth_what_its_rows_written_out_are(task, name, seed, n):
    rng = np.random.default_rng(seed)
    y_true, y_score, groups = draw_sample(task, rng, n)
    metric = get_metric(name)
    counts = rng.integers(0, 3, metric.n_units(y_true, groups=groups))
    value = metric.resampled(y_true, y_score, counts[None], groups=groups)[0]
    if groups is None:
        rows, labels = np.repeat(np.arange(n), counts), None
    else:
        units = list(dict.fromkeys(groups.tolist()))
        parts = [
            (np.flatnonzero(groups == unit), f"{unit}/{copy}")
            for unit, count in zip(units, counts, strict=True)
            for copy in range(count)
        ]
        rows = np.concatenate([p for p, _ in parts]) if parts else np.array([], dtype=int)
        labels = np.array([label for p, label in parts for _ in p])
    if not len(rows):
        assert np.isnan(value)
        return
    try:
        expected = metric.evaluate(y_true[rows], y_score[rows], groups=labels)
    except TrainingError:
        expected = np.nan
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("task", "name"), CASES)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(task, name, seed, n):
    rng = np.random.default_rng(seed)
    y_true, y_score, groups = draw_sample(task, rng, n)
    shuffled = rng.permutation(n)
    values = []
    for rows in (np.arange(n), shuffled):
        named = None if groups is None else groups[rows]
        metric = get_metric(name)
        once = np.ones((1, metric.n_units(y_true[rows], groups=named)))
        values.append(metric.resampled(y_true[rows], y_score[rows], once, groups=named)[0])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-9, atol=1e-12)


@given(st.sampled_from(["roc_auc", "rmse"]), st.floats(-5, 5), st.floats(-5, 5))
def test_gain_is_antisymmetric(name, a, b):
    metric = get_metric(name)
    assert metric.gain(a, b) == -metric.gain(b, a)
    assert metric.gain(a, a) == 0
