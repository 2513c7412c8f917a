"""Our platform on the retraining work that `shared/bench/orchestrators` gives every orchestrator.

    RETRAIN_ROOT=DATA python bench/fleet/orchestrators/ours.py fleet --models 50 --jobs 2 --run RUN
    RETRAIN_ROOT=DATA python bench/fleet/orchestrators/ours.py compare --models 50 --jobs 2 --rounds 3

`fleet` is what `retrain now` does: models are grouped into runs by `batching.grouped`, the runs are executed
by `workers.Workers` with `now_runs.executed`, on a sqlite Dagster instance, by definitions of the run's models alone;
five assets a model, partitioned, with keys, groups, descriptions, owners, tags, kinds, checks, code versions and
metadata, built of parts as the factory does. Not in it: specs, the decision and the
promotion ledger, MLflow and the tables' IO manager, since the work brings its own counterparts (files in
folders, a champion by atomic rename); the five functions are called as they are, and paths passed on.

`compare` alternates the floor (plain calls in as many processes), one Dagster process without any of
this (a run over all models, in process), and ours, on one Dagster home that exists; CPU and the peak of the summed
resident sizes are those of the whole process tree. Needs `retrain_work.py` and `measure.py` on the path, and its data
(`python -c "import retrain_work as w; w.make_data(50)"`). With the exercise's drivers beside them, its peers join:

    BENCH_BASE=VENVS_IN_HERE python bench/fleet/orchestrators/ours.py compare --who floor,fleet,flytekit,prefect

where `VENVS_IN_HERE/venvs/PEER` has the peer and the same versions of the work's libraries as ours, and
`drivers/prefect_driver.py init` has been run once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

STAGES = ("raw_data", "features", "drift_report", "candidate_model", "promoted_model")
LIBRARIES = ["dagster", "numpy", "pandas", "pyarrow.parquet", "scipy.stats", "lightgbm"]
PARTITION = "2024-01-01"
OURS = ("floor", "fleet", "dagster")
INSTANCE = "telemetry: {enabled: false}\npython_logs: {python_log_level: INFO}\n"
"""As the project's dagster.yaml; it says nothing about how events are stored."""


def ctx_of(model: str, run: str, stage: str, ctx: dict[str, Any] | None) -> dict[str, Any]:
    """One of the five functions."""
    import retrain_work as work

    function = getattr(work, work.STEPS[STAGES.index(stage)])
    found: dict[str, Any] = function(model, run) if ctx is None else function(ctx)
    return found


# -- ours -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a worker needs beside the batch: a run request's content, and where the instance is."""

    instance: str
    run: str


def assets_of(model: str, run: str) -> Iterator[Any]:
    """The five assets of a model, made of their parts as `factory.model_assets` does."""
    import dagster as dg

    partitions = dg.DailyPartitionsDefinition(start_date=PARTITION)
    upstream: str | None = None
    for stage in STAGES:
        key = dg.AssetKey([model, stage])
        reads = {"ctx": dg.AssetKey([model, upstream])} if upstream else {}
        checks = {"check_passed": dg.AssetCheckSpec("passed", asset=key)}
        compute = dg.OpDefinition(
            name="__".join(key.path),
            compute_fn=body(model, run, stage),
            ins=dict.fromkeys(reads, dg.In()),
            outs={
                "result": dg.Out(dg.Any, code_version="1"),
                "check_passed": dg.Out(dagster_type=None),
            },
            code_version="1",
        )
        described = dg.AssetSpec(
            key,
            deps=list(reads.values()),
            description="One step of the work.",
            group_name="fleet",
            kinds={"parquet"},
            owners=["team:bench"],
            tags={"retrain/model": model},
            code_version="1",
            partitions_def=partitions,
        )
        yield dg.AssetsDefinition(
            node_def=compute,
            keys_by_input_name=reads,
            keys_by_output_name={"result": key},
            check_specs_by_output_name=checks,
            specs=[described],
        )
        upstream = stage


