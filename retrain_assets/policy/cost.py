"""When staleness has come to cost more than retraining.

Belongs here: the rule, and its forecast of what waiting costs. Does not: prices (the spec's
`retrain.cost`), measuring performance, guards.

The rule. With x_t the metric lost on the t-th partition since the last retraining, against the
champion's value on its own holdout (negative where it does better), and the two prices of the spec,
retrain when

    price per unit * ( max over s of [x_s + ... + x_now] + forecast of x_(now+1) )  >  price of retraining

provided the loss is real: for some s, the sum of x_s to x_now over the partitions whose performance is
known exceeds 2.33 of its standard errors (one-sided 1%), to which the holdout's error counts in full for
every partition, since it is shared by all of them.

What has been lost already is sunk; it stands for what will be lost. Waiting until the loss since the
last retraining has reached the price of one is the break-even rule of renting or buying, which costs at
most twice what hindsight would (Karlin et al., "Competitive snoopy caching", Algorithmica 1988); where
staleness grows linearly it is optimal: a loss of a per partition costs a T^2 / 2 in T partitions, and
cost per partition is least at T = sqrt(2 price / a), where the two are equal (Harris 1913; as a rule
step by step DeMatteis, "An economic lot-sizing technique, I: the part-period algorithm", IBM Systems
Journal 1968). CARA's cumulative threshold (Mahadevan & Mathioudakis, "Cost-effective retraining of machine
learning models", arXiv 2310.04216) and the cost triggers of Modyn (Böther et al., SIGMOD 2025) are of the
same kind. Here the next partition's forecast is added, since what is not retrained now is served for one
partition more; and the largest sum over all beginnings is taken (Page's cumulative sum, Biometrika 1954),
since a good week does not pay for a bad one.

The forecast is the least-squares line of x over t, never falling (a model does not get younger), from
`MIN_TREND` known partitions on, and their mean before; partitions whose performance is not known (labels
that have not come, say) are taken from it as well. An estimate without labels counts as not known: it takes
it that no concept drifted, and the loss that it does not see would be counted as none.

Assumptions: a retraining brings the loss back to the holdout's level (where it does not, the candidate is
rejected or promoted, the sum starts again, and `retrain.backoff` spaces out the attempts); loss is linear
in the metric; partitions err independently, given the holdout.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrain_assets.performance.measured import Performance
    from retrain_assets.spec.model import Cost

__all__ = ["MIN_TREND", "Staleness", "staleness_cost"]

MIN_TREND = 5
"""Fewest known partitions for a trend."""

_STRENGTH = 2.326  # 99% of a standard normal lie below


@dataclass(frozen=True)
class Staleness:
    """What not retraining has cost and will cost, in the unit of the spec's prices.

    Attributes:
        lost: since the last retraining, at least 0.
        forecast: until the next partition is served, at least 0.
        trend: growth of the metric's loss per partition, at least 0.
        shown: whether the loss stands out from noise.
        known: partitions that it was seen on.
        partitions: partitions since the last retraining.
    """

    lost: float
    forecast: float
    trend: float
    shown: bool
    known: int
    partitions: int

    def exceeds(self, price: float) -> bool:
        """Whether it costs more than `price`, and is no noise."""
        return self.shown and self.lost + self.forecast > price


def staleness_cost(
    cost: "Cost", performance: Sequence["Performance"], expected: "Performance"
) -> Staleness | None:
    """Cost of the champion's loss since the last retraining and until the next partition.

    Args:
        cost: prices of the spec.
        performance: of each partition since the last retraining, in order; undecided and estimated
            ones are forecast.
        expected: the champion's performance on its holdout; decided.

    Returns:
        None where no partition's performance was realised.
    """
    if expected.value is None or expected.se is None:
        return None
    known = {
        t: (loss, one.se, one.n)
        for t, one in enumerate(performance)
        if one.kind == "realised" and one.se is not None
        if (loss := one.drop_from(expected.value)) is not None
    }
    if not known:
        return None
    total = len(performance)
    line, trend = _line({t: loss for t, (loss, _, _) in known.items()}, total)
    rows_of_one = _mean([rows for _, _, rows in known.values()])
    most, running, shown = 0.0, 0.0, False
    seen, noise, weights = 0.0, 0.0, 0.0
    # From now backwards: each turn is the sum since one more beginning.
    for t in reversed(range(total)):
        if t not in known:  # counts as lost, but shows nothing
            running += _weight(cost, rows_of_one) * line[t]
        else:
            loss, se, rows = known[t]
            weight = _weight(cost, rows)
            running += weight * loss
            seen += weight * loss
            noise, weights = math.hypot(noise, weight * se), weights + weight
            shown = shown or seen > _STRENGTH * math.hypot(noise, weights * expected.se)
        most = max(most, running)
    return Staleness(
        lost=cost.per_unit_loss * most,
        forecast=cost.per_unit_loss * max(_weight(cost, rows_of_one) * line[total], 0.0),
        trend=trend,
        shown=shown,
        known=len(known),
        partitions=total,
    )


def _weight(cost: "Cost", rows: float) -> float:
    return 1.0 if cost.per == "partition" else rows / 1000


def _line(losses: Mapping[int, float], total: int) -> tuple[list[float], float]:
    """The fitted loss at 0, ..., total, and its slope."""
    centre, mean = _mean(list(losses)), _mean(list(losses.values()))
    slope = 0.0
    if len(losses) >= MIN_TREND:
        spread = sum((t - centre) ** 2 for t in losses)
        slope = max(sum((t - centre) * loss for t, loss in losses.items()) / spread, 0.0)
    return [mean + slope * (t - centre) for t in range(total + 1)], slope


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
