"""Thresholds calibrated on the reference's own partitions: ordinary seasons are not drift."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from retrain_assets.drift import TableProfile, build_profile, calibrate, compare
from retrain_assets.drift.calibration import _thinned, prediction_limit, t_quantile
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.stored import merge_profiles
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Alarm, Drift, Thresholds

_SMALL = Thresholds(ks=0.05, psi=0.05, wasserstein=0.05)
SPEC = Drift(alert=Alarm(share_of_features=0.4))


@pytest.mark.parametrize("dof", [7, 8, 11, 20, 29])
@pytest.mark.parametrize("tail", [0.1, 0.01, 1e-3, 1e-4, 1e-6])
def test_students_quantile(dof, tail):
    assert t_quantile(tail, dof) == pytest.approx(stats.t.isf(tail, dof), rel=1e-4)


@pytest.mark.parametrize(
    ("draw", "power"),
    [
        (lambda rng, shape: rng.chisquare(4, shape), 1 / 3),
        (lambda rng, shape: rng.gamma(9, 0.01, shape), 1 / 3),
        (lambda rng, shape: np.sqrt(rng.chisquare(4, shape)), 2 / 3),
        (lambda rng, shape: np.abs(rng.normal(size=shape)), 2 / 3),
    ],
)
@pytest.mark.parametrize(("level", "most"), [(0.05, 0.06), (0.001, 0.0025)])
def test_the_limit_is_exceeded_as_often_as_it_says(draw, power, level, most):
    draws = draw(np.random.default_rng(4), (8000, 13)).tolist()
    exceeded = [row[-1] > prediction_limit(row[:-1], level, power) for row in draws]
    assert np.mean(exceeded) <= most
    assert level < 0.01 or np.mean(exceeded) >= level / 3


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


def _levels(levels, rng, n=300):
    tables = [pa.table({f"x{j}": rng.normal(at, 1, n) for j, at in enumerate(r)}) for r in levels]
    first = build_profile(ArrowSource(tables[0]))
    return [build_profile(ArrowSource(table), like=first) for table in tables]


def test_neighbouring_partitions_that_resemble_one_another_raise_no_alarm_after_the_reference():
    rng = np.random.default_rng(12)
    spec = Drift(thresholds=_SMALL, alert=Alarm(share_of_features=0.01, of_last=1, at_least=1))
    names = ["x0", "x1", "x2"]
    drifted, plain = 0, 0
    for _ in range(6):
        levels = np.zeros((16, 3))
        for k in range(1, 16):
            levels[k] = 0.8 * levels[k - 1] + rng.normal(0, 0.3, 3)
        parts = _levels(levels, rng)
        whole, calibration = merge_profiles(parts[:12]), calibrate(parts[:12], spec, names)
        options = {"columns": names, "reference_name": "a", "current_name": "b"}
        for part in parts[12:]:
            plain += compare(whole, part, spec, **options).verdict == "drifted"
            report = compare(whole, part, spec, calibration=calibration, **options)
            drifted += report.verdict == "drifted"
    assert plain >= 20
    assert drifted <= 1


def test_of_many_partitions_all_weekdays_are_taken_whatever_the_number():
    for n in (31, 60, 7 * 30, 365):
        days = [TableProfile(day, {}) for day in range(n)]
        thinned = [profile.rows for profile in _thinned(days)]
        assert thinned == sorted(set(thinned))
        assert len(thinned) == 30
        assert {day % 7 for day in thinned} == set(range(7))


def test_an_effect_that_only_some_partitions_have_counts_as_nothing_in_the_others():
    rng = np.random.default_rng(2)
    with_nulls = [pa.table({"x": pa.array(rng.normal(size=400), mask=rng.random(400) < share)})
                  for share in (0, 0, 0, 0.1, 0, 0, 0, 0)]  # fmt: skip
    _, parts = _profiles(with_nulls)
    found = calibrate(parts, SPEC, ["x"])
    assert found.usual["x"]["null_rate"] == pytest.approx(0.1 / 8, abs=0.02)
    assert found.limits["x"]["null_rate"] >= 0.08


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
