"""Work that changes state, to be killed anywhere: its world, what it does, what must hold then.

Everything is real: tables, LightGBM, MLflow on sqlite, the ledger on sqlite.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from orchestration.harness import base_spec, days, merged

from retrain_assets.data.ingest import ingest, make_features
from retrain_assets.data.tables import TableStore
from retrain_assets.promotion.approve import approve
from retrain_assets.promotion.candidate import Candidate, build_candidate, load_evidence
from retrain_assets.promotion.guard import guard
from retrain_assets.promotion.ledger import Ledger
from retrain_assets.promotion.promote import judge_and_promote
from retrain_assets.promotion.reconcile import reconcile
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.reviews import Reviews
from retrain_assets.promotion.rollback import roll_back
from retrain_assets.spec.loading import load_specs
from retrain_assets.spec.model import ModelSpec

NAME = "churn"
FIRST, SECOND = days(6, 6)[0], days(12, 12)[0]


@dataclass(frozen=True)
class Deployment:
    """One model's spec and the stores of a deployment, all under `folder`."""

    folder: Path

    @cached_property
    def spec(self) -> ModelSpec:
        (loaded,) = load_specs(self.folder / "specs").specs()
        return loaded

    @cached_property
    def store(self) -> TableStore:
        return TableStore(str(self.folder / "tables"))

    @cached_property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(f"sqlite:///{self.folder / 'mlflow.db'}")

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.folder / 'ledger.db'}")

    def say(self, **changes: Any) -> None:
        """What the source answers."""
        import json

        state = {"partitions": [], "down": [], "bad": {}, "drift_from": None, "version": 1}
        (self.folder / "world.json").write_text(json.dumps(state | changes), encoding="utf-8")

    def write_spec(self, **changes: Any) -> None:
        (self.folder / "specs").mkdir(parents=True)
        document = merged(base_spec(NAME, self.folder), changes)
        path = self.folder / "specs" / f"{NAME}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def bring(self, *keys: str) -> None:
        """Ingest partitions and make their features."""
        for key in keys:
            ingest(self.spec, key, self.store)
            existing = self.store.partitions(NAME, "raw_data")
            make_features(self.spec, key, self.store, existing)

    def retrain(self, key: str) -> None:
        """What candidate_model and promoted_model do."""
        stores = {"store": self.store, "registry": self.registry, "ledger": self.ledger}
        build_candidate(self.spec, key, **stores)
        judge_and_promote(self.spec, key, **stores, actor="a test")

    def fingerprints(self) -> dict[str, str]:
        """Of every stored partition, by table and key."""
        found = {}
        for table in ("raw_data", "features"):
            keys = sorted(self.store.partitions(NAME, table))
            values = self.store.fingerprints(NAME, table, keys) if keys else {}
            found |= {f"{table} {key}": value for key, value in values.items()}
        return found


@dataclass(frozen=True)
class Scenario:
    """Work on a prepared world.

    Attributes:
        prepare: makes the world.
        work: what is killed, and run again.
        every: only every so many steps are killed at (MLflow makes its tables in 500 of them).
        whole: whether the champion can be loaded before the work is done.
    """

    prepare: Callable[[Deployment], None]
    work: Callable[[Deployment], None]
    every: int = 1
    whole: bool = True


def _nothing(world: Deployment) -> None:
    world.say(drift_from=days(7, 7)[0])
    world.write_spec()


def _start(world: Deployment) -> None:
    world.ledger.champions()
    world.registry.all_aliases()


def _data(world: Deployment, **changes: Any) -> None:
    world.say(drift_from=days(7, 7)[0])
    world.write_spec(**changes)
    world.bring(*days(1, 6))
    _start(world)


def _with_champion(world: Deployment, **changes: Any) -> None:
    _data(world, **changes)
    world.bring(*days(7, 12))
    world.retrain(FIRST)


def _with_two(world: Deployment, **changes: Any) -> None:
    _with_champion(world, **changes)
    world.retrain(SECOND)


def _waiting_for_approval(world: Deployment) -> None:
    _data(world, gate={"approval": "manual"})
    world.bring(*days(7, 12))
    world.retrain(FIRST)
    _approve(world, "1")


def _waiting_twice(world: Deployment) -> None:
    _waiting_for_approval(world)
    world.retrain(SECOND)


def _guarded(world: Deployment) -> None:
    """The second champion fits days 7 to 12 only: from day 13 on the first is right again."""
    _with_two(world, gate={"guard": {"partitions": 4, "auto_rollback": True}})
    world.say(drift_from=days(99, 99)[0])
    world.bring(*days(13, 16))


