"""Streams without drift: six kinds, the same rows for every tool that is measured.

Belongs here: how rows are made. Does not: any judgement. Needs numpy and pyarrow only, so that it
runs in every tool's own environment; `fingerprint` shows that they all saw the same rows.

A draw is twelve partitions of a reference and four current partitions of the same process.
"""

import hashlib

import numpy as np
import pyarrow as pa

PARTITIONS = 12
CURRENTS = 4
ROWS = 1000
FEW_ROWS = 100


def independent(rng, n, k):
    """Eight standard normal columns."""
    return pa.table({f"x{i}": rng.normal(size=n) for i in range(8)})


def autocorrelated(rng, n, k):
    """Eight columns in which each row is 0.95 times the row before plus noise."""
    noise = rng.normal(size=(n, 8))
    for t in range(1, n):
        noise[t] += 0.95 * noise[t - 1]
    return pa.table({f"x{i}": noise[:, i] for i in range(8)})


def weekly(rng, n, k):
    """Four of eight columns follow a week of seven partitions by 0.4 standard deviations."""
    level = 0.4 * np.sin(2 * np.pi * k / 7)
    return pa.table({f"x{i}": rng.normal(level * (i % 2), 1, n) for i in range(8)})


def heavy_tailed(rng, n, k):
    """Four Cauchy columns and four Pareto columns without a variance."""
    columns = {f"c{i}": rng.standard_cauchy(n) for i in range(4)}
    return pa.table(columns | {f"p{i}": rng.pareto(1.2, n) for i in range(4)})


def high_cardinality(rng, n, k):
    """Four columns of up to 1,000 to 4,000 categories, and an identifier that is always new."""
    return pa.table(
        {f"s{i}": [f"v{j}" for j in rng.zipf(1.3, n) % (1000 * (i + 1))] for i in range(4)}
        | {"id": [f"id {j}" for j in rng.integers(0, 10**12, n)]}
    )


def small(rng, n, k):
    """The independent columns, a tenth of the rows."""
    return independent(rng, FEW_ROWS, k)


STREAMS = {
    make.__name__: make
    for make in (independent, autocorrelated, weekly, heavy_tailed, high_cardinality, small)
}


def draw(stream, number):
    """Tables of the reference's partitions and of the current ones; shape is that of the stream."""
    rng = np.random.default_rng([number, list(STREAMS).index(stream)])
    parts = [STREAMS[stream](rng, ROWS, k) for k in range(PARTITIONS + CURRENTS)]
    return parts[:PARTITIONS], parts[PARTITIONS:]


def fingerprint():
    """Changes with any value of the first draws, as another numpy might make them."""
    digest = hashlib.sha256()
    for stream in STREAMS:
        reference, currents = draw(stream, 0)
        for part in [*reference, *currents]:
            for column in part.columns:
                digest.update(str(column.to_pylist()).encode())
    return digest.hexdigest()[:16]
