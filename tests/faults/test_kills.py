"""SIGKILL at every state-changing step: nothing is lost, nothing comes twice, readers never notice."""

from pathlib import Path

import pytest
from faults.kills import assert_all_held
from faults.scenarios import SCENARIOS


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "the first champion"])
def test_work_that_is_killed_at_any_step_is_finished_by_running_it_again(
    tmp_path: Path, scenario: str
) -> None:
    assert_all_held(tmp_path, scenario)
