"""Prediction drift and label drift: evidence beside the features."""

import json

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import DriftReport, build_profile, compare
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.multivariate import compare_jointly
from retrain_assets.drift.outcomes import label_drift, prediction_drift, unscorable
from retrain_assets.drift.report import Sections
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Drift, Multivariate


def _table(seed, n=600, rate=0.3, shift=0.0, **columns):
    rng = np.random.default_rng(seed)
    late = rng.random(n) < rate
    return pa.table(
        {"x": rng.normal(shift, 1, n), "noise": rng.normal(size=n), "late": late, **columns}
    )


def _report(reference, current, sections):
    names = {"reference_name": "r", "current_name": "c"}
    return compare(reference, current, Drift(), columns=["noise"], **names).completed(sections)


def test_scores_that_moved_are_told_and_are_no_feature():
    rng = np.random.default_rng(1)
    reference = pa.table({"noise": rng.normal(size=600), "__score__": rng.beta(2, 4, 600)})
    current = pa.table({"noise": rng.normal(size=600)})
    (row,) = prediction_drift(reference, rng.beta(4, 2, 600), Drift())
    assert (row.feature, row.drifted) == ("score", True)
    assert row.reasons[0].startswith("the champion's score moved: mean 0.328 → 0.665")
    report = _report(reference.select(["noise"]), current, Sections(prediction=(row,)))
    assert (report.verdict, report.share_drifted) == ("stable", 0)
    assert report.reasons[-1] == row.reasons[0]
    assert DriftReport.from_json(report.to_json()) == report


def test_a_champion_that_cannot_score_is_told_and_can_be_stored():
    row = unscorable(_table(1), 600, "feature 'x' was trained as number")
    report = _report(_table(1), _table(2), Sections(prediction=(row,)))
    assert report.reasons[-1].startswith(
        "the champion cannot score the 600 current rows: feature 'x'"
    )
    assert DriftReport.from_json(report.to_json()) == report


def test_a_multivariate_finding_makes_a_stable_report_drifted_and_is_told_first():
    joint = compare_jointly(
        ArrowSource(_table(1)), ArrowSource(_table(2, shift=1.5)), Multivariate(auc=0.6),
        columns=["x", "noise"], min_rows=100,
    )  # fmt: skip
    report = _report(_table(1), _table(2), Sections(multivariate=joint))
    assert report.verdict == "drifted"
    assert report.reasons[0].startswith("all columns together: told apart")
    assert "0 of 1 feature drifted" in report.reasons[1]
    assert DriftReport.from_json(report.to_json()) == report
    undecided = _report(_table(1), _table(2, n=50), Sections(multivariate=joint))
    assert undecided.verdict == "undecided"


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
