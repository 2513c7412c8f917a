"""Python sources of the orchestration tests: small, seeded, steered by a JSON file.

The file `world.json` in `folder` says which partitions exist, from which one on the data has
drifted, or the labels alone are the other way round, which ones break the contract, whether the
source answers at all, and which models it keeps waiting, each of which leaves a file `waits-<model>`.
It is read at every call, so that a test, and the processes that it starts, see
the same world.
"""

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retrain_assets.spec.partitions import Window


def read_world(folder: str) -> dict[str, Any]:
    world: dict[str, Any] = json.loads((Path(folder) / "world.json").read_text(encoding="utf-8"))
    return world


def available(folder: str, name: str = "", **_: Any) -> list[str]:
    """The partitions that exist; fails like a server that is down where the world says so."""
    world = read_world(folder)
    if name in world["down"]:
        raise ConnectionError("the warehouse does not answer")
    keys: list[str] = world["partitions"]
    return keys


def load(
    window: Window | None, folder: str, name: str = "", task: str = "binary", rows: int = 120
) -> pd.DataFrame:
    """Rows of one partition; the same ones at every call."""
    world = read_world(folder)
    if name in world.get("hold", ()):
        new = Path(folder) / f"waits-{name}.new"
        new.write_text(str(os.getpid()), encoding="utf-8")
        os.replace(new, new.with_suffix(""))
    while name in world.get("hold", ()):
        time.sleep(0.05)
        world = read_world(folder)
    key = window.key if window else str(world["version"])
    rng = np.random.default_rng(zlib.crc32(f"{task} {key}".encode()))
    drifted = world["drift_from"] is not None and key >= world["drift_from"]
    frame = _MAKERS[task](rng, rows, drifted)
    if world.get("flip_from") is not None and key >= world["flip_from"]:
        frame["y"] = 1 - frame["y"]  # the labels of a binary model turn round, the features stay
    if task == "ranking":
        frame["query"] = [f"{key}/{row // 4}" for row in range(rows)]
    if key in world["bad"].get(name, []):
        frame.loc[:2, "segment"] = "broken"
    return frame


def _features(rng: np.random.Generator, rows: int, drifted: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": rng.normal(2.0 if drifted else 0.0, 1.0, rows),
            "z": rng.normal(0.0, 1.0, rows),
            "segment": rng.choice(["a", "b"], rows),
        }
    )


def _signal(frame: pd.DataFrame, drifted: bool) -> pd.Series:
    """What decides the target; drift turns it round, so that only a newly trained model knows."""
    return (2.0 - frame["x"]) if drifted else frame["x"]


def _binary(rng: np.random.Generator, rows: int, drifted: bool) -> pd.DataFrame:
    frame = _features(rng, rows, drifted)
    chance = 1 / (1 + np.exp(-3 * _signal(frame, drifted)))
    return frame.assign(y=(rng.random(rows) < chance).astype(int))


def _multiclass(rng: np.random.Generator, rows: int, drifted: bool) -> pd.DataFrame:
    frame = _features(rng, rows, drifted)
    value = _signal(frame, drifted) + rng.normal(0, 0.3, rows)
    return frame.assign(y=np.select([value < -0.5, value < 0.5], ["low", "middle"], "high"))


def _regression(rng: np.random.Generator, rows: int, drifted: bool) -> pd.DataFrame:
    frame = _features(rng, rows, drifted)
    return frame.assign(y=10 + 3 * _signal(frame, drifted) + rng.normal(0, 0.5, rows))


def _ranking(rng: np.random.Generator, rows: int, drifted: bool) -> pd.DataFrame:
    frame = _features(rng, rows, drifted)
    noisy = _signal(frame, drifted) + rng.normal(0, 0.3, rows)
    return frame.assign(y=np.clip(np.round(noisy + 1), 0, 3).astype(int))


_MAKERS = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "ranking": _ranking,
}
