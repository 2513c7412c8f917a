"""What one person on a laptop waits for: CPU seconds, wall seconds and memory of whole processes.

    .venv/bin/python bench/local/bench_local.py [--runs 3]

Measured from the operating system's accounting of each finished child: `retrain --help`, `retrain
check`, loading definitions.py, one monitor run (raw_data, features, drift_report of one day of
flight_delay) and one training (candidate_model: training, comparison, MLflow), each in a process of its own as
Dagster launches it. Trust CPU seconds and ratios; wall time depends on what else runs.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FIRST = date(2013, 3, 1)


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """(CPU seconds, wall seconds, peak MB) of one process and its children."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    wall = time.perf_counter() - started
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def materialize(stages: str, partition: str) -> list[str]:
    selection = " or ".join(f'key:"flight_delay/{stage}"' for stage in stages.split())
    return [
        str(BIN / "dagster"), "asset", "materialize", "-f", "definitions.py",
        "--select", selection, "--partition", partition,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    home = Path(tempfile.mkdtemp(prefix="retrain-bench-"))
    environment = {
        **os.environ,
        "RETRAIN_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "PYTHONWARNINGS": "ignore",
    }
    (home / "dagster").mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster" / "dagster.yaml")
    python = str(BIN / "python")
    try:
        demo = measure([python, "-m", "retrain_assets.examples.demo"], environment)
        # The demo has stopped at some day; go on from the days after it.
        days = sorted((home / "storage/tables/flight_delay/features").glob("2013-*.parquet"))
        last = date.fromisoformat(days[-1].stem)
        rows: dict[str, list[tuple[float, float, float]]] = {"make demo (installed)": [demo]}
        for n in range(1, runs + 1):
            day = (last + timedelta(days=n)).isoformat()
            for name, command in {
                "retrain --help": [str(BIN / "retrain"), "--help"],
                "retrain check": [str(BIN / "retrain"), "check"],
                "load definitions.py": [
                    python, "-c", "from definitions import defs; defs.get_repository_def()",
                ],
                "retrain status": [str(BIN / "retrain"), "status"],
                "monitor run": materialize("raw_data features drift_report", day),
                "training": materialize("candidate_model", day),
            }.items():  # fmt: skip
                rows.setdefault(name, []).append(measure(command, environment))
    finally:
        shutil.rmtree(home)
    print(f"{'process':<22} {'CPU s':>7} {'wall s':>7} {'MB':>6}   (median of {runs})")
    for name, results in rows.items():
        cpu, wall, peak = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:<22} {cpu:>7.2f} {wall:>7.2f} {peak:>6.0f}")
    own = resource.getrusage(resource.RUSAGE_SELF)
    print(f"(this script itself: {own.ru_utime + own.ru_stime:.2f} CPU s)")


if __name__ == "__main__":
    main()
