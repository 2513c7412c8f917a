"""Ledger and registry after somebody has been at the registry by hand; MLflow on sqlite, for real."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from integration.candidates import Trained, train_small_model
from mlflow import MlflowClient

from retrain_assets.errors import RegistryError
from retrain_assets.promotion.ledger import Candidate, Ledger, Promotion
from retrain_assets.promotion.promote import project_champion
from retrain_assets.promotion.reconcile import reconcile
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.promotion.rollback import roll_back

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    return request.node.name[:60]


@pytest.fixture
def registry(shared: str) -> MlflowRegistry:
    return MlflowRegistry(shared)


@pytest.fixture
def client(shared: str, registry: MlflowRegistry) -> MlflowClient:
    registry.all_aliases()
    return MlflowClient(shared, shared)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def promote(
    model: str, registry: MlflowRegistry, ledger: Ledger, trained: Trained
) -> Callable[..., Promotion]:
    """Log and promote one more version, whole."""

    def promoted(name: str = model) -> Promotion:
        before = ledger.champion(name)
        number = len(ledger.history(name)) + 1
        found = registry.log_candidate(name, f"f{number}", **trained.arguments())
        entry = Candidate(name, found.version, found.run_id, found.fingerprint, None, "auc", 0.7)
        row = ledger.promote(
            entry, expected_champion=before.version if before else None,
            actor="test", reason="better", evidence={},
        )  # fmt: skip
        project_champion(name, registry=registry, ledger=ledger)
        return row

    return promoted


@pytest.fixture
def look(
    model: str, registry: MlflowRegistry, ledger: Ledger
) -> Iterator[Callable[..., list[tuple[str, str]]]]:
    """One look of the reconciler; afterwards ledger and aliases must agree, and the champion load."""

    def looked() -> list[tuple[str, str]]:
        found = reconcile([model], registry=registry, ledger=ledger)
        return [(repair.kind, repair.text) for repair in found]

    yield looked
    champion = ledger.champion(model)
    assert registry.aliases(model).get("champion") == (champion.version if champion else None)
    if champion is not None:
        registry.load_verified(model, champion.version, run_id=champion.run_id)


def test_what_agrees_is_left_alone(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]]
) -> None:
    assert look() == [], "a model that was never promoted"
    promote()
    promote()
    assert look() == []


def test_a_moved_and_a_deleted_alias_are_set_again(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str,
) -> None:  # fmt: skip
    promote()
    promote()
    client.set_registered_model_alias(model, "champion", "1")
    ((kind, text),) = look()
    assert kind == "aliases"
    assert f"{model}: alias champion v1 -> v2" in text
    assert look() == []
    client.delete_registered_model_alias(model, "champion")
    client.delete_registered_model_alias(model, "previous")
    ((kind, text),) = look()
    assert "alias champion none -> v2" in text
    assert "alias previous none -> v1" in text


def test_when_the_champion_is_deleted_the_newest_earlier_one_serves_again_on_record(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, ledger: Ledger,
) -> None:  # fmt: skip
    for _ in range(3):
        promote()
    client.delete_model_version(model, "3")
    ((kind, text),) = look()
    assert (kind, text) == (
        "fallback",
        "champion v3 was deleted from the registry; v2, champion before it, serves again",
    )
    row = ledger.champion(model)
    assert row is not None
    assert (row.kind, row.version, row.actor, row.reason) == ("fallback", "2", "reconciler", text)
    assert look() == []
    assert [p.sequence for p in ledger.history(model)] == [1, 2, 3, 4]
    back, now = roll_back(model, to_version=None, registry=MlflowRegistry(client.tracking_uri),
                          ledger=ledger, actor="anna", reason="further")  # fmt: skip
    assert (back.version, now.version) == ("2", "1")


def test_deleted_and_damaged_versions_are_passed_over(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, ledger: Ledger,
) -> None:  # fmt: skip
    for _ in range(4):
        promote()
    damage(client, model, "3")
    client.delete_model_version(model, "2")
    client.delete_model_version(model, "4")
    ((kind, _),) = look()
    assert kind == "fallback"
    assert ledger.champion(model).version == "1"  # type: ignore[union-attr]


def damage(client: MlflowClient, model: str, version: str) -> Path:
    folder = Path(urlsplit(client.get_model_version_download_uri(model, version)).path) / "data"
    (folder / "model.txt").write_text("tree\n")
    return folder


def test_what_a_person_took_down_never_takes_over(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, ledger: Ledger, registry: MlflowRegistry,
) -> None:  # fmt: skip
    for _ in range(2):
        promote()
    roll_back(
        model, to_version=None, registry=registry, ledger=ledger, actor="anna", reason="complaints"
    )
    client.delete_model_version(model, "1")
    ((kind, _),) = look()
    assert kind == "vacancy"
    assert ledger.champion(model) is None


def test_where_the_others_exist_but_do_not_load_a_person_decides(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, ledger: Ledger,
) -> None:  # fmt: skip
    for _ in range(2):
        promote()
    folder = Path(urlsplit(client.get_model_version_download_uri(model, "1")).path)
    shutil.move(folder, f"{folder}.away")
    client.delete_model_version(model, "2")
    for _ in range(2):
        ((kind, text),) = look()
        assert kind == "unresolved"
        assert "champion v2 was deleted from the registry, and no earlier champion loads" in text
        assert "nothing was changed" in text
    assert len(ledger.history(model)) == 2
    shutil.move(f"{folder}.away", folder)
    assert look()[0][0] == "fallback"


def test_without_an_earlier_champion_there_is_none_and_the_next_training_is_the_first(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, ledger: Ledger,
) -> None:  # fmt: skip
    for _ in range(2):
        promote()
    client.delete_registered_model(model)
    ((kind, text),) = look()
    assert kind == "vacancy"
    assert "no earlier champion is left" in text
    assert look() == []
    row = promote()
    assert (row.version, row.expected_version, row.sequence) == ("1", None, 4)
    client.set_registered_model_alias(model, "champion", "1")
    assert look() == []


def test_an_alias_set_by_hand_in_a_vacancy_is_removed(
    promote: Callable[..., Promotion], look: Callable[..., list[tuple[str, str]]],
    client: MlflowClient, model: str, registry: MlflowRegistry, trained: Trained,
) -> None:  # fmt: skip
    promote()
    client.delete_model_version(model, "1")
    assert look()[0][0] == "vacancy"
    found = registry.log_candidate(model, "f9", **trained.arguments())
    client.set_registered_model_alias(model, "champion", found.version)
    assert look()[0][0] == "aliases"


def test_a_deleted_previous_champion_is_told_once_and_then_costs_nothing(
    promote: Callable[..., Promotion], client: MlflowClient, model: str, ledger: Ledger,
    registry: MlflowRegistry,
) -> None:  # fmt: skip
    promote()
    promote()
    client.delete_model_version(model, "1")
    (repair,) = reconcile([model], registry=registry, ledger=ledger)
    assert repair.kind == "no_previous"
    assert "v1, the champion before v2, was deleted from the registry" in repair.text
    (again,) = reconcile([model], registry=registry, ledger=ledger, settled=[repair.event])
    assert (again.kind, again.event, again.text) == ("known", repair.event, "")


def test_another_registry_is_an_error_and_no_reason_to_change_champions(
    promote: Callable[..., Promotion], model: str, ledger: Ledger, tmp_path: Path
) -> None:
    promote()
    elsewhere = MlflowRegistry(f"sqlite:///{tmp_path / 'other.db'}")
    (repair,) = reconcile([model], registry=elsewhere, ledger=ledger)
    assert repair.kind == "unresolved"
    assert "Check RETRAIN_MLFLOW_URI: is it another registry?" in repair.text
    promote(f"{model}_2")
    with pytest.raises(RegistryError, match="knows none of the 2 champions of the ledger"):
        reconcile([model, f"{model}_2"], registry=elsewhere, ledger=ledger)
    assert len(ledger.history(model)) == 1


def test_an_unreachable_registry_is_an_error_and_changes_nothing(
    promote: Callable[..., Promotion], model: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="check that it runs and can be reached"):
        reconcile([model], registry=MlflowRegistry("http://127.0.0.1:9"), ledger=ledger)
    assert len(ledger.history(model)) == 1


def test_many_models_cost_one_question_to_the_registry_and_only_the_different_are_touched(
    promote: Callable[..., Promotion], model: str, ledger: Ledger, registry: MlflowRegistry,
    client: MlflowClient,
) -> None:  # fmt: skip
    names = [f"{model}_{i}" for i in range(4)]
    for name in names:
        promote(name)
    statements: list[str] = []

    class Counting(MlflowRegistry):
        def _speaking(self, doing: str):  # type: ignore[no-untyped-def]
            statements.append(doing)
            return super()._speaking(doing)

    counting = Counting(client.tracking_uri)
    assert reconcile(names, registry=counting, ledger=ledger) == []
    assert statements == ["reading the aliases"]
    client.delete_registered_model_alias(names[2], "champion")
    (repair,) = reconcile(names, registry=counting, ledger=ledger)
    assert repair.model == names[2]
    assert not any(names[1] in doing for doing in statements)
    selects: list[str] = []
    sa.event.listen(
        ledger.database.engine(), "before_cursor_execute",
        lambda c, cu, statement, *rest: selects.append(statement),
    )  # fmt: skip
    assert reconcile(names, registry=counting, ledger=ledger) == []
    assert len([s for s in selects if s.startswith("SELECT")]) == 1
