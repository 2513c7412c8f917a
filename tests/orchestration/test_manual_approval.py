"""`gate.approval: manual`: a candidate waits, holds no process, and a person decides."""

import json
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from orchestration.harness import World, day, days, succeeded
from orchestration.inbox import Inbox, inbox

from retrain_assets.cli import main
from retrain_assets.orchestration.local import Executed
from retrain_assets.orchestration.status import status_rows
from retrain_assets.promotion.reviews import Reviews

__all__ = ["inbox"]  # a fixture of this module, too


@pytest.fixture
def waiting(world: World, inbox: Inbox) -> World:
    """A champion v1 and a candidate v2 that passed the gate and waits."""
    world.add(gate={"min_gain": -1.0, "approval": "manual"}, alerts=["ops"])
    succeeded(world.ingest(*days(1, 6)))
    succeeded(world.loop.tick("freshness_sensor"))
    succeeded([change(world, action="promote", version="1", reason="the first")])
    succeeded(world.ingest(day(7)))
    succeeded([world.retrain(day(7))])
    return world


def change(world: World, tags: dict[str, str] | None = None, **config: Any) -> Executed:
    """The job `change_champion` as the Launchpad starts it."""
    job = world.loop.definitions.get_job_def("change_champion")
    result = job.execute_in_process(
        instance=world.instance,
        run_config={
            "ops": {"change": {"config": {"model": "churn", **config}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        tags=tags,
        raise_on_error=False,
    )
    failures = [e for e in result.all_events if e.is_step_failure]
    error = ""
    if failures:
        data = failures[0].step_failure_data
        error = data.user_failure_data.description if data.user_failure_data else str(data.error)
    return Executed("person", dg.RunRequest(), result.success, result, error or "")


def retrain(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("RETRAIN_HOME", str(world.folder / "home"))
    monkeypatch.chdir(world.folder)
    return CliRunner().invoke(main, [*arguments])


def test_a_candidate_that_passed_waits_and_the_run_ends_green(waiting: World, inbox: Inbox) -> None:
    assert inbox.titles == ["churn: v1 awaits approval", "churn: v2 awaits approval"]
    assert "beats_champion" in inbox.messages[1]["message"]
    assert 'retrain promote churn 2 --reason "..."' in inbox.messages[1]["message"]
    assert waiting.champion().version == "1"
    review = Reviews(waiting.platform.ledger).waiting()["churn"]
    assert (review.version, review.expected_version, review.partition) == ("2", "1", day(7))
    assert review.actor.startswith("dagster run ")
    assert waiting.materialized("promoted_model") == {day(6)}, "what waits is not the champion"
    (row,) = status_rows(waiting.instance, waiting.platform, waiting.specs)
    assert (row.state, row.awaits, row.champion) == ("approval", "2", "1")
    assert "v2 awaits approval since" in row.note
    succeeded([waiting.retrain(day(7))])
    kinds = [r.kind for r in Reviews(waiting.platform.ledger).history("churn")]
    assert kinds == ["awaiting", "approved", "awaiting"], "asked once"


def test_the_command_shows_the_comparison_and_promotes(
    waiting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = retrain(waiting, monkeypatch, "promote")
    assert shown.exit_code == 0, shown.output
    assert "churn v2, trained for 2024-01-07: awaits approval since" in shown.stdout
    assert "beats_champion  passed     roc_auc" in shown.stdout
    assert 'retrain promote churn 2 --reason "..."' in shown.stdout
    missing = retrain(waiting, monkeypatch, "promote", "churn", "2")
    assert (missing.exit_code, waiting.champion().version) == (2, "1")
    done = retrain(
        waiting, monkeypatch, "promote", "churn", "v2", "--reason", "agreed", "--by", "anna"
    )
    assert done.stdout == "churn: v1 -> v2, loaded and recorded\n", done.output
    row = waiting.champion()
    assert (row.version, row.actor, row.reason) == ("2", "anna", "agreed")
    assert waiting.platform.registry.aliases("churn") == {
        "candidate": "2", "champion": "2", "previous": "1",
    }  # fmt: skip
    again = retrain(waiting, monkeypatch, "promote", "churn", "2", "--reason", "me too")
    assert again.exit_code == 0
    assert "v2 was approved by anna on" in again.stdout
    assert retrain(waiting, monkeypatch, "promote").stdout == "nothing awaits approval\n"
    succeeded([waiting.retrain(day(7))])
    assert len(waiting.platform.ledger.history("churn")) == 2


def test_what_a_person_rejected_is_not_proposed_again_by_the_same_data(
    waiting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = retrain(
        waiting, monkeypatch, "reject", "churn", "2", "--reason", "too early", "--by", "anna"
    )
    assert (done.exit_code, done.stdout) == (0, "churn: v2 rejected and recorded\n")
    again = waiting.retrain(day(7))
    assert not again.success
    assert "v2 was rejected by anna on" in again.error
    assert "too early" in again.error
    late = retrain(waiting, monkeypatch, "promote", "churn", "2", "--reason", "but")
    assert late.exit_code == 2
    assert "v2 was rejected by anna" in late.stderr
    history = retrain(waiting, monkeypatch, "history", "churn").stdout
    assert "rejected   v2 (2024-01-07)  by anna\n      too early" in history
    document = json.loads(retrain(waiting, monkeypatch, "history", "churn", "--json").stdout)
    assert [r["kind"] for r in document["reviews"]] == [
        "rejected", "awaiting", "approved", "awaiting",
    ]  # fmt: skip
    succeeded(waiting.ingest(day(8)))
    succeeded([waiting.retrain(day(8))])
    assert Reviews(waiting.platform.ledger).waiting()["churn"].version == "3"


def test_an_approval_is_refused_when_the_version_no_longer_loads(
    waiting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    client = mlflow.MlflowClient(waiting.settings.mlflow_uri, waiting.settings.mlflow_uri)
    client.delete_model_version("churn", "2")
    done = retrain(waiting, monkeypatch, "promote", "churn", "2", "--reason", "agreed")
    assert done.exit_code == 2
    assert "loading churn v2" in done.stderr
    assert waiting.champion().version == "1"
    assert "churn" in Reviews(waiting.platform.ledger).waiting()


def test_what_was_compared_with_a_former_champion_says_so_wherever_it_is_shown(
    waiting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = waiting.champion()
    waiting.platform.ledger.replace_lost(champion, None, actor="test", reason="deleted")
    shown = retrain(waiting, monkeypatch, "promote", "churn").stdout
    assert "It was compared with v1, but there is no champion now: retrain, or reject it" in shown
    assert "retrain promote churn 2" not in shown
    (row,) = status_rows(waiting.instance, waiting.platform, waiting.specs)
    assert (row.state, row.awaits) == ("waiting", None)
    assert row.note == (
        "no champion since v1 was deleted from the registry; v2 awaits approval, but was compared "
        "with v1; retrain"
    )
    done = retrain(waiting, monkeypatch, "promote", "churn", "2", "--reason", "agreed")
    assert done.exit_code == 2
    assert "was compared with champion v1, but now there is none" in done.stderr


def test_the_job_promotes_tells_the_asset_and_is_found_by_its_tags(waiting: World) -> None:
    done = change(
        waiting, action="promote", version="v2", reason="agreed", tags={"user": "anna@example.org"}
    )
    succeeded([done])
    assert waiting.champion().actor == "anna@example.org"
    assert waiting.materialized("promoted_model") == {day(6), day(7)}
    run = waiting.instance.get_run_by_id(done.result.run_id)
    assert run is not None
    assert run.tags["retrain/model"] == "churn"
    assert run.tags["retrain/kind"] == "promote"
    back = change(waiting, action="rollback", reason="complaints", by="bert")
    succeeded([back])
    assert (waiting.champion().version, waiting.champion().actor) == ("1", "bert")


def test_the_job_says_what_is_wrong(world: World) -> None:
    world.add()
    for config, error in [
        ({"action": "promote"}, "churn: which version? `version` is required to promote"),
        ({"action": "reject", "version": "9"}, "v9 never passed the gate"),
        ({"action": "rollback"}, "churn: no version was ever promoted"),
        ({"action": "rollback", "model": "sales"}, "no model named sales; known: churn"),
    ]:
        done = change(world, **{"reason": "x", **config})
        assert not done.success
        assert error in done.error
    with pytest.raises(dg.DagsterInvalidConfigError, match="action not in enum type Action"):
        change(world, action="nonsense", reason="x")
