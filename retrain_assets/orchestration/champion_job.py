"""`change_champion`: promote, reject and roll back from the Dagster UI.

https://docs.dagster.io/guides/operate/configuration/run-configuration

Belongs here: the form in the Launchpad and who filled it in. Does not: what the actions do
(`promotion.approve`, `promotion.reviews`, `promotion.rollback`); the command line calls the same.
One job per code location, since a job per model makes loading quadratic.
"""

from collections.abc import Mapping
from enum import Enum

import dagster as dg
from pydantic import Field

from retrain_assets.errors import RetrainError
from retrain_assets.orchestration.keys import Tag, asset_key
from retrain_assets.orchestration.platform import Platform
from retrain_assets.spec.model import ModelSpec

__all__ = ["ChampionAction", "champion_job"]

_USER_TAG = "user"  # set by Dagster+ and by proxies that know who is logged in


class Action(Enum):
    """What to do."""

    promote = "promote"
    reject = "reject"
    rollback = "rollback"


class ChampionAction(dg.Config):
    """Which model, what to do, and why."""

    model: str = Field(description="Name of the model.")
    action: Action = Field(
        description="promote or reject the candidate that awaits approval, or rollback to an earlier "
        "champion."
    )
    version: str | None = Field(
        default=None,
        description="Version of the candidate, required to promote or reject; for a rollback a "
        "version that was champion, by default the one before.",
    )
    reason: str = Field(description="Why, for the record.")
    by: str | None = Field(
        default=None, description="Who decides; by default the user of the run, if it has one."
    )


def champion_job(specs: Mapping[str, ModelSpec]) -> dg.JobDefinition:
    """The job, for the models of the code location."""

    @dg.op(
        name="change",
        description="Promotes, rejects or rolls back one model, on record. The version is loaded "
        "before anything changes; running it again changes nothing more.",
        required_resource_keys={"platform"},
    )
    def change(context: dg.OpExecutionContext, config: ChampionAction) -> None:
        try:
            _change(context, config, specs)
        except RetrainError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error

    @dg.job(
        name="change_champion",
        description="Promote or reject a candidate that awaits approval, or roll a model back.",
        executor_def=dg.in_process_executor,
    )
    def change_champion() -> None:
        change()

    return change_champion


def _change(
    context: dg.OpExecutionContext, config: ChampionAction, specs: Mapping[str, ModelSpec]
) -> None:
    tags = {Tag.KIND: config.action.value, Tag.MODEL: config.model, Tag.REASON: config.reason[:200]}
    context.instance.add_run_tags(context.run_id, tags)
    if config.model not in specs:
        raise dg.Failure(
            description=f"no model named {config.model}; known: {', '.join(sorted(specs))}",
            allow_retries=False,
        )
    if config.version is None and config.action is not Action.rollback:
        raise dg.Failure(
            description=f"{config.model}: which version? `version` is required to "
            f"{config.action.value}; `retrain promote {config.model}` shows what waits",
            allow_retries=False,
        )
    text = _ACTIONS[config.action](context, config)
    context.log.info(text)
    context.add_output_metadata({"result": text})


def _actor(context: dg.OpExecutionContext, config: ChampionAction) -> str:
    return config.by or context.run.tags.get(_USER_TAG) or "Dagster UI"


def _version(config: ChampionAction) -> str:
    return (config.version or "").removeprefix("v")


def _promote(context: dg.OpExecutionContext, config: ChampionAction) -> str:
    from retrain_assets.promotion.approve import approve

    platform: Platform = context.resources.platform
    review, new = approve(
        config.model,
        _version(config),
        registry=platform.registry,
        ledger=platform.ledger,
        actor=_actor(context, config),
        reason=config.reason,
    )
    if not new:
        return f"{config.model}: v{review.version} was {review.signed} before; nothing was changed"
    context.log_event(
        dg.AssetMaterialization(
            asset_key(config.model, "promoted_model"),
            partition=review.partition,
            metadata={"model_version": review.version, "approved": review.signed},
        )
    )
    return f"{config.model}: v{review.version} is champion, {review.signed}"


def _reject(context: dg.OpExecutionContext, config: ChampionAction) -> str:
    from retrain_assets.promotion.reviews import Reviews

    platform: Platform = context.resources.platform
    review, new = Reviews(platform.ledger).reject(
        config.model, _version(config), actor=_actor(context, config), reason=config.reason
    )
    before = "" if new else " before; nothing was changed"
    return f"{config.model}: v{review.version} was {review.signed}{before}"


def _roll_back(context: dg.OpExecutionContext, config: ChampionAction) -> str:
    from retrain_assets.promotion.rollback import roll_back

    platform: Platform = context.resources.platform
    before, now = roll_back(
        config.model,
        to_version=_version(config) or None,
        registry=platform.registry,
        ledger=platform.ledger,
        actor=_actor(context, config),
        reason=config.reason,
    )
    if now.sequence == before.sequence:
        return f"{config.model}: v{now.version} is champion already; nothing was changed"
    return f"{config.model}: v{before.version} -> v{now.version}"


_ACTIONS = {Action.promote: _promote, Action.reject: _reject, Action.rollback: _roll_back}
