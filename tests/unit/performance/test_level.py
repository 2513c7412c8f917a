"""What a champion is held to, and which kind of performance a partition has."""

import json

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.performance.level import (
    fit_level,
    level_document,
    level_of_document,
    performance_on,
)
from retrain_assets.performance.measured import compact, expanded
from retrain_assets.training.evaluation import CANDIDATE, Evaluation


def holdout(task: str = "binary", rows: int = 1200) -> Evaluation:
    rng = np.random.default_rng(3)
    score = rng.random(rows)
    truth = (
        (rng.random(rows) < score).astype(int)
        if task == "binary"
        else score + rng.normal(0, 0.1, rows)
    )
    days = np.repeat([f"2024-01-{n:02}" for n in range(1, 11)], rows // 10)
    return Evaluation(task, truth, {CANDIDATE: score}, days)


def test_labels_that_are_due_make_it_realised_and_else_it_is_estimated() -> None:
    level = fit_level("roc_auc", holdout())
    rng = np.random.default_rng(4)
    score = rng.random(400)
    flipped = (rng.random(400) > score).astype(float)
    seen = performance_on("roc_auc", level, "2024-02-01", y_score=score, y_true=flipped)
    unseen = performance_on("roc_auc", level, "2024-02-01", y_score=score, y_true=None)
    assert (seen.kind, unseen.kind) == ("realised", "estimated")
    assert seen.high is not None
    assert seen.high < 0.3
    assert unseen.low is not None
    assert unseen.low > 0.7


def test_rows_without_a_label_are_left_out_and_none_at_all_is_an_estimate() -> None:
    level = fit_level("roc_auc", holdout())
    rng = np.random.default_rng(5)
    score = rng.random(300)
    truth = (rng.random(300) < score).astype(float)
    truth[100:] = np.nan
    assert performance_on("roc_auc", level, "d", y_score=score, y_true=truth).n == 100
    nothing = np.full(300, np.nan)
    assert performance_on("roc_auc", level, "d", y_score=score, y_true=nothing).kind == "estimated"


def test_a_level_reads_back_and_estimates_the_same() -> None:
    level = fit_level("roc_auc", holdout())
    stored = level_of_document(json.loads(json.dumps(level_document("roc_auc", level))))
    score = np.random.default_rng(6).random(200)
    before, after = (
        performance_on("roc_auc", one, "d", y_score=score, y_true=None) for one in (level, stored)
    )
    assert before == after
    assert stored.expected == level.expected


def test_a_regression_is_estimated_from_its_features_and_undecided_without_them() -> None:
    found = holdout("regression")
    features = pa.table({"x": found.scores[CANDIDATE]})
    level = fit_level("mae", found, features)
    document = json.loads(json.dumps(level_document("mae", level)))
    stored = level_of_document(document, getattr(level.estimator, "model", None))
    score = np.random.default_rng(7).random(200)
    rows = pa.table({"x": score})
    one = performance_on("mae", stored, "d", y_score=score, y_true=None, features=rows)
    assert one.decided
    assert one.value == pytest.approx(0.08, abs=0.02)
    bare = fit_level("mae", found)
    lost = performance_on("mae", bare, "d", y_score=score, y_true=None)
    assert lost.problem == "the features of the champion's holdout are gone"


def test_performances_survive_the_way_through_metadata() -> None:
    level = fit_level("roc_auc", holdout())
    document = json.loads(json.dumps(compact([level.expected])))
    (back,) = expanded(document)
    assert back.value == pytest.approx(level.expected.value, rel=1e-7)
    assert expanded(compact([])) == ()
