"""Processor time and memory of each pod of a control plane that has nothing to do, from the node's cgroups.

    PYTHONPATH=.:tests .venv/bin/python bench/k8s/idle_cpu.py --models 50 --models 1000
    PYTHONPATH=.:tests .venv/bin/python bench/k8s/idle_cpu.py --namespace retrain

Deploys k8s/overlays/local for so many recommenders whose markets have not opened: every sensor and
schedule is on and ticks, no run is asked for. Or measures a deployment that is there. For a cluster whose
node is this machine (../shared/kube): there is no metrics server on it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import click
import yaml
from k8s.backing import ObjectStore, Postgres
from k8s.cluster import ROOT, Cluster, Deployment

EXAMPLE = ROOT / "model_specs/recommenders.yaml"
SETTLING_SECONDS = 60.0
"""Until first ticks, which read everything, are over."""


def fleet(n: int) -> str:
    """A fleet file of `n` models without data."""
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    found["template"]["source"]["options"] |= {"opens": 10_000}
    rows = found["for_each"]
    found["for_each"] = [
        rows[i % len(rows)] | {"market": f"m{i:04d}", "seed": i, "resources.candidate_model.gpu": 0}
        for i in range(n)
    ]
    return yaml.safe_dump(found, width=10_000)


def pods(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Uid of every running pod by its name."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in cluster.get("-n", namespace, "pods")
        if pod["status"]["phase"] == "Running"
    }


def control_group(controller: str, uid: str) -> Path:
    """The pod's folder below /sys/fs/cgroup, version 1."""
    (folder,) = Path("/sys/fs/cgroup", controller, "kubepods").glob(f"**/pod{uid}")
    return folder


def cpu_seconds(uid: str) -> float:
    return int((control_group("cpuacct", uid) / "cpuacct.usage").read_text()) / 1e9


def resident_mb(uid: str) -> float:
    """Anonymous memory: page cache is left out."""
    lines = (control_group("memory", uid) / "memory.stat").read_text().splitlines()
    stat = dict(line.split() for line in lines)
    return int(stat["total_rss"]) / 2**20


def measure(cluster: Cluster, namespace: str, seconds: float) -> None:
    """Print what each pod uses from now on."""
    found = pods(cluster, namespace)
    before = {name: cpu_seconds(uid) for name, uid in found.items()}
    time.sleep(seconds)
    for name, uid in sorted(found.items()):
        used = cpu_seconds(uid) - before[name]
        click.echo(f"{name:<45} {1000 * used / seconds:6.0f} millicores {resident_mb(uid):7.0f} MB")
    click.echo(f"load average {os.getloadavg()[1]:.1f}")


@click.command()
@click.option("--models", multiple=True, type=int, help="Deploy this many models; several times.")
@click.option("--namespace", help="Measure this deployment instead.")
@click.option("--seconds", default=180.0, show_default=True)
def main(models: tuple[int, ...], namespace: str | None, seconds: float) -> None:
    with Cluster.running() as cluster:
        if namespace:
            measure(cluster, namespace, seconds)
            return
        cluster.import_image()
        for number, n in enumerate(models, 90):
            postgres, store = Postgres(cluster.host), ObjectStore(cluster.host)
            deployment = Deployment(
                cluster, f"retrain-idle-{n}", number, postgres, store, {},
                {"recommenders.yaml": fleet(n)},
            )  # fmt: skip
            try:
                deployment.apply()
                time.sleep(SETTLING_SECONDS)
                click.echo(json.dumps({"models": n, "runs": len(deployment.runs())}))
                measure(cluster, deployment.namespace, seconds)
            finally:
                deployment.remove()
                store.remove()
                postgres.remove()


if __name__ == "__main__":
    main()
