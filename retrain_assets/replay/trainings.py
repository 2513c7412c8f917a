"""The model of each partition: trained at most once, whatever policy asks, and kept between replays.

Belongs here: finding, training (on all cores) and storing. Does not: how rows are chosen and a model
is trained (`promotion.candidate`), scoring later partitions (`scores`).

A training is a folder named by its fingerprint, which is the one that the live system gives the same
training. It is filled under another name and renamed when it is whole, so that a killed replay leaves
nothing half-written, and the one that comes after continues.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import TrainingError
from retrain_assets.replay.history import SnapshotStore

if TYPE_CHECKING:
    from retrain_assets.replay.history import History
    from retrain_assets.spec.model import ModelSpec
    from retrain_assets.training.evaluation import Evaluation
    from retrain_assets.training.model import TabularModel
    from retrain_assets.training.split import WindowPlan

__all__ = ["Trained", "Trainings"]

_ABOUT, _HOLDOUT = "about.json", "holdout.parquet"


@dataclass(frozen=True)
class Trained:
    """A trained model and what the gate and drift reports need of it.

    Attributes:
        partition: the partition that it was trained for.
        fingerprint: names the training.
        folder: its files.
        train_keys, holdout_keys: the partitions it was trained and judged on.
        rows: training rows.
        seconds: CPU seconds of reading the rows and training.
        size_bytes: of the model's files.
        importance: share of each feature.
    """

    partition: str
    fingerprint: str
    folder: Path
    train_keys: tuple[str, ...]
    holdout_keys: tuple[str, ...]
    rows: int
    seconds: float
    size_bytes: int
    importance: Mapping[str, float]

    def load(self) -> "TabularModel":
        """The model, from its files."""
        from retrain_assets.training.model import TabularModel

        return TabularModel.load(self.folder)

    def holdout(self) -> "Evaluation":
        """Truth, the model's and the baselines' scores on its holdout."""
        return _holdout(self.folder)


@lru_cache(maxsize=4)
def _holdout(folder: Path) -> "Evaluation":
    """Read once for the gate, and for all who serve what it has promoted."""
    import pyarrow.parquet as pq

    from retrain_assets.training.evaluation import Evaluation

    return Evaluation.from_table(pq.read_table(folder / _HOLDOUT))


class Trainings:
    """Trainings of one history.

    Args:
        history: the partitions.
        folder: where trainings are kept.
        workers: processes that train at the same time; 1 trains in this process.
    """

    def __init__(self, history: "History", folder: Path, workers: int) -> None:
        self._history, self._folder, self._workers = history, folder, workers
        self._known: dict[str, Trained | TrainingError] = {}

    def get(self, partition: str) -> Trained:
        """The model that a candidate for `partition` would be.

        Raises:
            TrainingError: too little data, or data that cannot be trained on.
        """
        found = self._known.get(partition)
        if found is None:
            found = self._find(partition) or _outcome(self._task(partition))
            self._known[partition] = found
        if isinstance(found, TrainingError):
            raise found
        return found

    def prepare(
        self, partitions: Iterable[str], progress: Callable[[int, int], object] = lambda n, of: None
    ) -> None:
        """Train what is not there yet, several at a time; what cannot be trained, `get` says.

        Args:
            partitions: those that will be asked for.
            progress: called with how many are done, of how many.
        """
        due = []
        for partition in dict.fromkeys(partitions):
            if partition in self._known:
                continue
            try:
                found = self._find(partition)
            except TrainingError as error:
                self._known[partition] = error
                continue
            if found is None:
                due.append(partition)
            else:
                self._known[partition] = found
        if self._workers <= 1 or len(due) < 2:
            for done, partition in enumerate(due):
                self._known[partition] = _outcome(self._task(partition))
                progress(done + 1, len(due))
            return
        self._in_parallel(due, progress)

    def _in_parallel(self, due: list[str], progress: Callable[[int, int], object]) -> None:
        # Spawned: a forked child would inherit the threads' locks of Arrow and OpenMP.
        with ProcessPoolExecutor(
            min(self._workers, len(due)), get_context("spawn"), _single_threaded
        ) as pool:
            running = {pool.submit(_outcome, self._task(key)): key for key in due}
            try:
                for done, future in enumerate(as_completed(running)):
                    self._known[running[future]] = future.result()
                    progress(done + 1, len(due))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    @property
    def known(self) -> list[Trained]:
        """All trainings that were asked for, by partition."""
        found = [one for one in self._known.values() if isinstance(one, Trained)]
        return sorted(found, key=lambda one: one.partition)

    def _plan(self, partition: str) -> "WindowPlan":
        from retrain_assets.training.split import plan_window

        spec = self._history.spec
        existing = self._history.until(partition)
        return plan_window(self._history.scheme, partition, spec.train, spec.min_window, existing)

    def _find(self, partition: str) -> Trained | None:
        from retrain_assets.promotion.candidate import planned_fingerprint

        plan = self._plan(partition)
        fingerprint = planned_fingerprint(self._history.spec, plan, self._history.fingerprints)
        return _stored(self._folder / fingerprint)

    def _task(self, partition: str) -> "_Task":
        history = self._history
        return _Task(
            history.spec, partition, history.store.base, history.until(partition), self._folder
        )


@dataclass(frozen=True)
class _Task:
    """One training, as it is sent to a process."""

    spec: "ModelSpec"
    partition: str
    store: str
    existing: tuple[str, ...]
    folder: Path


def _single_threaded() -> None:
    """Before OpenMP is loaded: as many processes as cores, and no thread waits for another."""
    os.environ["OMP_THREAD_LIMIT"] = "1"


@lru_cache(maxsize=1)
def _snapshot(base: str) -> SnapshotStore:
    """One store for all trainings of a process: neighbours share most of their rows."""
    return SnapshotStore(base)


def _outcome(task: _Task) -> Trained | TrainingError:
    try:
        return _train(task)
    except TrainingError as error:
        return error


def _train(task: _Task) -> Trained:
    from retrain_assets.promotion.candidate import train_model, training_rows
    from retrain_assets.training.evaluation import evaluate_on_holdout
    from retrain_assets.training.lightgbm_trainer import feature_importance

    spec, store = task.spec, _snapshot(task.store)
    began = time.process_time()
    rows = training_rows(spec, task.partition, store, task.existing)
    model = train_model(spec, rows.train)
    seconds = time.process_time() - began
    evaluation = evaluate_on_holdout(
        model,
        None,
        train=rows.train,
        holdout=rows.holdout,
        last=rows.last,
        entity=spec.train.entity,
        group=spec.train.group,
        row_partitions=rows.holdout_partitions,
        keep=spec.gate.columns,
    )
    assert rows.partitions is not None
    about = {
        "partition": task.partition,
        "train_keys": rows.partitions,
        "holdout_keys": tuple(dict.fromkeys(rows.holdout_partitions)),
        "rows": rows.train.num_rows,
        "seconds": seconds,
        "importance": feature_importance(model),
    }
    return _store(task.folder / rows.fingerprint(spec), model, evaluation, about)


def _store(
    folder: Path, model: "TabularModel", evaluation: "Evaluation", about: dict[str, Any]
) -> Trained:
    """Write all files beside `folder`, then give them its name."""
    import pyarrow.parquet as pq

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{uuid.uuid4().hex}"
    model.save(temporary)
    size = sum(file.stat().st_size for file in temporary.iterdir())
    pq.write_table(evaluation.to_table(), temporary / _HOLDOUT, compression="zstd")
    text = json.dumps({**about, "size_bytes": size}, allow_nan=False)
    (temporary / _ABOUT).write_text(text, encoding="utf-8")
    try:
        temporary.rename(folder)
    except OSError:  # another replay of the same model was first, with the same content
        if not folder.exists():
            raise
        shutil.rmtree(temporary)
    found = _stored(folder)
    assert found is not None
    return found


def _stored(folder: Path) -> Trained | None:
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Trained(
        partition=about["partition"],
        fingerprint=folder.name,
        folder=folder,
        train_keys=tuple(about["train_keys"]),
        holdout_keys=tuple(about["holdout_keys"]),
        rows=about["rows"],
        seconds=about["seconds"],
        size_bytes=about["size_bytes"],
        importance=about["importance"],
    )
