"""The platform half on the host, half on the cluster: daemon and servers here, runs as pods there.

Belongs here: what the tests of faults break, each server separately, and the way to break it. Pods run
this checkout and its virtual environment through mounts, so that no image is built. Does not: the
deployment of k8s/ (`k8s.cluster`).
"""

import compileall
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml
from integration.postgres import PASSWORD, USER
from k8s.backing import Postgres, free_port
from k8s.cluster import ROOT, Cluster, wait_until
from orchestration.harness import base_spec, days, merged

from retrain_assets.promotion.decisions import Decisions
from retrain_assets.promotion.ledger import Ledger
from retrain_assets.promotion.registry import MlflowRegistry
from retrain_assets.spec.loading import load_specs

__all__ = ["START_SECONDS", "HostPlatform", "Model", "Server"]

START_SECONDS = 180
"""Time that a run may take to start; a pod on a very busy machine needs two minutes."""


class Server:
    """A process of the host that tests stop and start; it comes back by itself unless stopped."""

    def __init__(self, command: list[str], folder: Path, name: str, **variables: str) -> None:
        self.command, self.folder, self.log = command, folder, folder / f"{name}.log"
        self.variables = variables
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        self._wanted = True
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        """As a Deployment does."""
        while self._wanted:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
                    env={**os.environ, **self.variables}, start_new_session=True,
                )  # fmt: skip
            self._process.wait()
            time.sleep(0.5)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs it takes connections and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        self._wanted = False
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, by)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
        if self._keeper is not None:
            self._keeper.join(30)


class Link:
    """A TCP relay to the API server that can be cut."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self._target, self._cut = target, threading.Event()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server((host, 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if self._cut.is_set():
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._target, 10)
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)  # the other direction's thread ends, too
        source.close()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While the block runs nothing passes."""
        self._cut.set()
        self._hang_up()
        try:
            yield
        finally:
            self._cut.clear()

    def _hang_up(self) -> None:
        for end in self._open:
            with suppress(OSError):  # closed already
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._hang_up()


@dataclass
class Model:
    """One model of the platform, with a source of its own."""

    platform: "HostPlatform"
    name: str

    @property
    def folder(self) -> Path:
        return self.platform.folder / "sources" / self.name

    def say(self, **changes: Any) -> None:
        """Change what its source answers from now on."""
        path = self.folder / "world.json"
        state = json.loads(path.read_text()) | changes
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, path)

    def arrive(self, until: int = 6, **changes: Any) -> None:
        """Days of data arrive; six are enough for a first champion."""
        self.say(partitions=days(1, until), **changes)

    def held(self, seconds: float = 600) -> dg.DagsterRun:
        """Its run, once that waits for the source; asked again, the next one."""
        waits = self.folder / f"waits-{self.name}"
        wait_until(f"{self.name} asks its source", seconds, waits.exists)
        waits.unlink()
        return self.runs()[-1]

    def go_on(self) -> None:
        """The source gives what it was asked for."""
        self.say(hold=[])

    def runs(self, kind: str | None = None) -> list[dg.DagsterRun]:
        """Its runs, the oldest first."""
        runs = [
            run
            for run in reversed(self.platform.instance.get_runs())
            if any(key.path[0] == self.name for key in run.asset_selection or ())
        ]
        return [run for run in runs if kind in (None, run.tags.get("retrain/kind"))]

    def started(self, stage: str, attempt: int = 1, seconds: float = 500) -> dg.DagsterRun:
        """The run whose step of this stage has begun for the `attempt`-th time, over all runs."""

        def look() -> dg.DagsterRun | None:
            begun = []
            for run in self.runs():
                stats = self.platform.instance.get_run_step_stats(run.run_id)
                begun += [
                    run
                    for stat in stats
                    if stat.step_key.endswith(f"__{stage}") and stat.start_time
                ]
            return begun[attempt - 1] if len(begun) >= attempt else None

        return wait_until(f"{self.name}/{stage} has begun {attempt} times", seconds, look)

    def champion(self, seconds: float = 600) -> Any:
        """Its champion, once all its runs have ended, and those that Dagster tries again."""

        def goes_on(run: dg.DagsterRun, later: list[dg.DagsterRun]) -> bool:
            if run.status != dg.DagsterRunStatus.FAILURE:
                return not run.is_finished
            # Dagster notes whether there is another attempt just after the failure itself. Where it loses that
            # for a while, our sensors may be first: a later run is the answer, whoever has asked for it.
            kind = run.tags.get("retrain/kind")
            answered = any(other.tags.get("retrain/kind") == kind for other in later)
            return run.tags.get("dagster/will_retry", "true") == "true" and not answered

        def look() -> Any:
            runs = self.runs()
            if any(goes_on(run, runs[number:]) for number, run in enumerate(runs, 1)):
                return None
            return self.platform.ledger.champion(self.name)

        return wait_until(f"{self.name} has a champion", seconds, look)

    def in_pod(self, phase: str, seconds: float = 300) -> dg.DagsterRun:
        """Its first run, once a pod of the run is in this phase."""

        def look() -> dg.DagsterRun | None:
            runs = self.runs()
            pods = self.platform.pods(runs[0]) if runs else []
            return runs[0] if any(pod["status"]["phase"] == phase for pod in pods) else None

        return wait_until(f"a pod of {self.name} is {phase}", seconds, look)


