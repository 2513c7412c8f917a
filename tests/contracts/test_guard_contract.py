"""The guard on a real registry, a real ledger and real tables: what it finds, does, and survives."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from integration.candidates import FEATURES, feature_table, train_small_model

from retrain_assets.data.tables import TableStore
from retrain_assets.promotion.guard import ACTOR, Guarded, guard, guarded_pair, mark_told, period
from retrain_assets.promotion.ledger import Candidate, GuardOutcome, Ledger, Promotion
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.rollback import roll_back
from retrain_assets.spec.model import ModelSpec
from retrain_assets.training.lightgbm_trainer import train_lightgbm
from retrain_assets.training.model import TabularModel

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def day(n: int) -> str:
    return (date(2024, 1, 1) + timedelta(days=n - 1)).isoformat()


class CountingRegistry(MlflowRegistry):
    """Counts the models that it loads."""

    loads = 0

    def load(self, *arguments: Any, **keywords: Any) -> TabularModel:
        self.loads += 1
        return super().load(*arguments, **keywords)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> CountingRegistry:
    """v1 is a good model, v2 was taught the opposite, v3 equals v1."""
    folder = tmp_path_factory.mktemp("guarded")
    found = CountingRegistry(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "models"))
    good = train_small_model(folder / "good")
    table = feature_table(200, seed=1)
    opposite = table.set_column(
        table.column_names.index("late"), "late", pa.array(1 - table["late"].to_numpy())
    )
    bad = train_lightgbm(
        opposite, target="late", task="binary", feature_columns=FEATURES,
        params={"num_leaves": 7, "n_estimators": 10, "num_threads": 1}, seed=0,
    )  # fmt: skip
    bad.save(folder / "bad")
    other = good.arguments(model_folder=folder / "bad", predictions=bad.predict(good.frame))
    for fingerprint, arguments in (
        ("f1", good.arguments()),
        ("f2", other),
        ("f3", good.arguments()),
    ):
        found.log_candidate("churn", fingerprint, **arguments)
    return found


class Place:
    """One model's tables, ledger and spec."""

    def __init__(self, folder: Path, registry: CountingRegistry) -> None:
        self.store = TableStore(str(folder / "store"))
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.registry = registry
        self.spec = self.with_guard()

    def with_guard(self, label_delay: int = 0, **rules: Any) -> ModelSpec:
        self.spec = ModelSpec.model_validate(
            {
                "name": "churn",
                "partitions": {"every": "day", "start": "2024-01-01"},
                "source": {"files": "data/{partition}.parquet"},
                "target": "late",
                "task": "binary",
                "train": {"window": 8, "holdout": 4, "label_delay": label_delay},
                "gate": {"min_rows": 50, "guard": {"partitions": 6, **rules}},
            }
        )
        return self.spec

    def entry(self, version: str, partition: str) -> Candidate:
        run_id = self.registry.version("churn", version).run_id
        return Candidate("churn", version, run_id, f"f{version}", partition, "roc_auc", 0.8)

    def promote(self, version: str, until: int, *, holdout: int | None = None) -> Promotion:
        """Make a version champion that was judged on days up to `until`."""
        champion = self.ledger.champion("churn")
        return self.ledger.promote(
            self.entry(version, day(until)),
            expected_champion=champion.version if champion else None,
            actor="test",
            reason="it won",
            evidence={
                "gate": {"gain": 0.012},
                "candidate": {
                    "holdout_until": day(holdout or until),
                    "train_until": day(until - 4),
                },
            },
        )

    def arrive(self, first: int, last: int, *, labels: bool = True) -> None:
        """Store feature partitions; without labels the target is null."""
        for n in range(first, last + 1):
            rows = feature_table(60, seed=n)
            if not labels:
                at = rows.column_names.index("late")
                rows = rows.set_column(at, "late", pa.nulls(60, pa.int64()))
            self.store.write("churn", "features", day(n), rows)

    def watch(self, **changes: Any) -> Guarded | None:
        arguments: dict[str, Any] = {
            "store": self.store, "registry": self.registry, "ledger": self.ledger,
            "existing": self.store.partitions("churn", "features"), **changes,
        }  # fmt: skip
        return guard(self.spec, **arguments)

    def seen(self, **changes: Any) -> Guarded:
        found = self.watch(**changes)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path, registry: CountingRegistry) -> Iterator[Place]:
    registry.loads = 0
    yield Place(tmp_path, registry)
    registry.project("churn", "1", None)


def worse(place: Place, **rules: Any) -> None:
    """v2, which predicts the opposite, has replaced v1 with day 8 as the end of its holdout."""
    place.with_guard(**rules)
    place.promote("1", 4)
    place.promote("2", 8)
    place.registry.project("churn", "2", "1")


