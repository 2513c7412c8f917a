"""`retrain now`: a fleet retrained from the command line, in a few processes that share the work.

Belongs here: what is handed to workers, and what came of it. Does not: what workers do (`now_runs`), their
lives and deaths (`workers`), whom a request means (`fleet.request`), what is printed (`cli`).

This process does not import Dagster, 1 CPU second: workers have it from the server that they are forked from, so
they decide too. A run that is killed is reported as canceled, or, where this process was killed too, by the next
`retrain now`: one that looks as if it went on would hold its models back for ever.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from retrain_assets.fleet.now import Retrained
from retrain_assets.orchestration.workers import Batch, Workers
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import LoadedSpec, SpecSet

__all__ = ["IN_A_RUN", "LIBRARIES", "Decided", "Run", "retrain_now"]

IN_A_RUN = [
    "dagster._core.execution.execute_in_process",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.remote_representation.external",
    "dagster._core.scheduler",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "fsspec.implementations.local",
    "retrain_assets.orchestration.now_runs",
    "upath.implementations.local",
]
"""What a run imports when it needs it, 0.4 CPU seconds in each worker; a name that is gone is passed over."""

LIBRARIES = [
    "dagster",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "lightgbm",
    "mlflow",
    "retrain_assets.orchestration.build",
    *IN_A_RUN,
]
"""What every worker needs; forked, it costs each of them nothing."""


@dataclass(frozen=True)
class Run:
    """A run to execute: what a worker has decided, and the same or another one executes.

    Attributes:
        assets: keys of the assets to materialize.
        specs: of the run's models alone.
        instance: where its events are stored, serialized by Dagster.
    """

    assets: tuple[tuple[str, ...], ...]
    partition: str | None
    tags: dict[str, str]
    specs: SpecSet
    settings: Settings
    instance: str


@dataclass(frozen=True)
class Decided:
    """What follows from a request.

    Attributes:
        waiting: models that cannot be retrained now, and why.
        runs: of the others.
    """

    waiting: tuple[Retrained, ...]
    runs: tuple[Batch[tuple[Retrained, ...]], ...]


def retrain_now(
    specs: Sequence[LoadedSpec],
    partition: str | None,
    jobs: int,
    settings: Settings,
    report: Callable[[int], None],
) -> Iterator[Retrained]:
    """Retrain models side by side, each as soon as its run is over.

    Args:
        partition: data up to it; None is the newest of each model.
        jobs: processes.
        report: told how many models are to be retrained, before the first is.

    Raises:
        LedgerError: the decisions cannot be recorded; nothing was started.
        RequestError: the process that decides was killed.
        KeyboardInterrupt: after the runs that were going on have ended.
    """
    with Workers(jobs, LIBRARIES, partial(_cancel, settings)) as workers:
        decided = workers.call(_decide, list(specs), partition, jobs, settings)
        report(sum(len(batch.models) for batch in decided.runs))
        yield from decided.waiting
        for batch, done in workers.execute(decided.runs):
            yield from done or workers.call(_left_by, settings, batch.run_id, batch.models)


# -- in the workers: what imports Dagster, imported there alone -----------------------------------


def _decide(
    specs: list[LoadedSpec], partition: str | None, jobs: int, settings: Settings
) -> Decided:
    from retrain_assets.orchestration import now_runs

    return now_runs.decide(specs, partition, jobs, settings, _retrain)


def _retrain(batch: Batch[tuple[Retrained, ...]]) -> tuple[Retrained, ...]:
    from retrain_assets.orchestration import now_runs

    run = batch.argument
    assert isinstance(run, Run)
    return now_runs.retrain(batch, run)


def _cancel(settings: Settings, run_ids: list[str], why: str) -> None:
    from retrain_assets.orchestration import now_runs

    now_runs.cancel(settings, run_ids, why)


def _left_by(settings: Settings, run_id: str, models: tuple[str, ...]) -> tuple[Retrained, ...]:
    from retrain_assets.orchestration import now_runs

    return now_runs.came_of(settings, run_id, models, None)
