"""Policies replayed on real and synthetic streams: metric, retrainings, CPU seconds.

    nice -n 15 .venv/bin/python bench/replay/run.py [--elec2 ../shared/data/elec2.csv.gz]
        [--only STREAM ...] [--folder FOLDER] [--docs docs/replay.md] [--pictures docs/images]

Prints a table of all streams, the aims, and the figures of the real ones; --docs puts them between the marks
in that file. Without --elec2 that stream is left out. FOLDER keeps what was computed; a second run with it
takes seconds. CPU is measured by cpu.py.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# One thread per process, before OpenMP is loaded: the replay's processes take the cores.
os.environ.setdefault("OMP_THREAD_LIMIT", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import streams

from retrain_assets.data.tables import TableStore
from retrain_assets.drift.stored import store_profile
from retrain_assets.replay.render import frontier_picture, markdown
from retrain_assets.replay.result import Result
from retrain_assets.replay.run import Replay, replay


def stored(stream: streams.Stream, folder: Path) -> TableStore:
    store = TableStore(str(folder))
    done = set(store.partitions(stream.name, "features"))
    for key, table in stream.tables():
        if key not in done:
            store.write(stream.name, "features", key, table)
            store_profile(store, stream.name, key, table)
    return store


@dataclass(frozen=True)
class Done:
    """A stream with its replay."""

    stream: streams.Stream
    found: Replay

    @property
    def result(self) -> Result:
        return self.found.result


def bench(stream: streams.Stream, folder: Path) -> Done:
    store, began = stored(stream, folder / "stores" / stream.name), time.perf_counter()
    found = replay(stream.spec, store=store, folder=folder / "replays" / stream.name)
    print(f"{stream.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return Done(stream, found)


COLUMNS = (
    "never", "every_1", "every_7", "random", "drift", "performance", "cost", "combined", "oracle",
)  # fmt: skip


def summary(all_done: list[Done]) -> list[str]:
    """One row for each stream: mean metric, in brackets retrainings after the first."""
    lines = [
        f"| stream | {' | '.join(COLUMNS)} | kept | of every_1's retrainings |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for done in all_done:
        result = done.result
        cells = {one.name: f"{one.value:.3f} ({one.retrainings:.0f})" for one in result.policies}
        combined, always = result.policy("combined"), result.policy("every_1")
        most = min(round(combined.retrainings), result.oracle[-1][0])
        cells["oracle"] = f"{dict(result.oracle)[most]:.3f} ({most})"
        kept = f"{combined.gain / always.gain:.0%}" if changes(done) else "nothing to gain"
        share = f"{combined.retrainings / always.retrainings:.0%}"
        row = [done.stream.name, *(cells.get(name, "–") for name in COLUMNS), kept, share]
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def changes(done: Done) -> bool:
    """Whether there is a lasting change to answer."""
    return done.stream.name not in ("stationary", "corrupted")


def aims(all_done: list[Done]) -> list[str]:
    """What is aimed at, and what was found."""
    lines = []
    for done in all_done:
        later = [one.partition for one in done.found.walks["combined"][0].later]
        keys = done.stream.spec.scheme.keys() if done.stream.spec.scheme else []
        if done.stream.name == "stationary":
            rate = 100 * len(later) / done.result.partitions
            lines.append(
                f"- stationary: {rate:.1f} retrainings per 100 partitions (aim: at most 1)"
            )
        if done.stream.name == "corrupted":
            near = [key for key in later if keys[streams.CHANGE] <= key <= keys[streams.CHANGE + 3]]
            lines.append(
                f"- corrupted: retrained within 3 days of the broken day: {', '.join(near) or 'no'} "
                "(aim: no)"
            )
        if done.stream.real:
            combined, always = done.result.policy("combined"), done.result.policy("every_1")
            lines.append(
                f"- {done.stream.name}: `combined` keeps {combined.gain / always.gain:.0%} of the gain "
                f"of `every_1` with {combined.retrainings / always.retrainings:.0%} of its retrainings "
                "(aim: 90% with at most 35%)"
            )
    return [*lines, ""]


def elec2_lines(result: Result, path: Path) -> list[str]:
    half_hourly, day_ahead = streams.elec2_last_labels(path)
    lines = [
        f'"Same as the last label" scores {half_hourly:.1%} half-hour by half-hour (85.3% in arXiv '
        f"1301.3524), which needs a label that is 30 minutes old. A model that knows labels up to "
        f"midnight has {day_ahead:.1%} with the last of them. Kappa-temporal (accuracy above the "
        "baseline, over what is left to 1) against either:",
        "",
        "| policy | accuracy | kappa-temporal, half-hour | kappa-temporal, day-ahead |",
        "|---|---|---|---|",
    ]
    for one in result.policies:
        kappas = [(one.value - base) / (1 - base) for base in (half_hourly, day_ahead)]
        lines.append(f"| {one.name} | {one.value:.4f} | {kappas[0]:+.3f} | {kappas[1]:+.3f} |")
    return [*lines, ""]


def report(all_done: list[Done], elec2: Path | None) -> str:
    lines = [*summary(all_done), *aims(all_done)]
    for done in all_done:
        if done.stream.real:
            lines += [f"### {done.stream.name}", "", markdown(done.result), ""]
        if done.stream.name == "elec2" and elec2 is not None:
            lines += elec2_lines(done.result, elec2)
    return "\n".join(lines).rstrip()


BEGIN, END = "<!-- bench/replay/run.py begins -->", "<!-- bench/replay/run.py ends -->"


def put(text: str, file: Path) -> None:
    """The text between the marks of a file."""
    before, found, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise SystemExit(f"{file}: no lines '{BEGIN}' and '{END}' to write between")
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elec2", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        found = [
            *streams.synthetic(),
            *([streams.elec2(arguments.elec2)] if arguments.elec2 else []),
            streams.flights(folder / "flights"),
        ]
        wanted = [one for one in found if not arguments.only or one.name in arguments.only]
        all_done = [bench(stream, folder) for stream in wanted]
        text = report(all_done, arguments.elec2)
        print(text)
        if arguments.docs:
            put(text, arguments.docs)
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
        for done in all_done:
            if arguments.pictures and done.stream.real:
                picture = arguments.pictures / f"replay_{done.stream.name}.png"
                picture.write_bytes(frontier_picture(done.result))


if __name__ == "__main__":
    main()
