"""Decisions that a run takes about itself, or that a person took by starting it.

Belongs here: whether a monitor run goes on to retrain (`retrain.inline`), the row of a run that nobody
decided about before, a run's tags as they are now. Does not: the decision itself (`deciding`).
"""

from collections.abc import Mapping
from dataclasses import replace

import dagster as dg

from retrain_assets.orchestration.deciding import BY_ITSELF, Question, answers, asked_for
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.observe import observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.spec.model import ModelSpec

__all__ = ["decided_on_demand", "goes_on", "run_tags", "state_of_run"]


def goes_on(context: dg.AssetExecutionContext, spec: ModelSpec) -> bool:
    """Whether this run is to train: always, unless it is a monitor run that decides at its end.

    It asks what the sensors would ask after it, with the same state, key and row: they find the
    question answered, or the attempt that failed. What it holds back stays open for them.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    if not spec.retrain.inline or context.run.tags.get(Tag.KIND) != "monitor":
        return True
    platform: Platform = context.resources.platform
    state = observe(context.instance, platform.ledger, [spec], but=context.run.run_id)[spec.name]
    question = Question(
        state, context.partition_key, (*BY_ITSELF, "drift"), state.latest.get("drift_report")
    )
    (found,) = answers(context.instance, platform, [question])
    assert found is not None  # there is no limit
    platform.decisions.record([found.entry] if found.entry else [])
    said = f"{found.decision.action}: {'; '.join(found.decision.reasons)}"
    context.log.info(f"{spec.name}: {said}")
    # An older partition would be trained as its own run; this one has only its own.
    if found.wanted is None or found.wanted.partition != context.partition_key:
        return False
    context.instance.add_run_tags(context.run.run_id, found.wanted.tags | {Tag.INLINE: "retrain"})
    return True


def run_tags(context: dg.AssetExecutionContext) -> Mapping[str, str]:
    """The run's tags; of one that decides itself, with those that it was given meanwhile."""
    if Tag.INLINE not in context.run.tags:
        return context.run.tags
    run = context.instance.get_run_by_id(context.run.run_id)
    return run.tags if run else context.run.tags


def state_of_run(context: dg.AssetExecutionContext, model: str) -> str:
    """Digest of the decision that a retraining belongs to; of a person's run its own."""
    return run_tags(context).get(Tag.decision(model)) or f"run {context.run.run_id}"


def decided_on_demand(context: dg.AssetExecutionContext, spec: ModelSpec) -> None:
    """Put a retraining on record that a person has started; those of sensors are already.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    if Tag.decision(spec.name) in run_tags(context):
        return
    platform: Platform = context.resources.platform
    partition = context.partition_key if context.has_partition_key else None
    (found,) = asked_for(context.instance, platform, [spec], partition, context.run.run_id)
    if found.entry is not None:
        state = state_of_run(context, spec.name)
        platform.decisions.record([replace(found.entry, state=state)])
