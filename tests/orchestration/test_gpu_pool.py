"""The pool `gpu` and the executor's own limit bound what runs at once: real processes, measured by the clock."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from orchestration.processes import ROOT

from retrain_assets.orchestration.kubernetes import GPU_POOL

_DEFINITIONS = f"""
import os, time
from pathlib import Path
import dagster as dg

NOTES = Path(os.environ["NOTES"])

def begun(): return {{path.stem for path in NOTES.glob("*.began")}}
def ended(): return {{path.stem for path in NOTES.glob("*.ended")}}

def asset_of(name):
    @dg.asset(name=name, pool={GPU_POOL!r})
    def body() -> None:
        (NOTES / f"{{name}}.began").write_text(str(time.time()))
        # Work until another works as well, or none is left to come: slow machines overlap too.
        limit = time.time() + 30
        while time.time() < limit and len(begun()) < int(os.environ["STEPS"]):
            if begun() - ended() - {{name}}:
                break
            time.sleep(0.05)
        time.sleep(1)
        (NOTES / f"{{name}}.ended").write_text(str(time.time()))
    return body

executors = {{"multiprocess": dg.multiprocess_executor, "in_process": dg.in_process_executor}}
defs = dg.Definitions(
    assets=[asset_of(f"gpu{{n}}") for n in range(6)], executor=executors[os.environ["EXECUTOR"]]
)
"""


class Machine:
    """An instance with the repository's own pool settings, and runs that note when they worked."""

    def __init__(self, folder: Path, steps: int, **concurrency: object) -> None:
        self.folder, self.steps = folder, steps
        for name in ("home", "notes"):
            (folder / name).mkdir()
        config = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
        pools = {**config["concurrency"]["pools"], **concurrency}
        text = yaml.safe_dump({"telemetry": {"enabled": False}, "concurrency": {"pools": pools}})
        (folder / "home" / "dagster.yaml").write_text(text, encoding="utf-8")
        (folder / "defs.py").write_text(_DEFINITIONS, encoding="utf-8")
        # Two processes that make its tables at the same time would break each other.
        with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
            instance.get_runs(limit=1)
            instance.get_asset_records([dg.AssetKey("gpu0")])

    def start(self, executor: str, assets: range, **execution: object) -> subprocess.Popen[bytes]:
        names = ",".join(f"gpu{n}" for n in assets)
        if executor == "multiprocess":  # a third of the time of fresh interpreters
            execution["start_method"] = {"forkserver": {"preload_modules": ["dagster"]}}
        config = ["--config-json", json.dumps({"execution": {"config": execution}})]
        variables = {"DAGSTER_HOME": str(self.folder / "home"), "NOTES": str(self.folder / "notes")}
        variables |= {"EXECUTOR": executor, "STEPS": str(self.steps), "PYTHONWARNINGS": "ignore"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "defs.py",
                 "--select", names, *(config if execution else [])],
                cwd=self.folder, env={**os.environ, **variables}, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """The end of what the processes have printed."""
        return (self.folder / "log").read_text(encoding="utf-8")[-4000:]

    def most_at_once(self) -> tuple[int, int]:
        """How many steps have worked, and how many at the same time at most."""
        times = [
            [float((path.with_suffix(end)).read_text()) for end in (".began", ".ended")]
            for path in (self.folder / "notes").glob("*.began")
        ]
        most = max(sum(began <= at < ended for began, ended in times) for at, _ in times)
        return len(times), most


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_pool_bounds_steps_of_one_run_and_of_several(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    machine = Machine(tmp_path, 5, default_limit=2)
    processes.append(machine.start("multiprocess", range(3)))
    processes.append(machine.start("in_process", range(3, 5)))
    codes = [process.wait(120) for process in processes]
    assert codes == [0, 0], machine.log
    assert machine.most_at_once() == (5, 2)


def test_the_executor_bounds_the_steps_of_one_run(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    machine = Machine(tmp_path, 3, default_limit=6)
    processes.append(machine.start("multiprocess", range(3), max_concurrent=2))
    assert processes[0].wait(120) == 0, machine.log
    assert machine.most_at_once() == (3, 2)
