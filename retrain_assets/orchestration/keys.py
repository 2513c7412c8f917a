"""Names that the orchestration shares: asset keys, check names, tags, metadata keys."""

from dataclasses import dataclass

import dagster as dg

__all__ = ["CHECKS", "STAGES", "Tag", "asset_key", "asset_keys", "monitor_keys", "retrain_keys"]

STAGES = ("raw_data", "features", "drift_report", "candidate_model", "promoted_model")
"""The five assets of every model, in the order of the data."""

CHECKS: dict[str, tuple[str, ...]] = {
    "raw_data": ("contract",),
    "drift_report": ("no_drift",),
    "promoted_model": (
        "finite_scores",
        "enough_rows",
        "floor",
        "beats_baselines",
        "unseen_holdout",
        "beats_champion",
        "power",
        "slices",
        "group_gaps",
        "calibration",
        "size",
        "latency",
        "churn",
    ),
}
"""Checks of each asset; those of `promoted_model` are the criteria of the gate.

Written out, since importing the gate would cost every process that loads definitions; a test holds
them equal."""


@dataclass(frozen=True)
class Tag:
    """Tags on runs."""

    MODEL = "retrain/model"
    MODELS = "retrain/models"
    KIND = "retrain/kind"
    TRIGGER = "retrain/trigger"
    REASON = "retrain/reason"
    QUEUE = "retrain/queue"


def asset_key(model: str, stage: str) -> dg.AssetKey:
    """Key of one asset of a model."""
    return dg.AssetKey([model, stage])


def asset_keys(model: str, stages: tuple[str, ...] = STAGES) -> list[dg.AssetKey]:
    """Keys of several assets of a model."""
    return [asset_key(model, stage) for stage in stages]


def monitor_keys(model: str) -> list[dg.AssetKey]:
    """What a monitor run materializes."""
    return asset_keys(model, STAGES[:3])


def retrain_keys(model: str, *, partitioned: bool) -> list[dg.AssetKey]:
    """What a retraining materializes: without partitions, the data is read again as well."""
    return asset_keys(model, STAGES[3:] if partitioned else STAGES)
