"""A small real model with natural column types, and the arguments that log it as a candidate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.model import TabularModel

FEATURES = ("carrier", "hour", "visits", "delay", "weekend", "seen_at")


def feature_table(n: int, seed: int) -> pa.Table:
    """Strings, integers, integers with nulls, floats, booleans, timestamps, and a target `late`."""
    rng = np.random.default_rng(seed)
    hour = rng.integers(0, 24, n)
    delay = rng.normal(hour, 4, n)
    days = rng.integers(0, 300, n).astype("timedelta64[D]")
    return pa.table(
        {
            "carrier": pa.array([[None, "AA", "UA", "DL"][i] for i in rng.integers(0, 4, n)]),
            "hour": hour,
            "visits": pa.array([None if v == 0 else int(v) for v in rng.integers(0, 9, n)]),
            "delay": delay,
            "weekend": rng.integers(0, 2, n).astype(bool),
            "seen_at": np.datetime64("2024-01-01T06:00:00") + days,
            "late": (delay + rng.normal(0, 3, n) > 12).astype(int),
        }
    )


@dataclass(frozen=True)
class Trained:
    """A trained model with its folder and a few rows to score."""

    model: TabularModel
    folder: Path
    frame: pd.DataFrame
    predictions: np.ndarray[Any, Any]

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of `log_candidate`."""
        return {
            "model_folder": self.folder,
            "params": {"num_leaves": 7, "learning_rate": 0.1},
            "metrics": {"roc_auc": 0.875, "ndcg@10": 0.5},
            "tags": {"partition": "2024-01-31"},
            "signature_frame": self.frame,
            "predictions": self.predictions,
            "pictures": {"pictures/importance.png": b"\x89PNG"},
            "documents": {
                "evaluation.json": '{"roc_auc": 0.875}',
                "drift/training.profile": b"RDP1",
            },
            "dataset": {
                "name": "churn",
                "digest": "0123456789abcdef" * 4,
                "source": {"uri": "/data/churn"},
                "profile": {"rows": 200},
            },
            **changes,
        }


def train_small_model(folder: Path) -> Trained:
    """Train on 200 rows, save into `folder`, score five other rows."""
    model = train_lightgbm(
        feature_table(200, seed=1),
        target="late",
        task="binary",
        feature_columns=FEATURES,
        params={"num_leaves": 7, "n_estimators": 10, "num_threads": 1},
        seed=0,
    )
    model.save(folder)
    frame = feature_table(5, seed=2).drop_columns(["late"]).to_pandas()
    return Trained(model, folder, frame, model.predict(frame))
