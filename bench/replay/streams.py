"""The streams that policies are replayed on: two real ones and eight with known drift, seeded.

Belongs here: rows by partition, and the spec of each stream. Does not: replaying.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from retrain_assets.spec.model import ModelSpec

PARTITIONS, ROWS, CHANGE = 240, 300, 120
START = date(2024, 1, 1)

# The policy "combined" of every stream but flights, whose spec has its own; the same for all of them.
# Alarms and performance must hold in two of three partitions, so that one broken day is not enough.
# Partitions of 48 rows cannot show a loss of 2% one by one, so that small losses are added up (cost);
# half a partition's metric buys a retraining, more than one broken day loses. Three days between two
# retrainings, up to a week after rejections; a follow-up when half of the window is new.
POLICY = {
    "on_drift": True,
    "on_performance": {"max_drop": 0.02, "of_last": 3, "at_least": 2},
    "cost": {"retraining": 0.5, "per_unit_loss": 1.0},
    "min_new_partitions": 3,
    "backoff": {"first": "3d", "at_most": "7d"},
    "follow_up": 14,
}


@dataclass(frozen=True)
class Stream:
    """A stream.

    Attributes:
        name: of the stream and of its model.
        real: whether the rows happened.
        spec: the model's.
        tables: feature rows by partition, in order; made when they are asked for.
    """

    name: str
    real: bool
    spec: ModelSpec
    tables: Callable[[], Iterator[tuple[str, pa.Table]]]


def _spec(name: str, start: date, days: int, **changes: object) -> ModelSpec:
    document: dict[str, object] = {
        "name": name,
        "partitions": {"every": "day", "start": start, "end": start + timedelta(days=days - 1)},
        "source": {"python": "bench.replay.streams:stored"},
        "target": "y",
        "task": "binary",
        "train": {
            "window": 28,
            "min_window": 20,
            "holdout": 7,
            "label_delay": 1,
            "params": {"num_leaves": 7, "n_estimators": 50, "min_child_samples": 50},
        },
        "drift": {"alert": {"share_of_features": 0.25, "of_last": 3, "at_least": 2}},
        "retrain": POLICY,
        "gate": {"metric": "accuracy", "min_gain": 0.0},
    }
    return ModelSpec.model_validate({**document, **changes})


# -- synthetic ------------------------------------------------------------------------------------

BOUNDARY = np.array([1.0, -1.0, 0.5, 0.0, 0.0])
OTHER = np.array([-1.0, 0.5, 1.0, 0.8, 0.0])


def _rows(
    rng: np.random.Generator,
    weights: np.ndarray,
    shift: float = 0.0,
    offset: float = 0.0,
    flip: bool = False,
) -> pa.Table:
    x = rng.normal(size=(ROWS, 5))
    x[:, :3] += shift
    # The boundary moves along with the features, so that a shift alone changes no concept.
    score = 1.5 * (x @ weights) + 0.8 * np.sin(2 * x[:, 0]) + offset
    y = rng.random(ROWS) < 1 / (1 + np.exp(-score))
    table = {f"x{i}": x[:, i] for i in range(5)}
    return pa.table({**table, "y": (~y if flip else y).astype(np.int64)})


def stationary(rng: np.random.Generator, t: int) -> pa.Table:
    """Nothing changes."""
    return _rows(rng, BOUNDARY)


def abrupt(rng: np.random.Generator, t: int) -> pa.Table:
    """Features and concept change at once, from one partition to the next."""
    return _rows(rng, OTHER, shift=0.7) if t >= CHANGE else _rows(rng, BOUNDARY)


def gradual(rng: np.random.Generator, t: int) -> pa.Table:
    """The concept turns, and the features shift, over 100 partitions."""
    share = min(max((t - 80) / 100, 0.0), 1.0)
    return _rows(rng, (1 - share) * BOUNDARY + share * OTHER, shift=0.7 * share)


def recurring(rng: np.random.Generator, t: int) -> pa.Table:
    """Two concepts take turns, 40 partitions each."""
    return _rows(rng, OTHER, shift=0.7) if (t // 40) % 2 else _rows(rng, BOUNDARY)


def covariate(rng: np.random.Generator, t: int) -> pa.Table:
    """Features move, the label given the features does not."""
    return _rows(rng, BOUNDARY, shift=0.7 if t >= CHANGE else 0.0)


def label_shift(rng: np.random.Generator, t: int) -> pa.Table:
    """The positive class becomes more frequent, features given the class stay."""
    table = _rows(rng, BOUNDARY)
    if t < CHANGE:
        return table
    both = pa.concat_tables([table, _rows(rng, BOUNDARY), _rows(rng, BOUNDARY)])
    y = both["y"].to_numpy()
    kept = np.concatenate(
        [np.flatnonzero(y == 1)[: int(0.8 * ROWS)], np.flatnonzero(y == 0)[: ROWS // 5]]
    )
    return both.take(pa.array(rng.permutation(kept)))


def concept(rng: np.random.Generator, t: int) -> pa.Table:
    """Labels flip, features stay: invisible to drift of features."""
    return _rows(rng, BOUNDARY, flip=t >= CHANGE)


def corrupted(rng: np.random.Generator, t: int) -> pa.Table:
    """One broken day: three columns in another unit, one of them constant, labels at random."""
    table = _rows(rng, BOUNDARY)
    if t != CHANGE:
        return table
    columns = {name: table[name].to_numpy() for name in table.column_names}
    columns |= {"x0": columns["x0"] * 1000, "x1": columns["x1"] * 1000, "x2": np.zeros(ROWS)}
    return pa.table({**columns, "y": rng.integers(0, 2, ROWS)})


SYNTHETIC = (stationary, abrupt, gradual, recurring, covariate, label_shift, concept, corrupted)


def synthetic() -> list[Stream]:
    """The streams with known drift."""

    def stream(number: int, make: Callable[[np.random.Generator, int], pa.Table]) -> Stream:
        spec = _spec(make.__name__, START, PARTITIONS)

        def tables() -> Iterator[tuple[str, pa.Table]]:
            rng = np.random.default_rng([2024, number])
            for t, key in enumerate(_keys(spec)):
                yield key, make(rng, t)

        return Stream(make.__name__, False, spec, tables)

    return [stream(number, make) for number, make in enumerate(SYNTHETIC)]


def _keys(spec: ModelSpec) -> list[str]:
    assert spec.scheme is not None
    return spec.scheme.keys()


# -- real -----------------------------------------------------------------------------------------

ELEC2_START, ELEC2_DAYS, ELEC2_ROWS = date(1996, 5, 7), 944, 48


def elec2(path: Path) -> Stream:
    """Days of 48 half-hours; `nswprice`, from which the class is made, is left out."""
    spec = _spec(
        "elec2",
        ELEC2_START,
        ELEC2_DAYS,
        train={
            "window": 60,
            "holdout": 14,
            "label_delay": 0,
            "params": {"num_leaves": 15, "n_estimators": 60, "min_child_samples": 20},
        },
        # A retraining each week beside the conditions: chosen on the first half, see docs/replay.md.
        retrain={**POLICY, "follow_up": 30, "on_new_partitions": 7},
        drift={
            "window": 7,
            "min_rows": 48,
            "exclude": ["period"],
            "alert": {"share_of_features": 0.25, "of_last": 3, "at_least": 2},
        },
    )

    def tables() -> Iterator[tuple[str, pa.Table]]:
        whole = csv.read_csv(path)
        table = whole.drop_columns(["nswprice"]).rename_columns(
            ["period", "nswdemand", "vicprice", "vicdemand", "transfer", "y"]
        )
        for day, key in enumerate(_keys(spec)):
            yield key, table.slice(day * ELEC2_ROWS, ELEC2_ROWS)

    return Stream("elec2", True, spec, tables)


def elec2_last_labels(path: Path) -> tuple[float, float]:
    """Accuracy of "same as the last label": half-hour by half-hour, and known at midnight only."""
    y = csv.read_csv(path)["class"].to_numpy()
    half_hourly = float(np.mean(y[1:] == y[:-1]))
    days = y.reshape(-1, ELEC2_ROWS)
    day_ahead = float(np.mean(days[1:] == days[:-1, -1:]))
    return half_hourly, day_ahead


def flights(folder: Path) -> Stream:
    """The flights of 2013 with the spec, features and policy of model_specs/flight_delay.yaml."""
    from retrain_assets.data.ingest import ingest, make_features
    from retrain_assets.data.tables import TableStore
    from retrain_assets.spec.loading import load_specs

    specs = Path(__file__).resolve().parents[2] / "model_specs"
    spec = load_specs(specs / "flight_delay.yaml").models["flight_delay"].spec

    def tables() -> Iterator[tuple[str, pa.Table]]:
        made, seen = TableStore(str(folder)), []
        done = set(made.partitions(spec.name, "features"))
        for key in _keys(spec):
            seen.append(key)
            if key not in done:
                ingest(spec, key, made)
                make_features(spec, key, made, seen)
            yield key, made.read(spec.name, "features", [key])

    return Stream("flight_delay", True, spec, tables)
