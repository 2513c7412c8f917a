"""The model registry: the only module that speaks to MLflow.

Belongs here: storing a candidate (run, files, version, tags), proving that what was stored loads and
predicts the same, finding it again, and making the aliases follow the ledger. Does not: who is
champion (`ledger`; an alias here is only its projection), whether a candidate is good (`gate`), how
a model is built or read from files (`training.model`).

A candidate's steps are ordered so that a kill between any two of them is harmless: the run is
opened, the files are uploaded and verified, the logged model becomes READY, the version is created,
the run ends, the alias `candidate` moves. A version therefore exists only for files that have been
loaded and checked. Running again continues after READY and otherwise abandons the old attempt.

MLflow facts that shaped this module: tags are not unique, so the winner among several versions of
one fingerprint is the lowest version number; a logged model that is still PENDING can be registered
and then shows READY, so the logged model is asked; the fluent API keeps the active run and the
tracking URI in process-wide state, so only `MlflowClient` calls with explicit ids are used.
"""

import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from retrain_assets.errors import RegistryError, RetrainError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

    from retrain_assets.training.model import TabularModel

__all__ = ["ALIASES", "MlflowRegistry", "ModelVersion"]

ALIASES = ("candidate", "champion", "previous")
"""The aliases that this package sets."""

_FINGERPRINT, _MODEL_ID, _RUN_ID = "fingerprint", "model_id", "run_id"
_COPY_OF = "copy_of"
_LOADER = "retrain_assets.training.serving"
_DATA = "data"
_EXAMPLE = "input_example.json"
# Exact, unlike the example, which people read: a few rows and what the model predicted for them.
_SAMPLE, _PREDICTED = "sample.parquet", "sample_predictions.npy"
# Other processors round sums and exponentials differently in the last bits.
_TOLERANCE = 1e-9
_DIGEST_LENGTH = 36
_CONNECT_SECONDS = 5
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The defaults would retry an unreachable server for four minutes per call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes:
        model: registered model's name.
        version: number within the model, as text.
        run_id: the MLflow run that logged it.
        model_uri: `models:/<model>/<version>`.
        fingerprint: what it was trained from; "" for a version that this package did not log.
        tags: all of its tags: fingerprint, run_id, model_id, `metric.<name>` and the caller's.
    """

    model: str
    version: str
    run_id: str
    model_uri: str
    fingerprint: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class _Attempt:
    """One try to log a candidate: its run and, once it has one, its logged model."""

    run_id: str
    logged: "LoggedModel"


class MlflowRegistry:
    """Model versions in MLflow, behind an http(s) server or directly in a database.

    Connects when first used. Every method raises RegistryError when MLflow cannot be reached or
    refuses; the message names the URI without credentials. An unreachable server is reported within
    seconds; the environment variables `MLFLOW_HTTP_REQUEST_*` that set this may be overridden.

    Args:
        tracking_uri: `http(s)://...`, `sqlite:///...` or another database URL.
        artifact_root: folder or URL under which models are stored. By default the server's own
            store, and for sqlite the folder `artifacts` beside the database. Fixed per model when
            its first candidate is logged: MLflow keeps it with the experiment.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None = None) -> None:
        self._uri = tracking_uri
        self._artifact_root = artifact_root
        self._connected: MlflowClient | None = None

    def ensure_experiment(self, model: str) -> str:
        """Id of the model's own experiment, which is made if it is not there."""
        with self._speaking(f"open the experiment of {model}") as client:
            return self._experiment(client, model)

    def find(self, model: str, fingerprint: str) -> ModelVersion | None:
        """The version with this fingerprint, None if there is none.

        Of several the one with the lowest number; only versions whose files are complete count.
        """
        with self._speaking(f"finding {model} {fingerprint}") as client:
            return _winner(client, model, fingerprint)

    def version(self, model: str, version: str) -> ModelVersion:
        """The version with this number; raises RegistryError if there is none."""
        with self._speaking(f"reading {model} v{version}") as client:
            return _ours(client.get_model_version(model, version))

    def log_candidate(
        self,
        model: str,
        fingerprint: str,
        *,
        model_folder: Path,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        signature_frame: "pd.DataFrame",
        predictions: np.ndarray[Any, Any],
        pictures: Mapping[str, bytes],
        documents: Mapping[str, str | bytes],
        dataset: Mapping[str, Any],
        parent_run_id: str | None = None,
    ) -> ModelVersion:
        """Store a candidate as a verified version with the alias `candidate`.

        The same fingerprint finds the same version: a repeated call stores nothing, and a call
        after a kill completes or abandons what the killed one left. Of two callers at the same time
        both get the same version.

        Args:
            model: name of the registered model and of the experiment.
            fingerprint: what the model was trained from; without quotes or spaces.
            model_folder: what `TabularModel.save` wrote.
            params: hyperparameters and settings, logged as text.
            metrics: values on the holdout; also tags `metric.<name>` of the version. In MLflow, "@"
                in a name is written "_at_" (`ndcg_at_10`).
            tags: tags of the run and of the version (`partition`, say).
            signature_frame: a few feature rows with natural types; example input and signature.
            predictions: the model's predictions for `signature_frame`, shape (rows,) or (rows, k).
            pictures: PNG files by relative path.
            documents: other files by relative path, text or bytes.
            dataset: `name`, `digest`, `source` and optionally `source_type`, `profile`, `context`.
            parent_run_id: MLflow run under which the candidate's run is shown.

        Raises:
            RegistryError: MLflow refuses or is down, or the stored files do not load and predict
                `predictions` exactly. No version was created; the run is FAILED.
        """
        _check_names(fingerprint, {**pictures, **documents}, dataset)
        with self._speaking(f"logging a candidate of {model}") as client:
            found = _winner(client, model, fingerprint)
            if found is None:
                experiment_id = self._experiment(client, model)
                attempt = _abandon_unfinished(client, experiment_id, fingerprint)
                if attempt and not self._complete(
                    client, model, attempt, signature_frame, predictions
                ):
                    attempt = None
                if attempt is None:
                    run_id = _open_run(client, experiment_id, fingerprint, tags, parent_run_id)
                    with _failing(client, run_id):
                        _log_facts(client, run_id, params, metrics)
                        _log_files(client, run_id, pictures, documents)
                        signature = _signature(signature_frame)
                        _log_dataset(client, run_id, dataset, signature)
                        logged = self._upload(
                            client, run_id, experiment_id, model, fingerprint, model_folder,
                            signature, signature_frame, predictions,
                        )  # fmt: skip
                    attempt = _Attempt(run_id, logged)
                found = _register(client, model, fingerprint, attempt, metrics, tags)
            _complete(client, found)
            return found

    def complete(self, found: ModelVersion) -> None:
        """End what a killed `log_candidate` left open: the run, the alias `candidate`.

        Repeating it changes nothing.
        """
        with self._speaking(f"completing {found.model} v{found.version}") as client:
            _complete(client, found)

    def load(self, model: str | ModelVersion, version: str | None = None) -> "TabularModel":
        """The model of a version, ready to predict: `load(found)` or `load("churn", "3")`.

        Raises:
            RegistryError: no such version, or its files are gone or unreadable.
        """
        from retrain_assets.training.model import TabularModel

        name, number = _name_and_version(model, version)
        with self._speaking(f"loading {name} v{number}") as client:
            location = client.get_model_version_download_uri(name, number)
            with self._fetched(location) as folder:
                try:
                    return TabularModel.load(folder / _DATA)
                except (RetrainError, OSError, ValueError, KeyError) as error:
                    raise RegistryError(
                        f"{name} v{number}: the files at {_public(location)} cannot be loaded: "
                        f"{error}; retrain, or restore the files"
                    ) from error

    @contextmanager
    def files(self, version: ModelVersion) -> Iterator[Path]:
        """The MLflow model folder of a version as a local folder, while the block runs; never edit it.

        Raises:
            RegistryError: no such version, or its files cannot be fetched.
        """
        with ExitStack() as stack:
            with self._speaking(f"fetching {version.model} v{version.version}") as client:
                location = client.get_model_version_download_uri(version.model, version.version)
                folder = stack.enter_context(self._fetched(location))
            yield folder

    def load_verified(self, model: str, version: str, *, run_id: str) -> "TabularModel":
        """As `load`, and proof that it is the version meant and predicts what it did when stored.

        Versions of releases that stored no sample of predictions are only loaded.

        Args:
            run_id: the run that logged the version: numbers start again when a registered model is
                deleted and made anew.

        Raises:
            RegistryError: no such version, of another run, unreadable, or it predicts differently.
        """
        from retrain_assets.training.model import TabularModel

        with self._speaking(f"loading {model} v{version}") as client:
            found = client.get_model_version(model, version)
            if found.run_id != run_id:
                raise RegistryError(
                    f"{model} v{version}: is of run {found.run_id}, the ledger means that of run "
                    f"{run_id}: the registered model was deleted and made anew"
                )
            location = client.get_model_version_download_uri(model, version)
            with self._fetched(location) as folder:
                try:
                    loaded = TabularModel.load(folder / _DATA)
                    problem = _differs_from_sample(loaded, folder)
                except (RetrainError, OSError, ValueError, KeyError) as error:
                    raise RegistryError(
                        f"{model} v{version}: the files at {_public(location)} cannot be loaded: "
                        f"{error}; retrain, or restore the files"
                    ) from error
            if problem:
                raise RegistryError(f"{model} v{version}: {problem}; retrain, or restore the files")
            return loaded

    def copy_version(self, model: str, version: str, *, run_id: str, to: str) -> str | None:
        """Number of the version of the model `to` that is this one, which is made if it is not there.

        It points to the same files and the same run. Repeating it, after a kill too, finds the copy;
        of two callers at the same time both get the same one.

        Returns:
            None where the version that this run logged does not exist.
        """
        with self._speaking(f"copying {model} v{version} to {to}") as client:
            mark = f"{model}/{version}"
            copied = _copy_of(client, to, mark)
            if copied is not None:
                return copied
            found = _registered(client, model, version)
            if found is None or found.run_id != run_id:
                return None
            _ensure_model(client, to)
            created = client.create_model_version(
                to,
                source=str(found.source),
                run_id=found.run_id,
                model_id=found.tags.get(_MODEL_ID),
                await_creation_for=0,
                tags={**found.tags, _COPY_OF: mark},
            )
            winner = _copy_of(client, to, mark)
            if winner != str(created.version):
                client.delete_model_version(to, str(created.version))
            return winner

    def exists(self, model: str, version: str, *, run_id: str) -> bool:
        """Whether the version that this run logged is registered."""
        with self._speaking(f"looking for {model} v{version}") as client:
            found = _registered(client, model, version)
            return found is not None and found.run_id == run_id

    def knows_run(self, run_id: str) -> bool:
        """Whether this registry ever saw the run, a deleted one included."""
        from mlflow.exceptions import MlflowException

        with self._speaking(f"looking for run {run_id}") as client:
            try:
                client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            return True

    def load_pyfunc(self, model: str | ModelVersion, version: str | None = None) -> "PyFuncModel":
        """As `load`, through MLflow's own loader: what a scoring service would get."""
        name, number = _name_and_version(model, version)
        with self._speaking(f"loading {name} v{number}") as client:
            return self._pyfunc(client.get_model_version_download_uri(name, number))

    def aliases(self, model: str) -> dict[str, str]:
        """Versions by alias; empty for a model that was never registered."""
        with self._speaking(f"reading the aliases of {model}") as client:
            return _aliases(client, model)

    def project(self, model: str, champion: str | None, previous: str | None) -> list[str]:
        """Make the aliases `champion` and `previous` follow the ledger; says what it changed.

        Repeating it changes nothing and returns an empty list. A previous version that was deleted
        from the registry gets no alias.

        Args:
            champion: the version that serves; None where none does.
            previous: the champion before; None where there is none.

        Raises:
            RegistryError: the champion's version does not exist (deleted by hand, perhaps).
        """
        with self._speaking(f"setting the aliases of {model}") as client:
            present = _aliases(client, model)
            if previous is not None and previous != present.get("previous"):
                previous = previous if _registered(client, model, previous) else None
            changes: list[str] = []
            for alias, wanted in (("champion", champion), ("previous", previous)):
                if present.get(alias) == wanted:
                    continue
                before = f"v{present[alias]}" if alias in present else "none"
                if wanted is None:
                    client.delete_registered_model_alias(model, alias)
                else:
                    _set_alias(client, model, alias, wanted)
                after = "none" if wanted is None else f"v{wanted}"
                changes.append(f"{model}: alias {alias} {before} -> {after}")
            return changes

    def all_aliases(self) -> dict[str, dict[str, str]]:
        """Versions by alias of every registered model, in calls of 1,000."""
        with self._speaking("reading the aliases") as client:
            found: dict[str, dict[str, str]] = {}
            token: str | None = None
            while True:
                page = client.search_registered_models(max_results=1000, page_token=token)
                for registered in page:
                    found[registered.name] = {
                        alias: str(version) for alias, version in registered.aliases.items()
                    }
                token = page.token
                if not token:
                    return found

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Within, what MLflow's own functions raise becomes RegistryError, with what was being done."""
        with self._speaking(doing):
            yield

    @contextmanager
    def _speaking(self, doing: str) -> "Iterator[MlflowClient]":
        """A connected client; what MLflow raises becomes RegistryError without credentials."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._connected is None:
                self._connected = self._connect()
            yield self._connected
        except (MlflowException, SQLAlchemyError, OSError) as error:
            cause = _scrubbed(str(getattr(error, "orig", None) or error), self._uri)
            raise RegistryError(
                f"model registry {_public(self._uri)}: {doing}: {cause}; {_remedy(error)}"
            ) from None

    def _connect(self) -> "MlflowClient":
        from mlflow import MlflowClient

        scheme = urlsplit(self._uri).scheme
        if scheme == "sqlite":
            _create_sqlite_database(_sqlite_path(self._uri))
        elif scheme not in ("http", "https"):
            _check_database(self._uri)
        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def _experiment(self, client: "MlflowClient", model: str) -> str:
        """The model's own experiment, made once with its own artifact location."""
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(model)
        if experiment is None:
            try:
                return str(client.create_experiment(model, artifact_location=self._location(model)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process was faster.
            experiment = client.get_experiment_by_name(model)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise RegistryError(
                f"model registry {_public(self._uri)}: the experiment '{model}' has been deleted; "
                "restore it (mlflow experiments restore) or delete it permanently (mlflow gc)"
            )
        return str(experiment.experiment_id)

    def _location(self, model: str) -> str | None:
        root = self._artifact_root
        if root is None:
            scheme = urlsplit(self._uri).scheme
            if scheme in ("http", "https"):
                return None
            if scheme != "sqlite":
                raise RegistryError(
                    f"model registry {_public(self._uri)}: needs an artifact_root (a folder or URL "
                    "for the model files), because a database cannot hold them"
                )
            root = str(_sqlite_path(self._uri).parent / "artifacts")
        return f"{root.rstrip('/')}/{model}" if "://" in root else str(Path(root).resolve() / model)

    def _upload(
        self,
        client: "MlflowClient",
        run_id: str,
        experiment_id: str,
        model: str,
        fingerprint: str,
        model_folder: Path,
        signature: "ModelSignature",
        frame: "pd.DataFrame",
        predictions: np.ndarray[Any, Any],
    ) -> "LoggedModel":
        """Store the files as a logged model, verify what was stored, declare it READY."""
        from mlflow.entities import LoggedModelOutput

        logged = client.create_logged_model(
            experiment_id, name=model, source_run_id=run_id, tags={_FINGERPRINT: fingerprint}
        )
        with _failing_model(client, logged.model_id):
            with tempfile.TemporaryDirectory(prefix="retrain_model_") as name:
                _package(Path(name), model_folder, logged, run_id, signature, frame)
                _write_sample(Path(name), frame, predictions)
                client.log_model_artifacts(logged.model_id, name)
            self._verify(model, logged.artifact_location, frame, predictions)
            client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged

    def _complete(
        self,
        client: "MlflowClient",
        model: str,
        attempt: _Attempt,
        frame: "pd.DataFrame",
        predictions: np.ndarray[Any, Any],
    ) -> bool:
        """Whether the files of an attempt that only lacks its version are still what was verified."""
        from mlflow.exceptions import MlflowException

        try:
            self._verify(model, attempt.logged.artifact_location, frame, predictions)
        except (RegistryError, MlflowException, OSError):
            # Whatever it is, the files are uploaded again, which fails loudly where it must.
            client.finalize_logged_model(attempt.logged.model_id, "FAILED")
            client.set_terminated(attempt.run_id, "KILLED")
            return False
        return True

    def _verify(
        self,
        model: str,
        location: str,
        frame: "pd.DataFrame",
        predictions: np.ndarray[Any, Any],
    ) -> None:
        """Load what was stored as a scoring service would; it must predict exactly the same."""
        try:
            again = np.asarray(self._pyfunc(location).predict(frame))
        except (
            RetrainError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ImportError,
        ) as error:
            raise RegistryError(
                f"{model}: the stored candidate does not load and predict: {error}; it was not "
                "registered"
            ) from error
        expected = np.asarray(predictions)
        if again.shape != expected.shape:
            raise RegistryError(
                f"{model}: the stored candidate predicts the shape {again.shape}, the trained model "
                f"{expected.shape}; it was not registered"
            )
        if not np.array_equal(again, expected, equal_nan=again.dtype.kind == "f"):
            differing = int(np.sum(again != expected))
            raise RegistryError(
                f"{model}: the stored candidate predicts {differing} of {again.size} values "
                "differently from the trained model; it was not registered"
            )

    def _pyfunc(self, location: str) -> "PyFuncModel":
        with self._fetched(location) as folder:
            # The check behind the warnings scans every installed distribution, half a second.
            loaded: PyFuncModel = _pyfunc_module().load_model(str(folder), suppress_warnings=True)
            return loaded

    @contextmanager
    def _fetched(self, location: str) -> Iterator[Path]:
        """The files as a local folder: the store's own where it is local (never edit), else a copy."""
        from mlflow.artifacts import download_artifacts

        if urlsplit(location).scheme in ("", "file"):
            yield Path(download_artifacts(artifact_uri=location, tracking_uri=self._uri))
            return
        with tempfile.TemporaryDirectory(prefix="retrain_model_") as name:
            yield Path(
                download_artifacts(artifact_uri=location, dst_path=name, tracking_uri=self._uri)
            )


def _pyfunc_module() -> Any:
    """`mlflow.pyfunc`, without the warning about its own type hints that its import gives."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        import mlflow.pyfunc

        return mlflow.pyfunc


def _key(name: str) -> str:
    """A name that MLflow takes as key of a metric, parameter or tag."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def _check_names(fingerprint: str, files: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[\w.:+\-]{1,200}", fingerprint):
        raise RegistryError(
            f"fingerprint must be 1 to 200 letters, digits or . : + - _, got '{fingerprint}'"
        )
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise RegistryError(f"file name must be a relative path without '..', got '{name}'")
    missing = [key for key in ("name", "digest", "source") if not dataset.get(key)]
    if missing:
        raise RegistryError(f"dataset needs name, digest and source, got no {', '.join(missing)}")


def _name_and_version(model: str | ModelVersion, version: str | None) -> tuple[str, str]:
    if isinstance(model, ModelVersion):
        return model.model, model.version
    if version is None:
        raise RegistryError(f"{model}: which version? load(model, version) needs both")
    return model, version


def _ours(found: "MlflowVersion") -> ModelVersion:
    number = str(found.version)
    return ModelVersion(
        model=found.name,
        version=number,
        run_id=str(found.run_id or ""),
        model_uri=f"models:/{found.name}/{number}",
        fingerprint=found.tags.get(_FINGERPRINT, ""),
        tags=dict(found.tags),
    )


def _winner(client: "MlflowClient", model: str, fingerprint: str) -> ModelVersion | None:
    """Of the versions with this fingerprint the lowest whose logged model is READY."""
    page = client.search_model_versions(
        f"name = '{model}' AND tags.{_FINGERPRINT} = '{fingerprint}'"
    )
    for found in sorted(page, key=lambda one: int(one.version)):
        if _is_ready(client, found.tags.get(_MODEL_ID, "")):
            return _ours(found)
    return None


def _is_ready(client: "MlflowClient", model_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_logged_model(model_id).status) == "READY"
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return False  # deleted by hand, or a version that was not made here
        raise


def _abandon_unfinished(
    client: "MlflowClient", experiment_id: str, fingerprint: str
) -> _Attempt | None:
    """End what a killed attempt left open; returns the attempt that only lacks its version."""
    matching = f"tags.{_FINGERPRINT} = '{fingerprint}'"
    complete: _Attempt | None = None
    for logged in client.search_logged_models([experiment_id], filter_string=matching):
        if str(logged.status) == "READY" and complete is None:
            complete = _Attempt(str(logged.source_run_id), logged)
        elif str(logged.status) == "PENDING":
            client.finalize_logged_model(logged.model_id, "FAILED")
    for run in client.search_runs([experiment_id], matching):
        if run.info.status == "RUNNING" and (
            complete is None or run.info.run_id != complete.run_id
        ):
            client.set_terminated(run.info.run_id, "KILLED")
    return complete


def _open_run(
    client: "MlflowClient",
    experiment_id: str,
    fingerprint: str,
    tags: Mapping[str, str],
    parent_run_id: str | None,
) -> str:
    parent = {} if parent_run_id is None else {"mlflow.parentRunId": parent_run_id}
    own = {_key(name): str(value) for name, value in tags.items()}
    run = client.create_run(
        experiment_id,
        tags={**own, _FINGERPRINT: fingerprint, **parent},
        run_name=f"candidate {tags.get('partition', fingerprint[:12])}",
    )
    return str(run.info.run_id)


@contextmanager
def _failing(client: "MlflowClient", run_id: str) -> Iterator[None]:
    """Mark the run FAILED when the body is left by any exception, an interruption included."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            _try_to(lambda: client.set_terminated(run_id, "FAILED"))


@contextmanager
def _failing_model(client: "MlflowClient", model_id: str) -> Iterator[None]:
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            _try_to(lambda: client.finalize_logged_model(model_id, "FAILED"))


def _try_to(clean_up: Any) -> None:
    """Clean up behind an exception that is on its way: a second failure must not hide the first."""
    from mlflow.exceptions import MlflowException

    try:
        clean_up()
    except MlflowException:
        # The server is down, most likely what the first exception says; the next attempt with this
        # fingerprint ends the run.
        return


def _log_facts(
    client: "MlflowClient", run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    from mlflow.entities import Metric, Param

    now = time.time_ns() // 1_000_000
    values = [Metric(_key(name), float(value), now, 0) for name, value in metrics.items()]
    settings = [Param(_key(name), str(value)) for name, value in params.items()]
    client.log_batch(run_id, metrics=values[:800], params=settings[:100])
    # One request takes 1,000 entries and 100 parameters.
    for at in range(100, len(settings), 100):
        client.log_batch(run_id, params=settings[at : at + 100])
    for at in range(800, len(values), 800):
        client.log_batch(run_id, metrics=values[at : at + 800])


def _log_files(
    client: "MlflowClient",
    run_id: str,
    pictures: Mapping[str, bytes],
    documents: Mapping[str, str | bytes],
) -> None:
    contents = {
        name: content.encode() if isinstance(content, str) else content
        for name, content in {**pictures, **documents}.items()
    }
    if not contents:
        return
    with tempfile.TemporaryDirectory(prefix="retrain_files_") as folder:
        for name, content in contents.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)


def _log_dataset(
    client: "MlflowClient",
    run_id: str,
    dataset: Mapping[str, Any],
    signature: "ModelSignature",
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    source = dataset["source"]
    profile = dataset.get("profile")
    entry = Dataset(
        name=str(dataset["name"]),
        digest=str(dataset["digest"])[:_DIGEST_LENGTH],  # MLflow refuses longer ones
        source_type=str(dataset.get("source_type", "local")),
        source=source if isinstance(source, str) else json.dumps(source),
        schema=json.dumps({"mlflow_colspec": signature.inputs.to_dict()}),
        profile=None if profile is None else json.dumps(profile),
    )
    context = InputTag("mlflow.data.context", str(dataset.get("context", "training")))
    inputs = [DatasetInput(entry, [context])]
    try:
        client.log_inputs(run_id, datasets=inputs)
    except MlflowException as error:
        if "unique" not in str(error).lower():
            raise
        # Two runs that log the same dataset for the first time collide; the second time it exists.
        client.log_inputs(run_id, datasets=inputs)


def _signature(frame: "pd.DataFrame") -> "ModelSignature":
    """All columns optional; types as loose as the model itself.

    MLflow refuses an int64 column where the schema says double, and a float column (integers with
    nulls) where it says long: numbers of integer type are therefore declared `any`, as are types
    that MLflow schemas do not have (categories, timestamps with a zone).
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    anything = AnyType()  # type: ignore[no-untyped-call]

    def kind(dtype: Any) -> Any:
        if str(dtype) in ("object", "str") or str(dtype).startswith("string"):
            return "string"
        if isinstance(dtype, np.dtype):
            return {"f": "double", "b": "boolean", "M": "datetime"}.get(dtype.kind, anything)
        return anything

    columns: list[Any] = [
        ColSpec(kind(frame[name].dtype), str(name), required=False) for name in frame
    ]
    return ModelSignature(inputs=Schema(columns))


def _package(
    folder: Path,
    model_folder: Path,
    logged: "LoggedModel",
    run_id: str,
    signature: "ModelSignature",
    frame: "pd.DataFrame",
) -> None:
    """Write MLflow's model folder: MLmodel, example, requirements and our files under data/."""
    from mlflow.models import Model

    shutil.copytree(model_folder, folder / _DATA)
    example = frame.to_json(orient="split", index=False, date_format="iso")
    (folder / _EXAMPLE).write_text(example, encoding="utf-8")
    names = ("retrain-assets", "lightgbm", "numpy", "pandas")
    pins = "".join(f"{name}=={installed_version(name)}\n" for name in names)
    (folder / "requirements.txt").write_text(pins, encoding="utf-8")
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=run_id,
        signature=signature,
        saved_input_example_info={
            "artifact_path": _EXAMPLE, "type": "dataframe", "pandas_orient": "split",
        },
    )  # fmt: skip
    # No `code` path: with it, a second model loaded in one process ran the first one's code.
    _pyfunc_module().add_to_model(description, loader_module=_LOADER, data=_DATA)
    description.save(str(folder / "MLmodel"))


