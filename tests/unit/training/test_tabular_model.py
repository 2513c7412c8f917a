"""A stored model scores exactly as the trained one, in any batch, column order or process."""

import json

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.model import TabularModel
from retrain_assets.training.serving import _load_pyfunc

FEATURES = ["carrier", "distance", "hour", "weekend", "booked_at"]


@pytest.fixture(params=["binary", "multiclass", "regression", "ranking"])
def trained(request, table_of):
    model = train_lightgbm(
        table_of(request.param, n=800),
        target="y",
        task=request.param,
        feature_columns=FEATURES,
        params={"n_estimators": 10},
        seed=1,
        group="query" if request.param == "ranking" else None,
    )
    return model, table_of(request.param, n=300, seed=2).to_pandas()


def test_a_loaded_model_gives_bitwise_the_same_scores(trained, tmp_path):
    model, frame = trained
    model.save(tmp_path / "model")
    loaded = TabularModel.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(frame), model.predict(frame))
    assert (loaded.task, loaded.target, loaded.classes) == (model.task, "y", model.classes)
    assert (loaded.n_rows, loaded.n_dropped) == (800, 0)
    assert loaded.encoding == model.encoding
    loaded.save(tmp_path / "again")
    for name in ("model.txt", "encoding.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_rows_score_alone_as_they_do_together(trained):
    model, frame = trained
    together = model.predict(frame)
    alone = np.concatenate([model.predict(frame.iloc[[i]]) for i in range(40)])
    assert np.array_equal(alone, together[:40])


def test_column_order_and_other_columns_do_not_matter(trained):
    model, frame = trained
    shuffled = frame[frame.columns[::-1]].assign(unrelated="x")
    assert np.array_equal(model.predict(shuffled), model.predict(frame))


def test_an_absent_column_scores_as_missing(trained):
    model, frame = trained
    assert np.array_equal(
        model.predict(frame.drop(columns="carrier")), model.predict(frame.assign(carrier=None))
    )


def test_scores_have_the_shape_of_the_task(trained):
    model, frame = trained
    scores = model.predict(frame)
    if model.task == "multiclass":
        assert model.classes == ("early", "late", "on time")
        assert scores.shape == (300, 3)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
    else:
        assert scores.shape == (300,)
    assert model.predict(frame.iloc[:0]).shape == (0, *scores.shape[1:])


def test_a_registry_loads_the_folder_through_the_loader_module(trained, tmp_path):
    model, frame = trained
    model.save(tmp_path)
    served = _load_pyfunc(str(tmp_path))
    assert np.array_equal(served.predict(frame, params=None), model.predict(frame))
    assert served.model.task == model.task
    with pytest.raises(TrainingError, match="predict takes no params, got threshold"):
        served.predict(frame, params={"threshold": 0.5})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.txt").unlink(), "model.txt' cannot be read"),
        (lambda f: (f / "encoding.json").unlink(), "encoding.json' cannot be read"),
        (lambda f: (f / "encoding.json").write_text("{"), "encoding.json' is damaged"),
        (
            lambda f: (f / "model.txt").write_bytes((f / "model.txt").read_bytes()[:-40]),
            "model.txt' is damaged: its checksum must be",
        ),
    ],
)
def test_a_damaged_model_is_not_loaded(damage, message, table_of, tmp_path):
    train_lightgbm(
        table_of("binary", n=200), target="y", task="binary", feature_columns=["hour"],
        params={"n_estimators": 2}, seed=0,
    ).save(tmp_path)  # fmt: skip
    damage(tmp_path)
    with pytest.raises(TrainingError, match=message):
        TabularModel.load(tmp_path)


def test_a_model_of_another_format_says_what_to_do(tmp_path):
    (tmp_path / "encoding.json").write_text(json.dumps({"format_version": 2}))
    with pytest.raises(TrainingError, match="must have format_version 1, got 2; install"):
        TabularModel.load(tmp_path)