def body(model: str, run: str, stage: str) -> Any:
    import dagster as dg

    def step(context: dg.AssetExecutionContext, inputs: dict[str, Any]) -> Iterator[Any]:
        found = ctx_of(model, run, stage, inputs.get("ctx"))
        numbers = {name: x for name, x in found.items() if isinstance(x, int | float | str)}
        yield dg.Output(found, metadata=numbers)
        yield dg.AssetCheckResult(passed=True, check_name="passed")

    return step


def decide(models: int, jobs: int, run: str, home: str) -> tuple[str, list[tuple[str, ...]]]:
    """Where runs are stored, and who shares one; in a worker."""
    import dagster as dg
    import retrain_work as work

    from retrain_assets.orchestration.batching import Wanted, grouped
    from retrain_assets.orchestration.now_runs import for_workers

    wanted = [
        Wanted(spec_of(name), PARTITION, name, 1, "on_demand", "asked", run)
        for name in work.model_ids(models)
    ]
    with dg.DagsterInstance.from_config(home) as instance:
        where = dg.serialize_value(for_workers(instance))
    return where, [tuple(w.spec.name for w in part) for part in grouped(wanted, jobs, 10)]


def work_on(batch: Any) -> dict[str, str]:
    """Execute one run, in a worker: by model what failed."""
    import dagster as dg

    from retrain_assets.orchestration.keys import Tag
    from retrain_assets.orchestration.now_runs import executed, opened

    asked: Asked = batch.argument
    definitions = dg.Definitions(assets=[a for m in batch.models for a in assets_of(m, asked.run)])
    request = dg.RunRequest(
        asset_selection=[dg.AssetKey([m, stage]) for m in batch.models for stage in STAGES],
        partition_key=PARTITION,
        tags={
            Tag.KIND: "retrain", Tag.TRIGGER: "on_demand", Tag.MODELS: ",".join(batch.models),
            **{Tag.request(m): asked.run for m in batch.models},
            **{Tag.decision(m): asked.run for m in batch.models},
        },
    )  # fmt: skip
    done = executed(definitions, opened(asked.instance), request, batch.run_id, batch.models)
    return done.errors


def died(run_ids: list[str], why: str) -> None:
    raise SystemExit(f"runs {run_ids}: {why}")


def fleet(models: int, jobs: int, run: str, home: str) -> None:
    """All models through our workers."""
    from retrain_assets.orchestration.now import IN_A_RUN
    from retrain_assets.orchestration.workers import Batch, Workers

    with Workers(jobs, [*LIBRARIES, *IN_A_RUN], died) as workers:
        where, parts = workers.call(decide, models, jobs, run, home)
        batches = [Batch(str(uuid.uuid4()), part, work_on, Asked(where, run)) for part in parts]
        failed = [errors for _, errors in workers.execute(batches) if errors is None or errors]
    if failed:
        raise SystemExit(f"failed: {failed}")


def spec_of(name: str) -> Any:
    from retrain_assets.spec.model import ModelSpec

    return ModelSpec.model_validate(
        {
            "name": name,
            "partitions": {"every": "day", "start": date(2024, 1, 1)},
            "source": {"python": "retrain_work:load_raw"},
            "target": "y",
            "task": "binary",
            "train": {"window": 6, "holdout": 2},
        }
    )


# -- the others -----------------------------------------------------------------------------------


def dagster_alone(models: int, run: str, home: str) -> None:
    """All models in one run of one Dagster process, with bare assets."""
    import dagster as dg
    import retrain_work as work

    assets = []
    for model in work.model_ids(models):
        upstream: str | None = None
        for stage in STAGES:
            ins = {"ctx": dg.AssetIn(f"{model}_{upstream}")} if upstream else {}
            decorate = dg.asset(name=f"{model}_{stage}", group_name=model, ins=ins)
            assets.append(decorate(plain(model, run, stage, first=upstream is None)))
            upstream = stage
    with dg.DagsterInstance.from_config(home) as instance:
        definitions = dg.Definitions(assets=assets)
        job = definitions.resolve_implicit_global_asset_job_def()
        if not job.execute_in_process(instance=instance).success:
            raise SystemExit("failed")


