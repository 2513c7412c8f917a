"""SIGKILL at every state-changing step: nothing is lost, nothing comes twice, readers never notice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from faults.scenarios import SCENARIOS

# Name, and into how many parts it is cut so that two workers share it.
PARTS = [
    (name, part, parts)
    for name, parts in {name: 3 if "first champion" in name else 1 for name in SCENARIOS}.items()
    for part in range(parts)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scenario", "part", "parts"), PARTS)
def test_work_that_is_killed_at_any_step_is_finished_by_running_it_again(
    tmp_path: Path, scenario: str, part: int, parts: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "faults.kills", str(tmp_path / "bench"), scenario,
         str(part), str(parts)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=590, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    wrong = [
        one for one in outcomes if (one["killed"], one["readers"], one["finished"]) != (-9, 0, 0)
    ]
    assert not wrong, f"{wrong}\n{done.stderr[-4000:]}"
    assert len(outcomes) >= 1
