"""A small world for orchestration tests: specs, a source to steer, and a loop that ticks.

Everything is real but the calendar: Dagster instances, sensors, assets, LightGBM, MLflow on sqlite,
the ledger. `World.loop.tick()` is one tick of the daemon with the runs that it requests.
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import yaml

from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.keys import Tag, asset_key, monitor_keys, retrain_keys
from retrain_assets.orchestration.local import Executed, LocalLoop
from retrain_assets.orchestration.platform import Platform
from retrain_assets.promotion.decisions import Judgement
from retrain_assets.promotion.ledger import Candidate, Promotion
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import SpecSet, load_specs

FIRST = date(2024, 1, 1)  # a Monday


def days(first: int, last: int) -> list[str]:
    """Keys of the days `first` to `last`, counted from 1."""
    return [(FIRST + timedelta(days=n - 1)).isoformat() for n in range(first, last + 1)]


def day(n: int) -> str:
    return days(n, n)[0]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section; a change to None removes the field."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def base_spec(name: str, folder: Path, task: str = "binary") -> dict[str, Any]:
    """A spec that trains in well under a second on six days of the test source."""
    return {
        "name": name,
        "partitions": {"every": "day", "start": FIRST, "end": FIRST + timedelta(days=299)},
        "source": {
            "python": "orchestration.sources:load",
            "available": "orchestration.sources:available",
            "options": {"folder": str(folder), "name": name, "task": task},
        },
        "contract": {
            "min_rows": 10,
            "columns": {"segment": {"type": "string", "allowed": ["a", "b"]}},
        },
        "target": "y",
        "task": task,
        "train": {
            "window": 6,
            "min_window": 4,
            "holdout": 2,
            "params": {"n_estimators": 20, "num_leaves": 7, "num_threads": 1},
        },
        "drift": {"min_rows": 50, "thresholds": {"ks": 0.3, "wasserstein": 0.8, "psi": 0.8}},
        "gate": {"min_rows": 50, "resamples": 400},
    }


@dataclass
class World:
    """Specs and sources in a folder, an instance, and the loop over them.

    Attributes:
        folder: holds `specs/`, `world.json` and everything that the platform stores.
        instance: the Dagster instance.
    """

    folder: Path
    instance: dg.DagsterInstance
    state: dict[str, Any] = field(
        default_factory=lambda: {
            "partitions": [], "down": [], "bad": {}, "drift_from": None, "version": 1,
        }
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.specs_folder.mkdir(parents=True, exist_ok=True)
        self.say()

    @property
    def specs_folder(self) -> Path:
        return self.folder / "specs"

    def say(self, **changes: Any) -> None:
        """Change what the source answers from now on."""
        self.state |= changes
        temporary = self.folder / "world.json.new"
        temporary.write_text(json.dumps(self.state), encoding="utf-8")
        os.replace(temporary, self.folder / "world.json")

    def add(self, name: str = "churn", task: str = "binary", **changes: Any) -> None:
        """Write a spec: the small one with `changes` to its sections."""
        assert "specs" not in self.__dict__, "the specs are loaded already"
        document = merged(base_spec(name, self.folder, task), changes)
        path = self.specs_folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    @cached_property
    def settings(self) -> Settings:
        return Settings.load(home=self.folder / "home")

    @cached_property
    def specs(self) -> SpecSet:
        return load_specs(self.specs_folder)

    @cached_property
    def loop(self) -> LocalLoop:
        return LocalLoop(build_definitions(self.specs, self.settings), self.instance)

    @cached_property
    def platform(self) -> Platform:
        return Platform(self.settings)

    def restarted(self) -> "World":
        """The same folder and instance with a daemon that has lost its cursors."""
        return World(self.folder, self.instance, self.state)

    # -- driving ----------------------------------------------------------------------------------

    def ingest(self, *keys: str) -> list[Executed]:
        """Let partitions arrive and run what the arrivals sensor requests."""
        self.say(partitions=sorted({*self.state["partitions"], *keys}))
        return self.loop.tick("arrivals")

    def first_champion(self, until: int = 6) -> Promotion:
        """Ingest days 1 to `until` and train the first champion."""
        succeeded(self.ingest(*days(1, until)))
        succeeded(self.loop.tick("freshness_sensor"))
        return self.champion()

    def retrain(self, partition: str | None, name: str = "churn") -> Executed:
        """The run that a retraining of `partition` is."""
        keys = retrain_keys(name, partitioned=partition is not None)
        return self.materialize(keys, partition)

    def materialize(self, keys: Sequence[dg.AssetKey], partition: str | None) -> Executed:
        """Materialize assets as a person does in the UI."""
        request = dg.RunRequest(asset_selection=list(keys), partition_key=partition)
        return self.loop.execute("person", request)

    # -- looking ----------------------------------------------------------------------------------

    def champion(self, name: str = "churn") -> Promotion:
        champion = self.platform.ledger.champion(name)
        assert champion is not None, f"{name} has no champion"
        return champion

    def materialized(self, stage: str, name: str = "churn") -> set[str]:
        return set(self.instance.get_materialized_partitions(asset_key(name, stage)))

    def versions(self, name: str = "churn") -> list[str]:
        """Numbers of all registered versions, oldest first."""
        import mlflow

        client = mlflow.MlflowClient(self.settings.mlflow_uri, self.settings.mlflow_uri)
        found = client.search_model_versions(f"name = '{name}'")
        return sorted((str(version.version) for version in found), key=int)

    def mlflow_runs(self, name: str = "churn") -> int:
        """How many candidates MLflow has logged for a model, parent runs left out."""
        import mlflow

        client = mlflow.MlflowClient(self.settings.mlflow_uri, self.settings.mlflow_uri)
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        return sum("fingerprint" in run.data.tags for run in runs)

    # -- events without runs, for tests of the sensors alone --------------------------------------

    def report(self, stage: str, partition: str, name: str = "churn", **metadata: Any) -> None:
        """Record a materialization without a run."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key(name, stage), partition=partition, metadata=metadata)
        )

    def store_features(self, *keys: str, name: str = "churn") -> None:
        """Store tiny feature partitions, and record the last as materialized."""
        for key in keys:
            self.platform.store.write(name, "features", key, pa.table({"y": [0, 1]}))
        self.report("features", keys[-1], name)

    def judged(
        self, partition: str, name: str = "churn", *, version: str = "2", verdict: str = "reject",
        code: str = "", state: str = "",
    ) -> None:  # fmt: skip
        """Record that a retraining has ended with a judged candidate."""
        self.platform.decisions.record_judgement(
            Judgement(
                name, str(uuid.uuid4()), state, partition, version, code, verdict, "test", None, None,
                datetime.now(UTC),
            )
        )  # fmt: skip

    def promote(self, partition: str, name: str = "churn") -> None:
        """Write a champion into the ledger as if it had been trained for `partition`."""
        before = self.platform.ledger.champion(name)
        version = str(int(before.version) + 1) if before else "1"
        self.platform.ledger.promote(
            Candidate(
                name, version, f"run {version}", f"data {version}", partition, "roc_auc", 0.8
            ),
            expected_champion=before.version if before else None,
            actor="test",
            reason="test",
            evidence={},
        )

    @contextmanager
    def _in_flight(self, keys: Sequence[dg.AssetKey], tags: Mapping[str, str]) -> Iterator[None]:
        """While the block runs, a run of these assets waits in the queue."""
        job = self.loop.definitions.resolve_implicit_global_asset_job_def()
        run = self.instance.create_run_for_job(job, asset_selection=frozenset(keys), tags=tags)
        yield
        self.instance.report_run_canceled(run)

    def retraining_in_flight(
        self, partition: str, name: str = "churn"
    ) -> AbstractContextManager[None]:
        """While the block runs, a retraining of the model waits in the queue."""
        tags = {"dagster/partition": partition, Tag.KIND: "retrain"}
        return self._in_flight(retrain_keys(name, partitioned=True), tags)

    def monitoring_in_flight(self, name: str = "churn") -> AbstractContextManager[None]:
        """While the block runs, a monitor run of the model waits in the queue."""
        return self._in_flight(
            monitor_keys(name), {Tag.KIND: "monitor", Tag.QUEUE: f"monitor:{name}"}
        )


def succeeded(done: Sequence[Executed]) -> Sequence[Executed]:
    """`done`, of which every run must have succeeded; and there must be one."""
    assert done, "no run was requested"
    errors = [run.error for run in done if not run.success]
    assert not errors, "\n".join(errors)
    return done
