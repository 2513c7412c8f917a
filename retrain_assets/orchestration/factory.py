"""One model's graph of assets: raw_data → features → drift_report, candidate_model → promoted_model.

https://docs.dagster.io/guides/build/assets

Belongs here: the shape of the graph (keys, partitions, mappings, checks, policies, texts). Does
not: what an asset does (`bodies`), which runs are requested (`sensors`, `schedules`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import dagster as dg

from retrain_assets.orchestration import bodies
from retrain_assets.orchestration.keys import GUARD, REPLAY, asset_key, checks_of
from retrain_assets.orchestration.kubernetes import gpu_pool, op_tags, resources_of
from retrain_assets.orchestration.partitions import dagster_partitions, trailing_mapping
from retrain_assets.spec.code import module_hash
from retrain_assets.spec.model import FreshnessWindow, ModelSpec

__all__ = ["model_assets"]

_TEXTS = {
    "raw_data": """Rows of one partition as the source gave them, after they passed the data contract.

**If it fails**: the message names the broken rule, the count and example rows; offending rows are
kept in `raw_data_rejected`. Nothing downstream has seen them. Mend the source or the contract, then
materialize this partition again.""",
    "features": """The feature table of one partition: the transform of `raw_data`, target included.

**If it fails**: the SQL or Python transform of the spec failed on this partition's data. The data
version is the content's fingerprint (of a range run: one over all its partitions; the fingerprint of
each is in its metadata, and is what training goes by).""",
    "drift_report": """How far the current rows are from those the champion was trained on.

`verdict` is `stable`, `drifted` or `undecided` (too few rows, or no reference yet). `alarm` is true
when enough of the last reports are drifted; with `retrain.on_drift` it starts a retraining. The
check `no_drift` warns, it never stops a run.

`report` shows what changed, with the distributions of both sides in drifted partitions and the newest
of a run; `heat_map`, in the newest, shows the last 60 partitions. Plots follow the ten most important
features (up to ten thresholds), and `severity_max`, the worst of all.""",
    "candidate_model": """A newly trained model, compared with the champion and trivial baselines on the same holdout.

The holdout is the last part of the window and was never trained on. Training again on the same data
with the same settings finds the same version. Being a candidate serves nobody: `promoted_model`
decides.""",
    "guard_report": """The promoted model against the one that it replaced, on rows that came afterwards.

Materialized for a while after each promotion (`gate.guard`), when labels of another partition have
arrived. **If the check `no_loss` failed**, the promoted model is worse: with `auto_rollback` the model
before is champion again already, else `retrain rollback` puts it back.""",
    "policy_replay": """What other retraining policies would have done on this model's own partitions.

Materialized by hand only: it trains every model that a policy would have trained, in a scratch folder,
and changes nothing live. A replay that was killed goes on where it stopped. The table compares the
spec's own policy with never, every partition, every seventh, random, drift alone, performance alone,
and hindsight; the lines to paste are below it.""",
    "promoted_model": """The champion: the version that serves. Materialized only when a candidate passed the gate.

