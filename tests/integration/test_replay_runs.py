"""Replays of small histories: cached, killed, in several processes, over drift that nobody sees."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.data.tables import TableStore
from retrain_assets.errors import ReplayError, TrainingError
from retrain_assets.replay import run, walk
from retrain_assets.replay.history import snapshot
from retrain_assets.replay.memo import Memo
from retrain_assets.replay.rows import Rows
from retrain_assets.replay.run import Replay, replay
from retrain_assets.replay.scores import Scores
from retrain_assets.replay.trainings import Trained, Trainings
from retrain_assets.spec.model import ModelSpec
from retrain_assets.training.evaluation import Evaluation, score_labelled

START = date(2024, 1, 1)
ROWS = 150


def spec(**changes: Any) -> ModelSpec:
    document = {
        "name": "churn",
        "partitions": {"every": "day", "start": START},
        "source": {"files": "/data/{partition}.parquet"},
        "target": "y",
        "task": "binary",
        "train": {
            "window": 8,
            "min_window": 8,
            "holdout": 4,
            "label_delay": 1,
            "params": {"n_estimators": 10, "num_leaves": 5, "num_threads": 1},
        },
        "drift": {"min_rows": 50, "alert": {"of_last": 3, "at_least": 2}},
        "retrain": {"on_drift": True, "min_new_partitions": 3},
        "gate": {"metric": "accuracy", "min_rows": 50, "resamples": 400},
    }
    return ModelSpec.model_validate(document | changes)


def key(n: int) -> str:
    return (START + timedelta(days=n)).isoformat()


def filled(
    folder: Path, days: int, flips: Callable[[int], bool] = lambda n: False, without: int = -1
) -> TableStore:
    """Feature partitions in which x decides y; on some days the other way round."""
    store = TableStore(str(folder))
    for n in range(days):
        rng = np.random.default_rng(n)
        x, z = rng.normal(size=(2, ROWS))
        y = (rng.random(ROWS) < 1 / (1 + np.exp(-3 * x))) != flips(n)
        table = pa.table({"x": x, "z": z, "y": y.astype(np.int64)})
        if n == without:
            table = table.set_column(2, "y", pa.nulls(ROWS, pa.int64()))
        store.write("churn", "features", key(n), table)
    return store


def outcomes(found: Replay, name: str) -> list[tuple[str, str, str]]:
    (walk,) = found.walks[name]
    return [(one.partition, one.trigger, one.outcome) for one in walk.retrainings]


def test_labels_that_flip_while_features_stay_are_seen_by_performance_alone(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 40, flips=lambda n: n >= 20)
    model = spec(retrain={"on_performance": {"max_drop": 0.05, "of_last": 3, "at_least": 2}})
    found = replay(
        model, store=store, folder=tmp_path / "replay", workers=1,
        policies=["drift", "performance"],
    )  # fmt: skip
    drift, performance = outcomes(found, "drift"), outcomes(found, "performance")
    assert [trigger for _, trigger, _ in drift] == ["first"]
    assert performance[1][1] == "performance"
    # Flipped labels of day 20 and 21 are known, with a delay of one day, on day 22.
    assert performance[1][0] == key(22)
    assert any(outcome == "promoted" for _, _, outcome in performance[1:])
    result = found.result
    assert result.policy("performance").value > result.policy("drift").value + 0.1
    assert result.policy("drift").value == result.policy("never").value


def test_a_promotion_is_judged_by_the_first_partitions_that_its_model_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "JUDGED_PARTITIONS", 3)
    store = filled(tmp_path / "live", 40, flips=lambda n: n >= 20)
    model = spec(retrain={"on_performance": {"max_drop": 0.05, "of_last": 3, "at_least": 2}})
    found = replay(
        model, store=store, folder=tmp_path / "replay", workers=1, policies=["performance"]
    )
    (walked,) = found.walks["performance"]
    first, *later = [one.fingerprint for one in walked.retrainings if one.outcome == "promoted"]
    periods = {
        model: [one.before is not None for one in walked.served if one.fingerprint == model]
        for model in (first, *later)
    }
    assert not any(periods.pop(first)), "it replaced nothing"
    assert any(len(period) > 3 for period in periods.values())
    for period in periods.values():
        assert period == [place < 3 for place in range(len(period))]


def test_a_second_replay_trains_nothing_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "live", 16)
    first = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    from retrain_assets.promotion import candidate

    monkeypatch.setattr(candidate, "train_model", None)
    monkeypatch.setattr(Rows, "scored", None)
    again = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    assert again.result == first.result
    assert {name: outcomes(again, name) for name in ("combined", "every_7")} == {
        name: outcomes(first, name) for name in ("combined", "every_7")
    }


def test_a_partition_that_was_written_again_is_replayed_again(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 16)
    first = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    filled(tmp_path / "live", 16, flips=lambda n: n == 14)
    again = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    assert again.result.policy("never").value < first.result.policy("never").value


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 14)
    alone = replay(spec(), store=store, folder=tmp_path / "one", workers=1)
    both = replay(spec(), store=store, folder=tmp_path / "two", workers=2)
    for one, two in zip(alone.result.policies, both.result.policies, strict=True):
        assert (one.value, one.retrainings, one.promotions) == (
            two.value, two.retrainings, two.promotions,
        )  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path) -> Iterator[tuple[Scores, Trained]]:
    store = filled(tmp_path / "live", 30)
    history = snapshot(spec(), store, tmp_path / "store")
    trained = Trainings(history, tmp_path / "trainings", 1).get(key(9))
    with Memo(tmp_path / "memo.sqlite") as memo:
        yield Scores(history, memo), trained


def test_scores_of_a_models_own_holdout_are_those_of_its_training(
    scored: tuple[Scores, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, trained = scored
    assert trained.holdout_keys == tuple(key(n) for n in range(5, 9))
    monkeypatch.setattr(Rows, "scored", None)
    for name in trained.holdout_keys:
        found = scores.evaluation(trained, name)
        assert found is not None
        same(found, score_labelled(trained.load(), None, scores.table(name)))
        assert set(found.row_partitions) == {name}


def same(found: Evaluation | None, expected: Evaluation | None) -> None:
    if expected is None:
        assert found is None
        return
    assert found is not None
    np.testing.assert_array_equal(found.y_true, expected.y_true)
    np.testing.assert_array_equal(found.scores["candidate"], expected.scores["candidate"])


def test_rows_that_are_encoded_together_are_scored_as_those_of_one_partition(
    tmp_path: Path,
) -> None:
    """Whatever their neighbours are: without labels, without a column, with categories never seen."""
    store = filled(tmp_path / "live", 20, without=14)
    rng = np.random.default_rng(1)
    for n in range(20):
        table = store.read("churn", "features", [key(n)])
        if n < 13:
            kinds = ["a", "b", None] if n < 5 else ["b", "c", "d"]
            table = table.append_column("kind", pa.array(rng.choice(np.array(kinds), ROWS)))
        elif n < 16:
            table = table.append_column("kind", pa.nulls(ROWS, pa.string()))
        store.write("churn", "features", key(n), table)
    history = snapshot(spec(), store, tmp_path / "store")
    trainings, rows = Trainings(history, tmp_path / "trainings", 1), Rows(history)
    models = [trainings.get(key(n)).load() for n in (9, 12)]
    first, later = ({c.name: c.values for c in m.encoding.columns}["kind"] for m in models)
    assert (first, later) == (("a", "b"), ("a", "b", "c", "d"))
    for n in range(9, 20):
        for model in models:
            alone = score_labelled(model, None, store.read("churn", "features", [key(n)]))
            same(rows.scored(model, key(n)), alone)
            assert (alone is None) == (n == 14)


def test_what_is_wrong_with_a_partition_is_said_when_it_comes(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 20)
    table = store.read("churn", "features", [key(15)])
    store.write("churn", "features", key(15), table.set_column(2, "y", pa.array([7] * ROWS)))
    history = snapshot(spec(), store, tmp_path / "store")
    model = Trainings(history, tmp_path / "trainings", 1).get(key(9)).load()
    rows = Rows(history)
    for n in (13, 14, 16, 17):
        same(
            rows.scored(model, key(n)),
            score_labelled(model, None, store.read("churn", "features", [key(n)])),
        )
    with pytest.raises(TrainingError, match="class that the model was not trained on"):
        rows.scored(model, key(15))


def test_hindsight_is_never_below_what_a_policy_reached(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 40, flips=lambda n: n >= 20)
    found = replay(
        spec(), store=store, folder=tmp_path / "replay", workers=1, policies=["every_1", "every_3"]
    ).result
    best = dict(found.oracle)
    reached = {one.name: one for one in found.policies}
    assert reached["every_1"].value > reached["never"].value
    for one in reached.values():
        assert best[min(int(one.promotions), max(best))] >= one.value - 1e-12, one.name


def test_of_each_stretch_of_time_hindsight_gets_the_model_that_served_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Trained] = []
    values = Scores.values

    def seen(scores: Scores, models: Sequence[Trained], keys: Sequence[str]) -> Any:
        offered.extend(models)
        return values(scores, models, keys)

    monkeypatch.setattr(Scores, "values", seen)
    monkeypatch.setattr(run, "_EVEN_MODELS", 3)
    store = filled(tmp_path / "live", 40, flips=lambda n: n >= 20)
    found = replay(
        spec(), store=store, folder=tmp_path / "replay", workers=1, policies=["every_1", "every_3"]
    )
    every = found.walks["every_1"][0]
    first, *trained = [one.fingerprint for one in every.retrainings if one.fingerprint]
    served: dict[str, set[str]] = {}
    for walks in found.walks.values():
        for one in walks[0].served:
            served.setdefault(one.fingerprint, set()).add(one.partition)
    size = -(-len(trained) // 3)
    stretches = [trained[start : start + size] for start in range(0, len(trained), size)]
    assert [one.fingerprint for one in offered] == [
        first,
        *(max(few, key=lambda one: len(served.get(one, ()))) for few in stretches),
    ]
    assert len(offered) == 4
    assert any(offered[n + 1].fingerprint != few[0] for n, few in enumerate(stretches))


def test_a_replay_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 20)
    (tmp_path / "spec.json").write_text(spec().model_dump_json(), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path\n"
        "from retrain_assets.data.tables import TableStore\n"
        "from retrain_assets.replay.run import replay\n"
        "from retrain_assets.spec.model import ModelSpec\n"
        "folder = Path(sys.argv[1])\n"
        "spec = ModelSpec.model_validate_json((folder / 'spec.json').read_text())\n"
        "replay(spec, store=TableStore(str(folder / 'live')), folder=folder / 'replay', workers=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    trainings = tmp_path / "replay" / "trainings"
    until = time.monotonic() + 60
    while not (trainings.exists() and len(list(trainings.glob("[!.]*"))) >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in trainings.glob("[!.]*")}
    found = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    assert found.result.trainings > len(kept)
    for name, written in kept.items():
        assert (trainings / name).stat().st_mtime_ns == written, "it was trained again"
    fresh = replay(spec(), store=store, folder=tmp_path / "fresh", workers=1)
    assert [one.value for one in found.result.policies] == [
        one.value for one in fresh.result.policies
    ]


def test_a_partition_without_labels_counts_for_nobody(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 16, without=12)
    found = replay(spec(), store=store, folder=tmp_path / "replay", workers=1)
    (walk,) = found.walks["never"]
    (empty,) = [one for one in walk.served if one.partition == key(12)]
    assert (empty.value, empty.rows) == (None, 0)
    assert found.result.rows == ROWS * (found.result.partitions - 1)


def test_prices_make_a_policy_and_a_column(tmp_path: Path) -> None:
    from retrain_assets.replay.render import frontier_picture, markdown, text

    store = filled(tmp_path / "live", 26, flips=lambda n: n >= 16)
    prices = {"retraining": 0.3, "per_unit_loss": 1.0}
    found = replay(
        spec(retrain={"cost": prices}), store=store, folder=tmp_path / "replay", workers=1
    )
    result = found.result
    cost = result.policy("cost")
    assert "cost" in cost.triggers
    expected = 0.3 * cost.retrainings - cost.gain * result.partitions
    assert cost.cost == pytest.approx(expected)
    assert result.policy("never").cost == 0
    assert result.recommendation is not None
    shown = text(result)
    assert "Recommended: " in shown
    assert "no change*" in shown
    assert "oracle" in shown
    assert "| random |" in markdown(result)
    assert frontier_picture(result).startswith(b"\x89PNG")


@pytest.mark.parametrize(("task", "metric"), [("regression", "mae"), ("multiclass", "log_loss")])
def test_other_tasks_are_replayed_too(tmp_path: Path, task: str, metric: str) -> None:
    store = TableStore(str(tmp_path / "live"))
    for n in range(16):
        rng = np.random.default_rng(n)
        x = rng.normal(size=ROWS) + 0.1 * n
        y: Any = 3 * x + rng.normal(size=ROWS)
        if task == "multiclass":
            y = np.select([y < -1, y < 2], ["low", "middle"], "high")
        store.write("churn", "features", key(n), pa.table({"x": x, "y": y}))
    model = spec(
        task=task, gate={"metric": metric, "min_rows": 50, "resamples": 400},
        retrain={"on_performance": {"max_drop": 0.1}},
    )  # fmt: skip
    found = replay(model, store=store, folder=tmp_path / "replay", workers=1)
    best = dict(found.result.oracle)[0]
    never = found.result.policy("never").value
    assert best == pytest.approx(never), "without a retraining hindsight is never"
    assert all(value <= never + 1e-9 for _, value in found.result.oracle), "less is better"


def test_a_history_that_is_too_short_says_how_much_is_needed(tmp_path: Path) -> None:
    store = filled(tmp_path / "live", 9)
    with pytest.raises(ReplayError, match=r"needs at least 10 feature partitions .* got 9"):
        snapshot(spec(), store, tmp_path / "copy")


def test_a_partition_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="'yesterday' is not a partition key"):
        snapshot(spec(), TableStore(str(tmp_path)), tmp_path / "copy", first="yesterday")
