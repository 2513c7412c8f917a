"""Reports over time: the matrix feature by partition, and which features are plotted."""

import json

import numpy as np
import pytest

from retrain_assets.drift.history import CEILING, drift_history, followed_features
from retrain_assets.drift.report import DriftReport, FeatureDrift, ReportSummary
from retrain_assets.errors import DriftError

DAYS = [f"2013-03-{day:02}" for day in range(1, 7)]


def _row(name, severity, drifted=False, importance=None):
    return FeatureDrift(name, "numeric", 9, 9, drifted, severity, None, None, {}, (), importance)


def _stored(*rows, **fields):
    return ReportSummary.from_document(json.loads(_report(*rows, **fields).to_json()))


def _report(*rows, verdict="stable", reference="champion v1"):
    return DriftReport(verdict, ("why",), rows, 9, 9, 0.0, 0.0, reference, "now")


def test_the_feature_that_drifted_most_often_is_first_then_the_more_severe():
    reports = {
        DAYS[0]: _stored(_row("often", 1.1, True), _row("calm", 0.1), _row("loud", 9.0)),
        DAYS[1]: _stored(_row("often", 1.2, True), _row("calm", 0.1), _row("loud", 9.0)),
        DAYS[2]: _stored(_row("often", 0.2), _row("calm", 0.1), _row("once", 3.0, True)),
    }
    history = drift_history(reports, DAYS[:3])
    assert history.features == ("often", "once", "loud", "calm")
    assert history.severity[0].tolist() == [1.1, 1.2, 0.2]
    assert history.drifted[0].tolist() == [True, True, False]
    assert np.isnan(history.severity[1]).tolist() == [True, True, False]


def test_a_partition_without_a_report_is_a_gap_and_the_time_before_the_first_is_left_out():
    reports = {
        DAYS[1]: _stored(_row("x", 1.0), reference="champion v1"),
        DAYS[3]: _stored(_row("x", 2.0, True), verdict="drifted", reference="champion v2"),
    }
    history = drift_history(reports, DAYS[:4])
    assert history.partitions == tuple(DAYS[1:4])
    assert history.verdicts == ("stable", None, "drifted")
    assert history.references == ("champion v1", None, "champion v2")
    assert np.isnan(history.severity[0]).tolist() == [False, True, False]


def test_features_beyond_the_limit_are_counted_and_severity_has_a_ceiling():
    reports = {DAYS[0]: _stored(*(_row(f"x{i:02}", float("inf")) for i in range(33)))}
    history = drift_history(reports, DAYS[:1])
    assert history.features == tuple(f"x{i:02}" for i in range(30))
    assert history.n_left_out == 3
    assert set(history.severity.ravel().tolist()) == {CEILING}


def test_no_report_at_all_is_an_empty_history():
    history = drift_history({}, DAYS)
    assert (history.partitions, history.features, history.severity.shape) == ((), (), (0, 0))


def test_a_limit_below_one_shows_nothing_and_is_refused():
    with pytest.raises(DriftError, match="limit: must be >= 1, got 0"):
        drift_history({}, DAYS, 0)


def test_the_plotted_features_do_not_follow_the_severity_of_the_day():
    names = [f"x{i:02}" for i in range(15)]
    rng = np.random.default_rng(0)

    def plotted(importance):
        rows = [_row(name, float(rng.gamma(1)), False, importance(name)) for name in names]
        return {row.feature for row in followed_features(_report(*rows))}

    by_name = [plotted(lambda _: None) for _ in range(5)]
    assert by_name == [set(names[:10])] * 5
    by_weight = [plotted(lambda name: float(name == "x14")) for _ in range(5)]
    assert by_weight == [{*names[:9], "x14"}] * 5


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"version": 99, "features": []}, "version must be .*, got 99"),
        ({"version": 2}, "not a stored report: KeyError.'features'"),
        ([], "not a stored report"),
    ],
)
def test_what_is_no_stored_report_is_refused(document, told):
    with pytest.raises(DriftError, match=told):
        ReportSummary.from_document(document)
