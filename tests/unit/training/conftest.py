"""Small seeded tables, one per task, with signal that a model finds and a constant does not."""

import numpy as np
import pyarrow as pa
import pytest

FEATURES = ["carrier", "distance", "hour", "weekend", "booked_at"]


def feature_columns(rng: np.random.Generator, n: int) -> dict[str, list]:
    carrier = rng.choice(["AA", "B6", "DL", None], n, p=[0.4, 0.3, 0.2, 0.1])
    distance = rng.gamma(3, 300, n)
    return {
        "carrier": carrier.tolist(),
        "distance": [None if rng.random() < 0.05 else float(d) for d in distance],
        "hour": rng.integers(0, 24, n).tolist(),
        "weekend": [None if rng.random() < 0.05 else bool(b) for b in rng.random(n) < 0.3],
        "booked_at": (np.datetime64("2024-01-01", "us") + rng.integers(0, 10**13, n)).tolist(),
    }


def make_table(task: str, n: int = 1500, seed: int = 0) -> pa.Table:
    """A table with FEATURES, `y`, `airport` (entity) and for ranking `query`."""
    rng = np.random.default_rng(seed)
    columns = feature_columns(rng, n)
    signal = (
        np.array([1.5 * (c == "B6") - 1.0 * (c == "DL") for c in columns["carrier"]])
        + 0.15 * (np.array(columns["hour"]) - 12)
        + rng.normal(0, 0.7, n)
    )
    if task == "binary":
        target = (signal > 0.8).astype(int).tolist()
    elif task == "multiclass":
        target = np.array(["early", "late", "on time"])[np.digitize(signal, [-1, 1])].tolist()
    elif task == "regression":
        target = (30 + 10 * signal).tolist()
    else:
        target = np.clip(np.round(signal + 1.5), 0, 4).astype(int).tolist()
    columns |= {"y": target, "airport": rng.choice(["EWR", "JFK", "LGA"], n).tolist()}
    if task == "ranking":
        columns["query"] = [f"q{i}" for i in rng.integers(0, n // 10, n)]
    return pa.table(columns)


@pytest.fixture
def table_of():
    return make_table
