"""`retrain now`: a fleet retrained from the command line, in a few processes that share the work.

Belongs here: worker processes, what is handed to them, what came of it, what an interrupt leaves behind.
Does not: whom a request means and its decisions (`on_demand`), which models share a run (`batching`),
what is printed (`cli`).

Each run is executed in process, on the same Dagster instance as everything else, by a worker whose
definitions are those of the run's models alone. Workers are forked from a server that has imported the
libraries once, and end with this process however it ends. A run that is killed is reported as canceled, by this
process or, where that was killed too, by the next `retrain now`: one that looks as if it went on would hold its
models back for ever.
"""

import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Literal

import dagster as dg

from retrain_assets.fleet.now import Retrained
from retrain_assets.orchestration.compute_logs import in_files_only
from retrain_assets.orchestration.deciding import Answer, asked_for
from retrain_assets.orchestration.event_log import stepwise
from retrain_assets.orchestration.executors import PRELOAD
from retrain_assets.orchestration.keys import Tag, models_of
from retrain_assets.orchestration.observe import runs_in_progress
from retrain_assets.orchestration.on_demand import runs_of
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.process_tag import host, living, process_tag
from retrain_assets.orchestration.status import local_instance
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import LoadedSpec, SpecSet
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef

__all__ = ["Batch", "Done", "Workers", "executed", "for_workers", "retrain_now"]

_BY_SENSOR = "dagster/sensor_name"

IN_A_RUN = [
    "dagster._core.execution.execute_in_process",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.remote_representation.external",
    "dagster._core.scheduler",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "fsspec.implementations.local",
    "retrain_assets.orchestration.now",
    "upath.implementations.local",
]
"""What a run imports when it needs it, 0.4 CPU seconds in each worker; a name that is gone is passed over."""

LIBRARIES = [*PRELOAD, "lightgbm", "mlflow", "retrain_assets.orchestration.build", *IN_A_RUN]
"""What every worker needs; forked, it costs each of them nothing."""


@dataclass(frozen=True)
class Batch:
    """One run to execute.

    Attributes:
        run_id: of the run, given beforehand, so that it can be found when its process dies.
        work: the function that executes it, in a worker; must be importable there.
        argument: what else that function needs.
    """

    run_id: str
    models: tuple[str, ...]
    work: Callable[["Batch"], "Done"]
    argument: object


