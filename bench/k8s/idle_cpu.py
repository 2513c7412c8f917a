"""Processor time and memory of each pod of a deployment over a minute, from the node's cgroups.

    KUBECONFIG=… .venv/bin/python bench/k8s/idle_cpu.py retrain [--seconds 60]

For a cluster whose node is this machine (../shared/kube): there is no metrics server on it. Turn the
sensors on first, and let the runs that they ask for finish: then this is the idle control plane.
"""

import json
import subprocess
import time
from pathlib import Path

import click


def pods(namespace: str) -> dict[str, str]:
    """Uid of every running pod by its name."""
    command = ["kubectl", "-n", namespace, "get", "pods", "-o", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in found["items"]
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


@click.command()
@click.argument("namespace")
@click.option("--seconds", default=60.0)
def main(namespace: str, seconds: float) -> None:
    found = pods(namespace)
    before = {name: cpu_seconds(uid) for name, uid in found.items()}
    time.sleep(seconds)
    for name, uid in sorted(found.items()):
        used = cpu_seconds(uid) - before[name]
        click.echo(f"{name:<45} {100 * used / seconds:6.1f} % of a core {resident_mb(uid):7.0f} MB")


if __name__ == "__main__":
    main()
