"""Fifty small models from one fleet file in a project of their own, with a source that tests steer.

Belongs here: what the project's folder holds, and which days its source has. Does not: starting
anything (`dev_server`).
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import yaml
from e2e.dev_server import ROOT

__all__ = ["MODELS", "Calendar", "day", "write_project"]

MODELS = tuple(f"shop_{n:02d}" for n in range(50))
_FIRST = date(2024, 1, 1)

_SOURCE = '''
import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd


def _calendar(folder):
    return json.loads((Path(folder) / "calendar.json").read_text(encoding="utf-8"))


def available(folder, shop):
    """The days that have come."""
    calendar = _calendar(folder)
    return calendar["alone"].get(shop, calendar["days"])


def load(window, folder, shop):
    """120 rows; on days that the calendar names, x has moved and decides the other way round."""
    moved = window.key in _calendar(folder)["drifts"].get(shop, ())
    rng = np.random.default_rng(zlib.crc32(f"{shop} {window.key}".encode()))
    x = rng.normal(2.0 if moved else 0.0, 1.0, 120)
    chance = 1 / (1 + np.exp(-3 * (2 - x if moved else x)))
    return pd.DataFrame(
        {"x": x, "z": rng.normal(0, 1, 120), "y": (rng.random(120) < chance).astype(int)}
    )
'''


def day(n: int) -> str:
    """Key of the n-th day, counted from 1."""
    return (_FIRST + timedelta(days=n - 1)).isoformat()


class Calendar:
    """Which days the source of a project has, and on which of them a model drifts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "calendar.json"

    def say(
        self,
        days: int,
        drifts: Mapping[str, Sequence[int]] | None = None,
        alone: Mapping[str, int] | None = None,
    ) -> None:
        """The first `days` days have come, for the models in `alone` as many as it says."""
        said = {
            "days": _keys(range(1, days + 1)),
            "drifts": {name: _keys(on) for name, on in (drifts or {}).items()},
            "alone": {name: _keys(range(1, n + 1)) for name, n in (alone or {}).items()},
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(said), encoding="utf-8")
        os.replace(temporary, self._path)


def _keys(days: Iterable[int]) -> list[str]:
    return [day(n) for n in days]


def write_project(folder: Path) -> Calendar:
    """The project in `folder`, without any day so far."""
    (folder / "shops.py").write_text(_SOURCE, encoding="utf-8")
    for name in ("definitions.py", "workspace.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    fleet = {"template": _template(folder), "for_each": [{"shop": name} for name in MODELS]}
    (folder / "model_specs").mkdir()
    (folder / "model_specs" / "shops.yaml").write_text(
        yaml.safe_dump(fleet, sort_keys=False), encoding="utf-8"
    )
    home = folder / ".retrain" / "dagster"
    home.mkdir(parents=True)
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    calendar = Calendar(folder)
    calendar.say(0)
    return calendar


def _template(folder: Path) -> dict[str, object]:
    return {
        "name": "{shop}",
        "group": "shops",
        "partitions": {"every": "day", "start": _FIRST, "end": _FIRST + timedelta(days=299)},
        "source": {
            "python": "shops:load",
            "available": "shops:available",
            "options": {"folder": str(folder), "shop": "{shop}"},
        },
        "target": "y",
        "task": "binary",
        "train": {
            "window": 4,
            "min_window": 2,
            "holdout": 1,
            "params": {"n_estimators": 20, "num_leaves": 7, "num_threads": 1},
        },
        "drift": {
            "min_rows": 50,
            "thresholds": {"ks": 0.3, "wasserstein": 0.8, "psi": 0.8},
            "alert": {"of_last": 1, "at_least": 1},
        },
        "retrain": {"on_drift": True},
        "gate": {"min_rows": 50, "resamples": 400, "on_reject": "keep"},
    }
