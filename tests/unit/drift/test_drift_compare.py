"""The decision rule on tables: kinds, nulls, schema changes, too little data, the alarm."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import DriftReport, alarm, compare
from retrain_assets.drift.columns import category_counts, column_family, numeric_values
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Alarm, Drift, Thresholds


def _compare(reference, current, columns=None, **spec):
    tables = [
        side if isinstance(side, pa.Table) else pa.table(side) for side in (reference, current)
    ]
    names = columns if columns is not None else tables[0].column_names
    report = compare(
        *tables, Drift(**spec), columns=names, reference_name="v7", current_name="today"
    )
    assert DriftReport.from_json(report.to_json()) == report
    return report


def _one(reference, current, **spec):
    report = _compare({"x": reference}, {"x": current}, **spec)
    assert len(report.features) == 1
    return report.features[0]


@pytest.fixture
def rng():
    return np.random.default_rng(42)


def test_a_shifted_mean_is_told_in_plain_words(rng):
    row = _one(rng.normal(13, 3, 2000), rng.normal(15, 3, 1000))
    assert row.drifted
    assert row.reasons[0].startswith("`x`: mean 12.8 → 15.1, KS 0.31 (threshold 0.10), PSI ")
    assert row.p_adjusted < 1e-9


def test_a_significant_but_tiny_effect_is_not_drift(rng):
    row = _one(rng.normal(size=50_000), rng.normal(0.06, size=50_000))
    assert row.p_adjusted < 1e-6
    assert (row.drifted, row.reasons) == (False, ())
    assert 0 < row.severity < 1


def test_a_large_effect_that_may_be_chance_is_not_drift():
    row = _one(np.arange(10.0), np.arange(10.0) + 2, min_rows=10)
    assert row.statistics["ks"] == pytest.approx(0.2)
    assert not row.drifted


def test_one_outlier_is_not_drift(rng):
    current = rng.normal(size=500)
    current[0] = 1e6
    row = _one(rng.normal(size=500), current)
    assert row.severity > 1
    assert not row.drifted


def test_a_changed_mix_of_categories_names_the_one_that_moved_most(rng):
    row = _one(rng.choice(["AA", "UA", "B6"], 1000, p=[0.5, 0.3, 0.2]),
               rng.choice(["AA", "UA", "B6"], 1000, p=[0.1, 0.7, 0.2]))  # fmt: skip
    assert row.kind == "categorical"
    assert "Cramér's V 0.4" in row.reasons[0]
    assert row.reasons[0].startswith(("`x`: 'AA' 5", "`x`: 'UA' "))


def test_drift_against_a_far_larger_reference_is_found(rng):
    """The usual Cramér's V cannot reach 0.1 here: it shrinks with the imbalance of the sizes."""
    row = _one(
        rng.choice(list("ab"), 100_000, p=[0.9, 0.1]), rng.choice(list("ab"), 300, p=[0.7, 0.3])
    )
    assert row.drifted


def test_new_categories_are_named_the_most_frequent_first(rng):
    reference = rng.choice(list("abc"), 1000)
    current = np.concatenate([rng.choice(list("abc"), 950), ["new1"] * 20, ["new2"] * 30])
    row = _one(reference, current)
    assert row.statistics["unseen"] == 0.05
    assert "5.0% in categories that the reference lacks: 'new2', 'new1'" in row.reasons[-1]


@pytest.mark.parametrize("m", [1000, 150])
def test_serial_numbers_that_are_always_new_are_not_drift(m):
    row = _one(
        [f"order {i:06d}" for i in range(1000)], [f"order {i:06d}" for i in range(1000, 1000 + m)]
    )
    assert row.statistics["unseen"] == 1
    assert not row.drifted


def test_half_of_many_rare_categories_vanishing_is_seen(rng):
    row = _one([f"c{i:03d}" for i in rng.integers(0, 400, 2000)],
               [f"c{i:03d}" for i in rng.integers(0, 200, 2000)])  # fmt: skip
    assert row.drifted


def test_a_change_of_nulls_alone_is_drift_and_nan_is_null(rng):
    values = rng.normal(size=1000)
    with_nan = np.where(rng.random(1000) < 0.3, np.nan, rng.normal(size=1000))
    row = _one(values, with_nan)
    assert row.drifted
    assert row.statistics["null_rate_current"] == np.isnan(with_nan).mean()
    assert row.n_current == np.isfinite(with_nan).sum()
    assert len(row.reasons) == 1
    assert row.reasons[0].startswith("`x`: null rate 0.0% → ")


def test_fewer_nulls_are_a_change_too():
    assert _one([None] * 100 + [1.0] * 300, [1.0] * 400).drifted


def test_a_column_missing_from_current_is_drifted():
    report = _compare({"x": np.arange(200.0), "y": ["a"] * 200}, {"y": ["a"] * 200})
    row = report.features[0]
    assert (row.feature, row.drifted, row.severity) == ("x", True, 20)
    assert row.reasons == ("`x`: missing from current",)
    assert row.p_value is None
    assert "`x`: missing from current" in report.reasons


