"""The published rates: how often nothing is called drift, and how surely drift is found."""

import numpy as np
import pyarrow as pa

from retrain_assets.drift import compare
from retrain_assets.spec.model import Drift

NUMERIC = ["normal", "cauchy", "poisson", "amounts", "nulls"]


def _table(rng, n, shift=0.0):
    return pa.table(
        {
            "normal": rng.normal(shift, size=n),
            "cauchy": rng.standard_cauchy(n) + shift * 2,
            "poisson": rng.poisson(4, n) + round(2 * shift),
            "amounts": np.where(rng.random(n) < 0.4, 0, rng.gamma(2, 9, n)) + 14 * shift,
            "nulls": pa.array(rng.normal(shift, size=n), mask=rng.random(n) < 0.1),
            "few": rng.choice(list("abcd"), n, p=[0.6, 0.25, 0.1, 0.05]),
            "flag": rng.random(n) < 0.03,
            "zipf": [f"c{i}" for i in rng.zipf(1.3, n) % 5000],
            "codes": [f"c{i:03d}" for i in rng.integers(0, 400, n)],
            "identifiers": [f"i{i}" for i in rng.integers(0, 10**12, n)],
        }
    )


def _report(reference, current):
    return compare(
        reference, current, Drift(), columns=reference.column_names,
        reference_name="reference", current_name="current",
    )  # fmt: skip


def test_no_drift_is_called_drift_in_at_most_one_of_a_hundred_reports():
    rng = np.random.default_rng(20130101)
    reports = []
    for _ in range(200):
        n, m = (int(np.exp(rng.uniform(np.log(200), np.log(2000)))) for _ in range(2))
        reports.append(_report(_table(rng, n), _table(rng, m)))
    assert sum(report.verdict == "drifted" for report in reports) <= 2
    assert sum(len(report.drifted_features) for report in reports) <= 0.005 * 2000


def test_no_drift_in_the_smallest_samples_is_rarely_called_drift():
    rng = np.random.default_rng(7)
    reports = [_report(_table(rng, 100), _table(rng, 100)) for _ in range(100)]
    reports += [_report(_table(rng, 3000), _table(rng, 100)) for _ in range(100)]
    assert sum(report.verdict == "drifted" for report in reports) <= 2
    assert sum(len(report.drifted_features) for report in reports) <= 0.005 * 2000


def test_a_shift_by_one_standard_deviation_in_half_of_the_columns_is_always_found():
    rng = np.random.default_rng(99)
    for _ in range(40):
        report = _report(_table(rng, 500), _table(rng, 500, shift=1.0))
        assert report.verdict == "drifted"
        assert set(NUMERIC) <= set(report.drifted_features)
