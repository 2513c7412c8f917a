"""A stored model loads and predicts in an interpreter that has nothing but what serving needs.

`python -m retrain_assets.training.fresh_process FOLDER ROWS OUT SECONDS` reads the MLflow model in
FOLDER as MLflow would (its `loader_module` with its `data`, without importing mlflow), predicts the
rows of the Parquet file ROWS, writes the predictions to OUT (.npy) and prints what it took as JSON.
The process ends itself after SECONDS, so that it outlives neither its limit nor a killed parent.

Belongs here: the child process. Does not: starting it, judging what it says (`promotion.validation`).
"""

import importlib
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]

_NOT_NEEDED = ("sklearn", "dask", "matplotlib", "graphviz", "plotly")


def main(folder: Path, rows: Path, out: Path) -> dict[str, float]:
    """Load, predict, write; returns the seconds to load and the process's peak memory in bytes."""
    # LightGBM imports these where they happen to be installed (mlflow brings them); a scoring
    # service has not got them, and they cost as much as the rest together.
    blocked: dict[str, Any] = dict.fromkeys(_NOT_NEEDED)
    sys.modules.update(blocked)
    import lightgbm  # noqa: F401 (its import is not part of the time to load)
    import numpy as np
    import pyarrow.parquet as pq
    import yaml

    frame = pq.read_table(rows).to_pandas()
    started = time.perf_counter()
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    loader = importlib.import_module(flavor["loader_module"])
    model = loader._load_pyfunc(str(folder / flavor["data"]))
    loaded = time.perf_counter()
    np.save(out, np.asarray(model.predict(frame)))
    return {"load_seconds": loaded - started, "peak_bytes": _peak_bytes()}


def _peak_bytes() -> float:
    """Peak resident memory of this program.

    `getrusage` would count the parent's memory on Linux, which the child shares until it begins.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS: in bytes
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])


if __name__ == "__main__":
    signal.alarm(int(sys.argv[4]))
    print(json.dumps(main(*map(Path, sys.argv[1:4]))))
