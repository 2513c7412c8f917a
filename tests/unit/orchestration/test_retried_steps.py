"""How long a step waits before it asks an unreachable server again, and when it gives up."""

import logging
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from retrain_assets.errors import ChampionChanged, ContractError, RegistryError, RetrainError
from retrain_assets.orchestration.bodies import _readable_failures


def attempt(number: int, error: RetrainError) -> None:
    context: Any = SimpleNamespace(retry_number=number, log=logging.getLogger("test"))
    with _readable_failures(context):
        raise error


@pytest.mark.parametrize(("number", "wait"), [(0, 5), (1, 20)])
def test_an_unreachable_registry_is_asked_again_after_ever_longer_waits(
    number: int, wait: int
) -> None:
    with pytest.raises(dg.RetryRequested) as raised:
        attempt(number, RegistryError("away"))
    assert (raised.value.max_retries, raised.value.seconds_to_wait) == (2, wait)


def test_after_the_last_wait_the_step_fails_with_the_message() -> None:
    with pytest.raises(dg.Failure, match="away"):
        attempt(2, RegistryError("away"))


@pytest.mark.parametrize("error", [ContractError("bad rows"), ChampionChanged("too late")])
def test_what_asking_again_cannot_mend_fails_at_once(error: RetrainError) -> None:
    with pytest.raises(dg.Failure):
        attempt(0, error)
