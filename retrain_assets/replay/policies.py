"""The policies that a replay compares, each as a `retrain:` section for the real `decide`.

Belongs here: names, and what each says. Does not: walking (`walk`). A policy that is not the spec's own
keeps the spec's guards (cool-down, back-off, budget, minimum of new partitions) where conditions start
its retrainings, so that the comparison is between reasons.

    never         the first model, for ever
    every_K       after every K new partitions; every_1 is "always"
    random        at partitions drawn at random, as many as `combined` took
    drift         the drift alarm alone
    performance   realised or estimated performance alone
    combined      the spec's own `retrain:` section, schedule included
    cost          the spec's `retrain.cost` alone
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain_assets.errors import ReplayError
from retrain_assets.spec.model import OnPerformance, Retrain

if TYPE_CHECKING:
    from retrain_assets.spec.model import ModelSpec

__all__ = ["RANDOM_DRAWS", "Policy", "chosen_policies", "random_policies"]

RANDOM_DRAWS = 3

_ORDER = ("never", "every_1", "every_7", "random", "drift", "performance", "combined", "cost")
_EVERY = re.compile(r"every_([1-9][0-9]{0,3})")
_DEFAULT_PERFORMANCE = OnPerformance(floor=None, max_drop=0.0, of_last=3, at_least=2)
"""Shown to be worse than on the holdout, in two of the last three partitions."""


@dataclass(frozen=True)
class Policy:
    """One policy.

    Attributes:
        name: as in the table.
        retrain: what `decide` is asked with.
        asked_at: partitions at which a retraining is asked for from outside.
    """

    name: str
    retrain: Retrain
    asked_at: frozenset[str] = frozenset()


def chosen_policies(spec: "ModelSpec", names: Sequence[str] | None) -> list[Policy]:
    """The policies of a replay, less `random`, whose count is not known yet.

    Args:
        spec: the model.
        names: those asked for; by default all that fit the spec. `never` and `combined` are always
            among them, since the others are measured against these.

    Raises:
        ReplayError: no such policy, or `cost` without prices in the spec.
    """
    asked = list(names or _ORDER)
    unknown = [name for name in asked if name not in _ORDER and not _EVERY.fullmatch(name)]
    if unknown:
        raise ReplayError(
            f"{spec.name}: no policy named {', '.join(unknown)}; there are {', '.join(_ORDER)}, and "
            "every_K for any K"
        )
    if names and "cost" in names and spec.retrain.cost is None:
        raise ReplayError(
            f"{spec.name}: the policy cost needs prices: add retrain.cost (retraining, per_unit_loss)"
        )
    wanted = {"never", "combined", *asked} - {"random"}
    if spec.retrain.cost is None:
        wanted.discard("cost")
    every = sorted(
        (name for name in wanted if _EVERY.fullmatch(name)), key=lambda name: int(name[6:])
    )
    named = [name for name in _ORDER[3:] if name in wanted]
    return [Policy(name, _section(spec.retrain, name)) for name in ("never", *every, *named)]


def _section(own: Retrain, name: str) -> Retrain:
    if name == "combined":
        return own
    if name == "never":
        return Retrain(on_drift=False)
    if found := _EVERY.fullmatch(name):
        return Retrain(on_drift=False, on_new_partitions=int(found[1]))
    on_performance = None
    if name == "performance":
        on_performance = own.on_performance or _DEFAULT_PERFORMANCE
    drift = name == "drift"
    return own.model_copy(
        update={
            "schedule": None,
            "on_drift": drift,
            "min_drift_score": own.min_drift_score if drift else 0.0,
            "needs_prediction_drift": own.needs_prediction_drift and drift,
            "on_performance": on_performance,
            "cost": own.cost if name == "cost" else None,
            "max_age": None,
            "on_new_partitions": None,
            "follow_up": None,
            "on_change": False,
            "combine": "any",
            "at_least": None,
        }
    )


def random_policies(partitions: Sequence[str], count: int, seed: int) -> list[Policy]:
    """`RANDOM_DRAWS` policies that retrain at `count` of the partitions, drawn without replacement."""
    import numpy as np

    rng = np.random.default_rng(seed)
    size = min(count, len(partitions))
    return [
        Policy(
            "random",
            Retrain(on_drift=False),
            frozenset(str(key) for key in rng.choice(list(partitions), size, replace=False)),
        )
        for _ in range(RANDOM_DRAWS if size else 1)
    ]
