"""The table of docs/faults.md: `cd tests && python -m faults.table` (about six minutes on two cores)."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from faults.scenarios import SCENARIOS

KINDS = ("file written", "file renamed or removed", "row or table changed", "commit")


def kind(step: str) -> str:
    """Of a step as the tracer names it."""
    if step == "COMMIT":
        return KINDS[3]
    word = step.split()[0]
    return KINDS[0] if word == "write" else KINDS[1] if word.islower() else KINDS[2]


def main() -> None:
    print(f"| work | kills | {' | '.join(KINDS)} | readers | finished |")
    print("|---|" + "---|" * (len(KINDS) + 3))
    total = Counter[str]()
    for name in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "faults.kills", f"{folder}/bench", name],
                cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
            )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        row = Counter(kind(one["at"]) for one in lines)
        row["kills"] = sum(one["killed"] == -9 for one in lines)
        row["readers"] = sum(one["readers"] == 0 for one in lines)
        row["finished"] = sum(one["finished"] == 0 for one in lines)
        total += row
        show(name, row)
    show("all", total)


def show(name: str, row: Counter[str]) -> None:
    """One line: how many kills, where, and after how many all held."""
    of = row["kills"]
    where = " | ".join(str(row[one]) for one in KINDS)
    print(
        f"| {name} | {of} | {where} | {row['readers']} of {of} | {row['finished']} of {of} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
