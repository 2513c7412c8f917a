"""What follows from a spec: defaults, derived values, hashes."""

import copy
import subprocess
import sys

import pytest
from pydantic import ValidationError

from retrain_assets.spec.model import METRICS, ModelSpec

BASE = {
    "name": "churn",
    "partitions": {"every": "day", "start": "2024-01-01"},
    "source": {"files": "/data/{partition}.parquet"},
    "target": "label",
    "task": "binary",
    "train": {"window": 10, "holdout": 2},
}


def _spec(**changes):
    return ModelSpec.model_validate(copy.deepcopy(BASE) | changes)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        _spec().name = "other"


@pytest.mark.parametrize("task", METRICS)
def test_the_metric_is_the_first_of_the_task_unless_said(task):
    train = {"window": 10, "holdout": 2, **({"group": "query"} if task == "ranking" else {})}
    assert _spec(task=task, train=train).metric == METRICS[task][0]
    last = METRICS[task][-1]
    assert _spec(task=task, train=train, gate={"metric": last}).metric == last


@pytest.mark.parametrize(
    ("task", "gate", "problem"),
    [
        ("regression", {"group_gaps": {"columns": ["a"], "demographic_parity": 0.1}},
         "gate.group_gaps: only for task binary, got regression"),
        ("regression", {"max_calibration_error": 0.1},
         "gate.max_calibration_error: only for tasks binary and multiclass, got regression"),
        ("binary", {"group_gaps": {"columns": ["a"]}},
         "give demographic_parity, equal_opportunity or both"),
        ("binary", {"slices": {"columns": []}}, "at least 1 item"),
    ],
)  # fmt: skip
def test_gates_that_ask_for_what_cannot_be_judged_are_refused(task, gate, problem):
    with pytest.raises(ValidationError, match=problem):
        _spec(task=task, train={"window": 10, "holdout": 2}, gate=gate)


@pytest.mark.parametrize(
    ("gate", "reject", "undecided"),
    [
        ({}, True, True),
        ({"on_reject": "keep"}, False, False),
        ({"on_undecided": "keep"}, True, False),
        ({"on_reject": "keep", "on_undecided": "fail"}, False, True),
    ],
)
def test_a_run_that_ends_without_a_promotion_fails_where_the_spec_says(gate, reject, undecided):
    made = _spec(train={"window": 10, "holdout": 2}, gate=gate).gate
    assert made.fails_run("reject") is reject
    assert made.fails_run("undecided") is undecided
    assert not made.fails_run("promote")


def test_the_columns_of_the_gate_are_those_of_slices_and_groups():
    slices = {"columns": ["a", "b"]}
    gaps = {"columns": ["b", "c"], "equal_opportunity": 0.1}
    train = {"window": 10, "holdout": 2}
    assert _spec(train=train).gate.columns == ()
    gate = {"slices": slices, "group_gaps": gaps}
    assert _spec(train=train, gate=gate).gate.columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"window": 10, "holdout": 2}, 5),
        ({"window": 11, "holdout": 2}, 6),
        ({"window": 10, "holdout": 7}, 8),
        ({"window": 2, "holdout": 1}, 2),
        ({"window": 10, "holdout": 2, "min_window": 3}, 3),
    ],
)
def test_min_window_is_half_of_the_window_but_always_leaves_something_to_train_on(train, expected):
    assert _spec(train=train).min_window == expected


def test_without_partitions_there_is_no_scheme():
    spec = _spec(partitions="none", source={"files": "/data/all.csv"}, train={"holdout": 0.3})
    assert spec.scheme is None
    assert spec.partitions is None


def test_the_scheme_has_the_spec_s_partitions():
    scheme = _spec(partitions={"every": "week", "start": "2024-01-02", "end": "2024-01-31"}).scheme
    assert scheme.keys() == ["2024-01-08", "2024-01-15", "2024-01-22"]


def test_a_spec_with_exactly_one_partition_is_valid():
    scheme = _spec(partitions={"every": "week", "start": "2024-01-02", "end": "2024-01-14"}).scheme
    assert scheme.keys() == ["2024-01-08"]


@pytest.mark.parametrize(
    ("files", "said", "expected"),
    [
        ("/x/{partition}.parquet", None, "parquet"), ("/x/{partition}.PQ", None, "parquet"),
        ("/x/{partition}.csv", None, "csv"), ("/x/{partition}.csv.gz", None, "csv"),
        ("/x/{partition}/part-*", "csv", "csv"), ("/x/{partition}.csv", "parquet", "parquet"),
    ],
)  # fmt: skip
def test_the_file_format_comes_from_the_ending_unless_said(files, said, expected):
    source = _spec(source={"files": files, "format": said}).source
    assert (source.kind, source.file_format) == ("files", expected)


def test_the_hash_of_a_section_changes_with_that_section_only():
    before = _spec()
    after = _spec(gate={"min_gain": 0.01})
    assert before.section_hash("gate") != after.section_hash("gate")
    assert before.section_hash("train") == after.section_hash("train")
    assert before.training_hash == after.training_hash


@pytest.mark.parametrize(
    "changes",
    [{"target": "other"}, {"task": "multiclass"}, {"train": {"window": 11, "holdout": 2}}],
)
def test_the_training_hash_changes_with_what_decides_the_training(changes):
    assert _spec(**changes).training_hash != _spec().training_hash


def test_the_hash_does_not_depend_on_spelling_or_order():
    other = {key: BASE[key] for key in reversed(BASE)}
    other["train"] = {"holdout": 2, "window": 10, "seed": 0}
    other["retrain"] = {"cooldown": "48h"}
    spec = ModelSpec.model_validate(other)
    assert spec.training_hash == _spec().training_hash
    assert spec.section_hash("retrain") == _spec(retrain={"cooldown": "2d"}).section_hash("retrain")


def test_the_hash_is_the_same_in_every_process():
    train = {"window": 10, "holdout": 2, "params": {"b": 1, "a": [1, 2]}, "exclude": ["x", "y"]}
    code = (
        "from retrain_assets.spec.model import ModelSpec\n"
        f"print(ModelSpec.model_validate({BASE | {'train': train}!r}).training_hash)"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {_spec(train=train).training_hash}


def test_what_a_spec_dumps_is_read_back_as_the_same_spec():
    spec = _spec(
        retrain={"cooldown": "3d", "schedule": "0 6 * * 1"}, alerts=["ops"], owner="team:a"
    )
    assert ModelSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "owner", ["team:ops", "team:data-science", "ann@example.org", "a.b+c@sub.example.com"]
)
def test_owners_are_teams_or_mail_addresses(owner):
    assert _spec(owner=owner).owner == owner


@pytest.mark.parametrize("owner", ["team:", "ops", "o'brien@example.org", "a@b", "a@b.museums1"])
def test_other_owners_are_refused_because_dagster_would(owner):
    with pytest.raises(ValidationError):
        _spec(owner=owner)


def test_the_task_s_metrics_are_known_metrics():
    from typing import get_args

    from retrain_assets.spec.model import Metric

    assert {metric for metrics in METRICS.values() for metric in metrics} == set(get_args(Metric))


def test_a_table_that_nothing_would_ever_read_is_a_problem():
    document = {
        "name": "credit", "partitions": "none", "source": {"python": "a.b:load"},
        "target": "y", "task": "binary",
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"source\.available: .* nothing says when"):
        ModelSpec.model_validate(document)
    ModelSpec.model_validate(document | {"retrain": {"schedule": "0 6 * * 1"}})
    source = {"python": "a.b:load", "available": "a.b:available"}
    ModelSpec.model_validate(document | {"source": source})