@dataclass
class HostPlatform:
    """PostgreSQL, MLflow, the definitions and the daemon on the host, run pods in a namespace.

    Attributes:
        models: specs by name, as changes to the small one of the orchestration tests.
    """

    cluster: Cluster
    folder: Path
    mlflow_db: Path
    models: dict[str, dict[str, Any]]
    namespace: str = "retrain-k2"
    _model: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.postgres = Postgres(self.cluster.host)
        api = self.cluster.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
        host, _, port = api.removeprefix("https://").partition(":")
        self.link = Link(self.cluster.host, (host, int(port)))
        text = self.cluster.kubeconfig.read_text()
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(text.replace(api, f"https://{host}:{self.link.port}"))
        self.mlflow_port = free_port(self.cluster.host)
        shutil.copyfile(self.mlflow_db, self.folder / "mlflow.db")
        python = sys.executable
        self.mlflow = Server(
            [python, "-m", "mlflow", "server", "--host", self.cluster.host, "--port",
             str(self.mlflow_port), "--workers", "1", "--backend-store-uri",
             f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination",
             str(self.folder / "models"), "--allowed-hosts", "*"],
            self.folder, "mlflow",
        )  # fmt: skip
        self.code_port = free_port("127.0.0.1")
        # Of its own, as in a deployment: the daemon would start another every minute.
        self.code = Server(
            [python, "-m", "dagster", "api", "grpc", "--port", str(self.code_port), "--host", "127.0.0.1",
             "--python-file", str(self.folder / "definitions.py"), "--working-directory", str(self.folder)],
            self.folder, "code", DAGSTER_HOME=str(self.folder / "dagster"), **self.variables,
        )  # fmt: skip
        self.daemon = Server(
            [str(Path(python).with_name("dagster-daemon")), "run", "-w", "workspace.yaml"],
            self.folder, "daemon", DAGSTER_HOME=str(self.folder / "dagster"), **self.variables,
        )  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        """Environment of every process of the platform, pods included."""
        return {
            "RETRAIN_HOME": str(self.folder / "home"),
            "RETRAIN_STORAGE": str(self.folder / "storage"),
            "RETRAIN_LEDGER_URL": self.postgres.url("ledger"),
            "RETRAIN_MLFLOW_URI": f"http://{self.cluster.host}:{self.mlflow_port}",
            "RETRAIN_EXECUTOR": "k8s",
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
            "PYTHONWARNINGS": "ignore",
            # For each look Dagster makes an instance with storages of its own, a quarter of a second of work.
            "RETRAIN_SENSOR_INTERVAL_SECONDS": "10",
        }

    def __getitem__(self, name: str) -> Model:
        return self._model.setdefault(name, Model(self, name))

    def start(self) -> None:
        """Everything; returns when MLflow answers."""
        for code in (ROOT / "retrain_assets", ROOT / "tests/orchestration", ROOT / "tests/k8s"):
            compileall.compile_dir(code, quiet=1)  # or every pod does
        self._write_project()
        assert not load_specs(self.folder / "specs").problems
        manifest = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {self.namespace}}}\n"
        self.cluster.kubectl("apply", "-f", "-", stdin=manifest)
        home = self.folder / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text(yaml.safe_dump(self._instance_config()))
        config = self.kubectl(
            "create", "configmap", "retrain-instance", f"--from-file={home}/dagster.yaml",
            "--dry-run=client", "-o", "yaml",
        )  # fmt: skip
        self.kubectl("apply", "-f", "-", stdin=config)
        self.mlflow.start()
        self.code.start()
        wait_until("MLflow answers", 120, self._mlflow_answers)
        wait_until("definitions are served", 120, self._code_answers)
        self.daemon.start()

    def _code_answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.code_port), 1):
            return True
        return False

    def _mlflow_answers(self) -> bool:
        url = f"http://{self.cluster.host}:{self.mlflow_port}/health"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def remove(self) -> None:
        """Everything of it, on the host and in the cluster."""
        self.daemon.stop()
        self.code.stop(signal.SIGKILL)  # it takes its time over others
        self.mlflow.stop()
        self.instance.dispose()
        self.postgres.remove()
        self.cluster.remove_namespace(self.namespace)
        self.link.close()

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, check=check)

    def pods(self, run: dg.DagsterRun) -> list[dict[str, Any]]:
        """Pods of a run."""
        return self.cluster.get("-n", self.namespace, "pods", "-l", f"dagster/run-id={run.run_id}")

    def delete_pod(self, run: dg.DagsterRun, *options: str) -> None:
        """Delete the pods of a run, as an eviction does."""
        self.kubectl(
            "delete", "pod", "-l", f"dagster/run-id={run.run_id}", "--wait=false", *options
        )

    def evict(self, run: dg.DagsterRun) -> None:
        """Have the API server evict the pods of a run, as `kubectl drain` does; returns when they are gone."""
        evicted = {pod["metadata"]["name"] for pod in self.pods(run)}
        for name in evicted:
            self.cluster.evict(self.namespace, name)

        def gone() -> bool:
            return not evicted & {pod["metadata"]["name"] for pod in self.pods(run)}

        wait_until("the evicted pods are gone", 300, gone)

    def protect(self, run: dg.DagsterRun) -> None:
        """The budget of k8s/base, for this run alone."""
        documents = yaml.safe_load_all((ROOT / "k8s/base/disruption-budgets.yaml").read_text())
        (budget,) = [one for one in documents if one["metadata"]["name"] == "retrain-runs"]
        budget["apiVersion"] = self.cluster.policy_version
        budget["spec"]["selector"]["matchLabels"] = {
            "dagster/run-id": run.run_id
        }  # and those of k8s/base
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(budget))

        def in_force() -> bool:
            (found,) = self.cluster.get("-n", self.namespace, "poddisruptionbudgets")
            return bool(found.get("status", {}).get("currentHealthy") == 1)

        wait_until("the budget counts the run", 120, in_force)

    def failed(self, run: dg.DagsterRun) -> None:
        """Wait until run monitoring has found out."""
        wait_until(
            f"run {run.run_id} has failed",
            300,
            lambda: self.run(run.run_id).status == dg.DagsterRunStatus.FAILURE,
        )

    @contextmanager
    def nothing_is_promoted(self) -> Iterator[None]:
        """While the block runs who promotes waits for the ledger; it can be read."""
        engine = sa.create_engine(self.postgres.url("ledger"), poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE promotions IN EXCLUSIVE MODE")
            yield

    def restart_database(self, away_seconds: float) -> None:
        """Stop PostgreSQL, which cuts all connections, and start it again."""
        self.postgres.stop()
        time.sleep(away_seconds)
        self.postgres.start()

    def launch(self, job: str, tags: dict[str, str], config: dict[str, Any]) -> None:
        """Start a job by hand."""
        command = [
            str(Path(sys.executable).with_name("dagster")), "job", "launch", "-w", "workspace.yaml",
            "-j", job, "--tags", json.dumps(tags), "--config-json", json.dumps(config),
        ]  # fmt: skip
        environment = {
            **os.environ, **self.variables, "DAGSTER_HOME": str(self.folder / "dagster"),
        }  # fmt: skip
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(self, run_id: str) -> dg.DagsterRun:
        """A run as it is now."""
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def failure(self, run: dg.DagsterRun) -> str:
        """Why a run failed, as the UI shows it."""
        entries = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        return "\n".join(
            entry.dagster_event.message or "" for entry in entries if entry.dagster_event
        )

    @cached_property
    def decisions(self) -> Decisions:
        return Decisions(self.ledger)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.folder / "dagster"))

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.postgres.url("ledger"))

    @cached_property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.variables["RETRAIN_MLFLOW_URI"])

    # -- files --------------------------------------------------------------------------------------

    def _write_project(self) -> None:
        (self.folder / "specs").mkdir()
        for name, changes in self.models.items():
            source = self.folder / "sources" / name
            source.mkdir(parents=True)
            world = {"partitions": [], "down": [], "bad": {}, "drift_from": None, "version": 1}
            (source / "world.json").write_text(json.dumps(world))
            document = merged(base_spec(name, source), changes)
            (self.folder / "specs" / f"{name}.yaml").write_text(yaml.safe_dump(document))
        (self.folder / "definitions.py").write_text(
            "from retrain_assets.orchestration.build import build_definitions\n\n"
            f"defs = build_definitions({str(self.folder / 'specs')!r})\n"
        )
        location = {"host": "127.0.0.1", "port": self.code_port, "location_name": "retrain_assets"}
        workspace = {"load_from": [{"grpc_server": location}]}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump(workspace))

    def _instance_config(self) -> dict[str, Any]:
        """What k8s/base/dagster.yaml says, with short times, for pods that run the host's files."""
        config: dict[str, Any] = yaml.safe_load((ROOT / "k8s/base/dagster.yaml").read_text())
        config["storage"]["postgres"]["postgres_db"] |= {
            "hostname": self.postgres.host, "port": self.postgres.port, "db_name": "dagster",
            "username": USER, "password": PASSWORD,
        }  # fmt: skip
        del config["compute_logs"], config["local_artifact_storage"]
        config["compute_logs"] = {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        }
        config["run_monitoring"] |= {
            "poll_interval_seconds": 4, "start_timeout_seconds": START_SECONDS,
            "free_slots_after_run_end_seconds": 5,
        }  # fmt: skip
        config["concurrency"]["pools"]["default_limit"] = 1
        venv = Path(sys.executable).parents[1]
        mounts = {
            "usr": "/usr", "python": str(Path(sys.executable).resolve().parents[1]),
            "venv": str(venv), "code": str(ROOT), "test": str(self.folder),
        }  # fmt: skip
        config["run_launcher"] = {
            "module": "retrain_assets.orchestration.run_launcher",
            "class": "RetrainRunLauncher",
            "config": {
                "job_namespace": self.namespace,
                "load_incluster_config": False,
                "kubeconfig_file": str(self.kubeconfig),
                "job_image": "retrain.local/host:1",
                "image_pull_policy": "Never",
                "service_account_name": "default",
                "instance_config_map": "retrain-instance",
                # The same share of a busy machine for all of them, also for those that ask for memory.
                "resources": {"requests": {"cpu": "50m"}},
                "env_vars": [
                    f"PATH={venv}/bin:/usr/bin:/bin", "HOME=/tmp",
                    *(f"{name}={value}" for name, value in self.variables.items()),
                ],
                "volumes": [
                    {"name": name, "host_path": {"path": path}} for name, path in mounts.items()
                ],
                "volume_mounts": [
                    {"name": name, "mount_path": path, "read_only": name != "test"}
                    for name, path in mounts.items()
                ],
                "run_k8s_config": {
                    "job_spec_config": {
                        "ttl_seconds_after_finished": 30, "active_deadline_seconds": 1800,
                    }
                },
            },
        }  # fmt: skip
        return config
