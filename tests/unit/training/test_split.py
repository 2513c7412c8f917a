"""Which partitions and rows train and which judge."""

from datetime import date

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.spec.model import Train
from retrain_assets.spec.partitions import PartitionScheme
from retrain_assets.training.split import plan_window, split_rows, time_split

DAYS = PartitionScheme("day", date(2024, 1, 1), date(2024, 12, 31))


def days(first, last):
    return [f"2024-01-{d:02d}" for d in range(first, last + 1)]


def plan(key="2024-01-20", existing=None, min_window=3, **train):
    settings = Train(**{"window": 6, "holdout": 2, **train})
    return plan_window(DAYS, key, settings, min_window, existing or days(1, 31))


def test_the_window_ends_at_the_partition_and_its_last_part_is_held_out():
    made = plan()
    assert list(made.train_keys) == days(15, 18)
    assert list(made.holdout_keys) == days(19, 20)
    assert made.missing_keys == ()
    assert list(made.keys) == days(15, 20)


def test_label_delay_shifts_the_window_back():
    made = plan(label_delay=3)
    assert (list(made.train_keys), list(made.holdout_keys)) == (days(12, 15), days(16, 17))


def test_missing_partitions_are_left_out_and_do_not_move_the_cut():
    made = plan(existing=[*days(15, 15), *days(17, 19)])
    assert list(made.train_keys) == ["2024-01-15", "2024-01-17", "2024-01-18"]
    assert list(made.holdout_keys) == ["2024-01-19"]
    assert list(made.missing_keys) == ["2024-01-16", "2024-01-20"]


def test_at_the_beginning_of_the_data_the_window_is_shorter():
    made = plan(key="2024-01-04")
    assert (list(made.train_keys), list(made.holdout_keys)) == (days(1, 2), days(3, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"existing": days(18, 19)},
            r"window 2024-01-15 to 2024-01-20 .* at least 3 partitions must exist .* got 2; "
            r"missing: 2024-01-15, 2024-01-16, 2024-01-17, 2024-01-20; materialize features",
        ),
        ({"existing": days(10, 18)}, "no holdout partition exists; missing: 2024-01-19"),
        ({"existing": days(19, 20), "min_window": 2}, "no training partition exists; missing"),
        ({"key": "2024-01-03", "min_window": 4}, "got 3; the data does not begin early enough"),
        ({"key": "2024-01-02"}, "must be at least 1 and below the 2 partitions of the window"),
        ({"key": "2024-01-02", "label_delay": 5}, "ends 5 partitions earlier"),
        ({"key": "2025-01-02"}, "cannot train for partition '2025-01-02': .* is outside"),
        ({"window": None}, "train.window: required with partitions"),
    ],
)
def test_too_little_data_names_the_rule_and_what_is_missing(arguments, message):
    with pytest.raises(TrainingError, match=message):
        plan(**arguments)


def test_a_holdout_must_leave_something_to_train_on():
    assert time_split(["a", "b", "c"], holdout=2) == (["a"], ["b", "c"])
    for holdout in (0, 3):
        with pytest.raises(TrainingError, match=f"below the 3 partitions .* got {holdout}"):
            time_split(["a", "b", "c"], holdout=holdout)


def test_rows_without_an_order_are_cut_at_the_end_of_the_table():
    train, holdout = split_rows(10, 0.25)
    assert (train.tolist(), holdout.tolist()) == (list(range(8)), [8, 9])


def test_rows_are_cut_by_time_whatever_their_place_in_the_table():
    order = np.array(["2024-03-01", "2024-01-01", "2024-02-01", "2024-04-01"], "datetime64[D]")
    train, holdout = split_rows(4, 0.5, order)
    assert (train.tolist(), holdout.tolist()) == ([1, 2], [0, 3])


def test_rows_of_one_moment_stay_together():
    train, holdout = split_rows(6, 0.5, np.array([1, 1, 1, 1, 2, 2]))
    assert (train.tolist(), holdout.tolist()) == ([0, 1, 2, 3], [4, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0.5), "at least 2 rows are needed to hold some out, got 1"),
        ((5, 1.5), "must be a share between 0 and 1, got 1.5"),
        ((3, 0.5, np.array([1.0, np.nan, 2.0])), "every row needs a value, got 1 nulls in 3 rows"),
        ((2, 0.5, np.array(["a", None], dtype=object)), "got 1 nulls in 2 rows"),
        ((3, 0.5, np.array([7, 7, 7])), "all 3 rows have the value 7"),
        ((3, 0.5, np.array([7, 7])), r"needs 3 values, got shape \(2,\)"),
    ],
)
def test_rows_that_cannot_be_ordered_are_refused(arguments, message):
    with pytest.raises(TrainingError, match=message):
        split_rows(*arguments)
