"""Prediction drift and label drift: evidence beside the features."""

import json

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import DriftReport, build_profile, compare
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.outcomes import extra_drift, label_drift, prediction_drift
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Drift, ModelSpec

SPEC = ModelSpec(
    name="flights", description="d", owner="team:a", partitions="none", target="late", task="binary",
    source={"python": "a:b", "available": "a:c"}, train={"holdout": 0.2},
    drift={"multivariate": {"auc": 0.6}, "exclude": ["noise"]},
)  # fmt: skip


def _table(seed, n=600, rate=0.3, shift=0.0, **columns):
    rng = np.random.default_rng(seed)
    late = rng.random(n) < rate
    return pa.table(
        {"x": rng.normal(shift, 1, n), "noise": rng.normal(size=n), "late": late, **columns}
    )


def _scored(table, scale=1.0):
    x = table["x"].to_numpy()
    return 1 / (1 + np.exp(-scale * x))


def test_all_sections_of_a_drifted_partition():
    reference = _table(1)
    reference = reference.append_column("__score__", pa.array(_scored(reference)))
    current = _table(2, rate=0.7, shift=1.5)
    sections = extra_drift(SPEC, reference, current, _scored, ["x", "noise"])
    assert sections.multivariate.verdict == "drifted"
    assert list(sections.multivariate.shares) == ["x"]
    (scores,) = sections.prediction
    assert scores.feature == "score"
    assert scores.drifted
    assert scores.reasons[0].startswith("the champion's score moved: mean 0.486 → 0.772")
    assert sections.label.drifted
    assert sections.label.reasons[0].startswith("the target `late` moved: 'true' ")
    report = compare(
        reference, current, Drift(), columns=["noise"], reference_name="r", current_name="c"
    ).completed(sections)
    assert report.verdict == "drifted"
    assert "all columns together" in report.reasons[0]
    assert report.reasons[-2:] == (scores.reasons[0], sections.label.reasons[0])
    assert report.share_drifted == 0
    assert DriftReport.from_json(report.to_json()) == report


def test_scores_and_labels_alone_do_not_make_a_partition_drifted():
    reference, current = _table(1), _table(2, rate=0.9)
    spec = SPEC.model_copy(update={"drift": Drift()})
    sections = extra_drift(spec, reference, current, None, ["x"])
    assert sections.multivariate is None
    report = compare(
        reference, current, Drift(), columns=["x"], reference_name="r", current_name="c"
    ).completed(sections)
    assert report.label.drifted
    assert (report.verdict, report.share_drifted) == ("stable", 0)
    assert "the target `late` moved" in report.reasons[-1]


def test_the_champion_is_not_asked_without_its_training_scores_or_with_too_few_rows():
    def refuse(table):
        raise AssertionError("asked")

    reference = _table(1)
    assert extra_drift(SPEC, reference, _table(2), refuse, ["x"]).prediction == ()
    reference = reference.append_column("__score__", pa.array(_scored(reference)))
    assert extra_drift(SPEC, reference, _table(2, n=50), refuse, ["x"]).prediction == ()


def test_every_class_of_a_multiclass_model_is_a_row():
    rng = np.random.default_rng(1)
    before = rng.dirichlet([2, 2, 2], 500)
    reference = pa.table({f"__score__{place}": before[:, place] for place in range(3)})
    rows = prediction_drift(reference, rng.dirichlet([2, 2, 9], 500), Drift())
    assert [row.feature for row in rows] == ["score 0", "score 1", "score 2"]
    assert rows[2].drifted
    with pytest.raises(DriftError, match="gives 1 scores per row, its training rows have 3"):
        prediction_drift(reference, before[:, 0], Drift())


def test_equal_scores_and_labels_are_not_drifted_and_say_nothing():
    reference, current = _table(1), _table(2)
    row = label_drift(reference, current, Drift(), "late")
    assert (row.drifted, row.reasons) == (False, ())
    assert row.statistics["cramers_v"] < 0.1


@pytest.mark.parametrize("labels", [pa.nulls(600), pa.nulls(600, pa.bool_()), None])
def test_labels_that_are_not_there_yet_are_said_and_are_no_drift(labels):
    current = _table(2).drop_columns(["late"])
    if labels is not None:
        current = current.append_column("late", labels)
    row = label_drift(_table(1), current, Drift(), "late")
    assert (row.drifted, row.severity, row.n_current) == (False, 0.0, 0)
    assert row.reasons == ("labels of `late` are not there yet",)


def test_labels_that_have_come_in_part_are_compared_with_what_there_is():
    late = np.random.default_rng(4).random(600) < 0.3
    some = _table(2).set_column(2, "late", pa.array(late, mask=np.arange(600) > 300))
    row = label_drift(_table(1), some, Drift(), "late")
    assert (row.drifted, row.n_current) == (False, 301)
    few = _table(2).set_column(2, "late", pa.array(late, mask=np.arange(600) > 30))
    assert label_drift(_table(1), few, Drift(), "late").reasons == (
        "`late`: 600 and 31 labels, 100 are needed on either side",
    )


def test_a_label_is_compared_with_a_stored_profile():
    profile = build_profile(ArrowSource(_table(1)))
    assert not label_drift(profile, _table(2), Drift(), "late").drifted
    assert label_drift(profile, _table(2, rate=0.9), Drift(), "late").drifted


def test_a_number_as_target_is_compared_as_a_number():
    rng = np.random.default_rng(3)
    before, after = (pa.table({"sales": rng.gamma(2, scale, 800)}) for scale in (10, 15))
    row = label_drift(before, after, Drift(), "sales")
    assert row.reasons[0].startswith("the target `sales` moved: mean 2")


def test_a_target_that_changed_its_type_has_drifted():
    after = _table(2).set_column(2, "late", pa.array(["yes", "no"] * 300))
    row = label_drift(_table(1), after, Drift(), "late")
    assert "the target `late` moved: was boolean" in row.reasons[0]


def test_a_target_that_is_nowhere_is_named():
    with pytest.raises(DriftError, match="'churned': is in neither table"):
        label_drift(_table(1), _table(2), Drift(), "churned")


def test_reports_of_version_2_are_read():
    report = compare(
        _table(1), _table(2), Drift(), columns=["x"], reference_name="r", current_name="c"
    )
    document = json.loads(report.to_json()) | {"version": 2}
    for key in ("multivariate", "prediction", "label"):
        del document[key]
    assert DriftReport.from_json(json.dumps(document)) == report
