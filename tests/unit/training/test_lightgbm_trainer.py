"""Each task trains, beats the trivial prediction, and gives the same file twice."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.training.lightgbm_trainer import feature_importance, train_lightgbm
from retrain_assets.training.metrics import get_metric

FEATURES = ["carrier", "distance", "hour", "weekend", "booked_at"]
PARAMS = {"n_estimators": 30, "num_leaves": 7}
TASKS = {
    "binary": ("roc_auc", 0.85),
    "multiclass": ("accuracy", 0.6),
    "regression": ("r2", 0.6),
    "ranking": ("ndcg@10", 0.85),
}


def train(table, task, **changes):
    arguments = {
        "target": "y",
        "task": task,
        "feature_columns": FEATURES,
        "params": PARAMS,
        "seed": 7,
        "group": "query" if task == "ranking" else None,
    }
    return train_lightgbm(table, **(arguments | changes))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_of_each_task_finds_the_signal(task, table_of):
    name, at_least = TASKS[task]
    model, later = train(table_of(task), task), table_of(task, n=600, seed=1)
    y_true = later.column("y").to_numpy()
    if model.classes is not None:
        y_true = np.searchsorted(np.array(model.classes), y_true)
    groups = later.column("query").to_numpy() if task == "ranking" else None
    value = get_metric(name).evaluate(y_true, model.predict(later.to_pandas()), groups=groups)
    assert value > at_least


@pytest.mark.parametrize("task", TASKS)
def test_two_trainings_on_the_same_table_give_the_same_files(task, table_of, tmp_path):
    digests = []
    for run in ("first", "second"):
        params = PARAMS | {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.7}
        train(table_of(task), task, params=params).save(tmp_path / run)
        files = sorted((tmp_path / run).iterdir())
        digests.append([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]
    assert [name for name, _ in digests[0]] == ["encoding.json", "model.txt"]


def test_the_seed_matters_where_something_is_random(table_of):
    params = PARAMS | {"bagging_fraction": 0.5, "bagging_freq": 1}
    table = table_of("binary")
    first, second = (train(table, "binary", params=params, seed=s) for s in (1, 2))
    frame = table.to_pandas()
    assert not np.array_equal(first.predict(frame), second.predict(frame))


def test_the_number_of_threads_does_not_change_the_model(table_of):
    table = table_of("regression")
    one, two = (train(table, "regression", params=PARAMS | {"n_jobs": n}) for n in (1, 2))
    assert np.array_equal(one.predict(table.to_pandas()), two.predict(table.to_pandas()))


def test_rows_without_a_target_are_dropped_and_counted(table_of):
    table = table_of("binary")
    y = table.column("y").to_pylist()
    holes = table.set_column(
        table.column_names.index("y"), "y", pa.array([None] * 100 + y[100:], pa.int64())
    )
    model = train(holes, "binary")
    assert (model.n_rows, model.n_dropped) == (1400, 100)
    frame = table.to_pandas()
    again = train(table.slice(100), "binary")
    assert np.array_equal(model.predict(frame), again.predict(frame))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [((False, True), (False, True)), ((0, 1), (0, 1)), (("no", "yes"), ("no", "yes"))],
)
def test_binary_labels_of_every_kind_score_the_last_class(labels, classes, table_of):
    table = table_of("binary")
    y = [labels[v] for v in table.column("y").to_pylist()]
    model = train(table.set_column(table.column_names.index("y"), "y", pa.array(y)), "binary")
    assert model.classes == classes
    scores = model.predict(table.to_pandas())
    assert np.array_equal(scores, train(table, "binary").predict(table.to_pandas()))


def test_ranking_does_not_need_groups_together(table_of):
    table = table_of("ranking")
    together = table.take(pa.array(np.argsort(table.column("query").to_numpy(), kind="stable")))
    model = train(table, "ranking")
    assert model.n_rows == together.num_rows
    # Groups train in order of first appearance, so only the sums' rounding may differ.
    a, b = (m.predict(table.to_pandas()) for m in (model, train(together, "ranking")))
    assert np.corrcoef(a, b)[0, 1] > 0.95


def test_classes_may_be_wider_than_the_rows(table_of):
    model = train(
        table_of("multiclass"), "multiclass", classes=["cancelled", "early", "late", "on time"]
    )
    scores = model.predict(table_of("multiclass", n=50, seed=3).to_pandas())
    assert scores.shape == (50, 4)
    assert scores[:, 0].max() < 0.01


def test_importance_is_shares_of_gain_with_the_signal_first(table_of):
    importance = feature_importance(train(table_of("regression"), "regression"))
    assert sum(importance.values()) == pytest.approx(1)
    assert list(importance) == sorted(importance, key=lambda n: -importance[n])
    assert {"carrier", "hour"} == set(list(importance)[:2])


def test_a_model_without_splits_has_no_importance(table_of):
    model = train(table_of("regression", n=30), "regression", params={"min_data_in_leaf": 500})
    assert set(feature_importance(model).values()) == {0.0}


def with_target(table, values):
    return table.set_column(table.column_names.index("y"), "y", pa.array(values))


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("binary", {"target": "late"}, "target 'late' is not in the feature table; its columns"),
        ("binary", {"feature_columns": []}, "no feature columns to train on"),
        ("binary", {"feature_columns": ["hour", "y"]}, "target 'y' must not be a feature"),
        ("ranking", {"group": None}, "ranking needs the column that names each row's group"),
        ("binary", {"params": {"num_leafs": 3}}, "ignores some: Unknown parameter: num_leafs; cor"),
        (
            "binary",
            {"params": {"learning_rate": 0.1, "eta": 0.2}},
            "ignores some: learning_rate is set=0.1, eta=0.2 will be ignored",
        ),
        ("binary", {"params": {"num_leaves": 1}}, r"refused to train: .*num_leaves.*check train"),
        ("binary", {"params": {"boosting": "bosting"}}, "Unknown boosting type bosting"),
        ("binary", {"params": {"early_stopping_round": 3}}, "refused to train: For early stopping"),
        ("binary", {"params": {"app": "poisson"}}, r"not yours to set: app \(set from the task\)"),
        ("binary", {"params": {"n_estimators": 0}}, "n_estimators must be a whole number >= 1"),
        ("binary", {"params": {"n_iter": 3, "num_trees": 4}}, "twice: n_iter, num_trees"),
    ],
)
def test_arguments_that_cannot_work_name_rule_and_value(task, change, message, table_of):
    with pytest.raises(TrainingError, match=message):
        train(table_of(task, n=200), task, **change)


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("binary", [None] * 200, "no rows to train on: 200 rows, 200 of them without a value"),
        ("binary", [1] * 200, r"target 'y' is constant in the 200 training rows \(1\)"),
        ("binary", [0, 1, 2, 0] * 50, r"must have 2 classes for task binary, got 3 \(0, 1, 2\)"),
        ("ranking", [0.5, 1.0] * 100, "relevance must be a whole number from 0 to 30, got 0.5"),
        ("ranking", [-1, 1] * 100, "relevance must be a whole number from 0 to 30, got -1"),
        ("regression", ["a", "b"] * 100, "task regression needs numbers, got string"),
    ],
)
def test_targets_that_cannot_work_name_rule_and_value(task, values, message, table_of):
    with pytest.raises(TrainingError, match=message):
        train(with_target(table_of(task, n=200), values), task)


def test_ranking_rows_without_a_group_are_refused(table_of):
    table = table_of("ranking", n=200)
    group = pa.array([None, *table.column("query").to_pylist()[1:]])
    holes = table.set_column(table.column_names.index("query"), "query", group)
    with pytest.raises(TrainingError, match="groups must be given for every row, got 1 nulls"):
        train(holes, "ranking")
