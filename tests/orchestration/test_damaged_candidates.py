"""A candidate whose files are damaged on their way into the registry is rejected, and says why."""

from typing import Any

from orchestration.harness import World, day, days, succeeded

from retrain_assets.promotion.registry import MlflowRegistry, ModelVersion


class DamagingRegistry(MlflowRegistry):
    """A store that loses bytes after it has confirmed them."""

    def log_candidate(self, *arguments: Any, **keywords: Any) -> ModelVersion:
        version = super().log_candidate(*arguments, **keywords)
        with self.files(version) as folder:
            file = folder / "data" / "model.txt"
            file.write_bytes(file.read_bytes()[:-100])
        return version


def test_a_candidate_that_was_damaged_in_the_registry_is_rejected(world: World) -> None:
    world.add()
    settings = world.settings
    platform: Any = (world.loop.definitions.resources or {})["platform"]
    platform.registry = DamagingRegistry(settings.mlflow_uri, settings.mlflow_artifacts)
    succeeded(world.ingest(*days(1, 6)))
    (run,) = world.loop.tick("freshness_sensor")
    assert run.rejected
    assert "the registered model does not load and predict" in run.error
    assert "is damaged" in run.error
    assert world.platform.ledger.champion("churn") is None
    (check,) = [
        evaluation
        for evaluation in run.result.get_asset_check_evaluations()
        if evaluation.check_name == "infra_validation"
    ]
    assert not check.passed
    assert "is damaged" in str(check.description)
    assert check.metadata["seconds"].value > 0


def test_a_good_candidate_shows_its_load_time_and_memory(world: World) -> None:
    world.add()
    succeeded(world.ingest(*days(1, 6)))
    (run,) = succeeded(world.loop.tick("freshness_sensor"))
    (check,) = [
        evaluation
        for evaluation in run.result.get_asset_check_evaluations()
        if evaluation.check_name == "infra_validation"
    ]
    assert check.passed
    assert {"load_seconds", "peak_bytes", "max_difference", "rows"} <= set(check.metadata)
    assert check.metadata["max_difference"].value == 0
    assert world.champion().evidence["candidate"]["validation"]["problem"] == ""
    rows = world.platform.store.read("churn", "stored_predictions", [world.champion().fingerprint])
    assert rows.num_rows == 200
    assert world.champion().partition == day(6)