def test_a_worse_model_is_found_out_when_four_days_have_labels_and_not_before(
    place: Place,
) -> None:
    worse(place)
    place.arrive(1, 8)
    assert place.watch() is None
    place.arrive(9, 11)
    early = place.seen()
    assert (early.outcomes, early.worse) == ((), None)
    assert early.waiting == "labels of 3 partitions are there, 4 are needed for a look"
    place.arrive(12, 12)
    found = place.seen()
    (look,) = found.outcomes
    assert found.worse == look
    assert (look.verdict, look.through_partition) == ("worse", day(12))
    assert (look.partitions, look.rows, look.fraction) == (4, 240, 4 / 6)
    assert look.alpha == pytest.approx(0.05 * 4 / 6)
    assert look.gain_low < look.gain < look.gain_high < 0
    assert place.ledger.outcomes("churn") == [look]
    champion = place.ledger.champion("churn")
    assert champion is not None
    assert champion.version == "2", "without auto_rollback a person decides"
    assert "v2, which replaced v1, is worse on 240 rows of 4 partitions" in found.sentence
    assert "expected +0.012" in found.sentence


def test_an_equal_model_holds_and_its_gain_is_recorded_beside_the_expected_one(
    place: Place,
) -> None:
    place.promote("1", 4)
    place.promote("3", 8)
    place.arrive(9, 16)
    found = place.seen()
    (look,) = found.outcomes
    assert (look.verdict, look.gain, look.expected_gain) == ("holds", 0.0, 0.012)
    assert look.through_partition == day(14), "the period is six days long, whatever has come"
    assert look.sentence == (
        f"expected +0.012, realised +0 [0, 0] over 6 partitions up to {day(14)}"
    )


def test_looks_at_more_and_more_days_spend_one_error_together(place: Place) -> None:
    place.promote("1", 4)
    place.promote("3", 8)
    for last in (12, 13, 14):
        place.arrive(9, last)
        found = place.seen()
    assert [look.through_partition for look in found.outcomes] == [day(12), day(13), day(14)]
    levels = [look.alpha for look in found.outcomes]
    assert levels[0] == pytest.approx(0.05 * 4 / 6)
    assert 0.05 < sum(levels) < 0.09, "each look is stricter than one look would be"
    assert place.seen().outcomes == found.outcomes, "and asking again looks at nothing new"


def test_every_partition_is_scored_once(place: Place) -> None:
    worse(place)
    place.arrive(9, 12)
    place.seen()
    assert place.registry.loads == 2
    place.seen()
    assert place.registry.loads == 2
    assert place.store.partitions("churn", "guard_2") == [day(n) for n in range(9, 13)]
    place.store.write("churn", "features", day(9), feature_table(5, seed=0))
    place.arrive(13, 13)
    found = place.seen()
    assert place.registry.loads == 4
    assert found.outcomes[-1].rows == 300, "day 9 was read from the stored scores"


def test_the_label_delay_is_waited_for(place: Place) -> None:
    worse(place, label_delay=2)
    place.arrive(9, 12)
    assert place.seen().scored == (day(9), day(10))
    place.arrive(13, 14)
    found = place.seen()
    assert found.scored == tuple(day(n) for n in range(9, 13))
    assert found.worse is not None


def test_partitions_whose_labels_have_not_come_wait(place: Place) -> None:
    worse(place)
    place.arrive(9, 11)
    place.arrive(12, 12, labels=False)
    assert place.seen().scored == (day(9), day(10), day(11))
    assert place.seen().outcomes == ()
    place.arrive(12, 12)
    assert place.seen().worse is not None


def test_a_day_that_never_came_costs_its_share_of_the_looks(place: Place) -> None:
    worse(place)
    place.arrive(9, 10)
    place.arrive(12, 13)
    found = place.seen()
    (look,) = found.outcomes
    assert (look.partitions, look.through_partition) == (4, day(13))


def test_the_period_begins_after_both_holdouts(place: Place) -> None:
    place.promote("1", 10)
    place.promote("2", 8)
    pair = guarded_pair(place.ledger.history("churn"))
    assert pair is not None
    assert period(place.spec, pair) == [day(n) for n in range(11, 17)]
    place.promote("3", 14, holdout=12)
    pair = guarded_pair(place.ledger.history("churn"))
    assert pair is not None
    assert pair.predecessor.version == "2"
    assert period(place.spec, pair)[0] == day(13)


def test_nobody_is_guarded_before_a_second_champion_nor_after_a_rollback_by_a_person(
    place: Place,
) -> None:
    place.arrive(5, 12)
    assert place.watch() is None
    place.promote("1", 4)
    assert place.watch() is None
    place.promote("2", 8)
    roll_back("churn", to_version="1", registry=place.registry, ledger=place.ledger,
              actor="anna", reason="complaints")  # fmt: skip
    place.registry.loads = 0
    assert place.watch() is None
    roll_back("churn", to_version="2", registry=place.registry, ledger=place.ledger,
              actor="anna", reason="false alarm")  # fmt: skip
    assert place.watch() is None, "a person has decided"


def test_a_period_that_is_over_is_not_looked_at_again(place: Place) -> None:
    worse(place)
    place.arrive(15, 25)
    assert place.watch() is None
    assert place.registry.loads == 0


