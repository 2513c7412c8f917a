"""A registered version in a fresh process: one that serves, and every way in which one does not."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from integration.candidates import feature_table, train_small_model

from retrain_assets.data.tables import TableStore
from retrain_assets.errors import TableError
from retrain_assets.promotion.criteria import infra_validation
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.validation import (
    TOLERANCE,
    Validation,
    _compare,
    store_predictions,
    validate,
)
from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.model import TabularModel

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


class Registered:
    """A small real model in a real registry, with its stored predictions."""

    def __init__(self, folder: Path) -> None:
        self.trained = train_small_model(folder / "trained")
        self.store = TableStore(str(folder / "store"))
        self.registry = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "models"))
        self.version = self.registry.log_candidate("churn", "f1", **self.trained.arguments())
        store_predictions(self.store, "churn", "f1", self.trained.model, feature_table(500, seed=3))

    def validate(self, **changes: Any) -> Validation:
        return validate(self.version, store=self.store, registry=self.registry, **changes)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    return Registered(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def data(pristine: Registered) -> Any:
    """The model's files in the registry; what a test does to them is undone."""
    with pristine.registry.files(pristine.version) as folder:
        kept = folder.parent / "kept"
        shutil.copytree(folder / "data", kept)
        yield folder / "data"
        shutil.rmtree(folder / "data")
        kept.rename(folder / "data")


def test_a_stored_model_reproduces_its_predictions_bit_for_bit(pristine: Registered) -> None:
    found = pristine.validate()
    assert (found.problem, found.rows, found.max_difference) == ("", 200, 0.0)
    assert found.load_seconds is not None
    assert 0 < found.load_seconds < found.seconds
    assert found.peak_bytes is not None
    assert 30e6 < found.peak_bytes < 1e9
    criterion = infra_validation(found)
    assert criterion.passed
    assert "predicts 200 stored rows as when trained, bit for bit" in criterion.summary
    assert criterion.numbers["tolerance"] == TOLERANCE


def test_a_damaged_file_does_not_load(pristine: Registered, data: Path) -> None:
    content = bytearray((data / "model.txt").read_bytes())
    content[len(content) // 2] ^= 1
    (data / "model.txt").write_bytes(content)
    found = pristine.validate()
    assert "does not load and predict" in found.problem
    assert "is damaged: its checksum must be" in found.problem
    criterion = infra_validation(found)
    assert criterion.passed is False
    assert criterion.summary.startswith("the registered model does not load")


def test_a_missing_file_does_not_load(pristine: Registered, data: Path) -> None:
    (data / "encoding.json").unlink()
    assert "does not load and predict" in pristine.validate().problem


def test_a_model_that_predicts_something_else_is_found_out(
    pristine: Registered, data: Path
) -> None:
    other = train_lightgbm(
        feature_table(200, seed=9), target="late", task="binary",
        feature_columns=("carrier", "hour", "visits", "delay", "weekend", "seen_at"),
        params={"num_leaves": 7, "n_estimators": 10, "num_threads": 1}, seed=0,
    )  # fmt: skip
    other.save(data)
    found = pristine.validate()
    assert found.problem.startswith("predicts ")
    assert "of 200 values differently from when it was trained" in found.problem
    assert found.max_difference is not None
    assert found.max_difference > TOLERANCE


def test_a_model_whose_load_hangs_is_stopped(pristine: Registered, data: Path) -> None:
    (data / "encoding.json").unlink()
    os.mkfifo(data / "encoding.json")  # opening it waits for a writer that never comes
    found = pristine.validate(time_limit=4)
    assert found.problem == "has not loaded and predicted within 4 s and was stopped"
    assert 3.9 < found.seconds < 30
    assert infra_validation(found).passed is False


def test_without_stored_predictions_there_is_nothing_to_validate(pristine: Registered) -> None:
    unknown = replace(pristine.version, fingerprint="f2")
    with pytest.raises(TableError, match="stored_predictions"):
        validate(unknown, store=pristine.store, registry=pristine.registry)


def test_differences_up_to_the_tolerance_pass_and_larger_ones_do_not() -> None:
    stored = np.array([0.5, 2000.0])
    assert _compare(stored, stored * (1 + 1e-10))[0] == ""
    problem, largest = _compare(stored, stored + np.array([0.0, 1.0]))
    assert problem == (
        "predicts 1 of 2 values differently from when it was trained, by up to 0.0005"
    )
    assert largest == pytest.approx(0.0005)
    assert _compare(stored, stored[:1])[0] == "predicts the shape (1,), (2,) when it was trained"
    assert _compare(stored, stored * np.nan)[0] == "predicts nan or infinity"


def test_a_version_that_nobody_asked_is_undecided() -> None:
    criterion = infra_validation(None)
    assert criterion.passed is None
    assert criterion.required
    assert "materialize candidate_model again" in criterion.summary


@pytest.mark.parametrize("rows", [1, 199, 200, 5000])
def test_sample_rows_are_taken_evenly_and_only_what_the_model_reads(
    pristine: Registered, tmp_path: Path, rows: int
) -> None:
    store = TableStore(str(tmp_path))
    table = feature_table(rows, seed=1).append_column("other", pa.array(range(rows)))
    model: TabularModel = pristine.trained.model
    store_predictions(store, "churn", "f", model, table)
    kept = store.read("churn", "stored_predictions", ["f"])
    assert kept.num_rows == min(rows, 200)
    assert kept.column_names == [*model.encoding.names, "__prediction__"]
    scored = model.predict(kept.drop_columns(["__prediction__"]).to_pandas())
    np.testing.assert_array_equal(scored, kept["__prediction__"].to_numpy())


def test_the_child_needs_no_mlflow_and_no_dagster(pristine: Registered, tmp_path: Path) -> None:
    """What it imports is what a scoring service must have installed."""
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from retrain_assets.training.fresh_process import main\n"
        "main(*map(Path, sys.argv[1:]))\n"
        "import json; print(json.dumps([n for n in sys.modules if sys.modules[n] is not None]))"
    )
    rows = tmp_path / "rows.parquet"
    import pyarrow.parquet as pq

    pq.write_table(feature_table(3, seed=1).drop_columns(["late"]), rows)
    with pristine.registry.files(pristine.version) as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder), str(rows), str(tmp_path / "out.npy")],
            capture_output=True, check=True,
        )  # fmt: skip
    packages = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not packages & {"mlflow", "dagster", "sqlalchemy", "sklearn", "duckdb", "pydantic"}
