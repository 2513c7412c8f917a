"""CPU of a replay that knows nothing yet, over that of the trainings it contains.

    nice -n 15 .venv/bin/python bench/replay/cpu.py [--days 365] [--folder FOLDER]

replays flight_delay's spec over the first DAYS days of 2013 with nine policies (those of `retrain replay`
without prices, with every_3 and every_14). Then it makes the same candidates without any policy (rows read,
trained, holdout scored, files stored: what a training is to `retrain replay`, and to candidate_model, which
judges it too), and last only reads the rows and trains. All use as many processes at a time (two busy cores slow
each other). Each starts from nothing, and its CPU is that of its whole tree (wait4): imports, snapshot and worker
processes count.
Feature partitions are made before and kept in FOLDER.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_THREAD_LIMIT"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

POLICIES = (
    "never", "every_1", "every_3", "every_7", "every_14", "random", "drift", "performance", "combined",
)  # fmt: skip


def of_tree(task: str, *arguments: str) -> tuple[float, float]:
    """CPU and wall seconds of this file run with a task, its children among them."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--task", task, *arguments]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{task} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


def prepare(folder: Path) -> None:
    import streams
    from run import stored

    stored(streams.flights(folder / "flights"), folder / "stores" / "flight_delay")


def replay_once(folder: Path, days: int, workers: int | None) -> None:
    import streams

    from retrain_assets.data.tables import TableStore
    from retrain_assets.replay.run import replay

    stream = streams.flights(folder / "flights")
    assert stream.spec.scheme is not None
    found = replay(
        stream.spec,
        store=TableStore(str(folder / "stores" / stream.name)),
        folder=folder / "cold",
        last=stream.spec.scheme.keys()[days - 1],
        policies=POLICIES,
        workers=workers,
    ).result
    print(f"{found.trainings} distinct trainings, {found.partitions} partitions served", flush=True)
    for one in found.policies:
        print(f"  {one.name}: {one.value:.4f} with {one.retrainings:g}", flush=True)


def trained_partitions(folder: Path) -> list[str]:
    """The partitions whose candidates the replay asked for."""
    abouts = (folder / "cold" / "trainings").glob("*/about.json")
    return sorted(json.loads(about.read_text())["partition"] for about in abouts)


def candidates_alone(folder: Path, days: int, workers: int | None) -> None:
    """The replay's trainings as it makes them, in as many processes."""
    import streams

    from retrain_assets.data.tables import TableStore
    from retrain_assets.replay.history import snapshot
    from retrain_assets.replay.scores import replayed_spec
    from retrain_assets.replay.trainings import Trainings

    spec = replayed_spec(streams.flights(folder / "flights").spec)
    assert spec.scheme is not None
    live = TableStore(str(folder / "stores" / spec.name))
    history = snapshot(spec, live, folder / "alone" / "store", last=spec.scheme.keys()[days - 1])
    workers = workers or len(os.sched_getaffinity(0))
    Trainings(history, folder / "alone" / "trainings", workers).prepare(trained_partitions(folder))


def train_bare(folder: Path, days: int, workers: int | None) -> None:
    """Nothing but reading rows and training, with no cache."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    workers = workers or len(os.sched_getaffinity(0))
    partitions = trained_partitions(folder)
    shares = [partitions[start::workers] for start in range(workers)]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(train_some, [folder] * workers, [days] * workers, shares))


def train_some(folder: Path, days: int, partitions: list[str]) -> None:
    import streams

    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.candidate import train_model, training_rows

    stream = streams.flights(folder / "flights")
    spec, store = stream.spec, TableStore(str(folder / "stores" / stream.name))
    assert spec.scheme is not None
    keys = spec.scheme.keys()[:days]
    for partition in partitions:
        rows = training_rows(spec, partition, store, [key for key in keys if key <= partition])
        train_model(spec, rows.train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument(
        "--task", choices=("prepare", "replay", "alone", "bare"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.task:
        folder = arguments.folder
        if arguments.task == "prepare":
            prepare(folder)
        elif arguments.task == "replay":
            replay_once(folder, arguments.days, arguments.workers)
        elif arguments.task == "alone":
            candidates_alone(folder, arguments.days, arguments.workers)
        else:
            train_bare(folder, arguments.days, arguments.workers)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        where = ["--folder", str(folder), "--days", str(arguments.days)]
        workers = ["--workers", str(arguments.workers)] if arguments.workers else []
        of_tree("prepare", *where)
        for scratch in ("cold", "alone"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
        whole, seconds = of_tree("replay", *where, *workers)
        print(
            f"cold replay of {arguments.days} days: {whole:.0f} CPU s, {seconds:.0f} s", flush=True
        )
        alone, seconds = of_tree("alone", *where, *workers)
        print(f"its candidates alone: {alone:.0f} CPU s, {seconds:.0f} s", flush=True)
        bare, seconds = of_tree("bare", *where, *workers)
        print(f"rows read and trained: {bare:.0f} CPU s, {seconds:.0f} s", flush=True)
        print(f"ratio {whole / alone:.2f} to its candidates, {whole / bare:.2f} to bare training")


if __name__ == "__main__":
    main()
