"""Runs of a small job in processes of their own, for the tests of the stepwise event log."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import dagster as dg

from retrain_assets.orchestration.now_runs import for_workers

PARTITIONS = dg.DailyPartitionsDefinition("2024-01-01")
PARTITION = "2024-01-01"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Watch(dg.ConfigurableResource[Any]):
    """What the second step does beside its work."""

    kill: bool = False


@dg.asset(
    partitions_def=PARTITIONS,
    check_specs=[
        dg.AssetCheckSpec("positive", asset="first"),
        dg.AssetCheckSpec("even", asset="first"),
    ],
    code_version="1",
)
def first() -> Iterator[Any]:
    yield dg.Output(2, metadata={"rows": 2})
    yield dg.AssetCheckResult(passed=True, check_name="positive")
    yield dg.AssetCheckResult(passed=False, check_name="even", severity=dg.AssetCheckSeverity.WARN)


@dg.asset(partitions_def=PARTITIONS)
def second(context: dg.AssetExecutionContext, first: int, watch: Watch) -> int:
    context.log.info("half way")
    print("said on standard output")
    if watch.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return first + 1


def execute(instance: dg.DagsterInstance, run_id: str, *, kill: bool = False) -> bool:
    definitions = dg.Definitions(
        assets=[first, second],
        resources={"watch": Watch(kill=kill), "io_manager": dg.mem_io_manager},
    )
    return (
        definitions.resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance,
            partition_key=PARTITION,
            run_id=run_id,
            run_config=QUIET,
            asset_selection=[first.key, second.key],
        )
        .success
    )


def executed_as_worker(home: str, run_ids: list[str], kill: bool = False) -> list[bool]:
    """Runs on the instance of a worker of `retrain now`."""
    with dg.DagsterInstance.from_config(home) as stock:
        where = for_workers(stock)
    with dg.DagsterInstance.from_ref(where) as instance:
        return [execute(instance, run_id, kill=kill) for run_id in run_ids]
