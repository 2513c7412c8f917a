"""What a spec may say about memory after a kill."""

import doctest

import pytest
from pydantic import ValidationError

from retrain_assets.spec import resources
from retrain_assets.spec.resources import MemoryRetry, Resources


def test_the_examples_are_right() -> None:
    assert doctest.testmod(resources).failed == 0


def test_attempts_grow_up_to_the_limit_and_end_there() -> None:
    policy, memory, asked = MemoryRetry(factor=3, limit="10G"), "1Gi", list[str]()
    while (more := policy.after(memory)) is not None:
        memory = more
        asked.append(more)
    assert asked == ["3072Mi", "9216Mi", "10G"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"memory_retry": {"limit": "8Gi"}}, "memory_retry needs memory"),
        (
            {"memory": "8Gi", "memory_retry": {"limit": "8192Mi"}},
            "memory_retry.limit must be more than memory, 8Gi, got '8192Mi'",
        ),
        ({"memory": "8Gi", "memory_retry": {"limit": "9Gi", "factor": 1}}, "greater than 1"),
        ({"memory": "8Gi", "memory_retry": {}}, "Field required"),
    ],
    ids=["no first amount", "no more than before", "no growth", "no bound"],
)
def test_a_retry_that_cannot_help_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Resources.model_validate(asked)
