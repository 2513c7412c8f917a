"""Rollback through ledger and registry, on a real MLflow database and both ledgers' databases."""

import os
import resource
import subprocess
import sys

import pytest
from integration.candidates import train_small_model

from retrain_assets.errors import ChampionChanged, LedgerError, RegistryError
from retrain_assets.promotion.ledger import Candidate, Ledger
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.rollback import roll_back as roll_back_everything


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request, tmp_path):
    if request.param == "sqlite":
        return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    server = request.getfixturevalue("postgres_server")
    return Ledger(server.create_database("rollback"))


def promote(ledger, version, expected, run_id=None):
    return ledger.promote(
        Candidate("churn", version, run_id or f"run{version}", f"fp{version}",
                  f"2024-01-0{version}", "roc_auc", 0.7),
        expected_champion=expected, actor="test", reason=f"v{version} won",
        evidence={"candidate": {"train_until": f"2024-01-0{version}"}},
    )  # fmt: skip


def roll_back(ledger, to=None, expected="2"):
    return ledger.roll_back(
        "churn", to_version=to, expected_champion=expected, actor="anna", reason="complaints"
    )


def test_a_rollback_is_a_new_row_with_the_earlier_champions_evidence(ledger):
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    row = roll_back(ledger)
    assert (row.version, row.sequence, row.kind, row.expected_version) == ("1", 3, "rollback", "2")
    assert (row.actor, row.reason, row.fingerprint) == ("anna", "complaints", "fp1")
    assert row.evidence == {"candidate": {"train_until": "2024-01-01"}}
    assert ledger.champion("churn") == row
    assert [r.version for r in ledger.history("churn")] == ["1", "2", "1"]


def test_repeating_a_rollback_writes_nothing(ledger):
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    first = roll_back(ledger)
    assert roll_back(ledger) == first
    assert roll_back(ledger, to="1") == first
    assert len(ledger.history("churn")) == 3


def test_any_former_champion_can_be_named(ledger):
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    promote(ledger, "3", "2")
    assert roll_back(ledger, to="1", expected="3").version == "1"
    assert roll_back(ledger, to="3", expected="1").version == "3"
    assert [r.sequence for r in ledger.history("churn")] == [1, 2, 3, 4, 5]


def test_a_rollback_of_a_champion_that_is_no_longer_there_is_refused(ledger):
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    promote(ledger, "3", "2")
    with pytest.raises(ChampionChanged, match="v2 was to be rolled back, but v3 is champion now"):
        roll_back(ledger, to="1", expected="2")
    assert ledger.champion("churn").version == "3"


def test_without_an_earlier_champion_there_is_nowhere_to_go(ledger):
    with pytest.raises(LedgerError, match="no version was ever promoted"):
        roll_back(ledger)
    promote(ledger, "1", None)
    with pytest.raises(LedgerError, match="v1 is the only version that was ever champion"):
        roll_back(ledger, expected="1")
    with pytest.raises(LedgerError, match="v9 was never champion; these were: v1"):
        roll_back(ledger, to="9", expected="1")


def test_a_promotion_after_a_rollback_compares_with_the_version_that_is_back(ledger):
    promote(ledger, "1", None)
    promote(ledger, "2", "1")
    roll_back(ledger)
    with pytest.raises(ChampionChanged):
        promote(ledger, "3", "2")
    assert promote(ledger, "3", "1").sequence == 4


@pytest.fixture
def registry(tmp_path):
    return MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"))


def test_ledger_and_aliases_go_back_together_and_again_after_a_kill(ledger, registry, tmp_path):
    trained = train_small_model(tmp_path / "model")
    first = registry.log_candidate("churn", "f1", **trained.arguments())
    second = registry.log_candidate("churn", "f2", **trained.arguments())
    promote(ledger, "1", None, first.run_id)
    promote(ledger, "2", "1", second.run_id)
    registry.project("churn", "2", "1")
    common = {"registry": registry, "ledger": ledger, "actor": "anna", "reason": "complaints"}
    before, now = roll_back_everything("churn", to_version=None, **common)
    assert (before.version, now.version) == ("2", "1")
    assert registry.aliases("churn") | {"candidate": "2"} == {
        "champion": "1", "previous": "2", "candidate": "2"
    }  # fmt: skip
    # As if killed between the ledger's row and the aliases: the next call sets them.
    registry.project("churn", "2", "1")
    before, now = roll_back_everything("churn", to_version=None, **common)
    assert before.sequence == now.sequence == 3
    assert registry.aliases("churn")["champion"] == "1"


def test_the_command_rolls_back_in_seconds(registry, tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    trained = train_small_model(tmp_path / "model")
    for number, expected in (("1", None), ("2", "1")):
        version = registry.log_candidate("churn", f"f{number}", **trained.arguments())
        promote(ledger, number, expected, version.run_id)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "retrain_assets.cli", "rollback", "churn", "--reason", "complaints"],
        env={**os.environ, "RETRAIN_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout == "churn: v2 -> v1, loaded and recorded\n", done.stderr
    assert registry.aliases("churn") == {"candidate": "2", "champion": "1", "previous": "2"}
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 4, "2 CPU seconds; more where other tests fight for the caches"


def test_a_version_that_does_not_load_is_never_rolled_back_to(ledger, registry, tmp_path):
    trained = train_small_model(tmp_path / "model")
    registry.log_candidate("churn", "f2", **trained.arguments())
    promote(ledger, "7", None)  # deleted from the registry, or never there
    promote(ledger, "1", "7")
    with pytest.raises(RegistryError):
        roll_back_everything(
            "churn", to_version="7", registry=registry, ledger=ledger, actor="anna", reason="x"
        )
    assert ledger.champion("churn").version == "1"
