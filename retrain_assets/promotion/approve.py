"""A person's decision about a candidate that waits: promoted once it is known to load, or rejected."""

from typing import TYPE_CHECKING

from retrain_assets.promotion.promote import project_champion
from retrain_assets.promotion.reviews import Review, Reviews

if TYPE_CHECKING:
    from retrain_assets.promotion.ledger import Ledger
    from retrain_assets.promotion.registry import MlflowRegistry

__all__ = ["approve"]


def approve(
    model: str,
    version: str,
    *,
    registry: "MlflowRegistry",
    ledger: "Ledger",
    actor: str,
    reason: str,
) -> tuple[Review, bool]:
    """Promote the candidate that waits, if it and the champion still are what was compared.

    Safe to repeat: what a kill between ledger and aliases left undone is done by the next call.

    Returns:
        The approval, and whether it is new: False where somebody had approved it before.

    Raises:
        NotAwaiting: it never passed the gate, was rejected, or a newer candidate waits instead.
        ChampionChanged: there is another champion than the one that it was compared with.
        RegistryError: the version was deleted, or does not load and predict as when it was stored;
            nothing was changed.
    """
    reviews = Reviews(ledger)
    about = reviews.about(model, version)
    if about.kind == "approved":
        project_champion(model, registry=registry, ledger=ledger)
        return about, False
    registry.load_verified(model, version, run_id=about.run_id)
    review, promotion = reviews.approve(model, version, actor=actor, reason=reason)
    project_champion(model, registry=registry, ledger=ledger)
    return review, promotion is not None
