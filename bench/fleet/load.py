"""What definitions cost: CPU ms per model and memory, for fleets of several sizes.

    .venv/bin/python bench/fleet/load.py [--models 50 500 1000 5000] [--runs 3] [--decorator]

Every size is a process of its own, run in turn with the others: reading the specs, building the
assets, making the repository, loading the implicit job of all assets, the snapshot that the web server
and the daemon ask for, and the same for a run process that is told its two models (`RETRAIN_MODELS`).
`--decorator` adds one that makes the same five assets and two checks with `@dg.asset`, for comparison.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = """name: m{i:05d}
description: Model {i}
owner: team:ops
group: g{group}
partitions: {{every: day, start: 2024-01-01}}
source: {{files: "/data/m{i}/{{partition}}.parquet"}}
target: y
task: binary
train: {{window: 30, holdout: 7}}
retrain: {{schedule: "0 6 * * {day}", on_drift: true}}
freshness: {{raw_data: {{fail: 48h}}}}
"""


def write_specs(folder: Path, models: int) -> None:
    """A folder with one spec file per model, in 20 groups and on 7 schedules."""
    folder.mkdir(parents=True)
    for i in range(models):
        text = SPEC.format(i=i, group=i % 20, day=i % 7)
        (folder / f"m{i:05d}.yaml").write_text(text)


def measure_ours(folder: str) -> None:
    """Print the phases of this process as JSON (run in a child)."""
    import resource
    import time

    marks = [("start", 0.0), ("import", time.process_time())]
    from retrain_assets.orchestration.build import build_definitions
    from retrain_assets.spec.loading import load_specs

    marks.append(("import", time.process_time()))
    specs = load_specs(folder)
    marks.append(("specs", time.process_time()))
    definitions = build_definitions(specs)
    marks.append(("build", time.process_time()))
    repository = definitions.get_repository_def()
    marks.append(("repository", time.process_time()))
    repository.load_all_definitions()
    marks.append(("load", time.process_time()))
    if not os.environ.get("RETRAIN_MODELS"):
        # What a code server sends; there is no public way to ask for it.
        from dagster._core.remote_representation.external_data import RepositorySnap

        RepositorySnap.from_def(repository)
        marks.append(("snapshot", time.process_time()))
    phases = {}
    for (_, before), (name, after) in itertools.pairwise(marks):
        phases[name] = phases.get(name, 0.0) + after - before
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"phases": phases, "total": marks[-1][1], "rss_mb": rss}))


def measure_decorator(models: int) -> None:
    """The same with the decorator: five assets, two checks (run in a child)."""
    import resource
    import time

    import dagster as dg

    started = time.process_time()
    days = dg.DailyPartitionsDefinition("2024-01-01")

    def asset(
        name: str, stage: str, upstream: str | None, check: str | None
    ) -> dg.AssetsDefinition:
        key = dg.AssetKey([name, stage])

        @dg.asset(
            key=key, deps=[dg.AssetKey([name, upstream])] if upstream else [], partitions_def=days,
            group_name=name, description="text", kinds={"parquet"}, owners=["team:ops"],
            tags={"retrain/model": name}, code_version="1", required_resource_keys={"platform"},
            check_specs=[dg.AssetCheckSpec(check, asset=key)] if check else None,
        )  # fmt: skip
        def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return dg.MaterializeResult()

        return body

    stages = [
        ("raw_data", None, "contract"), ("features", "raw_data", None),
        ("drift_report", "features", None), ("candidate_model", "features", None),
        ("promoted_model", "candidate_model", "gate"),
    ]  # fmt: skip
    assets = [asset(f"m{i:05d}", *stage) for i in range(models) for stage in stages]
    built = time.process_time()
    repository = dg.Definitions(assets, resources={"platform": object()}).get_repository_def()
    made = time.process_time()
    repository.load_all_definitions()
    loaded = time.process_time()
    phases = {"build": built - started, "repository": made - built, "load": loaded - made}
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"phases": phases, "total": loaded, "rss_mb": rss}))


def child(*arguments: str, **environment: str) -> dict:
    """The JSON that a child process prints."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[50, 500, 1000, 5000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--decorator", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, what = options.child
        return measure_ours(what) if kind == "ours" else measure_decorator(int(what))
    names = ["specs", "build", "repository", "load", "snapshot"]
    print(f"| models | process | {' | '.join(names)} | b+r+l | process CPU s | MB |")
    print("|---|---|" + "---|" * (len(names) + 3))
    with tempfile.TemporaryDirectory() as scratch:
        for models in options.models:
            folder = Path(scratch) / str(models)
            write_specs(folder, models)
            kinds = [("code server", ("ours", str(folder)), ""),
                     ("run of two", ("ours", str(folder)), "m00000,m00001")]  # fmt: skip
            if options.decorator:
                kinds.append(("decorator", ("decorator", str(models)), ""))
            found = {name: [] for name, _, _ in kinds}
            for _ in range(options.runs):
                for name, arguments, scope in kinds:
                    found[name].append(child("--child", *arguments, RETRAIN_MODELS=scope))
            for name, runs in found.items():
                print(row(models, name, runs, names), flush=True)
    return None


def row(models: int, name: str, runs: list[dict], names: list[str]) -> str:
    """One line of the table: medians, in ms per model."""

    def ms(*phases: str) -> str:
        values = [[run["phases"].get(phase) for phase in phases] for run in runs]
        if any(value is None for value in values[0]):
            return "-"
        return f"{statistics.median(sum(value) for value in values) / models * 1e3:.2f}"

    total = statistics.median(run["total"] for run in runs)
    rss = statistics.median(run["rss_mb"] for run in runs)
    cells = [*(ms(phase) for phase in names), ms("build", "repository", "load")]
    return f"| {models} | {name} | {' | '.join(cells)} | {total:.2f} | {rss:.0f} |"


if __name__ == "__main__":
    main()
