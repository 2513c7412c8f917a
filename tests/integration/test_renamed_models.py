"""A renamed model keeps its champion and its history, whatever is killed on the way."""

import itertools
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from integration.candidates import train_small_model

from retrain_assets.data.tables import TableStore
from retrain_assets.errors import RegistryError
from retrain_assets.promotion import rename
from retrain_assets.promotion.decisions import Decisions, Judgement
from retrain_assets.promotion.ledger import Candidate, Ledger
from retrain_assets.promotion.model_files import load_model, store_model
from retrain_assets.promotion.promote import project_champion
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.rename import adopt, adopt_all

# MLflow 3.17 declares its tables with an option that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

OLD = "churn"
_NAMES = (f"leavers{n}" for n in itertools.count())


class _Parts:
    """A registry, a ledger and a store; each test gives the model another new name in them."""

    def __init__(self, folder):
        self.folder = folder
        self.registry = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}")
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.store = TableStore(str(folder / "storage"))

    def adopt(self, new):
        return adopt(new, OLD, registry=self.registry, ledger=self.ledger, store=self.store)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, trained):
    """Two promotions of the old name, a rejected candidate between them, and what drift needs."""
    parts = _Parts(tmp_path_factory.mktemp("home"))
    champion = None
    for n, promoted in ((1, True), (2, False), (3, True)):
        found = parts.registry.log_candidate(OLD, f"print{n}", **trained.arguments())
        if promoted:
            candidate = Candidate(
                OLD, found.version, found.run_id, f"print{n}", f"2024-01-0{n}", "roc_auc", 0.8
            )
            parts.ledger.promote(candidate, expected_champion=champion, actor="a", reason=f"r{n}",
                                 evidence={"n": n})  # fmt: skip
            champion = found.version
    project_champion(OLD, registry=parts.registry, ledger=parts.ledger)
    parts.store.write(OLD, "reference", "print3", pa.table({"x": [1.0, 2.0]}))
    parts.store.write_json(OLD, "reference", "print3", {"importance": {"x": 1.0}})
    parts.store.write_profile(OLD, "reference", "print3", b"RDP1")
    store_model(parts.store, OLD, "print3", trained.model)
    Decisions(parts.ledger).record_judgement(
        Judgement(OLD, "run9", "state", "2024-01-03", "3", "code", "promote", "s", 0.1, 1.0,
                  datetime(2024, 1, 4, tzinfo=UTC))
    )  # fmt: skip
    return parts


@pytest.fixture
def new():
    return next(_NAMES)


def _check_taken_over(parts, new, trained):
    rows = parts.ledger.history(new)
    assert [(row.sequence, row.version, row.expected_version) for row in rows] == [
        (1, "1", None),
        (2, "2", "1"),
    ]
    assert [row.reason for row in rows] == ["r1 (as churn v1)", "r3 (as churn v3)"]
    old = parts.ledger.history(OLD)
    assert [(r.promoted_at, r.evidence, r.run_id) for r in rows] == [
        (r.promoted_at, r.evidence, r.run_id) for r in old
    ]
    assert parts.registry.aliases(new) == {"champion": "2", "previous": "1"}
    loaded = parts.registry.load_verified(new, "2", run_id=rows[1].run_id)
    assert np.array_equal(loaded.predict(trained.frame), trained.predictions)
    assert parts.store.read(new, "reference", ["print3"]).num_rows == 2
    assert parts.store.read_json(new, "reference", "print3") == {"importance": {"x": 1.0}}
    assert parts.store.read_profiles(new, "reference", ["print3"]) == [b"RDP1"]
    assert load_model(parts.store, new, "print3") is not None
    assert [one.run_id for one in Decisions(parts.ledger).judgements(new)] == ["run9"]


def test_champion_history_and_reference_go_with_the_name_and_the_old_name_keeps_its_own(
    parts, new, trained
):
    before = parts.ledger.history(OLD)
    assert parts.adopt(new)
    _check_taken_over(parts, new, trained)
    assert parts.ledger.history(OLD) == before
    assert parts.registry.aliases(OLD)["champion"] == "3"
    assert not parts.adopt(new)
    _check_taken_over(parts, new, trained)


def test_the_same_training_is_found_under_the_new_name_instead_of_being_made_again(parts, new):
    parts.adopt(new)
    found = parts.registry.find(new, "print3")
    assert found is not None
    assert (found.version, found.fingerprint) == ("2", "print3")


class _Killed(BaseException):
    """Not an Exception, as a kill is none: nothing cleans up behind it."""


@pytest.mark.parametrize(
    "step", ["_copied_versions", "_copy_reference", "copy_model", "_copy_rows", "project_champion"]
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_step_is_repaired_by_the_next_run(
    parts, new, trained, monkeypatch, step, moment
):
    real = getattr(rename, step)

    def dying(*args, **kwargs):
        if moment == "after":
            real(*args, **kwargs)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(rename, step, dying)
        with pytest.raises(_Killed):
            parts.adopt(new)
    parts.adopt(new)
    project_champion(new, registry=parts.registry, ledger=parts.ledger)  # as every run does
    _check_taken_over(parts, new, trained)


def test_a_kill_between_two_copies_of_versions_makes_no_version_twice(
    parts, new, trained, monkeypatch
):
    real, copied = parts.registry.copy_version, []

    def dying(*args, **kwargs):
        copied.append(real(*args, **kwargs))
        raise _Killed

    monkeypatch.setattr(parts.registry, "copy_version", dying)
    with pytest.raises(_Killed):
        parts.adopt(new)
    monkeypatch.undo()
    assert copied == ["1"]
    assert parts.adopt(new)
    _check_taken_over(parts, new, trained)


def test_of_two_processes_one_takes_over_and_both_are_content(
    parts, new, trained, tmp_path, monkeypatch
):
    other = _Parts(parts.folder)
    real = rename._copy_reference

    def slow(*args):
        monkeypatch.setattr(rename, "_copy_reference", real)
        assert other.adopt(new)
        real(*args)

    monkeypatch.setattr(rename, "_copy_reference", slow)
    assert not parts.adopt(new)
    _check_taken_over(parts, new, trained)


def test_a_promotion_under_the_new_name_is_never_overwritten(parts, new):
    candidate = Candidate(new, "1", "run", "own", None, "roc_auc", 0.9)
    parts.ledger.promote(candidate, expected_champion=None, actor="a", reason="own", evidence={})
    assert not parts.adopt(new)
    assert [row.fingerprint for row in parts.ledger.history(new)] == ["own"]


def test_versions_that_were_deleted_stay_behind_and_a_deleted_champion_is_an_error(parts, new):
    assert parts.adopt(new)
    client = parts.registry._connect()
    arguments = {"registry": parts.registry, "ledger": parts.ledger, "store": parts.store}
    client.delete_model_version(new, "1")
    assert adopt(f"{new}_b", new, **arguments)
    rows = parts.ledger.history(f"{new}_b")
    assert [(row.version, row.expected_version) for row in rows] == [("1", None)]
    client.delete_model_version(new, "2")
    with pytest.raises(
        RegistryError, match=f"v2, the champion of {new}, was deleted .* Remove renamed_from"
    ):
        adopt(f"{new}_c", new, **arguments)
    assert parts.ledger.newest_of(f"{new}_c") is None


def test_all_renamed_models_are_looked_at_together(parts, new):
    arguments = {"registry": parts.registry, "ledger": parts.ledger, "store": parts.store}
    assert adopt_all({new: OLD, "fresh": "unknown"}, **arguments) == [new]
    assert adopt_all({new: OLD, "fresh": "unknown"}, **arguments) == []
