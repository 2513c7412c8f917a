"""One schedule per distinct cron expression and time zone, for all models that name it.

https://docs.dagster.io/guides/automate/schedules
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from retrain_assets.orchestration.deciding import Question, answers, recorded
from retrain_assets.orchestration.observe import observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_schedules"]

# The implicit job of all assets: a target of the schedule's own would have to share one partitions
# definition, and a job per model makes loading quadratic.
_ASSET_JOB = "__ASSET_JOB"


def build_schedules(
    specs: Mapping[str, ModelSpec], settings: Settings
) -> list[dg.ScheduleDefinition]:
    """The schedules of the code location."""
    by_cron: dict[tuple[str, str], dict[str, ModelSpec]] = {}
    for name, spec in specs.items():
        if spec.retrain.schedule is not None:
            cron = (" ".join(spec.retrain.schedule.split()), spec.retrain.timezone)
            by_cron.setdefault(cron, {})[name] = spec
    return [_schedule(*cron, members, settings) for cron, members in sorted(by_cron.items())]


_SPELLINGS = {"*": "x", "/": "per", "-": "to", ",": "and", "+": "plus", "#": "nth", " ": "_"}


def _spelled(text: str) -> str:
    """A cron expression or time zone as part of a Dagster name; different texts stay different."""
    return "".join(_SPELLINGS.get(character, character) for character in text)


def _schedule(
    cron: str, timezone: str, specs: Mapping[str, ModelSpec], settings: Settings
) -> dg.ScheduleDefinition:
    status = (
        dg.DefaultScheduleStatus.RUNNING
        if settings.automation
        else dg.DefaultScheduleStatus.STOPPED
    )
    slug = _spelled(cron) + ("" if timezone == "UTC" else f"_{_spelled(timezone)}")

    @dg.schedule(
        name=f"retrain_at_{slug}",
        cron_schedule=cron,
        execution_timezone=timezone,
        job_name=_ASSET_JOB,
        default_status=status,
        description=f"Retrains at '{cron}' ({timezone}): {', '.join(specs)}",
        required_resource_keys={"platform"},
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[Any]:
        from retrain_assets.errors import LedgerError

        platform: Platform = context.resources.platform
        moment = context.scheduled_execution_time.isoformat()
        waiting: list[str] = []
        try:
            requests = _requests(context, platform, specs, moment, waiting)
        except LedgerError as error:
            context.log.error(str(error))
            yield dg.SkipReason(f"nothing was decided: {error}")
            return
        yield from requests
        if waiting:
            yield dg.SkipReason("; ".join(waiting))

    return tick


def _requests(
    context: dg.ScheduleEvaluationContext,
    platform: Platform,
    specs: Mapping[str, ModelSpec],
    moment: str,
    waiting: list[str],
) -> list[dg.RunRequest]:
    """Runs of one tick, decided and on record; `waiting` gets why the other models wait."""
    questions: list[Question] = []
    for name, state in observe(context.instance, platform.ledger, specs.values()).items():
        features = state.latest.get("features")
        if features is None and state.spec.scheme is not None:
            waiting.append(f"{name}: no features yet")
            continue
        questions.append(
            Question(
                state,
                features.partition if features else None,
                only=("schedule",),
                asked="schedule",
                asked_by=moment,
            )
        )
    found = [one for one in answers(context.instance, platform, questions) if one is not None]
    waiting += [
        f"{one.model}: {', '.join(one.decision.reasons)}" for one in found if one.wanted is None
    ]
    return recorded(platform, found)
