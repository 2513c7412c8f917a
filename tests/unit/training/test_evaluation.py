"""Candidate, champion and baselines score the same rows, and the evidence is kept without loss."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import METRICS
from retrain_assets.training.evaluation import Evaluation, evaluate_on_holdout
from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.metrics import get_metric

FEATURES = ["carrier", "distance", "hour", "weekend", "booked_at"]


def train(table, task, columns=FEATURES, **changes):
    arguments = {
        "target": "y",
        "task": task,
        "feature_columns": columns,
        "params": {"n_estimators": 15},
        "seed": 1,
        "group": "query" if task == "ranking" else None,
    }
    return train_lightgbm(table, **(arguments | changes))


@pytest.fixture(params=["binary", "multiclass", "regression", "ranking"])
def evaluation(request, table_of):
    task = request.param
    table, holdout = table_of(task), table_of(task, n=400, seed=1)
    return evaluate_on_holdout(
        train(table, task),
        train(table, task, columns=["distance"]),
        train=table,
        holdout=holdout,
        last=table.slice(1200),
        entity=("airport",),
        group="query" if task == "ranking" else None,
        row_partitions=["2024-01-01"] * 200 + ["2024-01-02"] * 200,
        keep=("carrier", "hour"),
    )


def test_the_candidate_beats_champion_and_baselines_in_every_metric(evaluation):
    assert {*evaluation.scores} == {"candidate", "champion", *evaluation.baselines}
    assert len(evaluation.baselines) == 2
    for name in METRICS[evaluation.task]:
        if name == "mape":  # It favours low forecasts whatever their worth.
            continue
        metric = get_metric(name)
        values = evaluation.values(metric)
        gains = {
            other: metric.gain(values["candidate"], values[other])
            for other in ("champion", *evaluation.baselines)
        }
        assert all(gain > 0 for gain in gains.values()), (name, gains)


def test_evidence_survives_parquet_without_loss(evaluation, tmp_path):
    pq.write_table(evaluation.to_table(), tmp_path / "evidence.parquet")
    read = Evaluation.from_table(pq.read_table(tmp_path / "evidence.parquet"))
    for name in ("y_true", "row_partitions", "groups"):
        before, after = getattr(evaluation, name), getattr(read, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert np.array_equal(before, after)
            assert before.dtype == after.dtype
    assert list(read.columns) == ["carrier", "hour"]
    for name, labels in evaluation.columns.items():
        assert np.array_equal(read.columns[name], labels)
        assert read.columns[name].dtype == labels.dtype
    assert list(read.scores) == list(evaluation.scores)
    for name, score in evaluation.scores.items():
        assert np.array_equal(read.scores[name], score)
    assert (read.task, read.classes, read.notes) == (
        evaluation.task,
        evaluation.classes,
        evaluation.notes,
    )
    assert read.to_table().equals(evaluation.to_table(), check_metadata=True)


def test_labels_are_kept_as_text_with_their_gaps(table_of):
    holdout = table_of("binary", n=100, seed=1)
    made = binary_case(table_of, holdout=holdout, keep=("carrier", "weekend"))
    assert made.columns["carrier"].tolist() == holdout.column("carrier").to_pylist()
    assert set(made.columns["weekend"]) <= {"true", "false", None}
    with pytest.raises(TrainingError, match="'airline' not among the feature columns"):
        binary_case(table_of, keep=("airline",))


def test_evidence_without_kept_columns_is_read(table_of):
    assert Evaluation.from_table(binary_case(table_of).to_table()).columns == {}


def binary_case(table_of, **changes):
    table, holdout = table_of("binary", n=400), table_of("binary", n=100, seed=1)
    model = train(table, "binary")
    arguments = {"train": table, "holdout": holdout, "last": None}
    return evaluate_on_holdout(model, None, **(arguments | changes))


def test_without_a_champion_there_are_no_champion_scores(table_of):
    made = binary_case(table_of)
    assert list(made.scores) == ["candidate", "majority"]
    assert set(made.row_partitions) == {""}


def test_holdout_rows_without_a_label_are_left_out_of_every_array(table_of):
    holdout = table_of("binary", n=100, seed=1)
    y = pa.array([None, *holdout.column("y").to_pylist()[1:]], pa.int64())
    holes = holdout.set_column(holdout.column_names.index("y"), "y", y)
    made = binary_case(table_of, holdout=holes, row_partitions=np.arange(100).astype(str))
    assert made.n_rows == 99
    assert made.row_partitions[0] == "1"
    assert np.array_equal(made.scores["candidate"], binary_case(table_of).scores["candidate"][1:])


def test_a_champion_whose_columns_are_gone_is_noted(table_of):
    table = table_of("binary", n=400)
    made = evaluate_on_holdout(
        train(table, "binary", columns=["hour"]),
        train(table, "binary"),
        train=table,
        holdout=table_of("binary", n=100, seed=1).drop_columns(["carrier", "weekend"]),
        last=None,
    )
    assert made.notes == (
        "champion: feature columns carrier, weekend are gone and were scored as missing",
    )


def test_models_that_predict_something_else_are_not_compared(table_of):
    table = table_of("multiclass", n=400)
    few = table.filter(pa.array([v != "late" for v in table.column("y").to_pylist()]))
    data = {"train": table, "holdout": table, "last": None}
    with pytest.raises(
        TrainingError, match=r"the classes \['early', 'on time'\], the candidate .*; take a train"
    ):
        evaluate_on_holdout(train(table, "multiclass"), train(few, "multiclass"), **data)
    with pytest.raises(TrainingError, match=r"champion predicts 'hour' \(regression\)"):
        evaluate_on_holdout(
            train(table, "multiclass"),
            train(table, "regression", columns=["distance"], target="hour"),
            **data,
        )


def test_a_holdout_that_the_champion_was_trained_on_is_refused(table_of):
    table = table_of("binary", n=400)
    model = train(table, "binary")
    with pytest.raises(TrainingError, match="the champion was trained on 2024-01-02 of it"):
        evaluate_on_holdout(
            model, model, train=table, holdout=table, last=None,
            row_partitions=["2024-01-02"] * 200 + ["2024-01-03"] * 200,
            champion_train_keys={"2024-01-01", "2024-01-02"},
        )  # fmt: skip


def test_a_holdout_without_labels_says_what_to_do(table_of):
    holdout = table_of("binary", n=50)
    index = holdout.column_names.index("y")
    with pytest.raises(TrainingError, match=r"none of its 50 rows .* raise train\.label_delay"):
        binary_case(table_of, holdout=holdout.set_column(index, "y", pa.nulls(50, pa.int64())))


def test_a_champion_that_cannot_score_is_named(table_of):
    table = table_of("binary", n=400)
    index = table.column_names.index("hour")
    text = table.set_column(index, "hour", pa.array(["h"] * 400))
    with pytest.raises(
        TrainingError, match="the champion cannot score the holdout: feature 'hour'"
    ):
        evaluate_on_holdout(
            train(text, "binary"), train(table, "binary"), train=text, holdout=text, last=None
        )


def test_arrays_of_different_length_are_refused():
    with pytest.raises(TrainingError, match=r"2 entries of each .* got row_partitions 3"):
        Evaluation("binary", np.zeros(2), {"candidate": np.zeros(2)}, np.array(["", "", ""]))
    with pytest.raises(TrainingError, match="needs scores of 'candidate', got mean"):
        Evaluation("binary", np.zeros(2), {"mean": np.zeros(2)}, np.array(["", ""]))


def test_another_table_is_not_taken_for_evidence():
    with pytest.raises(TrainingError, match="must have format_version 1, got None"):
        Evaluation.from_table(pa.table({"y_true": [1]}))
