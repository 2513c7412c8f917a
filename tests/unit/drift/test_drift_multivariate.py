"""All columns together: what the classifier finds, what it is not shown, when it abstains."""

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift import build_profile
from retrain_assets.drift.columns import ArrowSource, sampled
from retrain_assets.drift.multivariate import (
    MIN_SAMPLE,
    compare_jointly,
    rows_of,
    separability,
    usual_separability,
)
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Multivariate

RULE = Multivariate(auc=0.6, rows=2000)


def _table(seed, n=1000, shift=0.0, **columns):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(shift, 1, n),
            "y": rng.normal(size=n),
            "flag": rng.random(n) < 0.5,
            "carrier": rng.choice(["AA", "UA", None], n),
            **columns,
        }
    )


def _joint(reference, current, rule=RULE, columns=None, **options):
    names = columns or list(dict.fromkeys([*reference.column_names, *current.column_names]))
    return compare_jointly(
        ArrowSource(reference), ArrowSource(current), rule, columns=names, min_rows=100, **options
    )


def test_equal_distributions_cannot_be_told_apart():
    found = _joint(_table(1), _table(2))
    assert found.verdict == "stable"
    assert found.low < 0.5 < found.high
    assert found.shares == {}
    assert "cannot be told apart" in found.reasons[0]


def test_a_shift_is_found_and_laid_to_the_column_that_shifted():
    found = _joint(_table(1), _table(2, shift=1.5))
    assert found.verdict == "drifted"
    # Normal samples 1.5 standard deviations apart: no classifier can do better than this.
    assert found.auc == pytest.approx(0.856, abs=0.03)
    assert next(iter(found.shares)) == "x"
    assert found.shares["x"] > 0.9
    assert "`x` (9" in found.reasons[0]


def test_both_of_two_columns_that_say_the_same_are_blamed():
    tables = [_table(1), _table(2, shift=1.5)]
    tables = [table.append_column("twin", table["x"]) for table in tables]
    shares = _joint(*tables).shares
    assert shares["x"] + shares.get("twin", 0.0) > 0.9


def test_a_change_of_correlation_alone_is_found_and_told():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 2000))
    before = pa.table({"a": a, "b": 0.8 * a + 0.6 * b, "c": rng.normal(size=2000)})
    after = pa.table(dict(zip("abc", rng.normal(size=(3, 2000)), strict=True)))
    found = _joint(before, after)
    assert found.low > 0.6
    assert set(list(found.shares)[:2]) == {"a", "b"}
    assert found.reasons[1].startswith("`a` and `b`: rank correlation 0.79 → ")


def test_a_change_of_categories_and_of_nulls_is_found():
    rng = np.random.default_rng(5)
    moved = _table(2).set_column(3, "carrier", pa.array(rng.choice(["AA", "AA", "UA"], 1000)))
    assert next(iter(_joint(_table(1), moved).shares)) == "carrier"
    holes = pa.array(rng.normal(size=1000), mask=rng.random(1000) < 0.7)
    assert next(iter(_joint(_table(1), _table(2).set_column(1, "y", holes)).shares)) == "y"


