"""Infrastructure validation: what the registry holds loads in a fresh process and predicts the same.

Belongs here: keeping sample rows with the predictions that the trained model gave them, and asking a
fresh process for its own. Does not: the verdict (`criteria.infra_validation`).

What is validated: the bytes that the registry hands out, in a clean interpreter that imports only what
serving needs (this package, LightGBM, NumPy, pandas, Arrow; no mlflow, no scikit-learn), through the
loader that the registered model names. That the model predicts *well* is the gate's business; this is
what Baylor et al., "TFX: a TensorFlow-based production-scale machine learning platform", KDD 2017,
section 4.4, call safe to serve.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.training.evaluation import score_array

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.registry import MlflowRegistry, ModelVersion
    from retrain_assets.training.model import TabularModel

__all__ = [
    "TIME_LIMIT_SECONDS",
    "TOLERANCE",
    "Validation",
    "has_predictions",
    "store_predictions",
    "validate",
]

TIME_LIMIT_SECONDS = 120
"""For the whole process; starting Python and importing LightGBM takes two of them."""

TOLERANCE = 1e-9
"""Largest difference of a prediction, relative to the larger of 1 and the stored one.

On the machine that trained it a LightGBM model predicts the same bit for bit; on another, the C
library's `exp` may differ in the last bit. A changed tree differs by far more."""

_SAMPLE_ROWS = 200
_TABLE = "stored_predictions"
_PREDICTION = "__prediction__"
_SHOWN = 300


@dataclass(frozen=True)
class Validation:
    """What a fresh process made of a stored model.

    Attributes:
        problem: why it is not fit to serve; empty where it is.
        rows: stored rows that were predicted.
        max_difference: largest difference from the stored predictions, as in `TOLERANCE`; None where
            there are no predictions to compare.
        load_seconds: from files to a model that predicts, imports left out; None likewise.
        peak_bytes: peak resident memory of the process, imports included; None likewise.
        seconds: wall-clock time of the whole process.
    """

    problem: str
    rows: int
    seconds: float
    max_difference: float | None = None
    load_seconds: float | None = None
    peak_bytes: float | None = None

    def numbers(self) -> dict[str, float | None]:
        """What can be shown and plotted."""
        fields: Mapping[str, float | None] = vars(self)
        return {name: value for name, value in fields.items() if name != "problem"}


def store_predictions(
    store: "TableStore",
    name: str,
    fingerprint: str,
    model: "TabularModel",
    holdout: pa.Table,
) -> None:
    """Keep up to 200 rows, taken evenly from the holdout, with what the trained model predicts.

    Args:
        store: where to; table `stored_predictions` of the model.
        name: name of the model.
        fingerprint: what it was trained from.
        model: the model as it was trained, before it was stored anywhere.
        holdout: feature rows, at least one.
    """
    at = np.unique(np.linspace(0, holdout.num_rows - 1, _SAMPLE_ROWS).astype(np.int64))
    names = [column for column in model.encoding.names if column in holdout.column_names]
    rows = holdout.select(names).take(at)
    predicted = model.predict(rows.to_pandas())
    flat = pa.array(np.ascontiguousarray(predicted).reshape(-1))
    if predicted.ndim == 2:
        flat = pa.FixedSizeListArray.from_arrays(flat, predicted.shape[1])
    store.write(name, _TABLE, fingerprint, rows.append_column(_PREDICTION, flat))


def has_predictions(store: "TableStore", name: str, fingerprint: str) -> bool:
    """Whether `store_predictions` has kept any for this fingerprint."""
    return store.exists(name, _TABLE, fingerprint)


def validate(
    version: "ModelVersion",
    *,
    store: "TableStore",
    registry: "MlflowRegistry",
    time_limit: int = TIME_LIMIT_SECONDS,
) -> Validation:
    """Load a registered version in a fresh process and compare it with its stored predictions.

    A model that does not load, differs or hangs is a result, not an error.

    Args:
        version: as registered; `store_predictions` has been called with its fingerprint.
        store: where the predictions are.
        registry: where the model's files are.
        time_limit: seconds after which the process is killed.

    Raises:
        RegistryError: the files cannot be fetched.
        TableError: there are no stored predictions.
    """
    import pyarrow.parquet as pq

    table = store.read(version.model, _TABLE, [version.fingerprint])
    stored = score_array(table[_PREDICTION])
    with (
        registry.files(version) as folder,
        tempfile.TemporaryDirectory(prefix="retrain_fresh_") as own,
    ):
        rows, out = Path(own) / "rows.parquet", Path(own) / "predictions.npy"
        pq.write_table(table.drop_columns([_PREDICTION]), rows)
        started = time.perf_counter()
        problem, took = _run(folder, rows, out, time_limit)
        seconds = time.perf_counter() - started
        predicted = None if problem else np.load(out, allow_pickle=False)
    difference = None
    if predicted is not None:
        problem, difference = _compare(stored, predicted)
    return Validation(problem, len(stored), seconds, difference, **took)


def _run(folder: Path, rows: Path, out: Path, time_limit: int) -> tuple[str, dict[str, float]]:
    """What went wrong in the child process (or nothing), and what it measured."""
    command = [sys.executable, "-m", "retrain_assets.training.fresh_process"]
    command += [str(folder), str(rows), str(out), str(time_limit + 1)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=time_limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"has not loaded and predicted within {time_limit} s and was stopped", {}
    if done.returncode < 0:
        cause = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        return f"its process was ended by '{cause}' (Killed: out of memory, perhaps)", {}
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return f"does not load and predict: {lines[-1][:_SHOWN] if lines else 'no message'}", {}
    took: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return "", took


def _compare(stored: NDArray[np.float64], predicted: NDArray[Any]) -> tuple[str, float | None]:
    """How the predictions differ (or that they do not), and by how much."""
    if predicted.shape != stored.shape:
        return f"predicts the shape {predicted.shape}, {stored.shape} when it was trained", None
    if not np.isfinite(predicted).all():
        return "predicts nan or infinity", None
    differences = np.abs(predicted - stored) / np.maximum(1.0, np.abs(stored))
    largest = float(differences.max(initial=0.0))
    if largest <= TOLERANCE:
        return "", largest
    count = int(np.sum(differences > TOLERANCE))
    return (
        f"predicts {count} of {stored.size} values differently from when it was trained, by up to "
        f"{largest:.3g}"
    ), largest
