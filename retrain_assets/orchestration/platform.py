"""The one resource of all assets: storage, ledger, registry and alerts of this deployment.

It has no Dagster config on purpose: config is shown in the UI, and these addresses may hold
credentials. Addresses come from `Settings` in the process that uses them, clients are made on first
use, and nothing heavy is imported before.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from retrain_assets.settings import Settings

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.decisions import Decisions
    from retrain_assets.promotion.ledger import Ledger
    from retrain_assets.promotion.registry import MlflowRegistry

__all__ = ["Platform"]


class Platform:
    """Lazily made clients of one deployment.

    Args:
        settings: fixed settings (tests, the demo); by default the environment's, read on first use.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    @cached_property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return self._settings or Settings.load()

    @cached_property
    def store(self) -> "TableStore":
        """Tables, reports and evidence at rest."""
        from retrain_assets.data.tables import TableStore

        return TableStore(self.settings.storage)

    @cached_property
    def ledger(self) -> "Ledger":
        """The promotion ledger."""
        from retrain_assets.promotion.ledger import Ledger

        self._make_home(self.settings.ledger_url)
        return Ledger(self.settings.ledger_url)

    @cached_property
    def decisions(self) -> "Decisions":
        """The decision ledger, in the same database."""
        from retrain_assets.promotion.decisions import Decisions

        return Decisions(self.ledger)

    @cached_property
    def registry(self) -> "MlflowRegistry":
        """The model registry; its first use imports mlflow."""
        from retrain_assets.promotion.registry import MlflowRegistry

        self._make_home(self.settings.mlflow_uri)
        return MlflowRegistry(self.settings.mlflow_uri, self.settings.mlflow_artifacts or None)

    def _make_home(self, url: str) -> None:
        if url.startswith("sqlite"):
            self.settings.home.mkdir(parents=True, exist_ok=True)
