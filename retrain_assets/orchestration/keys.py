"""Names that the orchestration shares: asset keys, check names, tags, metadata keys."""

from dataclasses import dataclass

import dagster as dg

from retrain_assets.spec.model import ModelSpec

__all__ = [
    "EVIDENCE",
    "GATE_CHECKS",
    "GUARD",
    "QUARANTINE",
    "REPLAY",
    "STAGES",
    "Tag",
    "asset_key",
    "asset_keys",
    "checks_of",
    "monitor_keys",
    "retrain_keys",
    "stages_of",
]

STAGES = ("raw_data", "features", "drift_report", "candidate_model", "promoted_model")
"""The five assets of every model, in the order of the data."""

GUARD = "guard_report"
"""A sixth one, of models with `gate.guard`."""

QUARANTINE = "quarantine"
"""Prefix of the assets that stand for broken specs."""

EVIDENCE = "evidence"
"""Metadata of `drift_report` that decisions rest on, as JSON; beside it are the numbers that plot."""

REPLAY = "policy_replay"
"""An asset beside the graph, of models with partitions; materialized by people only."""

GATE_CHECKS: dict[str, str | None] = {
    "finite_scores": None,
    "enough_rows": None,
    "floor": "floor",
    "beats_baselines": None,
    "unseen_holdout": None,
    "beats_champion": None,
    "power": None,
    "slices": "slices",
    "group_gaps": "group_gaps",
    "calibration": "max_calibration_error",
    "size": "budgets",
    "latency": "budgets",
    "churn": "max_churn",
    "infra_validation": None,
}
"""The criteria of the gate, and the field of `gate` without which a criterion asks for nothing.

Written out, since importing the gate would cost every process that loads definitions; a test holds
them equal to `CRITERIA`."""


def checks_of(spec: ModelSpec, stage: str) -> tuple[str, ...]:
    """Names of the checks of one asset; those of `promoted_model` are the criteria that are asked."""
    if stage == "promoted_model":
        return tuple(
            name
            for name, field in GATE_CHECKS.items()
            if field is None or getattr(spec.gate, field) is not None
        )
    checks = {"raw_data": ("contract",), "drift_report": ("no_drift",), GUARD: ("no_loss",)}
    return checks.get(stage, ())


@dataclass(frozen=True)
class Tag:
    """Tags on runs."""

    MODEL = "retrain/model"
    MODELS = "retrain/models"
    KIND = "retrain/kind"
    TRIGGER = "retrain/trigger"
    REASON = "retrain/reason"
    QUEUE = "retrain/queue"
    REQUEST = "retrain/request"
    DECISION = "retrain/decision"
    RESOURCES = "retrain/resources"
    PROCESS = "retrain/process"


def asset_key(model: str, stage: str) -> dg.AssetKey:
    """Key of one asset of a model."""
    return dg.AssetKey([model, stage])


def asset_keys(model: str, stages: tuple[str, ...] = STAGES) -> list[dg.AssetKey]:
    """Keys of several assets of a model."""
    return [asset_key(model, stage) for stage in stages]


def stages_of(spec: ModelSpec) -> tuple[str, ...]:
    """The assets that this model has."""
    return STAGES if spec.gate.guard is None else (*STAGES, GUARD)


def monitor_keys(model: str, *, guarded: bool = False) -> list[dg.AssetKey]:
    """What a monitor run materializes; `guarded` for a model with `gate.guard`."""
    return asset_keys(model, (*STAGES[:3], GUARD) if guarded else STAGES[:3])


def retrain_keys(model: str, *, partitioned: bool) -> list[dg.AssetKey]:
    """What a retraining materializes: without partitions, the data is read again as well."""
    return asset_keys(model, STAGES[3:] if partitioned else STAGES)
