"""Hindsight by dynamic programming, against trying everything."""

from itertools import combinations

import numpy as np
import pytest

from retrain_assets.replay.oracle import oracle_frontier


def tried(
    values: np.ndarray, weights: np.ndarray, starts: np.ndarray, known: np.ndarray, count: int
) -> float:
    """The best total with at most `count` switches, by trying every choice of models."""
    models, partitions = values.shape
    totals = []
    for n in range(count + 1):
        for chosen in combinations(range(1, models), n):
            path = (0, *chosen)
            ends = [*(int(starts[model]) for model in chosen), partitions]
            begin = [int(starts[model]) for model in path]
            if any(end > known[model] for model, end in zip(path, ends, strict=True)):
                continue
            totals.append(
                sum(
                    float(np.nansum(values[model, a:b] * weights[a:b]))
                    for model, a, b in zip(path, begin, ends, strict=True)
                )
            )
    return max(totals)


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_is_what_trying_everything_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models, partitions = 5, 12
    starts = np.array([0, *sorted(rng.choice(np.arange(1, partitions), models - 1, replace=False))])
    values, weights = rng.normal(size=(models, partitions)), rng.integers(0, 4, partitions) * 1.0
    values[rng.random(values.shape) < 0.1] = np.nan
    known = np.full(models, partitions)
    if seed % 2:
        known[1:] = [rng.integers(start, partitions + 1) for start in starts[1:]]
    found = oracle_frontier(values, weights, starts, known, models - 1)
    assert [one.retrainings for one in found] == list(range(models))
    for one in found:
        assert one.total == pytest.approx(tried(values, weights, starts, known, one.retrainings))


def test_more_switches_than_models_are_not_returned() -> None:
    found = oracle_frontier(np.ones((2, 4)), np.ones(4), np.array([0, 2]), np.array([4, 4]), most=9)
    assert [one.retrainings for one in found] == [0, 1]


def test_one_more_switch_never_makes_hindsight_worse() -> None:
    values = np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = oracle_frontier(values, np.ones(3), np.array([0, 1, 2]), np.array([3, 3, 3]), most=2)
    assert [one.total for one in found] == [6.0, 6.0, 6.0]
    assert found[2].models == (0,)