Each check is one criterion of the gate, with its numbers. **If the run failed with a rejection**,
nothing is broken: the champion stays, and the comparison says by how much the candidate missed. With
`gate.approval: manual`, a candidate that passed waits for `retrain promote` or the job
`change_champion`.""",
}

_CHECK_TEXTS = {
    "contract": "The rows kept the spec's data contract: columns, types, ranges, null rates, counts.",
    "no_drift": "The current rows look like those the champion was trained on. Only warns.",
    "no_loss": "The promoted model is not shown to be worse than the one it replaced.",
    "finite_scores": "Every model gave every holdout row a finite score.",
    "enough_rows": "The holdout has at least `gate.min_rows` rows, and the metric a value on them.",
    "floor": "The candidate's metric is no worse than `gate.floor`.",
    "beats_baselines": "The candidate is better than trivial predictions, beyond chance.",
    "unseen_holdout": "The champion was not trained on rows that the candidate is judged on.",
    "beats_champion": "The candidate's gain over the champion, on the same rows, exceeds "
    "`gate.min_gain` with the confidence of the spec.",
    "power": "The smallest gain that this holdout can show with 80% chance.",
    "slices": "In no slice of the holdout is the candidate worse by more than `max_loss`.",
    "group_gaps": "Groups of people are treated alike, within the bounds of `gate.group_gaps`.",
    "calibration": "Predicted probabilities are as often right as they say.",
    "size": "The model's files are no larger than the budget.",
    "latency": "Predicting takes no longer than the budget (p95).",
    "churn": "No more predictions change against the champion than `gate.max_churn`.",
    "infra_validation": "The registered version loads in a fresh process, within its time limit, and "
    "predicts there what the trained model predicted.",
}


def model_assets(spec: ModelSpec) -> list[dg.AssetsDefinition]:
    """The assets of one model: five; one more where the spec has `gate.guard`, and one to replay
    policies where it has partitions."""
    return [*_monitored(spec), *_trained(spec)]


def _monitored(spec: ModelSpec) -> Iterator[dg.AssetsDefinition]:
    """What a monitor run makes of new data."""
    single_run = dg.BackfillPolicy.single_run() if spec.scheme is not None else None
    table: dict[str, Any] = {"io_manager_key": "tables", "backfill_policy": single_run}
    yield _asset(
        spec,
        "raw_data",
        bodies.raw_data,
        kinds={spec.source.kind, "parquet"},
        code_version=_version(
            spec.section_hash("source", "contract", "partitions"), spec.source.python
        ),
        freshness=spec.freshness.raw_data,
        **table,
    )
    transform = "sql" if spec.features.sql else "python" if spec.features.python else None
    yield _asset(
        spec,
        "features",
        bodies.features,
        reads={"raw_data": ("raw_data", 1 + spec.features.lookback, 0)},
        kinds={"parquet", *([transform] if transform else [])},
        code_version=_version(spec.section_hash("features", "target"), spec.features.python),
        **table,
    )
    yield _asset(
        spec,
        "drift_report",
        bodies.drift_report,
        reads={"features": ("features", spec.drift.window, 0)},
        kinds={"json"},
        code_version=spec.section_hash("drift"),
        backfill_policy=single_run,
    )
    if spec.gate.guard is not None:
        yield _asset(
            spec,
            GUARD,
            bodies.guard_report,
            reads={"features": ("features", 1, 0)},
            kinds={"json"},
            code_version=spec.section_hash("gate"),
            backfill_policy=single_run,
            output_required=False,
        )


def _trained(spec: ModelSpec) -> Iterator[dg.AssetsDefinition]:
    """What a retraining makes, and what replays policies."""
    train = spec.train
    yield _asset(
        spec,
        "candidate_model",
        bodies.candidate_model,
        reads={"features": ("features", train.window or 1, -train.label_delay)},
        # Inline it comes after the report that it rests on, and only where the decision says so.
        deps=["drift_report"] if spec.retrain.inline else [],
        kinds={train.trainer, "mlflow"},
        code_version=spec.training_hash,
        output_required=not spec.retrain.inline,
    )
    yield _asset(
        spec,
        "promoted_model",
        bodies.promoted_model,
        deps=["candidate_model"],
        kinds={"mlflow"},
        code_version=spec.section_hash("gate"),
        freshness=spec.freshness.promoted_model,
        output_required=False,
    )
    if spec.scheme is not None:
        yield _asset(
            spec,
            REPLAY,
            bodies.policy_replay,
            deps=["features"],
            partitioned=False,
            kinds={"matplotlib"},
            code_version=spec.section_hash("train", "drift", "retrain", "gate"),
        )


def _asset(
    spec: ModelSpec,
    stage: str,
    body: Callable[..., Any],
    *,
    kinds: set[str],
    code_version: str,
    reads: dict[str, tuple[str, int, int]] | None = None,
    deps: Iterable[str] = (),
    freshness: FreshnessWindow | None = None,
    partitioned: bool = True,
    io_manager_key: str | None = None,
    output_required: bool = True,
    backfill_policy: dg.BackfillPolicy | None = None,
) -> dg.AssetsDefinition:
    """One asset; `reads` gives per input the upstream stage, how many partitions, and the offset.

    Made of its parts, since the decorator `@dg.asset` derives them again from the function's
    signature for each model: 1.6 times the CPU time of loading (bench/fleet).
    """
    scheme = spec.scheme if partitioned else None
    key, resources = asset_key(spec.name, stage), resources_of(spec, stage)
    upstream = {
        name: dg.AssetDep(
            asset_key(spec.name, table),
            partition_mapping=trailing_mapping(count, offset)
            if scheme is not None and (count > 1 or offset)
            else None,
        )
        for name, (table, count, offset) in (reads or {}).items()
    }
    order = {name: dg.AssetDep(asset_key(spec.name, name)) for name in deps}
    checks = _checks(spec, stage)
    compute = dg.OpDefinition(
        name="__".join(key.path),
        compute_fn=_compute(body(spec)),
        ins=dict.fromkeys(upstream, _TABLE) | dict.fromkeys(order, _ORDER),
        outs={
            "result": dg.Out(
                dg.Any if io_manager_key else dg.Nothing,
                io_manager_key=io_manager_key,
                is_required=output_required,
                code_version=code_version,
            ),
            **dict.fromkeys(checks, _CHECK),
        },
        required_resource_keys={"platform"},
        code_version=code_version,
        tags=op_tags(resources),
        pool=gpu_pool(resources),
    )
    described = dg.AssetSpec(
        key,
        deps=[*upstream.values(), *order.values()],
        description=f"{spec.description}\n\n{_TEXTS[stage]}".strip(),
        group_name=spec.group or spec.name,
        code_version=code_version,
        freshness_policy=_freshness(freshness),
        owners=[spec.owner] if spec.owner else None,
        tags={"retrain/model": spec.name, **spec.tags},
        kinds=kinds,
        partitions_def=dagster_partitions(scheme),
    )
    return dg.AssetsDefinition(
        node_def=compute,
        keys_by_input_name={name: dep.asset_key for name, dep in (upstream | order).items()},
        keys_by_output_name={"result": key},
        check_specs_by_output_name=checks,
        backfill_policy=backfill_policy,
        specs=[described],
    )


def _checks(spec: ModelSpec, stage: str) -> dict[str, dg.AssetCheckSpec]:
    """The checks of one asset by the name of the op's output."""
    key = asset_key(spec.name, stage)
    return {
        f"check_{name}": dg.AssetCheckSpec(name, asset=key, description=_CHECK_TEXTS[name])
        for name in checks_of(spec, stage)
    }


_TABLE = dg.In(input_manager_key="tables")
_ORDER = dg.In(dg.Nothing)
_CHECK = dg.Out(dagster_type=None)


def _compute(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """An asset's function as an op's: inputs in one mapping, results as events."""

    def compute(context: dg.AssetExecutionContext, inputs: Mapping[str, Any]) -> Iterator[Any]:
        found = function(context, **inputs)
        if isinstance(found, Iterator):
            yield from found
        else:
            yield found

    return compute


def _version(sections: str, function: str | None) -> str:
    """Code version: the spec's sections and, where one is named, the function's source file."""
    return "-".join(filter(None, (sections, module_hash(function))))


@cache
def _freshness(window: FreshnessWindow | None) -> dg.FreshnessPolicy | None:
    if window is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=window.fail, warn_window=window.warn)
