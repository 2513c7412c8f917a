"""The best that hindsight could have done with the same models, by dynamic programming.

Belongs here: the recursion. Does not: which models are offered, how their values came about. With
S(i, a, b) the weighted sum of what model i scores on partitions a to b - 1, and models in the order of the
partition from which on they can serve,

    best(0, j) = S(0, 0, start_j)  for j = 0: nothing served yet
    best(c, j) = max over i < j of  best(c - 1, i) + S(i, start_i, start_j)

is the best until model j takes over as the c-th switch (Bellman, *Dynamic Programming*, 1957). It knows
the future and needs no gate, so that no policy surpasses it: a model may serve as far as its values are
known, and what a policy served is known.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Oracle", "oracle_frontier"]


@dataclass(frozen=True)
class Oracle:
    """The best for one count.

    Attributes:
        retrainings: switches after the first model, at most.
        total: weighted sum of the values served.
        models: which serve, in order, by their row.
    """

    retrainings: int
    total: float
    models: tuple[int, ...]


def oracle_frontier(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    most: int,
) -> list[Oracle]:
    """The best total with at most 0, 1, ... `most` switches.

    Args:
        values: of each model on each partition, larger is better, shape (models, partitions); nan
            where there is none, which counts nothing.
        weights: of each partition, at least 0, shape (partitions,).
        starts: the first partition that each model can serve, ascending, the first 0; shape
            (models,).
        ends: the partition from which on each model's values are not known and it cannot serve, shape
            (models,); of the first model the number of partitions.
        most: largest count; no more than models - 1 are returned.

    >>> values = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.5, 2.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    >>> [(best.total, best.models)
    ...  for best in oracle_frontier(
    ...      values, np.ones(4), np.array([0, 2, 3]), np.array([4, 4, 4]), 2)]
    [(2.0, (0,)), (5.0, (0, 2)), (7.0, (0, 1, 2))]
    """
    models, partitions = values.shape
    gained = np.where(np.isnan(values), 0.0, values * weights)
    sums = np.concatenate([np.zeros((models, 1)), np.cumsum(gained, axis=1)], axis=1)
    best = np.full(models, -np.inf)
    best[0] = 0.0
    came_from: list[NDArray[np.int64]] = []
    found: list[Oracle] = []
    # between[i, j]: what model i earns from its start until model j's.
    between = sums[:, starts] - sums[np.arange(models), starts][:, None]
    between[np.tril_indices(models)] = -np.inf
    between[starts[None, :] > ends[:, None]] = -np.inf
    to_end = sums[:, partitions] - sums[np.arange(models), starts]
    to_end[ends < partitions] = -np.inf
    for count in range(min(most, models - 1) + 1):
        last = int(np.argmax(best + to_end))
        reached = Oracle(count, float(best[last] + to_end[last]), _path(came_from, last))
        if found and found[-1].total >= reached.total:  # a switch may also be left out
            reached = Oracle(count, found[-1].total, found[-1].models)
        found.append(reached)
        step = best[:, None] + between
        came_from.append(np.argmax(step, axis=0))
        best = np.max(step, axis=0)
    return found


def _path(came_from: list[NDArray[np.int64]], last: int) -> tuple[int, ...]:
    path = [last]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return tuple(reversed(path))
