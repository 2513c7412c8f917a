"""Fifty shops that rank their items for each session: synthetic, seeded, each a market of its own.

A market has users and items with latent factors. A session is a user who is shown some items; how
relevant each is (0 to 3) follows from their factors, the item's popularity and price, and chance.
The features know the factors only with noise, as those of a recommender do. From `drift_day` on
prices rise, which can be seen in the features, and tastes turn, which can not: the affinities that
the features know count for less, and an old ranking gets worse.

Everything follows from the seed and the day: the same partition is the same rows, on any machine.
"""

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrain_assets.examples.clock import Clock

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.spec.partitions import Window

__all__ = ["available", "load", "pin", "unpin"]

FloatArray = NDArray[np.float64]

_CLOCK = Clock("recommenders", date(2024, 1, 1), date(2024, 12, 31))
_FACTORS = 6
_SESSIONS = 60
_SHOWN = 10
_DEVICES = np.array(["phone", "tablet", "desktop"])


class _Market(NamedTuple):
    """What does not change from day to day.

    Attributes:
        users, items: latent factors, shapes (users, 6) and (items, 6).
        turned: the users' factors after the drift, shape (users, 6).
        popularity, price: of each item, shape (items,).
        genre: of each item, 0 to 4, shape (items,).
    """

    users: FloatArray
    items: FloatArray
    turned: FloatArray
    popularity: FloatArray
    price: FloatArray
    genre: NDArray[np.int64]


def load(
    window: "Window",
    *,
    market: str,
    seed: int,
    users: int,
    items: int,
    drift_day: int,
    **_: Any,
) -> "pa.Table":
    """The day's impressions of one market: one row per item shown."""
    import pyarrow as pa

    day = (window.start.date() - _CLOCK.first).days
    rng = np.random.default_rng([seed, day])
    world = _market(seed, users, items)
    drifted = day >= drift_day
    user = rng.integers(users, size=_SESSIONS).repeat(_SHOWN)
    item = np.concatenate([rng.choice(items, size=_SHOWN, replace=False) for _ in range(_SESSIONS)])
    known = _affinity(world.users[user], world.items[item])
    affinity = _affinity(world.turned[user], world.items[item]) if drifted else known
    price = world.price[item] * (1.6 if drifted else 1.0)
    device = rng.choice(3, size=_SESSIONS, p=[0.6, 0.1, 0.3]).repeat(_SHOWN)
    utility = affinity + 0.5 * world.popularity[item] - 0.4 * np.log(price / 20)
    utility += 0.3 * (device == 2) * (world.genre[item] == 0) + rng.normal(0, 0.7, user.size)
    return pa.table(
        {
            "session": np.arange(_SESSIONS).repeat(_SHOWN) + day * _SESSIONS,
            "market": np.full(user.size, market),
            "user": user,
            "item": item,
            # What a factor model knows that is not retrained: the affinity of before, with its error.
            "affinity": known + rng.normal(0, 0.5, user.size),
            "clicks_7d": np.round(
                20 * np.exp(world.popularity[item] + rng.normal(0, 0.3, user.size))
            ),
            "price": np.round(price, 2),
            "genre": world.genre[item],
            "device": _DEVICES[device],
            "position": np.tile(np.arange(1, _SHOWN + 1), _SESSIONS),
            "relevance": np.digitize(utility, [0.8, 1.6, 2.4]),
        }
    )


def _affinity(users: FloatArray, items: FloatArray) -> FloatArray:
    """How much each user likes the item beside it, about a standard normal."""
    affinity: FloatArray = (users * items).sum(axis=1) / np.sqrt(_FACTORS)
    return affinity


def available(
    initial_days: int = 14, seconds_per_day: float = 600.0, opens: int = 0, **_: Any
) -> list[str]:
    """Days that have happened, none before the market opens.

    Args:
        initial_days: days that are there at the first look.
        seconds_per_day: how fast the calendar goes.
        opens: 0-based place in the order of openings; five markets open each day, so that a laptop
            does not train fifty models in its first minutes.
    """
    through = _CLOCK.through(initial_days, seconds_per_day)
    opening = _CLOCK.first + timedelta(days=initial_days - 1 + opens // 5)
    return _CLOCK.days_through(through) if through >= opening else []


def pin(day: date) -> None:
    """Stop the calendar at the end of `day`: tests and benchmarks move it by hand."""
    _CLOCK.pin(day)


def unpin() -> None:
    """Let a pinned calendar go on from its day at the next look."""
    _CLOCK.unpin()


@lru_cache(maxsize=64)
def _market(seed: int, users: int, items: int) -> _Market:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(users, _FACTORS))
    angle = rng.normal(size=(users, _FACTORS))
    return _Market(
        users=factors,
        items=rng.normal(size=(items, _FACTORS)),
        turned=0.5 * factors + 0.87 * angle,
        popularity=rng.normal(0, 1, items),
        price=20 * np.exp(rng.normal(0, 0.5, items)),
        genre=rng.integers(5, size=items),
    )
