"""A real cluster and deployments of ours on it, for the tests in this folder.

Belongs here: finding or starting the cluster, the image, one namespace with what it needs, and
asking its webserver. Does not: what is tested, and servers on the host (`k8s.backing`).

The cluster is that of ../shared/kube where it is there. Otherwise it is the current KUBECONFIG's;
RETRAIN_K8S_HOST is then the address at which its pods reach this machine, and its nodes must have
the image `retrain.local/retrain:1` (k8s/build-image).
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from k8s.backing import ObjectStore, Postgres, free_port

__all__ = ["IMAGE", "ROOT", "Cluster", "Deployment", "build_image", "wait_until"]

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
IMAGE = "retrain.local/retrain:1"
SHARED = ROOT.parent / "shared" / "kube" / "cluster"
_STATE = Path(os.environ.get("RETRAIN_KUBE_STATE", "/var/lib/retrain-kube"))
_STARTED = _STATE / "run/retrain-tests"
"""There where tests have started the cluster; gone with it."""
_CACHE = Path(os.environ.get("RETRAIN_IMAGE_CACHE", "/var/tmp/retrain-image"))
_IMAGE_INPUTS = (
    "requirements.lock", "requirements-runtime.lock", "pyproject.toml", "hatch_build.py", "README.md",
    "LICENSE", "definitions.py", "workspace.yaml", "retrain_assets", "model_specs", "k8s/Dockerfile",
)  # fmt: skip


def wait_until(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """What `look` returns as soon as it is not empty; fails after `seconds`, saying `what`."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.5)


