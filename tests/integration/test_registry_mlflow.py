"""What MLflow does to the registry when processes are killed, race, or find no server."""

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.candidates import Trained, train_small_model
from mlflow import MlflowClient

from retrain_assets.errors import RegistryError
from retrain_assets.promotion.registry import MlflowRegistry

# MLflow 3.17 declares its tables with an option that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

KILL_POINTS = [
    "create_experiment",
    "create_run",
    "log_batch",
    "log_artifacts",
    "log_inputs",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_terminated",
    "set_registered_model_alias",
]
"""Every call of `log_candidate` that writes, in order."""

# Forks for each kill point, because importing MLflow costs seconds. The fork must not use the
# parent's database connections.
KILLER = """
import json, os, pickle, shutil, signal, sys
from pathlib import Path

uri, arguments_file, points = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
arguments = pickle.loads(Path(arguments_file).read_bytes())
import lightgbm, mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from retrain_assets.promotion.registry import MlflowRegistry

registry = MlflowRegistry(uri)
registry.all_aliases()

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at(name, moment):
    original = getattr(MlflowClient, name)
    def replaced(self, *args, **kwargs):
        if moment == "before":
            die()
        if moment == "during":
            LocalArtifactRepository.log_artifacts = half
        original(self, *args, **kwargs)
        die()
    setattr(MlflowClient, name, replaced)

def half(self, local_dir, artifact_path=None):
    Path(self.artifact_dir).mkdir(parents=True)
    shutil.copy(Path(local_dir) / "MLmodel", Path(self.artifact_dir) / "MLmodel")
    die()

for point in points:
    child = os.fork()
    if child == 0:
        client = registry._connected
        client._tracking_client.store.engine.dispose(close=False)
        client._get_registry_client().store.engine.dispose(close=False)
        name, moment = point.split(":")
        kill_at(name, moment)
        registry.log_candidate(point.replace(":", "_"), "f1", **arguments)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(point, os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small_model(tmp_path_factory.mktemp("trained") / "model")


def in_a_process(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_candidate_killed_at_any_step_is_completed_by_the_next_attempt(
    tmp_path: Path, trained: Trained
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "arguments.pkl").write_bytes(pickle.dumps(trained.arguments()))
    points = [f"{name}:{moment}" for name in KILL_POINTS for moment in ("before", "after")]
    points.append("log_model_artifacts:during")
    killer = in_a_process(KILLER, uri, str(tmp_path / "arguments.pkl"), json.dumps(points))
    out, err = killer.communicate(timeout=240)
    assert out.split("\n")[:-1] == [f"{point} -9" for point in points], err
    registry = MlflowRegistry(uri)
    registry.all_aliases()
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for point in points:
        model = point.replace(":", "_")
        version = registry.log_candidate(model, "f1", **trained.arguments())
        assert version.version == "1", point
        assert registry.find(model, "f1") == version, point
        assert len(client.search_model_versions(f"name = '{model}'")) == 1, point
        assert registry.aliases(model) == {"candidate": "1"}, point
        assert np.array_equal(registry.load(version).predict(trained.frame), trained.predictions)
        experiment = client.get_experiment_by_name(model)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        states = {run.info.run_id: run.info.status for run in runs}
        assert states.pop(version.run_id) == "FINISHED", point
        assert set(states.values()) <= {"KILLED"}, point
        logged = client.search_logged_models([experiment.experiment_id])
        assert {str(m.status) for m in logged if m.model_id != version.tags["model_id"]} <= {
            "FAILED"
        }, point


RACER = """
import pickle, sys
from pathlib import Path
from retrain_assets.promotion.registry import MlflowRegistry
uri, arguments_file = sys.argv[1:]
arguments = pickle.loads(Path(arguments_file).read_bytes())
print(MlflowRegistry(uri).log_candidate("churn", "f1", **arguments).version)
"""


def test_processes_that_start_on_a_new_database_at_once_share_one_version(
    tmp_path: Path, trained: Trained
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "arguments.pkl").write_bytes(pickle.dumps(trained.arguments()))
    racers = [in_a_process(RACER, uri, str(tmp_path / "arguments.pkl")) for _ in range(2)]
    ends = [racer.communicate(timeout=240) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], ends
    assert len({out for out, _ in ends}) == 1
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert len(client.search_model_versions("name = 'churn'")) == 1


def test_a_process_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    script = (
        "import sys; from retrain_assets.promotion.registry import MlflowRegistry; "
        "MlflowRegistry(sys.argv[1]).all_aliases()"
    )
    process = in_a_process(script, f"sqlite:///{path}")
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("mlflow.db.new_*/mlflow.db")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not path.exists()
    assert MlflowRegistry(f"sqlite:///{path}").all_aliases() == {}
    assert not list(tmp_path.glob("mlflow.db.new_*"))


def test_finding_a_version_among_hundreds_stays_fast(tmp_path: Path, trained: Trained) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry = MlflowRegistry(uri)
    first = registry.log_candidate("churn", "f0", **trained.arguments())
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    source = client.get_model_version_download_uri("churn", "1")
    for i in range(1, 301):
        client.create_model_version(
            "churn",
            source,
            run_id=first.run_id,
            model_id=first.tags["model_id"],
            tags={**first.tags, "fingerprint": f"f{i}"},
        )
    started = time.process_time()
    for i in range(0, 300, 30):
        found = registry.find("churn", f"f{i}")
        assert found is not None
        assert found.version == f"{i + 1}"
    assert (time.process_time() - started) / 10 < 0.1


def test_a_server_that_is_down_is_reported_within_seconds_without_credentials() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        registry = MlflowRegistry(f"http://trainer:s3cret@127.0.0.1:{port}")
        started = time.monotonic()
        with pytest.raises(RegistryError) as caught:
            registry.find("churn", "f1")
    assert time.monotonic() - started < 20
    message = str(caught.value)
    assert message.startswith(f"model registry http://127.0.0.1:{port}: finding churn f1: ")
    assert message.endswith(
        "check that it runs and can be reached from here, and that the URI is right"
    )
    assert "s3cret" not in message
    assert "\n" not in message


def test_a_database_that_is_down_is_reported_within_seconds_without_credentials() -> None:
    registry = MlflowRegistry("postgresql+psycopg2://trainer:s3cret@127.0.0.1:1/mlflow")
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        registry.all_aliases()
    assert time.monotonic() - started < 20
    assert "model registry postgresql+psycopg2://127.0.0.1:1/mlflow: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def no_mlflow() -> Iterator[str]:
    class NotMlflow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404, "nothing of that kind")

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotMlflow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_is_something_else_is_a_registry_error(no_mlflow: str) -> None:
    with pytest.raises(RegistryError, match=f"model registry {no_mlflow}: finding churn f1: .*404"):
        MlflowRegistry(no_mlflow).find("churn", "f1")


def test_a_deleted_experiment_is_named_with_the_way_back(tmp_path: Path, trained: Trained) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry = MlflowRegistry(uri, artifact_root=str(tmp_path / "models"))
    registry.log_candidate("churn", "f1", **trained.arguments())
    assert (tmp_path / "models" / "churn").is_dir()
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("churn")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(RegistryError, match=r"experiment 'churn' has been deleted; restore it"):
        registry.log_candidate("churn", "f2", **trained.arguments())


def test_model_files_that_were_removed_are_named(tmp_path: Path, trained: Trained) -> None:
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}")
    version = registry.log_candidate("churn", "f1", **trained.arguments())
    (found,) = (tmp_path / "artifacts").rglob("model.txt")
    found.write_text("damaged")
    with pytest.raises(
        RegistryError, match=r"churn v1: the files at .* cannot be loaded: .*damaged"
    ):
        registry.load(version)
    found.unlink()
    with pytest.raises(RegistryError, match=r"cannot be loaded: .*model\.txt"):
        registry.load(version)


def test_a_database_other_than_sqlite_needs_a_place_for_the_files() -> None:
    registry = MlflowRegistry("postgresql+psycopg2://trainer:s3cret@db/mlflow")
    with pytest.raises(RegistryError, match="db/mlflow: needs an artifact_root"):
        registry._location("churn")


def test_importing_the_registry_imports_no_mlflow() -> None:
    script = (
        "import sys, retrain_assets.promotion.registry, retrain_assets.promotion.ledger; "
        "print([m for m in ('mlflow', 'sqlalchemy', 'pandas', 'lightgbm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
