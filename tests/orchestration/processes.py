"""Processes of Dagster over a world: what is written for them, started, and ended with them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestration.harness import World

ROOT = Path(__file__).parents[2]


def environment(world: World, **variables: str) -> dict[str, str]:
    """Environment of a process that works on `world`."""
    inherited = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    # Compiling Dagster and MLflow again in every process would be half of the tests' time.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "DAGSTER_HOME": str(world.folder / "dagster"),
        "RETRAIN_HOME": str(world.folder / "home"),
        "PYTHONWARNINGS": "ignore",
        **variables,
    }


def write_project(world: World) -> None:
    """`definitions.py` over the specs, and the repository's own `workspace.yaml`."""
    (world.folder / "definitions.py").write_text(
        "from retrain_assets.orchestration.build import build_definitions\n\n"
        'defs = build_definitions("specs")\n',
        encoding="utf-8",
    )
    shutil.copyfile(ROOT / "workspace.yaml", world.folder / "workspace.yaml")


def run_python(
    world: World, arguments: Sequence[str], variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ...` in the world's folder to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=world.folder,
        env=environment(world, **(variables or {})),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextmanager
def started(
    world: World,
    script: str,
    arguments: Sequence[str],
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A script of the virtual environment in a process group, which ends with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(script), *arguments],
            cwd=world.folder,
            env=environment(world, **(variables or {})),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for how in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
                process.wait(20)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        process.wait(20)
