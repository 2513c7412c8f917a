"""`dagster dev` over many models: time until it answers, CPU and memory of its processes, idle CPU, pages.

    python bench/fleet/dev.py --models 1000 [--locations 4] [--pages FOLDER] [--idle 180]
    python bench/fleet/dev.py --shipped --idle 180      # the specs of this repository, no new data

Generated specs (`load.write_specs`), with this repository's dagster.yaml. `first answer` is the first GraphQL
answer that has all assets. Without `--idle` sensors and schedules are off. `--pages` opens the
asset graph of one group and one model's page in headless Chromium, twice each, and leaves screenshots.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from load import ROOT, write_specs

SETTLE = 120
QUERY = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } assetNodes { id } }"
)
READY_SECONDS = 900
GROUPS = 20
"""That `write_specs` makes."""
KINDS = {
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "grpc": "code server",
    "code-server": "code server proxy",
    "dagster dev": "dev",
}


def write_project(folder: Path, models: int, locations: int) -> None:
    """Specs, one definitions file per location, workspace, instance."""
    write_specs(folder / "model_specs", models)
    names = []
    for n in range(locations):
        groups = [f"g{g}" for g in range(GROUPS) if g % locations == n]
        only = "" if locations == 1 else f", groups={groups!r}"
        names.append(f"part_{n}.py")
        (folder / names[-1]).write_text(
            "from retrain_assets.orchestration.build import build_definitions\n\n"
            f'defs = build_definitions("model_specs"{only})\n'
        )
    entries = [
        {"python_file": {"relative_path": name, "location_name": Path(name).stem}} for name in names
    ]
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": entries}))


def write_shipped(folder: Path, *, two: bool) -> None:
    """This repository's specs on a calendar on which nothing ever happens."""
    fleets = shutil.ignore_patterns("recommenders.yaml", "route_delays.yaml") if two else None
    shutil.copytree(ROOT / "model_specs", folder / "model_specs", ignore=fleets)
    for path in (folder / "model_specs").glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        options = document.get("template", document)["source"]["options"]
        options |= {"initial_days": 0, "seconds_per_day": 1e9}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    for name in ("definitions.py", "workspace.yaml"):
        shutil.copyfile(ROOT / name, folder / name)


@contextmanager
def dagster_dev(folder: Path, *, automation: bool) -> Iterator[tuple[str, int]]:
    """The server's address and its process group."""
    home = folder / ".retrain" / "dagster"
    home.mkdir(parents=True)
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RETRAIN_", "DAGSTER_"))},
        "DAGSTER_HOME": str(home),
        "RETRAIN_HOME": str(folder / ".retrain"),
        "RETRAIN_AUTOMATION": str(automation),
        "PYTHONPATH": str(ROOT),
    }
    command = [Path(sys.executable).with_name("dagster"), "dev", "-w", "workspace.yaml"]
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while processes(process.pid) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.5)
        if processes(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def graphql(url: str, query: str) -> dict:
    request = urllib.request.Request(
        f"{url}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def first_answer(url: str, least: int) -> tuple[float, float]:
    """Seconds until the server answers, and until it knows so many assets."""
    began, alive = time.monotonic(), 0.0
    while True:
        waited = time.monotonic() - began
        if waited > READY_SECONDS:
            raise SystemExit(f"not ready in {READY_SECONDS} s")
        try:
            found = graphql(url, QUERY)["data"]["assetNodes"]
        except OSError:
            time.sleep(0.5)
            continue
        alive = alive or waited
        if len(found) >= least:
            return alive, time.monotonic() - began
        time.sleep(0.5)


def processes(group: int) -> dict[int, str]:
    """The living processes of a group, with what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            kinds = (kind for part, kind in KINDS.items() if part in command)
            found[int(entry.name)] = next(kinds, "other")
    return found


def used(group: int) -> dict[str, tuple[float, int]]:
    """CPU seconds and resident MB by kind of process."""
    tick, found = os.sysconf("SC_CLK_TCK"), dict[str, tuple[float, int]]()
    for pid, kind in processes(group).items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        cpu, size = found.get(kind, (0.0, 0))
        cpu += (int(fields[11]) + int(fields[12])) / tick
        found[kind] = (cpu, size + pages * os.sysconf("SC_PAGE_SIZE") // 2**20)
    return found


def visit(url: str, folder: Path, locations: int) -> None:
    """Load times of pages; the first time the server's caches are cold."""
    from playwright.sync_api import Error, sync_playwright

    location = "retrain_assets" if locations == 0 else "part_0"
    pages = {
        "group graph": (f"/locations/__repository__@{location}/asset-groups/g0", "raw_data"),
        "model": ("/assets/m00000/promoted_model", "The champion: the version that serves"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name, (path, text) in pages.items():
            for turn in (1, 2):
                page = browser.new_page(viewport={"width": 1500, "height": 950})
                began = time.monotonic()
                page.goto(url + path, wait_until="commit", timeout=120_000)
                try:
                    page.get_by_text(text).first.wait_for(timeout=120_000)
                    page.wait_for_load_state("networkidle", timeout=20_000)
                    said = ""
                except Error as error:
                    said = f" {str(error).splitlines()[0]}"
                took = time.monotonic() - began
                page.screenshot(path=folder / f"{name.replace(' ', '_')}.png")
                print(f"page {name}, visit {turn}: {took:.1f} s{said}", flush=True)
                page.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--two", action="store_true", help="of the shipped specs only two models")
    parser.add_argument("--locations", type=int, default=1)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--idle", type=float, default=0)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server ends with it
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if asked.shipped:
            write_shipped(folder, two=asked.two)
        else:
            write_project(folder, asked.models, asked.locations)
        least = (2 if asked.two else 75) * 5 if asked.shipped else asked.models * 5
        with dagster_dev(folder, automation=asked.idle > 0) as (url, group):
            alive, ready = first_answer(url, least)
            print(f"first page after {alive:.1f} s, all assets after {ready:.1f} s", flush=True)
            show("until then", used(group))
            if asked.pages:
                visit(url, asked.pages, 0 if asked.shipped else asked.locations)
                show("after the pages", used(group))
            if asked.idle:
                time.sleep(SETTLE)
                before = used(group)
                time.sleep(asked.idle)
                after = used(group)
                minutes = asked.idle / 60
                spent = {
                    k: ((after[k][0] - before.get(k, (0, 0))[0]) / minutes, after[k][1])
                    for k in after
                }
                show("per idle minute", spent)
            errors = [
                line for line in (folder / "dev.log").read_text().splitlines() if "ERROR" in line
            ]
            print(f"{len(errors)} errors in the log", *errors[:3], sep="\n")


def show(when: str, spent: dict[str, tuple[float, int]]) -> None:
    cells = [f"{kind} {cpu:.2f} CPU s {size} MB" for kind, (cpu, size) in sorted(spent.items())]
    total = sum(cpu for cpu, _ in spent.values())
    print(f"{when}: {total:.2f} CPU s: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