def test_what_separates_without_saying_anything_is_left_out_and_named():
    def side(start):
        places = np.arange(start, start + 1000)
        return _table(
            start,
            serial=places,
            request=[f"r-{place}" for place in places],
            session=[f"s-{place // 50}" for place in places],
            at=pa.array(places * 1000, pa.timestamp("ms")),
            day=pa.array([start // 1000] * 1000, pa.int32()),
            day_text=[f"2024-01-{start // 1000 + 1:02}"] * 1000,
            payload=[[1]] * 1000,
        )

    found = _joint(side(0), side(1000))
    assert found.verdict == "stable"
    assert found.left_out == {
        "serial": "the two ranges do not overlap",
        "request": "the sides have no value in common",
        "session": "the sides have no value in common",
        "at": "a time, which moves on by itself",
        "day": "the two ranges do not overlap",
        "day_text": "the sides have no value in common",
        "payload": "type list<item: int64> cannot be compared",
    }


def test_identifiers_that_repeat_between_the_sides_are_left_out():
    names = [f"user {place}" for place in range(1000)]
    found = _joint(_table(1, user=names), _table(2, user=names[::-1]))
    assert found.left_out == {
        "user": "no value occurs in 20 of 2,000 rows: an identifier or free text"
    }


def test_columns_of_one_side_or_of_another_type_are_left_out():
    found = _joint(
        _table(1, old=[1] * 1000, kind=[1] * 1000, gone=[1.0] * 1000),
        _table(2, new=[1] * 1000, kind=["a"] * 1000, gone=pa.nulls(1000)),
    )
    assert found.left_out == {
        "old": "in one table only",
        "new": "in one table only",
        "kind": "number in the reference, text now",
        "gone": "has values on one side only",
    }


def test_every_comparable_type_takes_part():
    rng = np.random.default_rng(7)

    def side():
        return pa.table(
            {
                "decimal": pa.array(rng.normal(size=400)).cast(pa.decimal128(12, 4), safe=False),
                "whole": pa.array(rng.integers(0, 2**63, 400, dtype=np.uint64)),
                "clock": pa.array(rng.integers(0, 86_400, 400), pa.int32()).cast(pa.time32("s")),
                "lasts": pa.array(rng.integers(0, 9000, 400), pa.duration("ms")),
                "label": pa.array(rng.choice(["a", "b"], 400)).dictionary_encode(),
                "wild": np.where(rng.random(400) < 0.1, np.inf, rng.normal(size=400)),
                "empty": pa.nulls(400),
            }
        )

    found = _joint(side(), side())
    assert found.left_out == {}
    assert found.verdict == "stable"


@pytest.mark.parametrize("n", [0, 150, MIN_SAMPLE - 1])
def test_too_few_rows_are_undecided(n):
    found = _joint(_table(1), _table(2, shift=9.0).slice(0, n))
    assert (found.verdict, found.auc, found.low) == ("undecided", None, None)
    assert f"1,000 and {n} rows, 200 are needed on either side" in found.reasons[0]


def test_without_a_column_to_compare_it_is_undecided():
    at = pa.table({"at": pa.array(range(500), pa.timestamp("s"))})
    found = _joint(at, at)
    assert found.verdict == "undecided"
    assert found.left_out == {"at": "a time, which moves on by itself"}


def test_the_same_tables_give_the_same_report_and_at_most_rows_are_drawn():
    tables = _table(1, n=5000), _table(2, n=4000, shift=0.5)
    found = _joint(*tables)
    assert found == _joint(*tables)
    assert found.n_rows == 2000


def test_the_same_rows_on_both_sides_are_no_drift():
    found = _joint(_table(1), _table(1))
    assert found.verdict == "stable"
    assert found.auc < 0.55


def test_a_profile_has_no_rows():
    made = build_profile(ArrowSource(_table(1)))
    with pytest.raises(DriftError, match="current: multivariate drift needs rows, got a stored"):
        rows_of(made, "current")


def test_a_sample_is_drawn_without_replacement_over_all_chunks_in_order():
    table = pa.concat_tables([pa.table({"a": range(0, 70), "b": ["x"] * 70}),
                              pa.table({"a": range(70, 100), "b": ["y"] * 30})])  # fmt: skip
    drawn = sampled(ArrowSource(table), ["a", "b"], 40, 3)
    values = drawn["a"].to_pylist()
    assert values == sorted(set(values))
    assert drawn["b"].to_pylist() == ["x" if value < 70 else "y" for value in values]
    assert sampled(ArrowSource(table), ["a"], 500, 3)["a"].to_pylist() == list(range(100))
    assert sampled(ArrowSource(table.slice(0, 0)), ["a"], 5, 3).num_rows == 0


def _days(effect, days=24, n=80):
    """A table whose days differ by `effect`, and each row's day."""
    rng = np.random.default_rng(11)
    level = np.repeat(rng.normal(size=days) * effect, n)
    keys = np.repeat([f"2024-01-{day + 1:02}" for day in range(days)], n)
    return pa.table({"x": level + rng.normal(size=days * n), "y": rng.normal(size=days * n)}), keys


def test_a_reference_whose_days_differ_makes_an_ordinary_day_no_drift():
    reference, keys = _days(effect=2.0)
    ordinary = pa.table({"x": np.random.default_rng(1).normal(2.5, 1, 300),
                         "y": np.random.default_rng(2).normal(size=300)})  # fmt: skip
    assert _joint(reference, ordinary).verdict == "drifted"
    usual = usual_separability(reference, keys, 3, RULE, columns=["x", "y"], min_rows=100)
    found = _joint(reference, ordinary, usual=usual)
    assert found.verdict == "stable"
    assert (found.calibrated_on, found.n_rows) == (8, 240)
    assert f"above {usual.limit:.3g}, the limit of 8 windows of the reference" in found.reasons[0]


def test_more_than_usual_is_drift_and_the_spec_s_threshold_is_the_least():
    reference, keys = _days(effect=0.0)
    usual = usual_separability(reference, keys, 3, RULE, columns=["x", "y"], min_rows=100)
    assert 0.5 < usual.limit < 0.75
    moved = pa.table({"x": np.random.default_rng(1).normal(2.5, 1, 300),
                      "y": np.random.default_rng(2).normal(size=300)})  # fmt: skip
    found = _joint(reference, moved, usual=usual)
    assert found.verdict == "drifted"
    assert found.threshold == max(RULE.auc, usual.limit)


@pytest.mark.parametrize(("window", "min_rows"), [(7, 100), (3, 500), (1, 100)])
def test_too_few_or_too_small_windows_say_nothing_of_what_is_usual(window, min_rows):
    reference, keys = _days(effect=0.0)
    arguments = {"columns": ["x", "y"], "min_rows": min_rows}
    assert usual_separability(reference, keys, window, RULE, **arguments) is None


def test_the_auc_of_perfectly_separated_samples_is_1_without_an_interval():
    matrix = np.concatenate([np.zeros((300, 1)), np.ones((300, 1))])
    auc, se, parts = separability(matrix, np.repeat([0, 1], 300))
    assert (auc, se) == (1.0, 0.0)
    assert parts[0] > 1
