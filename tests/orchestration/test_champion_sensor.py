"""The registry follows the ledger: the sensor, runs, alerts, and the training after a loss."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import mlflow
import pytest
from orchestration.harness import World, day, days, succeeded
from orchestration.inbox import Inbox, inbox

from retrain_assets.orchestration import alerting
from retrain_assets.promotion.reconcile import Repair

__all__ = ["inbox"]  # a fixture of this module, too


@pytest.fixture
def told(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """Where alerts go; promotions count as done long ago."""
    monkeypatch.setattr(alerting, "_PROMOTION_IN_PROGRESS", timedelta(0))
    return inbox


def client(world: World) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(world.settings.mlflow_uri, world.settings.mlflow_uri)


def skip_reason(world: World) -> str:
    repository = world.loop.definitions.get_repository_def()
    definition = repository.get_sensor_def("champion_sensor")
    resources = world.loop.definitions.resources or {}
    context = dg.build_sensor_context(
        instance=world.instance, cursor=world.loop.cursors.get("champion_sensor"),
        repository_def=repository, resources={"platform": resources["platform"]},
    )  # fmt: skip
    data = definition.evaluate_tick(context)
    world.loop.cursors["champion_sensor"] = data.cursor
    return data.skip_message or ""


def test_what_is_done_by_hand_is_undone_and_told_once(world: World, told: Inbox) -> None:
    world.add(alerts=["ops"])
    world.first_champion()
    assert skip_reason(world) == "the registry says what the ledger says"
    for _ in range(2):
        client(world).delete_registered_model_alias("churn", "champion")
        assert "alias champion none -> v1" in skip_reason(world)
        assert world.platform.registry.aliases("churn")["champion"] == "1"
        assert skip_reason(world) == "the registry says what the ledger says"
    assert told.titles == ["churn: aliases were set again"] * 2
    assert "alias champion none -> v1" in told.messages[0]["message"]


def test_aliases_that_are_just_being_set_are_nobodys_fault(world: World) -> None:
    world.add(alerts=["ops"])
    world.first_champion()
    now = datetime.now(UTC)
    assert alerting.repair_message(Repair("churn", "aliases", "e", now, "t"), "u") is None
    before = now - timedelta(minutes=3)
    assert alerting.repair_message(Repair("churn", "aliases", "e", before, "t"), "u") is not None
    assert alerting.repair_message(Repair("churn", "fallback", "e", now, "t"), "u") is not None


def test_a_lost_champion_is_replaced_by_a_first_training_on_the_same_data(
    world: World, told: Inbox
) -> None:
    world.add(alerts=["ops"])
    world.first_champion()
    assert world.loop.tick("freshness_sensor") == []
    client(world).delete_model_version("churn", "1")
    assert "no earlier champion is left" in skip_reason(world)
    (message,) = told.messages
    assert (message["title"], message["type"]) == ("churn: no champion", "failure")
    assert "a first training follows" in message["message"]
    succeeded(world.loop.tick("freshness_sensor"))
    assert world.champion().version == "2"
    assert world.loop.tick("freshness_sensor") == []
    assert [row.kind for row in world.platform.ledger.history("churn")] == [
        "promotion", "vacancy", "promotion",
    ]  # fmt: skip
    assert skip_reason(world) == "the registry says what the ledger says"


def test_a_retraining_does_not_wait_for_the_sensor(world: World, told: Inbox) -> None:
    world.add(alerts=["ops"], gate={"min_gain": -1.0})
    world.first_champion()
    succeeded(world.ingest(*days(7, 8)))
    succeeded([world.retrain(day(7))])
    client(world).delete_model_version("churn", "2")
    succeeded([world.retrain(day(8))])
    assert [row.kind for row in world.platform.ledger.history("churn")] == [
        "promotion", "promotion", "fallback", "promotion",
    ]  # fmt: skip
    assert told.titles == ["churn: an earlier champion serves again"]
    assert world.platform.registry.aliases("churn") == {
        "candidate": "3", "champion": "3", "previous": "1",
    }  # fmt: skip


def test_while_the_registry_is_away_nothing_is_changed(
    world: World, told: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(alerts=["ops"])
    world.first_champion()
    monkeypatch.setenv("RETRAIN_MLFLOW_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = world.restarted()
    reason = skip_reason(away)
    assert reason.startswith("nothing was changed: model registry http://127.0.0.1:9")
    assert away.champion().version == "1"
    assert told.messages == []
