"""What no peer finishes: 10 million rows, thousands of columns, millions of distinct strings.

    python bench/drift/large.py {rows,wide,strings} --work WORK [--retrain 'retrain']

Belongs here: making those files and the cost of `retrain drift` on them as the kernel accounts for
the finished process. Does not: comparison with peers (`run.sh cost`).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "bench" / "drift" / "bench_drift_peers.py"


def cost(retrain, reference, current):
    """CPU seconds, peak RSS in MB and exit code of one comparison."""
    command = [*shlex.split(retrain), "drift", str(reference), str(current), "--json"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # The peak of a child begins with that of its parent, which imports nothing large for that reason.
    _, status, used = os.wait4(child.pid, 0)
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "rss_mb": round(used.ru_maxrss / 1024),
        "exit": os.waitstatus_to_exitcode(status),
    }


def make_rows(folder, rows, shared):
    """Two files of 50 columns, by the generator of the shared benchmark."""
    subprocess.run([sys.executable, shared, "--make-data", str(folder), str(rows)], check=True)


_WIDE = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
folder, columns, rows = sys.argv[1], int(sys.argv[2]), 100_000
rng = np.random.default_rng(0)
base = rng.standard_normal((50, rows)).astype("f4")
for side in ("reference", "current"):
    shuffled = rng.permutation(rows)
    table = {f"x{i:04d}": base[i % 50][np.roll(shuffled, 7 * i)] for i in range(columns)}
    pq.write_table(pa.table(table), f"{folder}/{side}.parquet")
"""

_STRINGS = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
folder, rows = sys.argv[1], int(sys.argv[2])
for side, first in (("reference", 0), ("current", rows)):
    schema = pa.schema([("id", pa.string()), ("x", pa.float64())])
    with pq.ParquetWriter(f"{folder}/{side}.parquet", schema) as writer:
        for start in range(first, first + rows, 1_000_000):
            numbers = np.arange(start, min(start + 1_000_000, first + rows))
            text = pa.array(np.char.mod("customer-%012d", numbers * 7919 % 10**12))
            writer.write_table(pa.table([text, np.sin(numbers)], schema=schema))
"""


def make(kind, size, folder, shared):
    """The files, unless they are there; in a process of its own, see `cost`."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "done").exists():
        return
    if kind == "rows":
        make_rows(folder, size, shared)
    else:
        script = _WIDE if kind == "wide" else _STRINGS
        subprocess.run([sys.executable, "-c", script, str(folder), str(size)], check=True)
    (folder / "done").touch()


SIZES = {"rows": (10_000_000,), "wide": (750, 1500, 3000), "strings": (10_000_000,)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=SIZES)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--retrain", default="retrain")
    parser.add_argument("--shared", type=Path, default=SHARED)
    arguments = parser.parse_args()
    kind = arguments.kind
    for size in SIZES[kind]:
        folder = arguments.work / "large" / f"{kind}_{size}"
        make(kind, size, folder, arguments.shared)
        found = cost(arguments.retrain, folder / "reference.parquet", folder / "current.parquet")
        print(json.dumps({"kind": kind, "size": size} | found), flush=True)


if __name__ == "__main__":
    main()
