"""Policies replayed on real and synthetic streams: metric, retrainings, CPU seconds.

    nice -n 15 .venv/bin/python bench/replay/run.py [--elec2 ../shared/data/elec2.csv.gz]
        [--only STREAM ...] [--folder FOLDER] [--out docs/replay_bench.md]

Without --elec2 that stream is left out. FOLDER keeps what was computed; a second run with it takes
seconds (and then says nothing about CPU).
"""

import argparse
import os
import resource
import sys
import tempfile
import time
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


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def stored(stream: streams.Stream, folder: Path) -> TableStore:
    store = TableStore(str(folder))
    done = set(store.partitions(stream.name, "features"))
    for key, table in stream.tables():
        if key not in done:
            store.write(stream.name, "features", key, table)
            store_profile(store, stream.name, key, table)
    return store


def bench(stream: streams.Stream, folder: Path) -> tuple[Replay, float, float]:
    store = stored(stream, folder / "stores" / stream.name)
    before, began = cpu(), time.perf_counter()
    found = replay(stream.spec, store=store, folder=folder / "replays" / stream.name)
    return found, cpu() - before, time.perf_counter() - began


def verdict(stream: streams.Stream, found: Replay) -> str:
    """The aims, reached or not."""
    result = found.result
    lines = []
    combined, always = result.policy("combined"), result.policy("every_1")
    if always.gain > 0:
        kept, share = combined.gain / always.gain, combined.retrainings / always.retrainings
        lines.append(
            f"combined keeps {kept:.0%} of the gain of every_1 over never with {share:.0%} of its "
            "retrainings"
        )
    else:
        lines.append(f"every_1 gains nothing over never ({always.gain:+.4f})")
    walk = found.walks["combined"][0]
    later = [one.partition for one in walk.later]
    if stream.name == "stationary":
        lines.append(f"{100 * len(later) / result.partitions:.1f} retrainings per 100 partitions")
    if stream.name == "corrupted":
        scheme = stream.spec.scheme
        assert scheme is not None
        broken = scheme.keys()[streams.CHANGE]
        near = [key for key in later if broken <= key <= (scheme.shift(broken, 3) or key)]
        lines.append(f"retrained within 3 days of the broken day: {', '.join(near) or 'no'}")
    if stream.name in ("abrupt", "concept"):
        change = stream.spec.scheme.keys()[streams.CHANGE] if stream.spec.scheme else ""
        after = [one for one in walk.later if one.partition >= change]
        promoted = next((one.partition for one in after if one.outcome == "promoted"), "never")
        first = after[0] if after else None
        lines.append(
            f"change on {change}: first retraining {first.partition if first else 'never'} "
            f"({first.trigger if first else '-'}), first promotion {promoted}"
        )
    return "; ".join(lines)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elec2", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        found = [
            *streams.synthetic(),
            *([streams.elec2(arguments.elec2)] if arguments.elec2 else []),
            streams.flights(folder / "flights"),
        ]
        lines: list[str] = []
        for stream in found:
            if arguments.only and stream.name not in arguments.only:
                continue
            done, used, seconds = bench(stream, folder)
            result = done.result
            print(f"{stream.name}: {used:.0f} CPU s, {seconds:.0f} s", flush=True)
            ratio = used / result.training_seconds
            lines += [f"## {stream.name}", "", verdict(stream, done), ""]
            lines += [markdown(result), ""]
            if stream.name == "elec2":
                lines += elec2_lines(result, arguments.elec2)
            lines += [
                f"{used:.0f} CPU s, {ratio:.2f} times the {result.training_seconds:.0f} CPU s of its "
                f"{result.trainings} distinct trainings.",
                "",
            ]
            print(verdict(stream, done), flush=True)
            if arguments.pictures and stream.real:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                (arguments.pictures / f"replay_{stream.name}.png").write_bytes(
                    frontier_picture(result)
                )
            if arguments.out:
                arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
