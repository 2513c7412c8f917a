"""The tables of README.md, from the results of `false_alarms` and `power` in one folder.

python bench/drift/calibration/tables.py WORK/results
"""

import json
import sys
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

RULES = [
    ("retrain", "any change"), ("retrain", "any change, calibrated"), ("retrain", "spec"),
    ("retrain", "spec, calibrated"), ("evidently", "any column"), ("evidently", "dataset"),
    ("nannyml", "any column"),
]  # fmt: skip
TOOLS = ("retrain", "retrain-spec", "scipy", "evidently", "nannyml", "nannyml-any")
SIZES = (100, 1000, 10_000, 100_000)


def row(cells):
    print("| " + " | ".join(cells) + " |")


def header(cells):
    row(cells)
    row(["---"] * len(cells))


def rate(counts, of):
    """Percent with its standard error over draws, whose partitions share one reference."""
    shares = [count / of for count in counts]
    error = stdev(shares) / sqrt(len(shares)) if len(shares) > 1 else 0.0
    return f"{mean(shares):.1%} ± {error:.1%}"


def false_alarms(results):
    found = {name: json.loads((results / f"alarms_{name}.json").read_text())
             for name in ("retrain", "evidently", "nannyml")}  # fmt: skip
    prints = {result["fingerprint"] for result in found.values()}
    if len(prints) != 1:
        raise SystemExit(f"{results}: the tools saw different rows, fingerprints {prints}")
    for what, title in (("alarms", "partitions"), ("flags", "columns")):
        print(f"\nShare of {title} without drift that are called drifted (± one standard error)\n")
        header(["stream", *(f"{tool}: {rule}" for tool, rule in RULES)])
        for stream in found["retrain"]["streams"]:
            cells = [stream]
            for tool, rule in RULES:
                result = found[tool]["streams"][stream]
                of = result["partitions"] / result["draws"]
                of *= result["columns"] if what == "flags" else 1
                same = what == "flags" and rule == "dataset"
                cells.append("as left" if same else rate(result[what][rule], of))
            row(cells)
    for name, result in found.items():
        first = result["streams"]["independent"]
        spent = sum(stream["cpu_seconds"] for stream in result["streams"].values())
        print(f"\n{name} {result['version']}: {first['partitions']} partitions per stream, "
              f"{first['draws']} references, {spent:.0f} CPU s")  # fmt: skip


def power(results):
    found = {
        (tool, rows): json.loads(path.read_text())
        for tool in TOOLS
        for rows in SIZES
        if (path := results / f"power_{tool}_{rows}.json").exists()
    }

    def average(tool, rows, columns):
        result = found.get((tool, rows))
        if result is None:
            return "–"
        return f"{sum(result['found'][name] for name in result[columns]) / result['pairs']:.1f}"

    print("\nFound of 21 shifts / false alarms of 29 still columns, mean per pair (pairs)\n")
    header(["tool", *(f"n = {rows:,}" for rows in SIZES)])
    for tool in TOOLS:
        cells = [tool]
        for rows in SIZES:
            pairs = found[tool, rows]["pairs"] if (tool, rows) in found else 0
            numbers = f"{average(tool, rows, 'drifted')} / {average(tool, rows, 'stable')}"
            cells.append(f"{numbers} ({pairs})")
        row(cells)
    print(
        "\nShare of pairs in which a shift is found, in %, at n = 100 · 1,000 · 10,000 · 100,000\n"
    )
    header(["shift", *TOOLS])
    for name, shift in truth(results).items():
        cells = [f"{name} {shift}"]
        for tool in TOOLS:
            shares = [
                f"{found[tool, rows]['found'][name] / found[tool, rows]['pairs']:.0%}".rstrip("%")
                if (tool, rows) in found else "–"
                for rows in SIZES
            ]  # fmt: skip
            cells.append(" · ".join(shares))
        row(cells)


def truth(results):
    """What moved in each drifted column, as the generator says."""
    pair = sorted((results.parent / "pairs").glob("*/0/truth.json"))[0]
    return json.loads(pair.read_text())["drifted"]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    false_alarms(folder)
    power(folder)
