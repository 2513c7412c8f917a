"""The stored form of a report: what is written is what is read, and nothing else is accepted."""

import json
from math import inf, isnan, nan

import pytest

from retrain_assets.drift import DriftReport, FeatureDrift, drift_score
from retrain_assets.errors import DriftError


def _feature(name="dep_hour", severity=1.5, drifted=True, **changes):
    fields = {
        "feature": name, "kind": "numeric", "n_reference": 900, "n_current": 90,
        "drifted": drifted, "severity": severity, "p_value": 1e-9, "p_adjusted": 2e-9,
        "statistics": {"ks": 0.15, "psi": 0.3}, "reasons": ("`dep_hour`: mean 13.1 → 14.9",),
    }  # fmt: skip
    return FeatureDrift(**(fields | changes))


def _report(*features, **changes):
    fields = {
        "verdict": "drifted", "reasons": ("1 of 1 feature drifted",), "features": features,
        "n_reference": 1000, "n_current": 100, "share_drifted": 1.0, "score": 0.6,
        "reference": "champion v7", "current": "2013-03-01",
    }  # fmt: skip
    return DriftReport(**(fields | changes))


def test_a_report_is_read_back_unchanged():
    quiet = _feature("b", 0.0, False, p_value=None, p_adjusted=None, reasons=())
    report = _report(_feature(), quiet)
    assert DriftReport.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["version"] == 3


def test_a_report_of_version_1_is_read():
    document = json.loads(_report(_feature()).to_json()) | {"version": 1}
    for key in ("exact", "calibrated_on"):
        del document[key]
    for key in ("importance", "usual"):
        del document["features"][0][key]
    assert DriftReport.from_json(json.dumps(document)) == _report(_feature())


def test_an_important_feature_weighs_more_in_the_score():
    rows = [_feature(severity=1.0, importance=3.0), _feature("b", 0.0, False, importance=1.0)]
    assert drift_score(rows) == 0.375


def test_features_are_kept_by_falling_severity_and_then_by_name():
    report = _report(_feature("c", 1.0), _feature("b", 1.0), _feature("a", 0.1), _feature("z", 9.0))
    assert [row.feature for row in report.features] == ["z", "b", "c", "a"]
    assert report.drifted_features == ("z", "b", "c", "a")


def test_numbers_that_json_lacks_survive():
    row = _feature(severity=inf, statistics={"ks": nan, "wasserstein": -inf})
    text = _report(row).to_json()
    json.loads(text, parse_constant=pytest.fail)
    read = DriftReport.from_json(text).features[0]
    assert read.severity == inf
    assert isnan(read.statistics["ks"])
    assert read.statistics["wasserstein"] == -inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"version": 4},
            "version must be 1, 2 or 3, got 4; read it with the release that wrote it",
        ),
        ({"version": None}, "version must be 1, 2 or 3, got None"),
        ({"version": True}, "version must be 1, 2 or 3, got True"),
        ({"verdict": "fine"}, "verdict: Input should be 'stable', 'drifted' or 'undecided'"),
        ({"n_reference": "1000"}, "n_reference: Input should be a valid integer"),
        ({"score": "0.5"}, "score: Input should be a valid number"),
        ({"colour": "red"}, "colour: Unexpected keyword argument"),
        ({"features": [{}]}, "features.0.feature: Field required; features.0.kind"),
    ],
)
def test_anything_else_is_refused_and_named(change, message):
    document = json.loads(_report(_feature()).to_json()) | change
    with pytest.raises(DriftError, match=message):
        DriftReport.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_text_that_is_no_report_is_refused(text):
    with pytest.raises(DriftError, match=r"drift report: must be (JSON|a JSON object), got"):
        DriftReport.from_json(text)


@pytest.mark.parametrize("severity", [nan, -0.1])
def test_a_severity_that_cannot_be_ordered_is_refused(severity):
    with pytest.raises(DriftError, match="'dep_hour': severity must be >= 0"):
        _feature(severity=severity)


def test_the_score_is_half_where_every_feature_sits_at_its_threshold():
    assert drift_score([_feature(severity=1.0), _feature("b", 1.0)]) == 0.5
    assert drift_score([_feature(severity=0.0, drifted=False)]) == 0
    assert drift_score([_feature(severity=inf)]) == 1


def test_one_extreme_feature_cannot_rule_the_score():
    quiet = [_feature(str(i), 0.0, False) for i in range(9)]
    assert drift_score([_feature(severity=1e9), *quiet]) == pytest.approx(0.1)


def test_an_effect_that_may_be_chance_counts_at_most_as_one_at_the_threshold():
    assert drift_score([_feature(severity=40.0, drifted=False)]) == 0.5
