"""What a run leaves behind: tables, checks, versions, promotions; and what it does not."""

from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.drift.reference import SCORE, load_sample
from retrain_assets.orchestration.keys import GATE_CHECKS, asset_key
from retrain_assets.orchestration.local import Executed
from retrain_assets.promotion.candidate import Candidate, load_evidence

GATE = tuple(name for name, field in GATE_CHECKS.items() if field is None)


def checks_of(run: Executed) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    return {
        (evaluation.asset_key.path[-1], evaluation.check_name): evaluation
        for evaluation in run.result.get_asset_check_evaluations()
    }


def steps_of(run: Executed, kind: dg.DagsterEventType) -> set[str | None]:
    return {event.step_key for event in run.result.all_events if event.event_type == kind}


def data_version(world: World, stage: str) -> str:
    event = world.instance.get_latest_materialization_event(asset_key("churn", stage))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.tags["dagster/data_version"]


def with_drift(world: World, **changes: Any) -> None:
    """Champion v1 for day 6 and days up to 14, of which those from day 7 on have drifted."""
    world.add(**changes)
    world.say(drift_from=day(7))
    world.first_champion()
    succeeded(world.ingest(*days(7, 14)))


def without_drift(world: World, **changes: Any) -> None:
    """Champion v1 for day 6 and days up to 10 that teach nothing new."""
    world.add(**changes)
    world.first_champion()
    succeeded(world.ingest(*days(7, 10)))


# -- raw data and features ------------------------------------------------------------------------


def test_a_breach_of_the_contract_fails_raw_data_and_keeps_the_bad_rows_aside(
    world: World,
) -> None:
    world.add()
    succeeded(world.ingest(day(1)))
    before = world.platform.store.fingerprints("churn", "raw_data", [day(1)])
    world.say(bad={"churn": [day(1)]})
    keys = [asset_key("churn", stage) for stage in ("raw_data", "features", "drift_report")]
    run = world.materialize(keys, day(1))
    assert not run.success
    assert "segment" in run.error
    assert "broken" in run.error
    assert "3 offending rows are kept in" in run.error
    assert world.platform.store.describe("churn", "raw_data_rejected", day(1)).rows == 3
    assert world.platform.store.fingerprints("churn", "raw_data", [day(1)]) == before
    assert checks_of(run)["raw_data", "contract"].passed is False
    assert steps_of(run, dg.DagsterEventType.STEP_START) == {"churn__raw_data"}


def test_a_breach_does_not_keep_the_other_partitions_of_the_range_out(world: World) -> None:
    world.add()
    world.say(bad={"churn": [day(2)]})
    (run,) = world.ingest(*days(1, 3))
    assert not run.success
    assert world.materialized("raw_data") == {day(1), day(3)}
    assert world.platform.store.partitions("churn", "raw_data") == [day(1), day(3)]
    assert world.materialized("features") == set()


def test_the_same_rows_give_the_same_data_version_and_others_another(world: World) -> None:
    world.add()
    succeeded(world.ingest(day(1)))
    keys = [asset_key("churn", "raw_data"), asset_key("churn", "features")]
    versions = [data_version(world, "raw_data"), data_version(world, "features")]
    succeeded([world.materialize(keys, day(1))])
    assert [data_version(world, "raw_data"), data_version(world, "features")] == versions
    world.say(drift_from=day(1))
    succeeded([world.materialize(keys, day(1))])
    changed = [data_version(world, "raw_data"), data_version(world, "features")]
    assert all(new != old for new, old in zip(changed, versions, strict=True))


