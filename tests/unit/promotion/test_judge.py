"""From stored evidence to the gate: what is stored is what is judged."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.data.tables import TableStore
from retrain_assets.promotion.candidate import Candidate, _measured, _store_evidence
from retrain_assets.promotion.promote import judge
from retrain_assets.promotion.validation import Validation
from retrain_assets.spec.model import ModelSpec
from retrain_assets.training.evaluation import Evaluation
from retrain_assets.training.lightgbm_trainer import train_lightgbm

N = 1400
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, N)
CANDIDATE = Candidate(
    model="churn", partition="2024-02-14", version="2", run_id="r", model_uri="m", fingerprint="f",
    champion_version="1", champion_saw_holdout=False, metric="roc_auc", scores={},
    trained_on="t", holdout="h", train_until="2024-01-31", rows_train=9, rows_holdout=N,
    evidence="evidence/churn/f.parquet", reused=False, notes=(), measured={"size_bytes": 5000.0},
    validation=Validation("", 200, 2.5, 0.0, 0.01, 190e6),
)  # fmt: skip


def spec_with(**gate: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "churn",
            "partitions": {"every": "day", "start": "2024-01-01"},
            "source": {"files": "data/{partition}.parquet"},
            "target": "y",
            "task": "binary",
            "train": {"window": 60, "holdout": 14},
            "gate": gate,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(str(tmp_path))


def stored(store: TableStore, candidate: Candidate, days: int) -> None:
    rng = np.random.default_rng(1)
    scores = {
        who: 1 / (1 + np.exp(-(Y + rng.normal(0, noise, N))))
        for who, noise in (("candidate", 0.5), ("champion", 1.5))
    }
    evaluation = Evaluation(
        task="binary",
        y_true=Y,
        scores=scores,
        row_partitions=np.array([f"2024-02-{1 + i % days:02d}" for i in range(N)], dtype=object),
        columns={"carrier": RNG.choice(["AA", "UA"], N)},
    )
    _store_evidence(store, candidate.evidence, evaluation)
    store.write_json("churn", "candidate_model", candidate.partition, asdict(candidate))


@pytest.mark.parametrize(
    ("days", "drawn", "method"),
    [(14, 14, "cluster-robust t"), (9, 9, "jackknife"), (4, 4, "jackknife"), (3, N, "delong")],
)
def test_days_are_clusters_where_there_are_at_least_four(
    store: TableStore, days: int, drawn: int, method: str
) -> None:
    stored(store, CANDIDATE, days)
    _, report, _ = judge(spec_with(), CANDIDATE.partition, store=store)
    assert report.criterion("enough_rows").numbers["drawn"] == drawn
    assert report.method == method
    assert report.decision == "promote"


def test_slices_budgets_and_reuse_reach_the_gate(store: TableStore) -> None:
    stored(store, replace(CANDIDATE, earlier_uses=2), 14)
    spec = spec_with(slices={"columns": ["carrier"]}, budgets={"size_bytes": 4000})
    _, report, sentence = judge(spec, CANDIDATE.partition, store=store)
    assert report.criterion("slices").numbers["judged"] == 2
    assert report.criterion("size").passed is False
    assert report.confidence == pytest.approx(1 - 0.05 / 6)
    assert sentence == (
        f"candidate v2 (roc_auc {report.candidate:.4g}) is not promoted: 5,000 bytes > 4,000"
    )


def test_a_candidate_of_an_earlier_release_has_no_measurements(store: TableStore) -> None:
    stored(store, CANDIDATE, 14)
    document = store.read_json("churn", "candidate_model", CANDIDATE.partition)
    del document["measured"], document["validation"]
    store.write_json("churn", "candidate_model", CANDIDATE.partition, document)
    candidate, report, sentence = judge(spec_with(), CANDIDATE.partition, store=store)
    assert candidate == replace(CANDIDATE, measured={}, validation=None)
    assert report.decision == "undecided"
    assert sentence.endswith("not loaded in a fresh process; materialize candidate_model again")


def test_a_model_that_does_not_load_in_a_fresh_process_is_rejected(store: TableStore) -> None:
    broken = Validation("does not load and predict: TrainingError: damaged", 200, 1.0)
    stored(store, replace(CANDIDATE, validation=broken), 14)
    _, report, sentence = judge(spec_with(), CANDIDATE.partition, store=store)
    assert report.decision == "reject"
    assert sentence.endswith(
        "is not promoted: the registered model does not load and predict: TrainingError: damaged"
    )


def test_size_is_always_measured_and_latency_where_it_is_asked_for() -> None:
    x = RNG.normal(size=N)
    table = pa.table({"x": x, "y": Y})
    model = train_lightgbm(
        table, target="y", task="binary", feature_columns=["x"], params={"n_estimators": 5}, seed=0
    )
    assert list(_measured(spec_with(), model, table)) == ["size_bytes"]
    measured = _measured(spec_with(budgets={"row_ms": 50, "batch_ms": 100}), model, table)
    assert list(measured) == ["size_bytes", "row_ms", "batch_ms"]
    assert measured["size_bytes"] > 500
    assert 0 < measured["row_ms"] < 10_000
    assert 0 < measured["batch_ms"] < 10_000