def test_a_column_only_in_current_is_named_but_not_compared():
    report = _compare(
        {"x": np.arange(200.0)}, {"x": np.arange(200.0), "new": [1] * 200}, columns=["x", "new"]
    )
    assert [row.feature for row in report.features] == ["x"]
    assert "only in today, not compared: `new`" in report.reasons
    assert report.verdict == "stable"


@pytest.mark.parametrize(
    ("reference", "current", "words"),
    [
        (
            pa.array(range(200)),
            pa.array(map(str, range(200))),
            "was number (int64), is text (string)",
        ),
        (pa.array([True] * 200), pa.array(["yes"] * 200), "was boolean (bool), is text (string)"),
        (pa.array(range(200), pa.timestamp("s")), pa.array(range(200)), "was timestamp"),
    ],
)
def test_a_changed_type_is_drifted(reference, current, words):
    row = _one(reference, current)
    assert row.drifted
    assert words in row.reasons[0]


@pytest.mark.parametrize("width", [pa.int8(), pa.float32(), pa.decimal128(30, 2), pa.uint64()])
def test_a_number_of_another_width_is_the_same_number(width):
    row = _one(pa.array([1, 2, 3, 4] * 50), pa.array([1, 2, 3, 4] * 50).cast(width))
    assert row.kind == "numeric"
    assert row.statistics["ks"] == 0
    assert (row.drifted, row.severity) == (False, 0)


@pytest.mark.parametrize(
    "empty",
    [
        pa.nulls(200),
        pa.nulls(200, pa.string()),
        pa.array([float("nan")] * 200),
        pa.nulls(200, pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_an_empty_column_of_whatever_type_is_judged_on_its_nulls(empty):
    lost = _one(pa.array(["a"] * 200), empty)
    assert lost.kind == "categorical"
    assert lost.reasons[0] == "`x`: null rate 0.0% → 100.0% (threshold 5.0%)"
    assert "judged on its null rate alone" in lost.reasons[1]
    came = _one(empty, pa.array([1.5] * 200))
    assert (came.kind, came.drifted) == ("numeric", True)
    both = _one(empty, empty)
    assert (both.drifted, both.severity, both.p_value) == (False, 0, None)


def test_too_few_values_are_judged_on_the_null_rate_alone(rng):
    mask = np.arange(300) % 10 != 0
    row = _one(
        pa.array(rng.normal(0, 1, 300), mask=mask), pa.array(rng.normal(9, 1, 300), mask=mask)
    )
    assert not row.drifted
    assert "ks" not in row.statistics
    assert row.reasons == (
        "`x`: 30 and 30 non-null values, min_rows is 100: judged on its null rate alone",
    )


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 500), (500, 0), (99, 500), (500, 99)])
def test_too_few_rows_are_undecided_and_never_stable(n, m):
    report = _compare({"x": np.zeros(n), "y": ["a"] * n}, {"x": np.ones(m), "y": ["b"] * m})
    assert report.verdict == "undecided"
    assert report.reasons[0].startswith("too few rows: ")
    assert report.reasons[0].endswith("min_rows is 100")
    assert report.drifted_features == ()


def test_nothing_to_compare_is_undecided():
    report = _compare({"x": np.zeros(200)}, {"x": np.zeros(200)}, exclude=("x",))
    assert (report.verdict, report.score, report.share_drifted) == ("undecided", 0, 0)


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "drifted"), (0.51, "stable")])
def test_the_verdict_follows_the_share_of_drifted_features(share, verdict):
    report = _compare(
        {"x": np.arange(200.0), "y": np.arange(200.0)},
        {"x": np.arange(200.0) + 100, "y": np.arange(200.0)},
        alert=Alarm(share_of_features=share),
    )
    assert (report.verdict, report.share_drifted) == (verdict, 0.5)
    assert report.reasons[0].startswith("1 of 2 features drifted (50%")


def test_thresholds_and_alpha_come_from_the_spec(rng):
    sides = rng.normal(size=400), rng.normal(0.6, size=400)
    assert _one(*sides).drifted
    lax = Thresholds(ks=0.9, wasserstein=9, psi=9)
    assert not _one(*sides, thresholds=lax).drifted
    assert not _one(*sides, alpha=1e-30).drifted


def test_multiple_tests_are_corrected_over_all_features(rng):
    alone = _one(rng.normal(size=200), rng.normal(0.2, size=200))
    reference = {f"x{i}": rng.normal(size=200) for i in range(20)}
    report = _compare(reference, {name: rng.normal(size=200) for name in reference})
    assert alone.p_adjusted == alone.p_value
    assert any(row.p_adjusted > row.p_value for row in report.features)


