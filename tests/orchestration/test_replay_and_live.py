"""Replay against the live system: the same partitions, the same decisions, and nothing touched."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from orchestration.harness import World, day, days, succeeded

from retrain_assets.cli import main
from retrain_assets.orchestration.keys import asset_key
from retrain_assets.orchestration.local import Executed
from retrain_assets.replay.run import Replay, replay

RETRAIN = {
    "max_age": "2d",
    "min_new_partitions": 2,
    "on_performance": {"max_drop": 0.02},
    "needs_prediction_drift": True,
    "follow_up": 2,
}


@dataclass(frozen=True)
class Lived:
    """A world whose sensors have seen fourteen days, one by one, with drift from the ninth on."""

    world: World
    retrained: list[Executed]
    before: dict[str, str]
    replayed: Replay


def files(world: World) -> dict[str, str]:
    """Digest of every file of the deployment, the scratch folder of replays left out."""
    home = world.settings.home
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "replay" not in path.relative_to(home).parts
    }


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("replayed")
    (folder / "home").mkdir()
    (folder / "home" / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(folder, instance)
        world.add(retrain=RETRAIN, gate={"on_reject": "keep"}, train={"label_delay": 1})
        world.say(drift_from=day(9))
        succeeded(world.ingest(*days(1, 3)))
        retrained: list[Executed] = []
        for n in range(4, 15):
            succeeded(world.ingest(day(n)))
            retrained += world.loop.tick("drift_sensor", "freshness_sensor")
        before = files(world)
        found = replay(
            world.specs.models["churn"].spec,
            store=world.platform.store,
            folder=world.settings.home / "replay" / "churn",
            workers=1,
        )
        yield Lived(world, retrained, before, found)


def test_replay_decides_as_the_sensors_did(lived: Lived) -> None:
    live = [
        (run.request.partition_key, run.request.tags["retrain/trigger"]) for run in lived.retrained
    ]
    (walk,) = lived.replayed.walks["combined"]
    assert [(one.partition, one.trigger) for one in walk.retrainings] == live
    assert {trigger for _, trigger in live} >= {"first", "drift", "age", "follow_up"}


def test_replay_promotes_the_models_that_the_gate_promoted(lived: Lived) -> None:
    history = lived.world.platform.ledger.history("churn")
    (walk,) = lived.replayed.walks["combined"]
    promoted = [one for one in walk.retrainings if one.outcome == "promoted"]
    assert [(one.partition, one.fingerprint) for one in promoted] == [
        (row.partition, row.fingerprint) for row in history
    ]
    assert len(promoted) >= 2
    assert len(promoted) < len(walk.retrainings), "nothing was rejected, so the gate is not tested"


def test_replay_changes_no_file_of_the_deployment(lived: Lived) -> None:
    after = files(lived.world)
    changed = {
        name for name in lived.before.keys() | after if lived.before.get(name) != after.get(name)
    }
    assert changed == set()


def test_the_asset_shows_the_table_and_the_picture(lived: Lived) -> None:
    (done,) = succeeded([lived.world.materialize([asset_key("churn", "policy_replay")], None)])
    (event,) = done.result.asset_materializations_for_node("churn__policy_replay")
    text = event.metadata["policies"].value
    assert "| never |" in text
    assert "data:image/png;base64," in text
    assert event.metadata["combined"].value == pytest.approx(
        lived.replayed.result.policy("combined").value, abs=1e-5
    )


def test_the_command_prints_the_same_result(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_HOME", str(lived.world.settings.home))
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    options = ["replay", "churn", "--json", "--specs", str(lived.world.specs_folder)]
    picture, page = lived.world.folder / "frontier.png", lived.world.folder / "replay.html"
    result = CliRunner().invoke(main, [*options, "--picture", str(picture), "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(json.dumps(lived.replayed.result.to_dict()))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "churn: take " in page.read_text(encoding="utf-8")


def test_the_command_names_the_policies_that_there_are(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_HOME", str(lived.world.settings.home))
    options = ["--policy", "sometimes", "--specs", str(lived.world.specs_folder)]
    result = CliRunner().invoke(main, ["replay", "churn", *options])
    assert result.exit_code == 2
    assert "no policy named sometimes; there are never, every_1" in result.stderr
