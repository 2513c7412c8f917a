"""Thresholds calibrated on the reference's own partitions: ordinary seasons are not drift."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from retrain_assets.drift import build_profile, calibrate, compare
from retrain_assets.drift.calibration import prediction_limit, t_quantile
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Alarm, Drift

SPEC = Drift(alert=Alarm(share_of_features=0.4))


@pytest.mark.parametrize("dof", [7, 8, 11, 20, 29])
@pytest.mark.parametrize("tail", [0.1, 0.01, 1e-3, 1e-4, 1e-6])
def test_students_quantile(dof, tail):
    assert t_quantile(tail, dof) == pytest.approx(stats.t.isf(tail, dof), rel=1e-4)


def test_the_limit_is_exceeded_as_often_as_it_says():
    rng = np.random.default_rng(4)
    draws = rng.normal(size=(4000, 10))
    exceeded = [row[-1] > prediction_limit(row[:-1].tolist(), 0.05) for row in draws]
    assert 0.02 <= np.mean(exceeded) <= 0.06


def _profiles(tables):
    whole = build_profile(ArrowSource(pa.concat_tables(tables)))
    return whole, [build_profile(ArrowSource(table), like=whole) for table in tables]


def _season(rng, k, shift=0.0):
    return pa.table(
        {
            "season": rng.normal(np.sin(2 * np.pi * k / 7) + shift, 1, 800),
            "still": rng.normal(shift, 1, 800),
        }
    )


def _report(reference, current, calibration=None):
    return compare(
        reference, current, SPEC, columns=["season", "still"], reference_name="a",
        current_name="b", calibration=calibration,
    )  # fmt: skip


def test_a_season_is_drift_until_it_is_known_and_a_real_change_stays_one():
    rng = np.random.default_rng(6)
    whole, parts = _profiles([_season(rng, k) for k in range(14)])
    calibration = calibrate(parts, SPEC, ["season", "still"])
    peak = _season(rng, 2 + 14)
    assert _report(whole, peak).drifted_features == ("season",)
    assert _report(whole, peak, calibration).drifted_features == ()
    moved = _report(whole, _season(rng, 2 + 14, shift=3.0), calibration)
    assert set(moved.drifted_features) == {"season", "still"}
    assert moved.calibrated_on == 14
    told = {row.feature: row for row in moved.features}
    assert "× its usual variation" in told["season"].reasons[0]
    assert told["season"].usual["ks"] > 0.1


def test_too_few_partitions_are_refused():
    rng = np.random.default_rng(6)
    _, parts = _profiles([_season(rng, k) for k in range(7)])
    with pytest.raises(DriftError, match="at least 8 partitions of the reference, got 7"):
        calibrate(parts, SPEC, ["season"])


def test_importance_weighs_the_share_and_wrong_weights_are_refused():
    rng = np.random.default_rng(9)
    reference, current = _season(rng, 0), _season(rng, 2)
    options = {"columns": ["season", "still"], "reference_name": "a", "current_name": "b"}
    light = compare(reference, current, SPEC, importance={"still": 9, "season": 1}, **options)
    heavy = compare(reference, current, SPEC, importance={"season": 2.0}, **options)
    assert (light.share_drifted, heavy.share_drifted) == (0.1, 1.0)
    assert (light.verdict, heavy.verdict) == ("stable", "drifted")
    assert light.score < heavy.score
    with pytest.raises(DriftError, match="importance of 'still': must be >= 0 and finite, got -1"):
        compare(reference, current, SPEC, importance={"still": -1.0}, **options)
