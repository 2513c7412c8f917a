"""Kills a scenario's work at every step: `python -m faults.kills FOLDER SCENARIO [SHARD OF]`.

Every kill is a SIGKILL of a forked process on a world restored from a snapshot, followed by a reader's
checks, the same work again, and the checks of finished work. One JSON line per kill goes to standard
output. Forks, because importing MLflow anew for each of hundreds of kills would cost minutes.
"""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from faults.scenarios import SCENARIOS, Deployment, Scenario, check_finished, check_readers, facts
from faults.tracer import Tracer, in_a_fork


class Bench:
    """A scenario's world, which is always restored to the same folder: MLflow stores full paths.

    Args:
        folder: empty, for everything.
        scenario: what is killed.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.world_folder = folder / "world"
        self._snapshot = folder / "snapshot"
        self._notes = folder / "notes.json"
        self._scenario = scenario
        self.every = scenario.every

    def prepare(self) -> tuple[list[str], dict[str, Any]]:
        """Make the world, and run the work once unharmed: its steps and what it leaves behind."""
        self.world_folder.mkdir(parents=True)
        self._must(lambda: self._scenario.prepare(Deployment(self.world_folder)))
        shutil.copytree(self.world_folder, self._snapshot)

        def unharmed() -> None:
            tracer = Tracer(self.world_folder)
            tracer.install()
            world = Deployment(self.world_folder)
            self._scenario.work(world)
            steps = list(tracer.steps)
            check_finished(world)
            notes = {"steps": steps, "facts": facts(world), "modules": sorted(sys.modules)}
            self._notes.write_text(json.dumps(notes), encoding="utf-8")

        self._must(unharmed)
        notes = json.loads(self._notes.read_text(encoding="utf-8"))
        for name in notes["modules"]:  # imported once here instead of in every fork
            if not name.startswith(("__", "_pytest")):
                _import(name)
        return notes["steps"], self._plain(notes["facts"])

    def kill(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Kill at one step, look, run again, look."""
        shutil.rmtree(self.world_folder)
        shutil.copytree(self._snapshot, self.world_folder)

        def killed() -> None:
            Tracer(self.world_folder, kill_at=step).install()
            self._scenario.work(Deployment(self.world_folder))

        def look() -> None:
            check_readers(Deployment(self.world_folder), whole=self._scenario.whole)

        def again() -> None:
            world = Deployment(self.world_folder)
            self._scenario.work(world)
            check_finished(world)
            found = self._plain(facts(world))
            assert found == wanted, f"{found} instead of {wanted}"

        return {
            "killed": in_a_fork(killed),
            "readers": in_a_fork(look),
            "finished": in_a_fork(again),
        }

    @staticmethod
    def _plain(document: dict[str, Any]) -> dict[str, Any]:
        """As it comes back from JSON."""
        return dict(json.loads(json.dumps(document)))

    @staticmethod
    def _must(work: Any) -> None:
        if code := in_a_fork(work):
            raise SystemExit(f"the unharmed work ended with {code}")


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        return  # a name that the child made up at run time (plugins do)


def assert_all_held(folder: Path, scenario: str, part: int = 0, parts: int = 1) -> None:
    """Kill in a process of its own; fails where anything but the kill itself went wrong."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "faults.kills", str(folder / "bench"), scenario,
         str(part), str(parts)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=1790, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    wrong = [
        one for one in outcomes if (one["killed"], one["readers"], one["finished"]) != (-9, 0, 0)
    ]
    assert not wrong, f"{wrong}\n{done.stderr[-4000:]}"
    assert len(outcomes) >= 1


def main(folder: Path, scenario: str, shard: int = 0, of: int = 1) -> None:
    bench = Bench(folder, SCENARIOS[scenario])
    steps, wanted = bench.prepare()
    for step in range(1, len(steps) + 1, bench.every)[shard::of]:
        outcome = bench.kill(step, wanted)
        print(json.dumps({"step": step, "at": steps[step - 1], **outcome}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