def plain(model: str, run: str, stage: str, *, first: bool) -> Any:
    def start() -> dict[str, Any]:
        return ctx_of(model, run, stage, None)

    def step(ctx: dict[str, Any]) -> dict[str, Any]:
        return ctx_of(model, run, stage, ctx)

    return start if first else step


def one_of_floor(asked: tuple[str, str]) -> None:
    import retrain_work as work

    work.run_all(*asked)


def floor(models: int, jobs: int, run: str) -> None:
    """The functions, called in plain Python processes."""
    import retrain_work as work

    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(one_of_floor, [(model, run) for model in work.model_ids(models)]))


def compare(models: int, jobs: int, rounds: int, who: list[str], home: str) -> None:
    """CPU of the process tree of each, in turn; the ratio to the floor of the same round."""
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in who}
    for number in range(rounds):
        for name in who:
            run = f"{name}{number}{int(time.time())}"
            tree = counted(name, models, jobs, run, home)
            cpu, wall = tree["cpu"], tree["wall"]
            folder = Path(os.environ["RETRAIN_ROOT"]) / "steps"
            steps = [len(f.read_text().splitlines()) for f in folder.glob(f"*-{run}.jsonl")]
            if steps != [5] * models:
                raise SystemExit(f"{name}: {sum(steps)} steps instead of {5 * models}")
            ratio = cpu / found["floor"][number][0] if name != "floor" else 1.0
            found[name].append((cpu, wall, ratio, tree["rss_mb"]))
            print(
                json.dumps({"who": name, "cpu": round(cpu, 1), "ratio": round(ratio, 2)}),
                flush=True,
            )
    for name, rows in found.items():
        cpu, wall, ratio, size = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<10} {cpu:8.1f} CPU s {wall:8.1f} s {ratio:6.2f} x {size:8.0f} MB")


def counted(name: str, models: int, jobs: int, run: str, home: str) -> dict[str, float]:
    """CPU, time by the clock and memory of one of ours, or of a peer, in a process tree of its own."""
    import measure as process_tree

    command = [sys.executable, __file__, name, "--models", str(models), "--jobs", str(jobs)]
    command += ["--run", run, "--home", home]
    environment, folder = {**os.environ, "OMP_NUM_THREADS": "1"}, None
    if name not in OURS:
        import bench as peers

        blanks = {"n": str(models), "h": str(models // 2), "run": run}
        command = [word.format(**blanks) for word in peers.commands(name, "fleet")]
        environment, folder = {**peers.ENV, "RETRAIN_N": str(models)}, peers.STATE
    done = subprocess.run(
        [sys.executable, str(process_tree.__file__), *command],
        check=True, capture_output=True, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    tree: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=[*OURS, "compare"])
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--run", default="r0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", default="floor,fleet,dagster")
    parser.add_argument("--home", help="a Dagster home that exists; by default a new one is made")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as new:
        home = asked.home or new_home(new)
        if asked.verb == "compare":
            compare(asked.models, asked.jobs, asked.rounds, asked.who.split(","), home)
        elif asked.verb == "dagster":
            dagster_alone(asked.models, asked.run, home)
        elif asked.verb == "floor":
            floor(asked.models, asked.jobs, asked.run)
        else:
            fleet(asked.models, asked.jobs, asked.run, home)


def new_home(folder: str) -> str:
    """An instance as the project's, made once: that takes 1.4 CPU seconds, and nobody makes one daily."""
    import dagster as dg

    Path(folder, "dagster.yaml").write_text(INSTANCE, encoding="utf-8")
    dg.DagsterInstance.from_config(folder).dispose()
    return folder


if __name__ == "__main__":
    main()