@dataclass(frozen=True)
class Done:
    """What came of a run.

    Attributes:
        cpu_seconds: by model: the run's, in proportion to the time of the model's steps.
        errors: by model, the message of its first step that failed.
    """

    run_id: str
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Request:
    """A run of the platform's own models."""

    request: dg.RunRequest
    specs: SpecSet
    settings: Settings
    instance: "InstanceRef"


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
        KeyboardInterrupt: after the runs that were going on have ended.
    """
    with Workers(jobs, LIBRARIES) as workers, local_instance(settings) as instance:
        platform = Platform(settings)
        _cancel_orphans(instance)
        by_name = {loaded.spec.name: loaded for loaded in specs}
        asked_by = f"retrain now {uuid.uuid4()}"
        chosen: list[ModelSpec] = [loaded.spec for loaded in specs]
        answered = asked_for(instance, platform, chosen, partition, asked_by)
        requests = runs_of(platform, answered, settings.model_copy(update={"parallel_runs": jobs}))
        where = for_workers(instance)
        batches = [_batch(request, by_name, settings, where) for request in requests]
        report(sum(one.wanted is not None for one in answered))
        yield from _waiting(answered)
        for batch, done in workers.execute(batches, instance):
            yield from _outcomes(platform, batch, done)


def _waiting(answered: Sequence[Answer]) -> Iterator[Retrained]:
    for one in answered:
        if one.wanted is None:
            yield Retrained(one.model, "waits", ", ".join(one.decision.reasons))


def _batch(
    request: dg.RunRequest,
    by_name: dict[str, LoadedSpec],
    settings: Settings,
    instance: "InstanceRef",
) -> Batch:
    names = tuple(models_of(request.asset_selection))
    specs = SpecSet({name: by_name[name] for name in names}, ())
    asked = _Request(request, specs, settings, instance)
    return Batch(str(uuid.uuid4()), names, _retrain, asked)


def _outcomes(platform: Platform, batch: Batch, done: Done | None) -> Iterator[Retrained]:
    """What came of the models of a run, as the ledger has it; `done` is None where it was killed."""
    judged = platform.decisions.judged(batch.models)
    for name in batch.models:
        one = judged.get(name)
        seconds = done.cpu_seconds.get(name) if done else None
        if one is not None and one.run_id == batch.run_id:
            outcome: Literal["promoted", "kept"] = (
                "promoted" if one.verdict == "promote" else "kept"
            )
            yield Retrained(name, outcome, one.sentence, one.version, seconds)
        elif done is None:
            yield Retrained(name, "canceled", "its process was ended")
        else:
            said = done.errors.get(name, "the run ended without a judgement")
            yield Retrained(name, "failed", said, None, seconds)


def for_workers(instance: dg.DagsterInstance) -> "InstanceRef":
    """Where workers store: the same instance, its events and output written in fewer, larger pieces."""
    return in_files_only(stepwise(instance.get_ref()))


# -- in the workers -------------------------------------------------------------------------------


def _retrain(batch: Batch) -> Done:
    from retrain_assets.orchestration.build import build_definitions

    asked = batch.argument
    assert isinstance(asked, _Request)
    definitions = build_definitions(asked.specs, asked.settings)
    with dg.DagsterInstance.from_ref(asked.instance) as instance:
        return executed(definitions, instance, asked.request, batch)


def executed(
    definitions: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest, batch: Batch
) -> Done:
    """Execute a run in this process."""
    began = time.process_time()
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=list(request.asset_selection or []),
        partition_key=request.partition_key,
        tags={
            **{key: text for key, text in request.tags.items() if key != "dagster/partition"},
            Tag.PROCESS: process_tag(os.getpid()),
        },
        run_id=batch.run_id,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    errors: dict[str, str] = {}
    seconds = dict.fromkeys(batch.models, 0.0)
    for event in result.all_events:
        name = (event.step_key or "").partition("__")[0]
        if event.is_step_failure:
            data = event.step_failure_data
            user = data.user_failure_data.description if data.user_failure_data else None
            text = user or (data.error.message if data.error else event.message)
            errors.setdefault(name, text or "")
        elif event.is_step_success and name in seconds:
            seconds[name] += event.step_success_data.duration_ms / 1000
    whole = sum(seconds.values()) or 1.0
    cpu = time.process_time() - began
    return Done(batch.run_id, {n: cpu * share / whole for n, share in seconds.items()}, errors)


# -- the processes --------------------------------------------------------------------------------


def _follow_parent() -> None:
    """What becomes of a run is for the parent to say, and a parent that was killed takes its workers along.

    An interrupt of the terminal reaches all processes, and Dagster would fail the run for it: it puts
    its own handler in the place of any other while a run goes on, so the signal is blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _start_server() -> None:
    """Start what workers are forked from; an interrupt while it imports is not for it either.

    Blocked rather than ignored: here it waits for the end of this function.
    """
    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _terminated(*_: object) -> None:
    """SIGTERM as an exception, so that runs are canceled on the way out; once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


class Workers:
    """Processes that execute runs; made at once, so that they start while others decide.

    Args:
        jobs: how many.
        libraries: modules that they share.
    """

    def __init__(self, jobs: int, libraries: list[str]) -> None:
        self._jobs = jobs
        # The server process imports while this process decides.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(libraries)
        _start_server()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, self._processes, initializer=_follow_parent)

    def __enter__(self) -> "Workers":
        self._on_terminate = signal.signal(signal.SIGTERM, _terminated)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, self._on_terminate)

    def execute(
        self, batches: Sequence[Batch], instance: dg.DagsterInstance
    ) -> Iterator[tuple[Batch, Done | None]]:
        """Each run when it is over; None for one whose process died.

        Raises:
            KeyboardInterrupt: nothing new was begun, and the runs that went on have ended; a second
                interrupt ends their processes, and cancels them.
            SystemExit: SIGTERM came, which does the same at once.
        """
        waiting, going_on = deque(batches), dict[Future[Done], Batch]()
        interrupted = False
        try:
            while waiting or going_on:
                try:
                    while waiting and len(going_on) < self._jobs and not interrupted:
                        batch = waiting.popleft()
                        going_on[self._pool.submit(batch.work, batch)] = batch
                    for future in wait(going_on, return_when=FIRST_COMPLETED).done:
                        batch = going_on.pop(future)
                        yield batch, self._result(future, batch, instance)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    waiting.clear()
        finally:
            if going_on:
                self._end(list(going_on.values()), instance)
        if interrupted:
            raise KeyboardInterrupt

    def _result(
        self, future: Future[Done], batch: Batch, instance: dg.DagsterInstance
    ) -> Done | None:
        try:
            return future.result()
        except (
            BrokenProcessPool
        ):  # a process died, of memory say; all runs of the pool died with it
            _cancel(instance, batch.run_id, "its process died")
            self._pool.shutdown()
            self._pool = self._new_pool()
            return None

    def _end(self, batches: Sequence[Batch], instance: dg.DagsterInstance) -> None:
        for process in multiprocessing.active_children():
            process.kill()  # what Dagster makes of SIGTERM depends on the moment
        self._pool.shutdown(cancel_futures=True)
        for batch in batches:
            _cancel(instance, batch.run_id, "it was interrupted")


def _cancel(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Report a run whose process is gone, unless it has ended.

    Dagster has no public call for whoever executes a run himself to say so; this is the one that
    its own launchers use.
    """
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_canceled(run, f"canceled: {why}")


def _cancel_orphans(instance: dg.DagsterInstance) -> None:
    """Runs of an earlier command on this machine that was killed together with its workers."""
    for run in runs_in_progress(instance):
        own = run.tags.get(Tag.TRIGGER) == "on_demand" and _BY_SENSOR not in run.tags
        tag = run.tags.get(Tag.PROCESS, "")
        if own and tag.split(" ")[0] == host() and living(tag) is None:
            _cancel(instance, run.run_id, "its process is gone")
