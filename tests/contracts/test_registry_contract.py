"""One suite over MLflow in a sqlite file and behind a real server, over HTTP, on PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from integration.candidates import Trained, train_small_model
from integration.ports import free_port
from integration.postgres import PostgresServer
from mlflow import MlflowClient
from mlflow.entities import DatasetInput

from retrain_assets.errors import RegistryError
from retrain_assets.promotion.registry import MlflowRegistry, ModelVersion
from retrain_assets.training.model import TabularModel

# MLflow 3.17 declares its tables with an option that SQLAlchemy 2.1 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


def wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"mlflow server did not start: {log.read_text()}")


def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    port = free_port()
    log = folder / "server.log"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", database,
        "--artifacts-destination", str(folder / "store"),
    ]  # fmt: skip
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_healthy(server, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=30)


@pytest.fixture(scope="module", params=["sqlite", "server on postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'mlflow.db'}"
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        yield from mlflow_server(folder, postgres.create_database("mlflow"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def registry(uri: str) -> MlflowRegistry:
    return MlflowRegistry(uri)


@pytest.fixture(scope="module")
def client(uri: str, registry: MlflowRegistry) -> MlflowClient:
    registry.all_aliases()
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def model() -> str:
    return f"model_{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


@pytest.fixture
def log(registry: MlflowRegistry, model: str, trained: Trained) -> Callable[..., ModelVersion]:
    def logged(fingerprint: str = "f1", **changes: Any) -> ModelVersion:
        return registry.log_candidate(model, fingerprint, **trained.arguments(**changes))

    return logged


def runs(client: MlflowClient, model: str) -> list[Any]:
    experiment = client.get_experiment_by_name(model)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def logged_model_states(client: MlflowClient, model: str) -> list[str]:
    experiment = client.get_experiment_by_name(model)
    assert experiment is not None
    found = client.search_logged_models([experiment.experiment_id])
    return sorted(str(one.status) for one in found)


def test_a_model_that_was_never_logged_has_no_version_and_no_alias(
    registry: MlflowRegistry, model: str
) -> None:
    assert registry.find(model, "f1") is None
    assert registry.aliases(model) == {}
    assert model not in registry.all_aliases()


def test_a_logged_candidate_is_found_again_and_carries_what_people_look_for(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, model: str
) -> None:
    logged = log("sha256:abc")
    assert logged == registry.find(model, "sha256:abc") == registry.version(model, "1")
    assert (logged.model, logged.version, logged.fingerprint) == (model, "1", "sha256:abc")
    assert logged.model_uri == f"models:/{model}/1"
    assert {k: v for k, v in logged.tags.items() if k != "model_id"} == {
        "fingerprint": "sha256:abc",
        "run_id": logged.run_id,
        "partition": "2024-01-31",
        "metric.roc_auc": "0.875",
        "metric.ndcg_at_10": "0.5",
    }
    assert registry.aliases(model) == {"candidate": "1"}
    assert registry.find(model, "another") is None


def test_the_run_holds_parameters_metrics_files_dataset_and_parent(
    log: Callable[..., ModelVersion], client: MlflowClient, model: str
) -> None:
    many = {f"param{i}": i for i in range(150)}
    version = log(params=many, parent_run_id="a" * 32)
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in many.items()}
    assert run.data.metrics == {"roc_auc": 0.875, "ndcg_at_10": 0.5}
    assert run.data.tags["mlflow.parentRunId"] == "a" * 32
    assert run.data.tags["partition"] == "2024-01-31"
    files = [f.path for f in client.list_artifacts(version.run_id)]
    assert {"evaluation.json", "pictures"} <= set(files)
    assert [f.path for f in client.list_artifacts(version.run_id, "pictures")] == [
        "pictures/importance.png"
    ]
    assert [f.path for f in client.list_artifacts(version.run_id, "drift")] == [
        "drift/training.profile"
    ]
    inputs: list[DatasetInput] = run.inputs.dataset_inputs
    assert [(i.dataset.name, i.dataset.digest) for i in inputs] == [
        ("churn", ("0123456789abcdef" * 4)[:36])
    ]
    assert '"hour"' in inputs[0].dataset.schema
    assert [output.model_id for output in run.outputs.model_outputs] == [version.tags["model_id"]]
    experiment = client.get_experiment_by_name(model)
    assert experiment is not None
    assert run.info.experiment_id == experiment.experiment_id


def test_the_loaded_model_predicts_exactly_what_the_trained_one_did(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, model: str, trained: Trained
) -> None:
    version = log()
    loaded = registry.load(version)
    assert np.array_equal(loaded.predict(trained.frame), trained.predictions)
    assert np.array_equal(registry.load(model, "1").predict(trained.frame), trained.predictions)
    served = registry.load_pyfunc(version)
    assert np.array_equal(served.predict(trained.frame), trained.predictions)


def test_the_served_model_takes_natural_types_nulls_and_missing_columns(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, trained: Trained
) -> None:
    served = registry.load_pyfunc(log())
    frames = [
        trained.frame.assign(hour=[1.0, None, 3.0, None, 5.0]),
        trained.frame.assign(visits=[1, 2, 3, 4, 5]),
        trained.frame.assign(hour=pd.array([1, None, 3, None, 5], dtype="Int64")),
        trained.frame.assign(carrier=[None, "AA", "never seen", None, "DL"]),
        trained.frame.drop(columns=["carrier", "seen_at"]),
        trained.frame[trained.frame.columns[::-1]],
    ]
    for frame in frames:
        assert np.array_equal(served.predict(frame), trained.model.predict(frame))


def test_logging_the_same_fingerprint_again_stores_nothing(
    log: Callable[..., ModelVersion], client: MlflowClient, registry: MlflowRegistry, model: str
) -> None:
    first = log()
    assert log() == first
    assert len(runs(client, model)) == 1
    assert len(client.search_model_versions(f"name = '{model}'")) == 1
    second = log("f2")
    assert second.version == "2"
    assert registry.aliases(model) == {"candidate": "2"}
    assert log() == first
    assert registry.aliases(model) == {"candidate": "1"}


def test_a_stored_model_that_predicts_something_else_is_refused_and_leaves_no_version(
    log: Callable[..., ModelVersion],
    registry: MlflowRegistry,
    client: MlflowClient,
    model: str,
    trained: Trained,
) -> None:
    wrong = trained.predictions.copy()
    wrong[0] = np.nextafter(wrong[0], 1)
    with pytest.raises(RegistryError, match=rf"^{model}: .* predicts 1 of 5 values differently"):
        log(predictions=wrong)
    with pytest.raises(RegistryError, match=r"predicts the shape \(5,\), the trained model \(4,\)"):
        log(predictions=trained.predictions[:4])
    assert registry.find(model, "f1") is None
    assert registry.aliases(model) == {}
    assert [run.info.status for run in runs(client, model)] == ["FAILED", "FAILED"]
    assert logged_model_states(client, model) == ["FAILED", "FAILED"]
    assert log().version == "1"


def test_a_damaged_model_folder_is_refused_and_leaves_no_version(
    log: Callable[..., ModelVersion],
    registry: MlflowRegistry,
    client: MlflowClient,
    model: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "model.txt").write_text("tree")
    with pytest.raises(RegistryError, match=r"stored candidate does not load and predict: .*json"):
        log(model_folder=tmp_path)
    with pytest.raises(RegistryError, match="check that the path exists"):
        log(model_folder=tmp_path / "missing")
    assert [run.info.status for run in runs(client, model)] == ["FAILED", "FAILED"]
    assert registry.find(model, "f1") is None


def test_an_interruption_leaves_no_run_running(
    log: Callable[..., ModelVersion],
    client: MlflowClient,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_model_artifacts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log()
    assert [run.info.status for run in runs(client, model)] == ["FAILED"]
    assert logged_model_states(client, model) == ["FAILED"]
    assert log().version == "1"


def test_a_version_whose_files_never_arrived_does_not_count(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str
) -> None:
    run_id = log("f1").run_id
    experiment = client.get_experiment_by_name(model)
    assert experiment is not None
    pending = client.create_logged_model(experiment.experiment_id, name="half")
    for tags in ({"model_id": pending.model_id}, {}, {"model_id": "m-unknown"}):
        client.create_model_version(
            model,
            pending.artifact_location,
            run_id=run_id,
            model_id=pending.model_id,
            tags={"fingerprint": "f2", **tags},
        )
    assert registry.find(model, "f2") is None
    assert log("f2").version == "5"


def test_of_several_versions_with_one_fingerprint_the_lowest_is_found(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str
) -> None:
    first = log("f1")
    source = client.get_model_version_download_uri(model, "1")
    for _ in range(10):
        client.create_model_version(
            model,
            source,
            run_id=first.run_id,
            model_id=first.tags["model_id"],
            tags=dict(first.tags),
        )
    assert registry.find(model, "f1") == first


def test_two_callers_at_once_get_the_same_single_version(
    uri: str, client: MlflowClient, registry: MlflowRegistry, model: str, trained: Trained
) -> None:
    barrier = threading.Barrier(3, timeout=60)

    def call() -> ModelVersion:
        mine = MlflowRegistry(uri)
        mine.all_aliases()
        barrier.wait()
        return mine.log_candidate(model, "f1", **trained.arguments())

    with ThreadPoolExecutor(3) as pool:
        found = [call.result() for call in [pool.submit(call) for _ in range(3)]]
    assert len({one.version for one in found}) == 1
    versions = client.search_model_versions(f"name = '{model}'")
    assert [str(one.version) for one in versions] == [found[0].version]
    assert registry.aliases(model) == {"candidate": found[0].version}
    states = {run.info.run_id: run.info.status for run in runs(client, model)}
    assert states.pop(found[0].run_id) == "FINISHED"
    assert "RUNNING" not in states.values()
    assert np.array_equal(registry.load(found[0]).predict(trained.frame), trained.predictions)


def test_aliases_follow_the_ledger_and_say_what_changed(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, model: str
) -> None:
    for fingerprint in ("f1", "f2", "f3"):
        log(fingerprint)
    assert registry.project(model, "1", None) == [f"{model}: alias champion none -> v1"]
    assert registry.project(model, "1", None) == []
    assert registry.project(model, "3", "1") == [
        f"{model}: alias champion v1 -> v3",
        f"{model}: alias previous none -> v1",
    ]
    assert registry.aliases(model) == {"candidate": "3", "champion": "3", "previous": "1"}
    assert registry.all_aliases()[model] == registry.aliases(model)
    assert registry.project(model, "1", None) == [
        f"{model}: alias champion v3 -> v1",
        f"{model}: alias previous v1 -> none",
    ]
    assert registry.aliases(model) == {"candidate": "3", "champion": "1"}


def test_a_previous_champion_that_was_deleted_gets_no_alias(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str
) -> None:
    log("f1")
    log("f2")
    client.delete_model_version(model, "1")
    assert registry.project(model, "2", "1") == [f"{model}: alias champion none -> v2"]
    assert registry.project(model, "2", "1") == []
    assert registry.project(model, None, None) == [f"{model}: alias champion v2 -> none"]
    client.delete_registered_model(model)
    assert registry.aliases(model) == {}
    assert registry.project(model, None, None) == []


def test_a_version_exists_while_it_is_registered_and_its_run_is_known_for_ever(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str
) -> None:
    run_id = log().run_id
    assert registry.exists(model, "1", run_id=run_id)
    assert not registry.exists(model, "1", run_id="a" * 32), "a version of another run"
    assert not registry.exists(model, "2", run_id=run_id)
    client.delete_model_version(model, "1")
    assert not registry.exists(model, "1", run_id=run_id)
    client.delete_registered_model(model)
    assert not registry.exists(model, "1", run_id=run_id)
    client.delete_run(run_id)
    assert registry.knows_run(run_id)
    assert not registry.knows_run("a" * 32)


def test_a_verified_load_is_of_the_run_meant_and_predicts_what_was_stored(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str,
    trained: Trained, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    version = log()
    loaded = registry.load_verified(model, "1", run_id=version.run_id)
    assert np.array_equal(loaded.predict(trained.frame), trained.predictions)
    with pytest.raises(RegistryError, match=r"the ledger means that of run bbb: the registered mo"):
        registry.load_verified(model, "1", run_id="bbb")
    # A library whose new release predicts something else.
    predict = TabularModel.predict
    monkeypatch.setattr(TabularModel, "predict", lambda self, frame: predict(self, frame) + 1e-6)
    with pytest.raises(RegistryError, match=r"predicts 5 of 5 values differently from when it was"):
        registry.load_verified(model, "1", run_id=version.run_id)


def test_files_that_were_lost_before_the_version_was_made_are_uploaded_again(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            log()
    assert logged_model_states(client, model) == ["READY"]
    with monkeypatch.context() as patched:
        patched.setattr(MlflowRegistry, "_fetched", _losing_once(MlflowRegistry._fetched))
        version = log()
    assert logged_model_states(client, model) == ["FAILED", "READY"]
    assert sorted(run.info.status for run in runs(client, model)) == ["FINISHED", "KILLED"]
    registry.load_verified(model, "1", run_id=version.run_id)


def _interrupted(*args: Any, **keywords: Any) -> None:
    raise KeyboardInterrupt


def _losing_once(fetched: Any) -> Any:
    calls: list[str] = []

    def once(self: MlflowRegistry, location: str) -> Any:
        calls.append(location)
        if len(calls) == 1:
            raise OSError(f"No such file or directory: {location}")
        return fetched(self, location)

    return once


def test_an_alias_for_a_version_that_is_gone_is_a_registry_error(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, model: str
) -> None:
    log()
    with pytest.raises(RegistryError, match=rf"setting the aliases of {model}: .*not found"):
        registry.project(model, "7", None)


def test_loading_a_version_that_is_gone_says_so(
    log: Callable[..., ModelVersion], registry: MlflowRegistry, client: MlflowClient, model: str
) -> None:
    version = log()
    client.delete_model_version(model, "1")
    for load in (registry.load, registry.load_pyfunc):
        with pytest.raises(RegistryError) as caught:
            load(version)
        assert f"loading {model} v1: " in str(caught.value)
        assert "it does not exist or has been deleted" in str(caught.value)
    with pytest.raises(RegistryError, match=rf"reading {model} v1: .*not found"):
        registry.version(model, "1")


@pytest.mark.parametrize(
    ("fingerprint", "changes", "problem"),
    [
        ("it's", {}, "fingerprint must be 1 to 200 letters, digits or .*, got 'it's'"),
        ("", {}, "fingerprint must be"),
        ("f", {"documents": {"../x": ""}}, r"relative path without '\.\.', got '\.\./x'"),
        ("f", {"dataset": {"name": "x"}}, "needs name, digest and source, got no digest, source"),
    ],
)
def test_arguments_that_mlflow_would_misread_are_refused_before_anything_is_stored(
    log: Callable[..., ModelVersion],
    client: MlflowClient,
    model: str,
    fingerprint: str,
    changes: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(RegistryError, match=problem):
        log(fingerprint, **changes)
    assert client.get_experiment_by_name(model) is None


def test_loading_by_name_needs_a_version(registry: MlflowRegistry) -> None:
    with pytest.raises(RegistryError, match="churn: which version"):
        registry.load("churn")
