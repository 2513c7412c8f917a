"""Trivial predictions, worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.training.baselines import baseline_predictions

TRAIN = pa.table({"y": [0, 0, 0, 1, None], "shop": ["a", "a", "b", "b", "b"]})
LAST = pa.table({"y": [1, 0, None], "shop": ["a", None, "b"]})
HOLDOUT = pa.table({"shop": ["a", None, "b", "new"]})


def scores(train=TRAIN, holdout=HOLDOUT, last=LAST, **changes):
    arguments = {"target": "y", "task": "binary", "entity": ("shop",), "classes": (0, 1)}
    return baseline_predictions(train, holdout, last=last, **(arguments | changes))


def test_binary_baselines_are_shares_of_the_positive_class():
    made = scores()
    assert made["majority"].tolist() == [0.25] * 4
    # b has no label in the last partition and new is not there: both take the overall share.
    assert made["last_value"].tolist() == [1, 0, 0.5, 0.5]


def test_without_entity_the_last_value_is_the_last_partitions_share():
    assert scores(entity=())["last_value"].tolist() == [0.5] * 4


def test_regression_and_ranking_baselines_are_means():
    for task in ("regression", "ranking"):
        made = scores(task=task, classes=None)
        assert list(made) == ["mean", "last_value"]
        assert made["mean"].tolist() == [0.25] * 4
        assert made["last_value"].tolist() == [1, 0, 0.5, 0.5]


def test_multiclass_baselines_are_a_share_for_each_class():
    train = pa.table({"y": ["x", "x", "y", "z"], "shop": list("abab")})
    last = pa.table({"y": ["y", "z", "y"], "shop": list("aab")})
    made = scores(train, last=last, task="multiclass", classes=("x", "y", "z"))
    assert made["majority"].tolist() == [[0.5, 0.25, 0.25]] * 4
    np.testing.assert_allclose(
        made["last_value"], [[0, 0.5, 0.5], [0, 2 / 3, 1 / 3], [0, 1, 0], [0, 2 / 3, 1 / 3]]
    )


def test_several_entity_columns_count_together():
    last = pa.table({"y": [1, 0, 0], "shop": ["a", "a", "b"], "item": [1, 2, 1]})
    holdout = pa.table({"shop": ["a", "a", "b"], "item": [1, 2, 2]})
    made = scores(holdout=holdout, last=last, entity=("shop", "item"))
    np.testing.assert_allclose(made["last_value"], [1, 0, 1 / 3])


@pytest.mark.parametrize("last", [None, LAST.slice(2)])
def test_without_a_labelled_last_partition_there_is_no_last_value(last):
    assert list(scores(last=last)) == ["majority"]


def test_what_cannot_be_computed_is_an_error():
    with pytest.raises(TrainingError, match="no training row has a value of target 'y'"):
        scores(TRAIN.slice(4))
    with pytest.raises(TrainingError, match=r"train\.entity: store not in the feature table"):
        scores(entity=("store",))
