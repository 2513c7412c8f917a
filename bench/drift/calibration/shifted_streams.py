"""What calibration costs: how often a shift of one column is found on streams, by tools that know the
partitions of the reference.

    python bench/drift/calibration/shifted_streams.py {retrain,nannyml} [--partitions 12]

Prints rows of the table in README.md: the share of partitions in which column x1 (the one with a
season in `weekly`) is flagged after it was raised by a number of its standard deviations.
"""

import argparse
import warnings

import false_alarms
import numpy as np
import streams

SHIFTS = (0.25, 0.5, 1.0, 2.0)
COLUMN = "x1"


def raised(table, by):
    place = table.column_names.index(COLUMN)
    return table.set_column(place, COLUMN, [np.asarray(table[COLUMN]) + by])


def found(tool, stream, draws):
    """Per rule, shares of partitions whose column is flagged, one for each of SHIFTS."""
    counts = {}
    for number in range(draws):
        reference, currents = streams.draw(stream, number)
        # Without the season, which is part of what moves.
        deviation = np.mean([np.asarray(part[COLUMN]).std() for part in reference])
        if stream == "autocorrelated":
            deviation = 1 / np.sqrt(1 - 0.95**2)  # one partition is too short to show it
        # All current partitions: a season may cancel a shift on a single one.
        moved = [raised(now, shift * deviation) for now in currents for shift in SHIFTS]
        for place, answer in enumerate(tool.judge(reference, moved)):
            for rule, (_, flagged) in answer.items():
                found_of = counts.setdefault(rule, np.zeros(len(SHIFTS)))
                found_of[place % len(SHIFTS)] += COLUMN in flagged
    return {rule: count / draws / len(currents) for rule, count in counts.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=("retrain", "nannyml"))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=streams.PARTITIONS)
    arguments = parser.parse_args()
    streams.PARTITIONS = arguments.partitions
    warnings.filterwarnings("ignore")  # the peers' own, hundreds of lines
    tool = false_alarms.TOOLS[arguments.tool]()
    for stream in ("independent", "weekly", "autocorrelated"):
        for rule, shares in found(tool, stream, arguments.draws).items():
            cells = " | ".join(f"{share:.0%}" for share in shares)
            print(f"| {stream} | {arguments.tool}: {rule} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
