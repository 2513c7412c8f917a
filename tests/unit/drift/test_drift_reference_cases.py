"""The 16 column pairs with exact values that were computed before the first line of this package."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import compare
from retrain_assets.spec.model import Drift

CASES = Path(__file__).parents[3].parent / "shared" / "bench" / "drift" / "drift_cases.json"


def _cases():
    return json.loads(CASES.read_text())["cases"] if CASES.exists() else []


pytestmark = pytest.mark.skipif(
    not CASES.exists(), reason=f"{CASES} is not on this machine: exact values to compare with"
)


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["name"])
def test_a_report_holds_the_exact_statistics_of_the_case(case):
    kind = pa.float64() if case["kind"] == "num" else pa.string()
    tables = [pa.table({"x": pa.array(case[side], kind)}) for side in ("reference", "current")]
    # model_copy does not validate: the smallest cases lie below the least min_rows that a spec may ask for.
    spec = Drift().model_copy(update={"min_rows": 1})
    report = compare(*tables, spec, columns=["x"], reference_name="a", current_name="b")
    row, exact = report.features[0], case["exact"]
    found = row.statistics
    assert (row.n_reference, row.n_current) == (exact["n_ref"], exact["n_cur"])
    assert found["null_rate_reference"] == pytest.approx(exact["null_ref"], abs=1e-9)
    assert found["null_rate_current"] == pytest.approx(exact["null_cur"], abs=1e-9)
    assert found["js"] == pytest.approx(exact["js"], abs=1e-9)
    if case["kind"] == "num":
        assert found["ks"] == pytest.approx(exact["ks"], abs=1e-9)
        assert found["wasserstein"] == pytest.approx(exact["w1"], abs=1e-9, rel=1e-9)
        if exact["w1_norm"] is None:
            assert "wasserstein_scaled" not in found
        else:
            assert found["wasserstein_scaled"] == pytest.approx(exact["w1_norm"], rel=1e-9)
    else:
        assert found["chi2"] == pytest.approx(exact["chi2"], abs=1e-9)
        present = [value for value in case["current"] if value is not None]
        new = np.isin(present, exact["new_categories"]).mean() if exact["new_categories"] else 0
        assert found["unseen"] == pytest.approx(new, abs=1e-9)
        assert all(name in " ".join(row.reasons) for name in exact["new_categories"])


EXPECTED_DRIFT = {
    "mean_shift_0.5", "disjoint", "nulls_ref10_cur40", "binary_number", "constant_changed",
    "huge_offset", "cat_shift", "cat_unseen", "cat_nulls",
}  # fmt: skip


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["name"])
def test_a_case_drifts_exactly_where_its_maker_moved_something(case):
    kind = pa.float64() if case["kind"] == "num" else pa.string()
    tables = [pa.table({"x": pa.array(case[side], kind)}) for side in ("reference", "current")]
    spec = Drift().model_copy(update={"min_rows": 10})
    report = compare(*tables, spec, columns=["x"], reference_name="a", current_name="b")
    expected = "drifted" if case["name"] in EXPECTED_DRIFT else "stable"
    assert report.verdict == ("undecided" if case["name"] == "tiny_3_vs_2" else expected)