def test_a_second_ingestion_logs_no_warning_and_files_its_check_under_its_own_table(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.add()
    world.loop.log_level = "WARNING"
    succeeded(world.ingest(*days(1, 2)))
    (second,) = succeeded(world.ingest(day(3)))
    assert "WARNING" not in capfd.readouterr().err
    target = checks_of(second)["raw_data", "contract"].target_materialization_data
    assert target is not None
    assert target.run_id == second.result.run_id


def test_a_source_that_fails_while_it_is_read_fails_the_run_with_its_words(world: World) -> None:
    world.add(source={"options": {"task": "no such task"}})
    (run,) = world.ingest(day(1))
    assert not run.success
    assert "no such task" in run.error
    restarts = [event for event in run.result.all_events if event.is_step_restarted]
    assert len(restarts) == 2, "a source that is down for a moment must not cost a run"
    assert world.platform.store.partitions("churn", "raw_data") == []


# -- candidates -----------------------------------------------------------------------------------


def test_the_same_data_finds_the_same_candidate(world: World) -> None:
    world.add()
    world.first_champion()
    assert (world.versions(), world.mlflow_runs()) == (["1"], 1)
    stored = Candidate.stored(world.platform.store, "churn", day(6))
    run = world.materialize([asset_key("churn", "candidate_model")], day(6))
    succeeded([run])
    assert (world.versions(), world.mlflow_runs()) == (["1"], 1)
    again = Candidate.stored(world.platform.store, "churn", day(6))
    assert (again.version, again.fingerprint) == (stored.version, stored.fingerprint)
    assert again.reused
    assert again.scores["champion"] == again.scores["candidate"], "it is its own champion"


def test_the_registered_model_predicts_exactly_what_it_was_judged_on(world: World) -> None:
    world.add()
    world.first_champion()
    candidate = Candidate.stored(world.platform.store, "churn", day(6))
    evidence = load_evidence(world.platform.store, candidate)
    holdout = world.platform.store.read("churn", "features", days(5, 6)).to_pandas()
    assert candidate.holdout == f"{day(5)} to {day(6)}"

    mlflow.set_tracking_uri(world.settings.mlflow_uri)
    try:
        model = mlflow.pyfunc.load_model("models:/churn@champion", suppress_warnings=True)
        champion = mlflow.MlflowClient().get_model_version_by_alias("churn", "champion")
        profile = mlflow.artifacts.download_artifacts(
            run_id=champion.run_id, artifact_path="drift/training.profile"
        )
    finally:
        mlflow.set_tracking_uri(None)
    predicted = np.asarray(model.predict(holdout.drop(columns="y")))
    np.testing.assert_array_equal(predicted, evidence.scores["candidate"])
    np.testing.assert_array_equal(holdout["y"].to_numpy(), evidence.y_true)
    # What drift is measured against is of the same model, in the store and with the version.
    store = world.platform.store
    sample = load_sample(store, "churn", candidate.fingerprint)
    scores = sample[SCORE].to_numpy()
    features = sample.drop_columns(["y", SCORE]).to_pandas()
    np.testing.assert_array_equal(np.asarray(model.predict(features)), scores)
    stored = store.read_profiles("churn", "reference", [candidate.fingerprint])
    assert [Path(profile).read_bytes()] == stored


# -- the gate -------------------------------------------------------------------------------------


def test_every_check_has_a_result_whether_the_candidate_is_promoted_or_rejected(
    world: World,
) -> None:
    world.add()
    (monitor,) = succeeded(world.ingest(*days(1, 6)))
    assert set(checks_of(monitor)) == {("raw_data", "contract"), ("drift_report", "no_drift")}
    (first,) = succeeded(world.loop.tick("freshness_sensor"))
    assert set(checks_of(first)) == {("promoted_model", name) for name in GATE}
    assert all(evaluation.passed for evaluation in checks_of(first).values())
    succeeded(world.ingest(*days(7, 10)))
    rejected = world.retrain(day(10))
    assert not rejected.success
    results = {name: evaluation.passed for (_, name), evaluation in checks_of(rejected).items()}
    assert results == {**dict.fromkeys(GATE, True), "beats_champion": False}


def test_a_rejection_fails_the_run_with_the_comparison_and_the_champion_stays(
    world: World,
) -> None:
    without_drift(world)
    run = world.retrain(day(10))
    assert not run.success
    assert run.error.startswith("candidate v2 (roc_auc 0.")
    assert "does not beat champion v1 (0." in run.error
    assert "95% lower bound -0." in run.error
    assert world.champion().version == "1"
    assert world.materialized("promoted_model") == {day(6)}
    assert world.platform.registry.aliases("churn")["champion"] == "1"


def test_a_rejection_ends_green_and_without_a_materialization_where_the_spec_says_keep(
    world: World,
) -> None:
    without_drift(world, gate={"on_reject": "keep"})
    run = world.retrain(day(10))
    assert run.success
    assert checks_of(run)["promoted_model", "beats_champion"].passed is False
    assert world.champion().version == "1"
    assert world.materialized("promoted_model") == {day(6)}


def test_promoted_model_alone_judges_again_from_the_stored_evidence(world: World) -> None:
    without_drift(world)
    assert not world.retrain(day(10)).success
    alone = world.materialize([asset_key("churn", "promoted_model")], day(10))
    assert not alone.success
    assert "does not beat champion v1" in alone.error
    assert world.champion().version == "1"


def test_promoted_model_alone_promotes_a_candidate_that_deserves_it(world: World) -> None:
    with_drift(world)
    succeeded([world.materialize([asset_key("churn", "candidate_model")], day(14))])
    assert world.champion().version == "1", "being a candidate serves nobody"
    succeeded([world.materialize([asset_key("churn", "promoted_model")], day(14))])
    assert world.champion().version == "2"
    assert "dagster run" in world.champion().actor


def test_promoting_twice_writes_one_promotion(world: World) -> None:
    with_drift(world)
    succeeded([world.retrain(day(14))])
    again = world.materialize([asset_key("churn", "promoted_model")], day(14))
    succeeded([again])
    assert [row.version for row in world.platform.ledger.history("churn")] == ["1", "2"]


def test_a_champion_that_changed_since_the_comparison_stops_the_promotion(world: World) -> None:
    with_drift(world)
    candidate = [asset_key("churn", "candidate_model")]
    succeeded([world.materialize(candidate, day(13)), world.materialize(candidate, day(14))])
    promoted = [asset_key("churn", "promoted_model")]
    succeeded([world.materialize(promoted, day(14))])
    late = world.materialize(promoted, day(13))
    assert not late.success
    assert late.error == (
        "churn: candidate v2 was compared with champion v1, but the champion is v3 now; "
        f"materialize candidate_model {day(13)} again"
    )
    assert [row.version for row in world.platform.ledger.history("churn")] == ["1", "3"]
    assert not steps_of(late, dg.DagsterEventType.STEP_UP_FOR_RETRY), "retrying cannot help"


def test_an_older_partition_is_not_promoted_on_rows_that_the_champion_has_seen(
    world: World,
) -> None:
    with_drift(world)
    succeeded([world.retrain(day(14))])  # trained on days 9 to 12
    older = world.retrain(day(12))  # judged on days 11 and 12
    assert not older.success
    assert checks_of(older)["promoted_model", "unseen_holdout"].passed is False
    assert "the champion was trained on rows of this holdout" in older.error
    assert world.champion().partition == day(14)


def test_too_little_data_says_what_is_missing(world: World) -> None:
    world.add()
    succeeded(world.ingest(*days(1, 3)))
    run = world.retrain(day(3))
    assert not run.success
    assert "at least 4 partitions must exist (train.min_window), got 3" in run.error


@pytest.mark.parametrize("stage", ["candidate_model", "promoted_model"])
def test_a_retraining_of_a_partition_that_was_never_ingested_fails_readably(
    world: World, stage: str
) -> None:
    world.add()
    run = world.materialize([asset_key("churn", stage)], day(6))
    assert not run.success
    assert "Stack Trace" not in run.error
