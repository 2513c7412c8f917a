"""The champion's performance on partitions of a real store, for every task, with labels that come late."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.data.tables import TableStore
from retrain_assets.performance.scores import MAX_ROWS, ChampionScores, score_partition
from retrain_assets.performance.served import Served, measure_served
from retrain_assets.promotion.candidate import _store_evidence
from retrain_assets.promotion.ledger import Promotion
from retrain_assets.promotion.model_files import load_model, store_model
from retrain_assets.spec.model import ModelSpec
from retrain_assets.training.evaluation import score_labelled
from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.model import TabularModel

DAYS = [f"2024-01-{day:02}" for day in range(1, 21)]
METRICS = {
    "binary": "roc_auc", "multiclass": "log_loss", "regression": "mae", "ranking": "ndcg@10",
}  # fmt: skip


def spec_of(task: str) -> ModelSpec:
    return ModelSpec(
        name="flights", description="d", owner="team:a", target="y", task=task,
        partitions={"every": "day", "start": "2024-01-01"}, source={"python": "a:b", "lag": "1h"},
        train={"window": 10, "holdout": 4, "label_delay": 2,
               **({"group": "query"} if task == "ranking" else {})},
        gate={"metric": METRICS[task]},
    )  # fmt: skip


def rows_of(task: str, day: int, *, labelled: bool = True) -> pa.Table:
    rng = np.random.default_rng(day)
    x = rng.normal(size=160)
    value = x + rng.normal(0, 0.4, 160)
    y: Any = {
        "binary": (value > 0).astype(int),
        "multiclass": np.digitize(value, [-0.5, 0.5]),
        "regression": value,
        "ranking": np.clip(np.round(value + 1), 0, 3).astype(int),
    }[task]
    table = pa.table({"x": x, "z": rng.normal(size=160), "y": pa.array(y)})
    if task == "ranking":
        table = table.append_column("query", pa.array(np.arange(160) // 4 + 1000 * day))
    if not labelled:
        table = table.set_column(2, "y", pa.nulls(160, table.schema.field("y").type))
    return table


class Place:
    """A champion that was trained on days 1 to 6 and held against 7 to 10; labels come 2 days late."""

    def __init__(self, folder: str, task: str) -> None:
        self.store, self.spec, self.task = TableStore(folder), spec_of(task), task
        for n, day in enumerate(DAYS[:10]):
            self.store.write("flights", "features", day, rows_of(task, n))
        names = ["x", "z"]
        model = train_lightgbm(
            self.store.read("flights", "features", DAYS[:6]), target="y", task=task,
            feature_columns=names, params={"n_estimators": 20, "num_threads": 1}, seed=0,
            group=self.spec.train.group,
        )  # fmt: skip
        holdout = self.store.read_with_partition("flights", "features", DAYS[6:10])
        evaluation = score_labelled(
            model, None, holdout.drop_columns(["__partition__"]), group=self.spec.train.group,
            row_partitions=holdout["__partition__"].to_pylist(),
        )  # fmt: skip
        assert evaluation is not None
        _store_evidence(self.store, "evidence/flights/a.parquet", evaluation)
        store_model(self.store, "flights", "a", model)
        candidate = {"evidence": "evidence/flights/a.parquet", "holdout_until": DAYS[9]}
        self.champion = Promotion(
            "flights", 1, "1", "r", "a", DAYS[11], self.spec.metric, 0.5, None, "promotion", "t",
            "t", {"candidate": candidate}, datetime(2024, 1, 12, tzinfo=UTC),
        )  # fmt: skip
        self.loads = 0

    def _load(self) -> TabularModel:
        self.loads += 1
        found = load_model(self.store, "flights", "a")
        assert found is not None
        return found

    def arrive(self, n: int, *, labelled: bool) -> None:
        self.store.write("flights", "features", DAYS[n], rows_of(self.task, n, labelled=labelled))

    def measure(self, *renewed: int) -> Served:
        keys = [DAYS[n] for n in renewed]
        scores = ChampionScores(self.spec, self.store, "a", self._load, keys)
        existing = self.store.partitions("flights", "features")
        return measure_served(
            self.spec, self.store, self.champion, scores, renewed=keys, existing=existing
        )


@pytest.mark.parametrize("task", METRICS)
def test_a_partition_is_estimated_until_its_labels_come_and_realised_then(
    tmp_path: Any, task: str
) -> None:
    place = Place(str(tmp_path), task)
    for n in (10, 11, 12):
        place.arrive(n, labelled=False)
        found = place.measure(n)
    assert [one.partition for one in found.partitions] == DAYS[10:13]
    assert {one.kind for one in found.partitions} == {"estimated"}
    assert {one.decided for one in found.partitions} == {task != "ranking"}
    assert found.expected.decided
    place.arrive(10, labelled=True)  # its labels have come, without a report of its own
    first, *others = place.measure(12).partitions
    assert (first.kind, first.decided) == ("realised", True)
    assert {one.kind for one in others} == {"estimated"}
    level = found.expected.value
    assert first.value is not None
    assert level is not None
    assert abs(first.value - level) < 0.15


def test_labels_that_come_late_hide_no_realised_value(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain_assets.performance.served.SPAN", 1)
    place = Place(str(tmp_path), "binary")
    for n in (10, 11, 12, 13):
        place.arrive(n, labelled=n < 12)
    found = place.measure(10, 11, 12, 13).partitions
    assert [(one.partition, one.kind) for one in found] == [
        (DAYS[11], "realised"), (DAYS[12], "estimated"), (DAYS[13], "estimated"),
    ]  # fmt: skip


def test_what_is_settled_is_not_scored_again(tmp_path: Any) -> None:
    place = Place(str(tmp_path), "binary")
    place.arrive(10, labelled=True)
    before = place.measure(10)
    loads = place.loads
    assert place.measure() == before
    assert place.loads == loads, "nothing had to be scored"


def test_a_partition_that_the_champion_cannot_score_is_undecided_with_the_reason(
    tmp_path: Any,
) -> None:
    place = Place(str(tmp_path), "binary")
    rows = rows_of("binary", 10)
    place.store.write(
        "flights", "features", DAYS[10], rows.set_column(0, "x", pa.array(["a"] * 160))
    )
    (found,) = place.measure(10).partitions
    assert not found.decided
    assert "the champion cannot score it" in found.problem


def test_of_a_large_partition_a_sample_is_scored_and_its_size_is_kept(tmp_path: Any) -> None:
    place = Place(str(tmp_path), "binary")
    large = pa.concat_tables([rows_of("binary", n) for n in range(150)])
    model = load_model(place.store, "flights", "a")
    assert model is not None
    found = score_partition(model, large)
    assert (len(found.y_score), found.rows) == (MAX_ROWS, large.num_rows)