def test_integers_beyond_the_precision_of_floats_are_told_apart():
    base = 2**60
    row = _one([base + i % 2 for i in range(400)], [base + 2 + i % 2 for i in range(400)])
    assert row.statistics["ks"] == 1
    assert row.statistics["wasserstein"] == 2
    unsigned = pa.array([2**64 - 1 - i % 2 for i in range(400)], pa.uint64())
    assert _one(unsigned, unsigned).statistics["ks"] == 0


def test_the_widest_numbers_and_infinities_never_crash(rng):
    wide = [-(2**63), 2**63 - 1] * 100
    assert _one(wide, wide).severity == 0
    huge = np.concatenate([[1.7e308, -1.7e308], rng.normal(size=300)])
    assert _one(huge, huge * 0.5).statistics["wasserstein"] > 1e304
    mixed = np.where(rng.random(400) < 0.5, np.inf, rng.normal(size=400))
    assert _one(rng.normal(size=400), mixed).drifted
    assert "wasserstein" not in _one(np.full(200, np.inf), np.full(200, np.inf)).statistics
    tiny = np.full(200, 5e-324)
    assert _one(tiny, tiny).severity == 0


def test_a_constant_that_changes_is_drift_and_rounding_is_not():
    row = _one([0.1] * 200, [0.1] * 200)
    assert row.severity == 0
    moved = _one([0.1] * 200, [0.2] * 200)
    assert moved.drifted
    assert "wasserstein_scaled" not in moved.statistics


def test_times_are_numbers_and_told_as_dates():
    start = datetime(2013, 1, 5, tzinfo=UTC)
    days = [start + timedelta(hours=i) for i in range(200)]
    row = _one(days, [day + timedelta(days=30) for day in days])
    assert row.kind == "numeric"
    assert "mean 2013-01-09 03:30:00 → 2013-02-08 03:30:00" in row.reasons[0]
    assert row.statistics["wasserstein"] == pytest.approx(30 * 86400)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([date(1970, 1, 3), None], pa.date32(), [172800.0]),
        ([date(1970, 1, 3)], pa.date64(), [172800.0]),
        ([datetime(1970, 1, 1, 0, 0, 1, 500_000)], pa.timestamp("us"), [1.5]),
        ([1_500_000_000], pa.timestamp("ns", "UTC"), [1.5]),
        ([time(0, 1)], pa.time32("s"), [60.0]),
        ([time(0, 1)], pa.time64("us"), [60.0]),
        ([timedelta(hours=1)], pa.duration("ms"), [3600.0]),
        ([Decimal("1.25")], pa.decimal128(9, 2), [1.25]),
        ([np.float16(0.5), None, np.float16("nan")], pa.float16(), [0.5]),
    ],
)
def test_values_of_every_numeric_type_are_read_in_their_unit(values, kind, expected):
    found = numeric_values(pa.chunked_array([pa.array(values, kind)]))
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b", "a"]),
        pa.array(["a", None, "b", "a"], pa.large_string()),
        pa.array(["a", None, "b", "a"], pa.string_view()),
        pa.array(["a", None, "b", "a"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["a", None, "b"])),
    ],
)
def test_categories_of_every_encoding_are_counted_alike(column):
    assert column_family(column.type) == "text"
    assert category_counts(pa.chunked_array([column])) == {"a": 2, "b": 1}


def test_booleans_are_categories():
    assert category_counts(pa.chunked_array([[True, False, True, None]])) == {"true": 2, "false": 1}


def test_every_column_that_cannot_be_compared_is_named_at_once():
    twice = pa.table([[1], [2], [[1]], [b"x"]], names=["t", "t", "list", "bytes"])
    with pytest.raises(DriftError) as caught:
        _compare(twice, {"list": [[1]]}, columns=["t", "list", "bytes", "absent"])
    message = str(caught.value)
    assert "'t': must be unique, occurs more than once in reference" in message
    assert "'list': type list<" in message
    assert "'bytes': type binary in reference cannot be compared" in message
    assert "'absent': is in neither table" in message
    assert message.endswith("Correct them or name them in drift.exclude")


def test_an_excluded_column_may_be_anything():
    report = _compare({"x": np.zeros(200), "l": [[1]] * 200}, {"x": np.zeros(200)}, exclude=("l",))
    assert [row.feature for row in report.features] == ["x"]


@pytest.mark.parametrize(
    ("verdicts", "raised"),
    [
        ([], False),
        (["drifted"], False),
        (["drifted", "drifted"], True),
        (["drifted", "undecided", "drifted"], True),
        (["drifted", "stable", "undecided", "drifted"], False),
        (["drifted", "drifted", "stable", "stable", "stable"], False),
    ],
)
def test_the_alarm_is_two_of_the_last_three(verdicts, raised):
    assert alarm(verdicts, Alarm(of_last=3, at_least=2)) is raised


def test_an_unknown_verdict_is_refused():
    with pytest.raises(DriftError, match="must be one of stable, drifted, undecided, got 'ok'"):
        alarm(["ok"], Alarm())
