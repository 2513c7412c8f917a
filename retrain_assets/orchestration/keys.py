"""Names that the orchestration shares: asset keys, check names, tags, metadata keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from retrain_assets.spec.model import ModelSpec

__all__ = [
    "EVIDENCE",
    "GATE_CHECKS",
    "GUARD",
    "QUARANTINE",
    "RANGE_END",
    "RANGE_START",
    "REPLAY",
    "STAGES",
    "Tag",
    "asset_key",
    "asset_keys",
    "checks_of",
    "models_of",
    "monitor_keys",
    "retrain_keys",
    "stages_of",
    "trigger_and_reason",
]

STAGES = ("raw_data", "features", "drift_report", "candidate_model", "promoted_model")
"""The five assets of every model, in the order of the data."""

GUARD = "guard_report"
"""A sixth one, of models with `gate.guard`."""

QUARANTINE = "quarantine"
"""Prefix of the assets that stand for broken specs."""

EVIDENCE = "evidence"
"""Metadata of `drift_report` that decisions rest on, as JSON; beside it are the numbers that plot."""

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
"""Dagster's tags of a run of several partitions, written out, since they have no public name."""

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
    """Tags on runs; the functions name those that every model of a run has its own of."""

    MODEL = "retrain/model"
    MODELS = "retrain/models"
    KIND = "retrain/kind"
    TRIGGER = "retrain/trigger"
    REASON = "retrain/reason"
    QUEUE = "retrain/queue"
    RESOURCES = "retrain/resources"
    MEMORY = "retrain/memory"
    MEMORY_RETRY = "retrain/memory_retry"
    PROCESS = "retrain/process"
    RETRY_REPORTED = "retrain/retry_reported"
    INLINE = "retrain/inline"

    @staticmethod
    def request(model: str) -> str:
        """Which request of a model a run answers. A namespace of its own leaves a tag's 63
        characters to the model's name, and one indexed read finds it whatever else the run carries."""
        return f"retrain.request/{model}"

    @staticmethod
    def decision(model: str) -> str:
        """Digest of the decision about a model that a run obeys."""
        return f"retrain.decision/{model}"

    @staticmethod
    def trigger(model: str) -> str:
        """What triggered the retraining of one model of several."""
        return f"retrain.trigger/{model}"

    @staticmethod
    def reason(model: str) -> str:
        """Why one model of several is retrained."""
        return f"retrain.reason/{model}"


def trigger_and_reason(tags: Mapping[str, str], model: str) -> dict[str, str]:
    """What a run's tags say about why this model is retrained; of a person's run nothing."""
    found = {
        "trigger": tags.get(Tag.trigger(model), tags.get(Tag.TRIGGER)),
        "reason": tags.get(Tag.reason(model), tags.get(Tag.REASON)),
    }
    return {name: text for name, text in found.items() if text is not None}


def models_of(keys: Iterable[dg.AssetKey] | None, stage: str | None = None) -> list[str]:
    """The models of some asset keys, in name order; only those of one stage where it is named."""
    return sorted({k.path[0] for k in keys or () if stage is None or k.path[-1] == stage})


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
