"""The runs of `retrain now`: decided, executed and canceled in a worker process.

Belongs here: what needs Dagster. Does not: the processes (`workers`), what is handed to them (`now`), which
models share a run (`batching`), a request's decisions (`on_demand`).

Each run is executed in process, on the same Dagster instance as everything else, by a worker whose
definitions are those of the run's models alone.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

import dagster as dg

from retrain_assets.fleet.now import Retrained
from retrain_assets.orchestration.compute_logs import in_files_only
from retrain_assets.orchestration.deciding import asked_for
from retrain_assets.orchestration.event_log import stepwise
from retrain_assets.orchestration.keys import Tag, models_of
from retrain_assets.orchestration.now import Decided, Run
from retrain_assets.orchestration.observe import runs_in_progress
from retrain_assets.orchestration.on_demand import runs_of
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.process_tag import host, living, process_tag
from retrain_assets.orchestration.status import local_instance
from retrain_assets.orchestration.workers import Batch
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import LoadedSpec, SpecSet

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef

__all__ = [
    "Done",
    "came_of",
    "cancel",
    "decide",
    "executed",
    "for_workers",
    "opened",
    "retrain",
]

_BY_SENSOR = "dagster/sensor_name"


@dataclass(frozen=True)
class Done:
    """How a run went.

    Attributes:
        cpu_seconds: by model: the run's, in proportion to the time of the model's steps.
        errors: by model, the message of its first step that failed.
    """

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def for_workers(instance: dg.DagsterInstance) -> "InstanceRef":
    """Where workers store: the same instance, its events and output written in fewer, larger pieces."""
    return in_files_only(stepwise(instance.get_ref()))


@cache
def opened(instance: str) -> dg.DagsterInstance:
    """The instance of this process for all its runs: to open one reads all of Dagster's migrations.

    Nothing has to be closed: what a run says is stored when it ends.

    Args:
        instance: where workers store, serialized by Dagster.
    """
    return dg.DagsterInstance.from_ref(cast("InstanceRef", dg.deserialize_value(instance)))


def decide(
    specs: Sequence[LoadedSpec],
    partition: str | None,
    jobs: int,
    settings: Settings,
    work: Callable[[Batch[tuple[Retrained, ...]]], tuple[Retrained, ...]],
) -> Decided:
    """The runs of a person's request, whose decisions are on record then.

    Runs that an earlier command has left behind are canceled before.

    Args:
        work: what executes them.

    Raises:
        LedgerError: the decisions cannot be recorded.
    """
    platform = Platform(settings)
    by_name = {loaded.spec.name: loaded for loaded in specs}
    with local_instance(settings) as instance:
        _cancel_orphans(instance)
        answered = asked_for(
            instance,
            platform,
            [loaded.spec for loaded in specs],
            partition,
            f"retrain now {uuid.uuid4()}",
        )
        where = dg.serialize_value(for_workers(instance))
    requests = runs_of(platform, answered, settings.model_copy(update={"parallel_runs": jobs}))
    waiting = (
        Retrained(one.model, "waits", ", ".join(one.decision.reasons))
        for one in answered
        if one.wanted is None
    )
    runs = []
    for request in requests:
        names = tuple(models_of(request.asset_selection))
        chosen = SpecSet({name: by_name[name] for name in names}, ())
        assets = tuple(tuple(key.path) for key in request.asset_selection or ())
        run = Run(assets, request.partition_key, dict(request.tags), chosen, settings, where)
        runs.append(Batch(str(uuid.uuid4()), names, work, run))
    return Decided(tuple(waiting), tuple(runs))


def retrain(batch: Batch[tuple[Retrained, ...]], run: Run) -> tuple[Retrained, ...]:
    """Execute a run, and say what came of each model."""
    from retrain_assets.orchestration.build import build_definitions

    definitions = build_definitions(run.specs, run.settings)
    request = dg.RunRequest(
        asset_selection=[dg.AssetKey(path) for path in run.assets],
        partition_key=run.partition,
        tags=run.tags,
    )
    done = executed(definitions, opened(run.instance), request, batch.run_id, batch.models)
    return came_of(run.settings, batch.run_id, batch.models, done)


def came_of(
    settings: Settings, run_id: str, models: Sequence[str], done: Done | None
) -> tuple[Retrained, ...]:
    """What came of the models of a run, as the ledger has it; `done` is None where it was killed."""
    judged = Platform(settings).decisions.judged(models)
    found = []
    for name in models:
        one = judged.get(name)
        seconds = done.cpu_seconds.get(name) if done else None
        if one is not None and one.run_id == run_id:
            outcome: Literal["promoted", "kept"] = (
                "promoted" if one.verdict == "promote" else "kept"
            )
            found.append(Retrained(name, outcome, one.sentence, one.version, seconds))
        elif done is None:
            found.append(Retrained(name, "canceled", "its process was ended"))
        else:
            said = done.errors.get(name, "the run ended without a judgement")
            found.append(Retrained(name, "failed", said, None, seconds))
    return tuple(found)


def executed(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    request: dg.RunRequest,
    run_id: str,
    models: Sequence[str],
) -> Done:
    """Execute a run in this process."""
    began = time.process_time()
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=list(request.asset_selection or []),
        partition_key=request.partition_key,
        tags={
            **{key: text for key, text in request.tags.items() if key != "dagster/partition"},
            Tag.PROCESS: process_tag(os.getpid()),
        },
        run_id=run_id,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    errors: dict[str, str] = {}
    seconds = dict.fromkeys(models, 0.0)
    for event in result.all_events:
        name = (event.step_key or "").partition("__")[0]
        if event.is_step_failure:
            data = event.step_failure_data
            user = data.user_failure_data.description if data.user_failure_data else None
            text = user or (data.error.message if data.error else event.message)
            errors.setdefault(name, text or "")
        elif event.is_step_success and name in seconds:
            seconds[name] += event.step_success_data.duration_ms / 1000
    whole = sum(seconds.values()) or 1.0
    cpu = time.process_time() - began
    return Done({name: cpu * share / whole for name, share in seconds.items()}, errors)


def cancel(settings: Settings, run_ids: Sequence[str], why: str) -> None:
    """Report runs whose process is gone, unless they have ended."""
    with local_instance(settings) as instance:
        for run_id in run_ids:
            _cancel(instance, run_id, why)


def _cancel(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Report a run as canceled.

    Dagster has no public call for whoever executes a run himself to say so; this is the one that
    its own launchers use.
    """
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_canceled(run, f"canceled: {why}")


def _cancel_orphans(instance: dg.DagsterInstance) -> None:
    """Runs of an earlier command on this machine that was killed together with its workers."""
    for run in runs_in_progress(instance):
        own = run.tags.get(Tag.TRIGGER) == "on_demand" and _BY_SENSOR not in run.tags
        tag = run.tags.get(Tag.PROCESS, "")
        if own and tag.split(" ")[0] == host() and living(tag) is None:
            _cancel(instance, run.run_id, "its process is gone")
