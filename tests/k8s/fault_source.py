"""The source of the orchestration tests, as slow as its model's `world.json` says."""

import time
from typing import Any

from orchestration import sources

from retrain_assets.spec.partitions import Window

available = sources.available


def load(window: Window | None, folder: str, **options: Any) -> Any:
    """Rows of one partition after a share of `seconds`, which is for six of them."""
    time.sleep(sources.read_world(folder).get("seconds", 0) / 6)
    return sources.load(window, folder, **options)
