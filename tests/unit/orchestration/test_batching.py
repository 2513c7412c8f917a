"""Who shares a retraining run, as a function of the models alone."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.orchestration.batching import Wanted, grouped
from retrain_assets.spec.model import ModelSpec


def spec(name: str, **changes: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": name,
            "partitions": {"every": "day", "start": date(2024, 1, 1)},
            "source": {"python": "package.module:load"},
            "target": "y",
            "task": "binary",
            "train": {"window": 6, "holdout": 2},
            **changes,
        }
    )


SMALL = spec("small")
HOURLY = spec("hourly", partitions={"every": "hour", "start": date(2024, 1, 1)})
BIG = spec("big", resources={"candidate_model": {"gpu": 1}})


def wanted(n: int, model: ModelSpec = SMALL, partition: str = "2024-02-01", attempt: int = 1):
    return [
        Wanted(model, partition, f"{model.name} {i}", attempt, "drift", "", "") for i in range(n)
    ]


@given(st.integers(0, 200), st.integers(1, 8), st.integers(1, 20))
def test_everybody_is_in_one_run_of_bounded_size_and_all_parallel_runs_are_used(
    n: int, parallel: int, most: int
) -> None:
    runs = grouped(wanted(n), parallel, most)
    assert [one for run in runs for one in run] == wanted(n)
    assert len(runs) >= min(n, parallel)
    sizes = [len(run) for run in runs]
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_other_partitions_other_schemes_resources_and_second_attempts_do_not_share() -> None:
    mixed = [
        *wanted(2), *wanted(2, partition="2024-02-02"), *wanted(2, HOURLY), *wanted(2, BIG),
        *wanted(2, spec("late"), attempt=2),
    ]  # fmt: skip
    assert sorted(len(run) for run in grouped(mixed, 1, 10)) == [1, 1, 1, 1, 2, 2, 2]
