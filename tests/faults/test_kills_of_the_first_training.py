"""The same, at all steps of a first training; a file of its own, so that another worker takes it."""

from pathlib import Path

import pytest
from faults.kills import assert_all_held


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_first_training_that_is_killed_at_any_step_is_finished_by_running_it_again(
    tmp_path: Path, part: int
) -> None:
    assert_all_held(tmp_path, "the first champion", part, 3)