def _aliases_lost(world: Deployment) -> None:
    import mlflow

    _with_two(world)
    uri = f"sqlite:///{world.folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    client.delete_registered_model_alias(NAME, "champion")
    client.delete_model_version(NAME, "2")


def _approve(world: Deployment, version: str) -> None:
    approve(
        NAME, version, registry=world.registry, ledger=world.ledger, actor="a person",
        reason="a test",
    )  # fmt: skip


def _roll_back(world: Deployment) -> None:
    roll_back(
        NAME, to_version="1", registry=world.registry, ledger=world.ledger, actor="a person",
        reason="a test",
    )  # fmt: skip


def _watch_promotion(world: Deployment) -> None:
    existing = world.store.partitions(NAME, "features")
    guard(
        world.spec, store=world.store, registry=world.registry, ledger=world.ledger,
        existing=existing,
    )  # fmt: skip


def _reconcile(world: Deployment) -> None:
    reconcile([NAME], registry=world.registry, ledger=world.ledger)


SCENARIOS = {
    "the first start": Scenario(_nothing, _start, every=51),
    "a new partition": Scenario(_data, lambda world: world.bring(*days(7, 8))),
    "the first champion": Scenario(_data, lambda world: world.retrain(FIRST)),
    "a better challenger": Scenario(_with_champion, lambda world: world.retrain(SECOND), every=3),
    "a candidate that waits for approval": Scenario(
        _waiting_for_approval, lambda world: world.retrain(SECOND), every=4
    ),
    "an approval": Scenario(_waiting_twice, lambda world: _approve(world, "2")),
    "a rollback by a person": Scenario(_with_two, _roll_back),
    "a rollback by the guard": Scenario(_guarded, _watch_promotion),
    "a champion deleted by hand": Scenario(_aliases_lost, _reconcile, whole=False),
}


def _check_versions(world: Deployment) -> None:
    """Each fingerprint has one version, and the run of each version has ended."""
    import mlflow

    uri = f"sqlite:///{world.folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    versions = client.search_model_versions(f"name = '{NAME}'")
    counts = Counter(version.tags["fingerprint"] for version in versions)
    assert set(counts.values()) == {1}, f"several versions of one fingerprint: {counts}"
    for version in versions:
        assert client.get_run(version.run_id).info.status == "FINISHED", version.version


def facts(world: Deployment) -> dict[str, Any]:
    """What the finished work leaves behind; the same whether it was killed before or not."""
    champion = world.ledger.champion(NAME)
    return {
        "fingerprints": world.fingerprints(),
        "history": [(row.sequence, row.version, row.kind) for row in world.ledger.history(NAME)],
        "reviews": [(row.version, row.kind) for row in Reviews(world.ledger).history(NAME)],
        "outcomes": [
            (row.sequence, row.through_partition, row.verdict)
            for row in world.ledger.outcomes(NAME)
        ],
        "champion": champion.fingerprint if champion else None,
        "aliases": world.registry.aliases(NAME) if champion else {},
    }


def check_readers(world: Deployment, *, whole: bool = True) -> None:
    """What holds at any moment, seconds after a kill: whoever reads sees a whole, working state."""
    history = world.ledger.history(NAME)
    assert [row.sequence for row in history] == list(range(1, len(history) + 1)), "a gap"
    for table in ("raw_data", "features"):
        keys = sorted(world.store.partitions(NAME, table))
        if keys:
            assert world.store.read(NAME, table, keys).num_rows == 120 * len(keys), table
    champion = world.ledger.champion(NAME)
    if champion is None or not whole:
        return
    candidate = Candidate(**{**champion.evidence["candidate"], "notes": ()})
    stored = load_evidence(world.store, candidate).scores["candidate"]
    holdout = world.spec.scheme.trailing(str(champion.partition), 2)  # type: ignore[union-attr]
    rows = world.store.read(NAME, "features", list(holdout)).to_pandas()
    predicted = world.registry.load(NAME, champion.version).predict(rows)
    assert np.array_equal(predicted, stored), "the champion does not reproduce its predictions"


def check_finished(world: Deployment) -> None:
    """What holds once the work was run again."""
    check_readers(world)
    champion = world.ledger.champion(NAME)
    if champion is None:
        return
    assert world.registry.aliases(NAME)["champion"] == champion.version
    _check_versions(world)
