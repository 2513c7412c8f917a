"""Models that the ledger knows and no spec describes any more.

Belongs here: finding them. Does not: doing anything about them: their history stays, their champion
stays in the registry and serves on for whoever loads it, nothing watches or retrains it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrain_assets.promotion.ledger import Ledger
    from retrain_assets.spec.loading import SpecSet

__all__ = ["Retired", "retired_models"]


@dataclass(frozen=True)
class Retired:
    """A model without a spec.

    Attributes:
        champion: its last version, which still has the alias.
        promoted_at: since when, UTC.
        renamed_to: the model that took its history over, None where it was removed.
    """

    model: str
    champion: str
    promoted_at: datetime
    renamed_to: str | None = None


def retired_models(ledger: "Ledger", specs: "SpecSet") -> list[Retired]:
    """Models with a champion in the ledger and without a spec, by name; one query.

    A model whose spec is broken is not retired.

    Args:
        ledger: promotions of all models.
        specs: all specs that there are, and not a part of them.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    described = set(specs.models) | {broken.name for broken in specs.broken}
    heirs = {spec.renamed_from: spec.name for spec in specs.specs()}
    return [
        Retired(name, row.version, row.promoted_at, heirs.get(name))
        for name, row in sorted(ledger.champions().items())
        if name not in described
    ]