@dataclass
class Cluster:
    """A cluster that answers.

    Attributes:
        kubectl_path: its kubectl.
        kubeconfig: credentials of its administrator.
        host: address of this machine, as its pods see it.
        shared: whether it is the one of ../shared/kube.
    """

    kubectl_path: str
    kubeconfig: Path
    host: str
    shared: bool

    @classmethod
    def missing(cls) -> str:
        """Why there is none, "" where there may be one."""
        if SHARED.exists() or ("KUBECONFIG" in os.environ and "RETRAIN_K8S_HOST" in os.environ):
            return ""
        return "no ../shared/kube, and no KUBECONFIG with RETRAIN_K8S_HOST"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Cluster"]:
        """The cluster, started if need be; one that tests have started is stopped by the last of its users."""
        if not SHARED.exists():
            kubectl = shutil.which("kubectl")
            assert kubectl, "kubectl is not on PATH"
            config = Path(os.environ["KUBECONFIG"])
            yield cls(kubectl, config, os.environ["RETRAIN_K8S_HOST"], shared=False)
            return
        with _temporary("users").open("w") as users:
            with _exclusively():
                fcntl.flock(users, fcntl.LOCK_SH)
                ran = subprocess.run([SHARED, "status"], capture_output=True, check=False)
                subprocess.run([SHARED, "up"], check=True, capture_output=True)
                if ran.returncode != 0:
                    _STARTED.touch()
            try:
                kubectl, config = str(_STATE / "bin/kubectl"), _STATE / "kubeconfig"
                yield cls(kubectl, config, "10.244.0.1", shared=True)
            finally:
                with _exclusively():
                    if _alone(users) and _STARTED.exists():
                        subprocess.run([SHARED, "down"], check=True, capture_output=True)

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of kubectl; fails with its standard error."""
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *args],
            input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {' '.join(args)}:\n{done.stderr}"
        return done.stdout

    def remove_namespace(self, name: str) -> None:
        """A namespace and what is in it, whose processes have a second to say goodbye.

        In a cluster that tests have started it is not waited for: its last user stops that.
        """
        self.kubectl("delete", "namespace", name, "--wait=false")
        self.kubectl("-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=false")
        if self.shared and _STARTED.exists():
            return
        self.kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=300s", check=False)
        left = self.get("namespaces")
        assert name not in {one["metadata"]["name"] for one in left}, f"{name} is still there"

    def get(self, *args: str) -> list[dict[str, Any]]:
        """Objects of `kubectl get ... -o json`."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", *args, "-o", "json"))["items"]
        return items

    @property
    def policy_version(self) -> str:
        """Of budgets and evictions; Kubernetes before 1.21 knows no other."""
        return "policy/v1beta1" if self.shared else "policy/v1"

    def evict(self, namespace: str, pod: str) -> None:
        """Ask for the eviction of a pod; fails where a budget forbids it."""
        metadata = {"name": pod, "namespace": namespace}
        wanted = {"apiVersion": self.policy_version, "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(wanted))

    @contextmanager
    def draining(self, selector: str, log: Path) -> Iterator["Drain"]:
        """`kubectl drain` of all nodes, of the pods that `selector` names; nodes take pods afterwards."""
        nodes = [node["metadata"]["name"] for node in self.get("nodes")]
        command = [
            self.kubectl_path, "--kubeconfig", str(self.kubeconfig), "drain", *nodes,
            f"--pod-selector={selector}", "--delete-emptydir-data",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Drain(process, log)
        finally:
            process.terminate()
            process.wait(30)
            self.uncordon()

    def uncordon(self) -> None:
        """All nodes take new pods."""
        self.kubectl("uncordon", *(node["metadata"]["name"] for node in self.get("nodes")))

    def restart_kubelet(self, away_seconds: float) -> None:
        """Kill the node's kubelet and start it again; only where the cluster is `shared`.

        Returns when all pods that were ready are so again: without their kubelet they are not.
        """
        ready = self._ready()
        with _exclusively():
            pid, started = (_STATE / "run/kubelet.pid").read_text().split()
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] == started
            os.kill(int(pid), signal.SIGKILL)
            time.sleep(away_seconds)
            subprocess.run([SHARED, "up"], check=True, capture_output=True)
        back = datetime.now(UTC)

        def recovered() -> bool:
            (lease,) = self.get("-n", "kube-node-lease", "leases")
            renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
            return renewed > back and self._pods() & ready <= self._ready()

        wait_until("the kubelet is back, and what was ready before", 240, recovered)

    def _pods(self) -> set[str]:
        """UIDs of all pods."""
        return {pod["metadata"]["uid"] for pod in self.get("pods", "-A")}

    def _ready(self) -> set[str]:
        """UIDs of the pods that are ready."""
        return {
            pod["metadata"]["uid"]
            for pod in self.get("pods", "-A")
            for condition in pod["status"].get("conditions", ())
            if (condition["type"], condition["status"]) == ("Ready", "True")
        }

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While the block runs no other test disturbs the nodes, or relies on their being undisturbed."""
        with _temporary("nodes").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def import_image(self) -> None:
        """The image of this checkout on the node, built if it has changed."""
        if not self.shared:
            return
        archive = build_image()
        mark = _STATE / "run" / f"retrain-image-{archive.stem}"
        with _exclusively():
            if not mark.exists():
                subprocess.run([SHARED, "import-image", archive], check=True, capture_output=True)
                mark.touch()


@dataclass(frozen=True)
class Drain:
    """A `kubectl drain` that goes on."""

    _process: "subprocess.Popen[bytes]"
    _log: Path

    def said(self) -> str:
        return self._log.read_text()

    def goes_on(self) -> bool:
        return self._process.poll() is None

    def succeeded(self) -> bool:
        return self._process.poll() == 0


def _temporary(name: str) -> Path:
    """A file that the test sessions of this machine share."""
    return Path(tempfile.gettempdir(), f"retrain-kube.{name}")


def _alone(users: IO[str]) -> bool:
    """Whether no other session uses the cluster."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _exclusively() -> Iterator[None]:
    """One test session at a time starts, stops or fills the cluster of this machine."""
    with _temporary("lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_image() -> Path:
    """The archive of this checkout's image; built when one of its files has changed."""
    digest = sha256()
    for name in _IMAGE_INPUTS:
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so":
                digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    archive = _CACHE / f"{digest.hexdigest()[:16]}.tar"
    if not archive.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        for old in _CACHE.glob("*.tar"):
            old.unlink()
        building = archive.with_suffix(".building")
        done = subprocess.run(
            [ROOT / "k8s/build-image", "--tag", IMAGE, building],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"k8s/build-image:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        building.rename(archive)
    return archive


@dataclass
class Deployment:
    """The overlay `local` in a namespace of its own, with PostgreSQL and an object store.

    Attributes:
        number: of the deployment, 0 to 255: services have the addresses 10.96.{number}.x.
        settings: further entries of the ConfigMap retrain-env.
        specs: contents of spec files by path, mounted from a ConfigMap over those of the image.
    """

    cluster: Cluster
    namespace: str
    number: int
    postgres: Postgres
    store: ObjectStore
    settings: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    _forward: "subprocess.Popen[bytes] | None" = None

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, check=check)

    def get(self, *args: str) -> list[dict[str, Any]]:
        """Objects in this namespace."""
        return self.cluster.get("-n", self.namespace, *args)

    def apply(self) -> None:
        """Namespace, secrets and the overlay; waits until everything is ready."""
        manifest = self.kustomized()
        self.cluster.kubectl("apply", "-f", "-", stdin=_namespace(self.namespace))
        for name, content in self._secrets().items():
            literals = [f"--from-literal={key}={value}" for key, value in content.items()]
            secret = self.kubectl(
                "create", "secret", "generic", name, *literals, "--dry-run=client", "-o", "yaml"
            )
            self.kubectl("apply", "-f", "-", stdin=secret)
        self.cluster.kubectl("apply", "-f", "-", stdin=manifest)
        for name in ("mlflow", "code", "webserver", "daemon", "dashboard"):
            self.kubectl("rollout", "status", f"deployment/retrain-{name}", "--timeout=480s")
        wait_until("the webserver answers", 120, self._reached)

    def serve(self, specs: Mapping[str, str]) -> None:
        """Other specs, by a rollout of all pods that read them or start pods that do."""
        self.specs = specs
        self.cluster.kubectl("apply", "-f", "-", stdin=self.kustomized())
        self.kubectl("rollout", "restart", "deployment/retrain-daemon")
        for name in ("code", "daemon", "dashboard"):
            self.kubectl("rollout", "status", f"deployment/retrain-{name}", "--timeout=480s")

    @property
    def _addresses(self) -> dict[str, str]:
        base = f"10.96.{self.number}"
        return {
            "RETRAIN_NAMESPACE": self.namespace,
            "RETRAIN_CODE_HOST": f"{base}.1",
            "RETRAIN_DAGSTER_URL": f"http://{base}.2:3000",
            "RETRAIN_MLFLOW_URI": f"http://{base}.3:5000",
            "DAGSTER_PG_HOST": self.postgres.host,
            "DAGSTER_PG_PORT": str(self.postgres.port),
            "DAGSTER_PG_USERNAME": "retrain",
            "AWS_ENDPOINT_URL": self.store.url,
            **self.settings,
        }

    def environment(self) -> dict[str, str]:
        """Settings and secrets of a process outside the cluster that reads the deployment."""
        (settings,) = [
            found["data"]
            for found in self.get("configmaps")
            if found["metadata"]["name"] == "retrain-env"
        ]
        secrets = [s for name, s in self._secrets().items() if name != "retrain-mlflow"]
        return {**settings, **{key: value for s in secrets for key, value in s.items()}}

    def kustomized(self) -> str:
        """The overlay `local` with this deployment's namespace, addresses and settings."""
        base = f"10.96.{self.number}"
        services = "\n---\n".join(
            f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {base}.{n}}}"
            for n, name in enumerate(("retrain-code", "retrain-webserver", "retrain-mlflow"), 1)
        )
        literals = "\n".join(
            f"  - {json.dumps(f'{key}={value}')}" for key, value in self._addresses.items()
        )
        with tempfile.TemporaryDirectory(prefix="retrain-overlay-") as folder:
            # kustomize takes no absolute path to a base.
            shutil.copytree(ROOT / "k8s", Path(folder, "k8s"))
            here = Path(folder, "here")
            here.mkdir()
            (here / "services.yaml").write_text(services)
            (here / "kustomization.yaml").write_text(
                f"namespace: {self.namespace}\nbases: [../k8s/overlays/local]\n"
                "patchesStrategicMerge: [services.yaml]\n"
                "generatorOptions: {disableNameSuffixHash: true}\n"
                f"configMapGenerator:\n- name: retrain-env\n  behavior: merge\n  literals:\n{literals}\n"
            )
            if self.specs:
                self._mount_specs(here, Path(folder, "k8s/base/dagster.yaml"))
            manifest = self.cluster.kubectl("kustomize", str(here))
        # The overlay's own Namespace object keeps its name.
        return "---\n".join(p for p in manifest.split("---\n") if "kind: Namespace\n" not in p)

    def _mount_specs(self, here: Path, instance: Path) -> None:
        """A ConfigMap over /app/model_specs, in the pods that read them and in those of runs."""
        # A key of a ConfigMap is a file name; `items` puts it into its folder.
        keys = {path: path.replace("/", "..") for path in self.specs}
        items = [{"key": key, "path": path} for path, key in keys.items()]
        volume = {"name": "specs", "configMap": {"name": "retrain-specs", "items": items}}
        mount = {"name": "specs", "mountPath": "/app/model_specs", "readOnly": True}
        patches = [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"retrain-{name}"},
                "spec": {
                    "template": {
                        "spec": {
                            "containers": [{"name": name, "volumeMounts": [mount]}],
                            "volumes": [volume],
                        }
                    }
                },
            }
            for name in ("code", "dashboard")
        ]
        (here / "specs.yaml").write_text(yaml.safe_dump_all(patches))
        for path, content in self.specs.items():
            (here / keys[path]).write_text(content)
        file = here / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        kustomization["patchesStrategicMerge"].append("specs.yaml")
        kustomization["configMapGenerator"].append(
            {"name": "retrain-specs", "files": list(keys.values())}
        )
        file.write_text(yaml.safe_dump(kustomization))
        settings = yaml.safe_load(instance.read_text())
        run = settings["run_launcher"]["config"]["run_k8s_config"]
        run["pod_spec_config"]["volumes"].append(volume)
        run["container_config"]["volume_mounts"].append(mount)
        instance.write_text(yaml.safe_dump(settings))

    def _secrets(self) -> dict[str, dict[str, str]]:
        return {
            "retrain-postgresql": {"DAGSTER_PG_PASSWORD": _password(self.postgres)},
            "retrain-ledger": {"RETRAIN_LEDGER_URL": self.postgres.url("ledger")},
            "retrain-mlflow": {"MLFLOW_BACKEND_STORE_URI": self.postgres.url("mlflow")},
            "retrain-object-store": {
                "AWS_ACCESS_KEY_ID": self.store.key_id, "AWS_SECRET_ACCESS_KEY": self.store.secret,
            },
        }  # fmt: skip

    def _reached(self) -> bool:
        """Whether the webserver answers, reached as a person does from outside: with kubectl port-forward.

        That ends with its pod, and with the node's kubelet.
        """
        if self._forward is None or self._forward.poll() is not None:
            self._forward_port()
        return self._answers()

    def _forward_port(self) -> None:
        port = free_port("127.0.0.1")
        self._forward = subprocess.Popen(
            [
                self.cluster.kubectl_path, "--kubeconfig", str(self.cluster.kubeconfig),
                "-n", self.namespace, "port-forward", "service/retrain-webserver", f"{port}:3000",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def graphql(self, query: str, **variables: Any) -> Any:
        """Data of a GraphQL answer; fails with its errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        content = wait_until("an answer to a query", 300, lambda: self._asked(body))
        assert "errors" not in content, content["errors"]
        return content["data"]

    def _asked(self, body: bytes) -> Any:
        """None where the way to the webserver has gone: with its pod, or with the node's kubelet."""
        if self._forward is None or self._forward.poll() is not None:
            wait_until("the webserver answers", 120, self._reached)
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except (ConnectionError, urllib.error.URLError) as error:
            if isinstance(error, urllib.error.HTTPError):
                raise
            assert self._forward is not None
            self._forward.terminate()
            self._forward.wait(30)
            return None

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first: id, status, startTime, endTime, tags as a mapping."""
        data = self.graphql(
            "query { runsOrError { ... on Runs { results {"
            " runId status startTime endTime creationTime tags { key value } } } } }"
        )
        runs: list[dict[str, Any]] = data["runsOrError"]["results"]
        for run in runs:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return runs

    def status(self, run_id: str) -> str:
        """State of a run."""
        found: str = self.graphql(
            "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id
        )["runOrError"]["status"]
        return found

    def automate(self, sensor: str, on: bool) -> None:
        """Turn a sensor on or off."""
        selector = {
            "repositoryLocationName": "retrain_assets",
            "repositoryName": "__repository__",
            "sensorName": sensor,
        }
        if on:
            data = self.graphql(
                "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) {"
                " __typename ... on PythonError { message } } }", s=selector,
            )  # fmt: skip
            assert data["startSensor"]["__typename"] == "Sensor", data
            return
        found = self.graphql(
            "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) {"
            " ... on Sensor { sensorState { id } } } }", s=selector,
        )  # fmt: skip
        data = self.graphql(
            "mutation($id: String!) { stopSensor(id: $id) {"
            " __typename ... on PythonError { message } } }",
            id=found["sensorOrError"]["sensorState"]["id"],
        )
        assert data["stopSensor"]["__typename"] == "StopSensorMutationResult", data

    def step_output(self, run_id: str) -> str:
        """What the webserver shows of the output of all steps of a run."""
        events = self.graphql(
            "query($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection {"
            " events { ... on LogsCapturedEvent { fileKey } } } } }", id=run_id,
        )["logsForRun"]["events"]  # fmt: skip
        text = []
        for key in sorted({event["fileKey"] for event in events if "fileKey" in event}):
            logs = self.graphql(
                "query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }",
                key=[run_id, "compute_logs", key],
            )["capturedLogs"]
            text += [logs["stdout"] or "", logs["stderr"] or ""]
        return "\n".join(text)

    def remove(self) -> None:
        """Everything of it in the cluster."""
        if self._forward is not None:
            self._forward.terminate()
            self._forward.wait(30)
        self.cluster.remove_namespace(self.namespace)


def _namespace(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


def _password(postgres: Postgres) -> str:
    import sqlalchemy as sa

    return str(sa.make_url(postgres.url("dagster")).password)
