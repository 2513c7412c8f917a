"""Metadata of a drift report: small, with series that go on from partition to partition."""

import json

import dagster as dg
import numpy as np
import pytest

from retrain_assets.drift.history import drift_history
from retrain_assets.drift.measure import Picture
from retrain_assets.drift.report import DriftReport, FeatureDrift, ReportSummary
from retrain_assets.drift.watch import Watched
from retrain_assets.orchestration.metadata import drift_metadata

DAYS = [f"2013-{month:02}-{day:02}" for month in (3, 4) for day in range(1, 31)]
NAMES = [f"feature_{i:02}" for i in range(40)]
PICTURE = Picture([float(i) for i in range(41)], None, list(range(40)), list(range(40)), "number")


def _watched(day, verdict="stable"):
    rng = np.random.default_rng(int(day.replace("-", "")))
    rows = tuple(
        FeatureDrift(name, "numeric", 9, 9, False, severity, 0.1, 0.1, {"ks": 0.1}, ("`x`: why",))
        for name, severity in zip(NAMES, rng.gamma(1, 5, len(NAMES)), strict=True)
    )
    report = DriftReport(verdict, ("why",), rows, 9, 9, 0.0, 0.25, "champion v1", day)
    return Watched(day, report, False, False, dict.fromkeys(NAMES, PICTURE))


def _history():
    return drift_history(
        {
            day: ReportSummary.from_document(json.loads(_watched(day).report.to_json()))
            for day in DAYS
        },
        DAYS,
    )


def test_every_partition_has_the_same_numbers_so_that_lines_go_on():
    numbers = [
        {name for name, value in drift_metadata(_watched(day)).items() if isinstance(value, float)}
        for day in DAYS[:5]
    ]
    assert numbers == [numbers[0]] * 5
    assert numbers[0] == {
        "drift_score", "share_drifted", "severity_max",
        *(f"severity/{name}" for name in NAMES[:10]),
    }  # fmt: skip


def test_severities_are_plotted_up_to_ten_thresholds():
    values = drift_metadata(_watched(DAYS[0]))
    assert values["severity_max"] == 10.0
    assert max(v for k, v in values.items() if k.startswith("severity/")) <= 10.0


@pytest.mark.parametrize(
    ("verdict", "newest", "drawn"),
    [("stable", False, False), ("drifted", False, True), ("stable", True, True)],
)
def test_distributions_are_drawn_where_there_is_something_to_see(verdict, newest, drawn):
    values = drift_metadata(_watched(DAYS[0], verdict), _history() if newest else None)
    assert ("data:image" in values["report"].value) is drawn
    assert ("heat_map" in values) is newest


def test_all_metadata_of_the_newest_partition_stays_small():
    values = drift_metadata(_watched(DAYS[-1]), _history())
    entries = dg.AssetMaterialization("x", metadata=values).metadata
    assert len(json.dumps({name: str(value.value) for name, value in entries.items()})) < 80_000


def test_an_unpartitioned_report_has_its_distributions_and_no_history():
    stable = _watched(DAYS[0])
    values = drift_metadata(Watched(None, stable.report, False, False, stable.pictures))
    assert "data:image" in values["report"].value
    assert "heat_map" not in values
