"""Processes that execute runs side by side, and what becomes of runs whose process dies.

Belongs here: starting, feeding and ending worker processes. Does not: what they do (`now_runs`), and anything
that imports Dagster: the process that waits for the workers need not.

Workers are forked from a server that has imported the libraries once, and end with this process however it ends.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Generic, ParamSpec, TypeVar

from retrain_assets.errors import RequestError

__all__ = ["Batch", "Workers"]

_THREADS = "OMP_THREAD_LIMIT"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Batch(Generic[T]):
    """One run to execute.

    Attributes:
        run_id: of the run, given beforehand, so that it can be found when its process dies.
        work: the function that executes it, in a worker; must be importable there.
        argument: what else that function needs.
    """

    run_id: str
    models: tuple[str, ...]
    work: Callable[["Batch[T]"], T]
    argument: object


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


def _start_server(threads: int) -> None:
    """Start what workers are forked from; an interrupt while it imports is not for it either.

    Blocked rather than ignored: here it waits for the end of this function.

    Args:
        threads: that each worker may compute with, unless the environment says. More of them than
            processors would wait for one another, and LightGBM's wait costs CPU.
    """
    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    ours = {_THREADS: str(threads)} if _THREADS not in os.environ else {}
    os.environ.update(ours)
    try:
        forkserver.ensure_running()
    finally:
        for name in ours:
            del os.environ[name]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _terminated(*_: object) -> None:
    """SIGTERM as an exception, so that runs are canceled on the way out; once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


class Workers:
    """Processes that execute runs; the server that they come from starts at once.

    Args:
        jobs: how many.
        libraries: modules that they share.
        cancel: called in a worker with the ids of runs whose process is gone, and why.
    """

    def __init__(
        self, jobs: int, libraries: list[str], cancel: Callable[[list[str], str], None]
    ) -> None:
        self._jobs = jobs
        self._cancel = cancel
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(
            [f"{__package__}.gc_off", *libraries, f"{__package__}.gc_frozen"]
        )
        _start_server(max(1, len(os.sched_getaffinity(0)) // jobs))
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, self._processes, initializer=_follow_parent)

    def __enter__(self) -> "Workers":
        self._on_terminate = signal.signal(signal.SIGTERM, _terminated)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, self._on_terminate)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns, or raises, in a worker.

        Raises:
            RequestError: the worker was killed.
        """
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise RequestError(
                "a worker process was killed before its first run, by the system if memory is short; "
                "free some, or use fewer --jobs"
            ) from error

    def execute(self, batches: Sequence[Batch[T]]) -> Iterator[tuple[Batch[T], T | None]]:
        """Each run when it is over; None for one whose process died.

        Raises:
            KeyboardInterrupt: nothing new was begun, and the runs that went on have ended; a second
                interrupt ends their processes, and cancels them.
            SystemExit: SIGTERM came, which does the same at once.
        """
        waiting, going_on = deque(batches), dict[Future[T], Batch[T]]()
        interrupted = False
        try:
            while waiting or going_on:
                try:
                    while waiting and len(going_on) < self._jobs and not interrupted:
                        batch = waiting.popleft()
                        going_on[self._pool.submit(batch.work, batch)] = batch
                    for future in wait(going_on, return_when=FIRST_COMPLETED).done:
                        batch = going_on.pop(future)
                        yield batch, self._result(future, batch)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    waiting.clear()
        finally:
            if going_on:
                self._end(list(going_on.values()))
        if interrupted:
            raise KeyboardInterrupt

    def _result(self, future: Future[T], batch: Batch[T]) -> T | None:
        try:
            return future.result()
        except (
            BrokenProcessPool
        ):  # a process died, of memory say; all runs of the pool died with it
            self._pool.shutdown()
            self._pool = self._new_pool()
            self.call(self._cancel, [batch.run_id], "its process died")
            return None

    def _end(self, batches: Sequence[Batch[T]]) -> None:
        for process in multiprocessing.active_children():
            process.kill()  # what Dagster makes of SIGTERM depends on the moment
        self._pool.shutdown(cancel_futures=True)
        self._pool = self._new_pool()
        self.call(self._cancel, [batch.run_id for batch in batches], "it was interrupted")