def _write_sample(folder: Path, frame: "pd.DataFrame", predictions: np.ndarray[Any, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / _SAMPLE)
    np.save(folder / _PREDICTED, np.asarray(predictions), allow_pickle=False)


def _differs_from_sample(model: "TabularModel", folder: Path) -> str | None:
    """How the predictions for the stored sample differ from the stored ones; None if they do not."""
    if not (folder / _PREDICTED).exists():
        return None  # stored by a release that kept no sample
    import pyarrow.parquet as pq

    expected = np.load(folder / _PREDICTED, allow_pickle=False)
    again = model.predict(pq.read_table(folder / _SAMPLE).to_pandas())
    if again.shape != expected.shape:
        return f"predicts the shape {again.shape} where it predicted {expected.shape}"
    same = np.isclose(again, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    if same.all():
        return None
    return (
        f"predicts {int((~same).sum())} of {same.size} values differently from when it was stored"
    )


def _register(
    client: "MlflowClient",
    model: str,
    fingerprint: str,
    attempt: _Attempt,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> ModelVersion:
    """Create the version; of several at the same time the lowest stays and all return it."""
    model_id = attempt.logged.model_id
    _ensure_model(client, model)
    created = client.create_model_version(
        model,
        # Not models:/<id>: with a database URI, MLflow resolves that in the process-wide store.
        source=attempt.logged.artifact_location,
        run_id=attempt.run_id,
        model_id=model_id,
        await_creation_for=0,  # the files are there already
        tags={
            **{_key(name): str(value) for name, value in tags.items()},
            **{f"metric.{_key(name)}": repr(float(value)) for name, value in metrics.items()},
            _FINGERPRINT: fingerprint,
            _RUN_ID: attempt.run_id,
            _MODEL_ID: model_id,
        },
    )
    # A caller that arrived meanwhile may have taken this attempt for a dead one.
    client.finalize_logged_model(model_id, "READY")
    winner = _winner(client, model, fingerprint)
    if winner is None:
        raise RegistryError(f"{model}: v{created.version} was created but cannot be found again")
    if winner.version != str(created.version):
        client.delete_model_version(model, str(created.version))
        if winner.run_id != attempt.run_id:
            client.set_terminated(attempt.run_id, "KILLED")
    return winner


def _ensure_model(client: "MlflowClient", model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _copy_of(client: "MlflowClient", model: str, mark: str) -> str | None:
    """The lowest version of the model that was copied from `mark`."""
    page = client.search_model_versions(f"name = '{model}' AND tags.{_COPY_OF} = '{mark}'")
    return str(min(int(found.version) for found in page)) if page else None


def _complete(client: "MlflowClient", found: ModelVersion) -> None:
    if client.get_run(found.run_id).info.status != "FINISHED":
        client.set_terminated(found.run_id, "FINISHED")
    _set_alias(client, found.model, "candidate", found.version)


def _aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(version) for alias, version in found.items()}


def _registered(client: "MlflowClient", model: str, version: str) -> "MlflowVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(model, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _set_alias(client: "MlflowClient", model: str, alias: str, version: str) -> None:
    """Set an alias; of two callers that set a new one at the same time, the last one wins.

    MLflow looks for the alias and then inserts or updates it, so that the slower of two inserts breaks
    the table's uniqueness. The alias is there then, and setting it again is an update.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import IntegrityError

    try:
        client.set_registered_model_alias(model, alias, version)
    except (MlflowException, IntegrityError):
        if alias not in client.get_registered_model(model).aliases:
            raise
        client.set_registered_model_alias(model, alias, version)


def _sqlite_path(uri: str) -> Path:
    return Path(uri.partition(":///")[2].partition("?")[0]).resolve()


def _create_sqlite_database(path: Path) -> None:
    """Make MLflow's tables in a file that appears only when they are complete.

    MLflow builds them in place by some forty migrations: two processes that do it at once break
    each other's, and a process killed in between leaves a file that no MLflow opens again.
    """
    if path.exists():
        return
    import fcntl

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        for abandoned in path.parent.glob(f"{path.name}.new_*"):
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.new_") as folder:
            draft = Path(folder) / path.name
            root = str(path.parent / "artifacts")
            store = SqlAlchemyStore(f"sqlite:///{draft}", root)  # type: ignore[no-untyped-call]
            store.engine.dispose()
            draft.replace(path)


def _check_database(uri: str) -> None:
    """Fail within seconds: MLflow's own connection retries for minutes."""
    import sqlalchemy as sa

    options = {"connect_timeout": _CONNECT_SECONDS} if "postgres" in uri or "mysql" in uri else {}
    with sa.create_engine(uri, poolclass=sa.NullPool, connect_args=options).connect():
        return


def _public(uri: str) -> str:
    """The URI without user, password and query."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _scrubbed(text: str, uri: str) -> str:
    """MLflow's message in one line, without the credentials of the URI."""
    credentials = uri.partition("://")[2].rpartition("@")[0]
    text = text.replace(uri, _public(uri))
    for secret in (credentials, credentials.partition(":")[2]):
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    return " ".join(text.split())


def _remedy(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return "check that the path exists, may be read and written, and that the disk has room"
    if "API request to" in text or "onnection" in text or not hasattr(error, "error_code"):
        return "check that it runs and can be reached from here, and that the URI is right"
    if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        return (
            "it does not exist or has been deleted; `retrain status` shows what the ledger expects"
        )
    return "see the server's log"
