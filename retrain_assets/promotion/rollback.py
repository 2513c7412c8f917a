"""Back to an earlier champion, in seconds and on the record."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retrain_assets.promotion.ledger import rollback_target
from retrain_assets.promotion.promote import project_champion

if TYPE_CHECKING:
    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry

__all__ = ["roll_back"]


def roll_back(
    model: str,
    *,
    to_version: str | None,
    registry: "MlflowRegistry",
    ledger: "Ledger",
    actor: str,
    reason: str,
    expected_champion: str | None = None,
    because: Mapping[str, Any] | None = None,
) -> "tuple[Promotion, Promotion]":
    """Make an earlier champion champion again, once it is known to load.

    Safe to repeat: what a kill between ledger and aliases left undone is done by the next call.

    Args:
        model: name of the model.
        to_version: a former champion; None for the one before.
        registry, ledger: where the versions and the record are.
        actor: who does it.
        reason: why, for people.
        expected_champion: the version that is to be rolled back; by default whichever is champion.
        because: evidence for the record.

    Returns:
        (the newest row before, the champion now); the same row twice where there was nothing to do.

    Raises:
        ChampionChanged: the champion is neither the expected version nor the target.
        LedgerError: there is no such earlier champion, or the champion changed meanwhile.
        RegistryError: the earlier version does not load, or predicts something else; nothing was
            changed.
    """
    past = ledger.history(model)[::-1]
    target = rollback_target(model, past, to_version)
    registry.load_verified(model, target.version, run_id=target.run_id)
    now = ledger.roll_back(
        model,
        to_version=target.version,
        expected_champion=expected_champion or (None if past[0].is_vacancy else past[0].version),
        actor=actor,
        reason=reason,
        because=because,
    )
    project_champion(model, registry=registry, ledger=ledger)
    return past[0], now
