"""`retrain now --group recommenders`: CPU, time by the clock and memory, for several numbers of models.

    python bench/fleet/recommenders.py [--models 10 50] [--jobs 2]

The first models of model_specs/recommenders.yaml, their features stored beforehand (14 days, made by the functions that
the assets call, not counted). Retrained twice: without a champion, then with three more days beside it. Memory is the
largest sum over all processes of the command, looked at twice a second: resident, where a page that several share
counts in each, and proportional, where it counts once.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "model_specs" / "recommenders.yaml"
FIRST_DAYS, LATER_DAYS = 14, 3
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """What a command took, all its processes together."""

    cpu_seconds: float
    seconds: float
    resident_mb: float
    proportional_mb: float


def memory_of(session: int) -> tuple[float, float]:
    """Resident and proportional size of a session's processes, MB."""
    resident = proportional = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            for line in (entry / "smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    resident += int(line.split()[1]) / 1024
                elif line.startswith("Pss:"):
                    proportional += int(line.split()[1]) / 1024
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended in the meantime
    return resident, proportional


def reap_orphans() -> None:
    """Wait for all that is left below this process: the server that workers come from ends last."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def counted(command: list[str], folder: Path) -> tuple[Cost, str]:
    """Run a command in a session of its own: what it took, and what it printed."""
    reap_orphans()
    before, began = os.times(), time.monotonic()
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, start_new_session=True)
        sizes = [memory_of(process.pid)]
        while process.poll() is None:
            time.sleep(0.5)
            sizes.append(memory_of(process.pid))
    seconds = time.monotonic() - began
    reap_orphans()
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    resident, proportional = (max(column) for column in zip(*sizes, strict=True))
    text = output.read_text()
    if process.returncode not in (0, 1):
        raise SystemExit(f"{command}: exit code {process.returncode}\n{text}")
    return Cost(cpu, seconds, resident, proportional), text


def write_specs(folder: Path, models: int) -> None:
    folder.mkdir()
    document = yaml.safe_load(FLEET.read_text(encoding="utf-8"))
    document["for_each"] = document["for_each"][:models]
    (folder / FLEET.name).write_text(yaml.safe_dump(document), encoding="utf-8")


def store_features(folder: Path, first: int, count: int) -> None:
    """Days of all models, in this process."""
    from retrain_assets.data.ingest import ingest, make_features
    from retrain_assets.data.tables import TableStore
    from retrain_assets.settings import Settings
    from retrain_assets.spec.loading import load_specs

    store = TableStore(Settings.load().storage)
    for spec in load_specs(folder / "model_specs").specs():
        assert spec.scheme is not None
        for day in range(first, first + count):
            key = f"2024-01-{day:02}"
            ingest(spec, key, store)
            make_features(spec, key, store)


def measure(models: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["RETRAIN_HOME"] = str(folder / "home")
        write_specs(folder / "model_specs", models)
        command = [sys.executable, "-m", "retrain_assets.cli", "now", "--group", "recommenders",
                   "--jobs", str(jobs), "--json"]  # fmt: skip
        day = 1
        for what, days in (("first", FIRST_DAYS), ("second", LATER_DAYS)):
            store_features(folder, day, days)
            day += days
            cost, text = counted(command, folder)
            rows = json.loads(text)["models"]
            outcomes = sorted({row["outcome"] for row in rows})
            counts = ", ".join(
                f"{sum(row['outcome'] == one for row in rows)} {one}" for one in outcomes
            )
            print(
                f"{models:>6} {what:<7} {cost.cpu_seconds:>7.1f} {cost.seconds:>7.1f}"
                f" {cost.resident_mb:>8.0f} {cost.proportional_mb:>13.0f}  {counts}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    os.environ.pop("DAGSTER_HOME", None)
    # Processes that outlive their parent come to this one, which counts them.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    print(f"{'models':>6} {'':<7} {'CPU s':>7} {'s':>7} {'RSS MB':>8} {'PSS MB':>13}")
    for models in asked.models:
        measure(models, asked.jobs)


if __name__ == "__main__":
    main()