def test_a_loss_within_the_bound_holds(place: Place) -> None:
    worse(place, max_loss=1.0)
    place.arrive(9, 12)
    (look,) = place.seen().outcomes
    assert look.gain < -0.3
    assert look.verdict == "holds"


def test_auto_rollback_puts_the_predecessor_back_with_evidence_and_for_good(place: Place) -> None:
    worse(place, auto_rollback=True)
    place.arrive(9, 12)
    found = place.seen()
    assert found.rollback is not None
    row = place.ledger.champion("churn")
    assert row == found.rollback
    assert (row.version, row.kind, row.actor, row.expected_version) == ("1", "rollback", ACTOR, "2")
    assert row.reason == found.sentence
    assert row.evidence["rollback"]["verdict"] == "worse"
    assert row.evidence["candidate"]["holdout_until"] == day(4), "what v1 rests on stays with it"
    aliases = place.registry.aliases("churn")
    assert (aliases["champion"], aliases["previous"]) == ("1", "2")
    assert not found.told
    mark_told(place.store, found)
    place.arrive(13, 14)
    assert place.watch() is None
    assert [r.version for r in place.ledger.history("churn")] == ["1", "2", "1"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


class KilledAfterScores(Ledger):
    def record_outcome(self, outcome: GuardOutcome) -> GuardOutcome:
        raise Killed


class KilledAfterOutcome(Ledger):
    def roll_back(self, *arguments: Any, **keywords: Any) -> Promotion:
        raise Killed


class KilledAfterRollback(Ledger):
    def roll_back(self, *arguments: Any, **keywords: Any) -> Promotion:
        super().roll_back(*arguments, **keywords)
        raise Killed


@pytest.mark.parametrize("ledger", [KilledAfterScores, KilledAfterOutcome, KilledAfterRollback])
def test_a_guard_killed_at_any_step_is_finished_by_the_next_run(
    place: Place, tmp_path: Path, ledger: type[Ledger]
) -> None:
    worse(place, auto_rollback=True)
    place.arrive(9, 12)
    with pytest.raises(Killed):
        place.watch(ledger=ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    assert place.registry.aliases("churn")["champion"] == "2"
    found = place.seen()
    assert found.rollback is not None
    assert not found.told, "so that people hear of it"
    assert [r.version for r in place.ledger.history("churn")] == ["1", "2", "1"]
    assert len(place.ledger.outcomes("churn")) == 1
    assert place.registry.aliases("churn")["champion"] == "1"
    assert place.seen().rollback is not None, "killed before the message: it is sent again"
    mark_told(place.store, found)
    assert place.watch() is None


class SomebodyPromotes(Ledger):
    """Another promotion comes between the look and the rollback."""

    def record_outcome(self, outcome: GuardOutcome) -> GuardOutcome:
        recorded = super().record_outcome(outcome)
        self.promote(
            Candidate("churn", "3", "r3", "f3", day(12), "roc_auc", 0.8),
            expected_champion="2", actor="test", reason="better", evidence={},
        )  # fmt: skip
        return recorded


def test_a_promotion_in_between_is_not_rolled_back(place: Place, tmp_path: Path) -> None:
    worse(place, auto_rollback=True)
    place.arrive(9, 12)
    found = place.seen(ledger=SomebodyPromotes(f"sqlite:///{tmp_path / 'ledger.db'}"))
    assert found.worse is not None
    assert found.rollback is None
    assert [r.version for r in place.ledger.history("churn")] == ["1", "2", "3"]


def test_of_two_looks_at_the_same_days_the_first_one_stays(place: Place) -> None:
    worse(place)
    place.arrive(9, 12)
    (look,) = place.seen().outcomes
    assert place.ledger.record_outcome(replace(look, gain=0.5, verdict="holds")) == look
    assert place.ledger.outcomes("churn") == [look]


def test_a_promotion_of_a_release_before_the_guard_is_guarded_from_its_partition_on(
    place: Place,
) -> None:
    place.promote("1", 4)
    place.ledger.promote(
        place.entry("2", day(9)),
        expected_champion="1", actor="test", reason="it won", evidence={"gate": {"gain": None}},
    )  # fmt: skip
    pair = guarded_pair(place.ledger.history("churn"))
    assert pair is not None
    assert pair.expected_gain is None
    assert period(place.spec, pair)[0] == day(10)
    place.arrive(10, 13)
    assert "expected" not in place.seen().sentence


def test_a_long_period_is_looked_at_in_blocks(place: Place) -> None:
    place.with_guard(partitions=60)
    place.promote("1", 4)
    place.promote("2", 8)
    place.arrive(9, 8 + 19)
    assert (
        place.seen().waiting
        == "labels of 3 blocks of 5 partitions are there, 4 are needed for a look"
    )
    place.arrive(28, 28)
    (look,) = place.seen().outcomes
    assert (look.partitions, look.fraction, look.verdict) == (20, 4 / 12, "worse")
    assert np.isfinite(look.gain_low)
