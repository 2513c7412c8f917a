"""The cost table of README.md, from what `run.sh cost` wrote.

python bench/drift/cost_table.py WORK/results/cost_1000000.json
"""

import json
import sys
from pathlib import Path


def main(path):
    (rows, tools), *_ = json.loads(Path(path).read_text())["rows"].items()
    reading = tools["read-columns"]["cpu_all"]
    print(f"\n{int(rows):,} rows; medians of {len(reading)} runs in turn\n")
    print("| tool | CPU s | x reading both (range) | peak RSS MB | found of 21 | false of 29 |")
    print("|---|---|---|---|---|---|")
    for name, found in sorted(tools.items(), key=lambda item: item[1].get("cpu", 1e9)):
        if "failed" in found:
            print(f"| {name} | {found['failed']} | | | | |")
            continue
        ratios = sorted(mine / read for mine, read in zip(found["cpu_all"], reading, strict=False))
        middle = ratios[len(ratios) // 2]
        quality = f"{found['hits']} | {len(found['false_alarms'])}" if "hits" in found else "– | –"
        version = found.get("version") or ""
        print(f"| {name} {version} | {found['cpu']:.2f} | {middle:.2f} ({ratios[0]:.2f} to "
              f"{ratios[-1]:.2f}) | {found['rss_mb']:.0f} | {quality} |")  # fmt: skip


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(argument)
