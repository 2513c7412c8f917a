"""What the gate knows of one model's predictions of a holdout: its value, and what each row does to it.

Belongs here: computing these at most once, in one verdict and over several on the same holdout. Does
not: what is compared, and how certain a difference is (`gate`, `intervals`).
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.training.metrics import Metric, Resampler

__all__ = ["Standing", "Standings"]

_HELD = 16
"""A candidate and its baselines several times over; what is held is a holdout's rows each."""


@dataclass(frozen=True, eq=False)
class Standing:
    """One model's predictions of n rows.

    Attributes:
        metric: what they are judged by.
        truth: shape (n,).
        score: predictions, shape (n,) or (n, classes).
        groups: group of each row, for ranking metrics; else None.

    Raises:
        TrainingError: (all members) truth, predictions or groups that the metric does not take.
    """

    metric: Metric
    truth: ArrayLike
    score: ArrayLike
    groups: ArrayLike | None

    @cached_property
    def resampler(self) -> Resampler:
        """Values of resamples; see `Metric.resampler`."""
        return self.metric.resampler(self.truth, self.score, groups=self.groups)

    @cached_property
    def value(self) -> float:
        """The metric of all rows; nan where it is undefined."""
        units = self.metric.n_units(self.truth, groups=self.groups)
        return float(self.resampler(np.ones((1, units)))[0])

    @cached_property
    def influence(self) -> NDArray[np.float64]:
        """Influence of each of the metric's units on the value; see `Metric.influence`."""
        return self.metric.influence(self.truth, self.score, groups=self.groups)


class Standings:
    """The last standings, so that a candidate that meets several champions is measured once.

    Arrays are recognised by identity: whoever shares this must not write into them.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, int, int, int], Standing] = OrderedDict()

    def of(
        self, metric: Metric, truth: ArrayLike, score: ArrayLike, groups: ArrayLike | None
    ) -> Standing:
        """The standing of these very arrays, which are kept for as long as it is held."""
        place = (metric.name, id(truth), id(score), id(groups))
        if place not in self._held:
            self._held[place] = Standing(metric, truth, score, groups)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(place)
        return self._held[place]
