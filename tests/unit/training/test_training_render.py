"""Pictures: they are PNGs of the promised width, and what they draw is what the data says."""

import struct

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import METRICS
from retrain_assets.training import render
from retrain_assets.training.evaluation import Evaluation
from retrain_assets.training.metrics import get_metric
from retrain_assets.training.render import comparison_picture, importance_picture


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def evaluation(task, n=600, champion=True):
    rng = np.random.default_rng(0)
    classes, groups = None, None
    if task == "binary":
        y = rng.integers(0, 2, n)
        better, worse = (np.clip(0.3 * y + rng.random(n) * w, 0, 1) for w in (0.6, 0.9))
        classes = ("no", "yes")
    elif task == "multiclass":
        classes = tuple(f"class ${c} with a long name" for c in range(9))
        y = rng.integers(0, 9, n)
        better, worse = (
            (p := np.eye(9)[y] * w + rng.random((n, 9))) / p.sum(axis=1, keepdims=True)
            for w in (1.0, 0.5)
        )
    else:
        y = rng.normal(50, 10, n) if task == "regression" else rng.integers(0, 4, n)
        better, worse = (y + rng.normal(0, w, n) for w in (2, 5))
        groups = np.repeat(np.arange(n // 10), 10) if task == "ranking" else None
    scores = {"candidate": better, "champion": worse, "mean": worse}
    if not champion:
        del scores["champion"]
    return Evaluation(task, y, scores, np.full(n, "", dtype=object), groups, classes)


@pytest.mark.parametrize("champion", [True, False])
@pytest.mark.parametrize("task", METRICS)
def test_each_task_has_a_picture_with_and_without_champion(task, champion):
    picture = comparison_picture(evaluation(task, champion=champion), get_metric(METRICS[task][0]))
    assert size_of(picture) == (900, 500)


def test_a_holdout_of_one_class_still_has_a_picture():
    one = Evaluation(
        "binary",
        np.zeros(50, dtype=int),
        {"candidate": np.full(50, 0.2)},
        np.full(50, "", dtype=object),
        None,
        (0, 1),
    )
    assert size_of(comparison_picture(one, get_metric("roc_auc"))) == (900, 500)


def test_the_roc_curve_encloses_the_quoted_area():
    made = evaluation("binary")
    _, axes = render._canvas(5)
    shown = {"candidate": made.scores["candidate"]}
    render._draw_roc(axes, made.y_true, shown, {"candidate": "candidate"})
    x, y = axes.lines[-1].get_data()
    area = np.trapezoid(y, x)
    expected = get_metric("roc_auc").evaluate(made.y_true, made.scores["candidate"])
    assert area == pytest.approx(expected, rel=1e-12)


def test_importance_has_a_bar_for_each_feature_up_to_the_limit():
    few = importance_picture({"a": 0.7, "price in $ and $": 0.3})
    many = importance_picture({f"feature_{i}": 1 / 40 for i in range(40)}, limit=15)
    width, height = size_of(many)
    assert width == size_of(few)[0] == 900
    assert height > size_of(few)[1]
    assert size_of(importance_picture({"a": 0.0}))[0] == 900


def test_importance_without_features_is_an_error():
    with pytest.raises(TrainingError, match="no feature to draw"):
        importance_picture({})
