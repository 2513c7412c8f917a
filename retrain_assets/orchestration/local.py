"""A daemon in one process: evaluates the real sensors and executes what they request, in turn.

For the demo and for tests. It goes through the same definitions, sensors and jobs as `dagster dev`;
only the daemon's loop, queue and processes are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

__all__ = ["Executed", "LocalLoop"]


@dataclass(frozen=True)
class Executed:
    """A run that a tick requested, and its result.

    Attributes:
        source: the sensor or schedule that requested it.
        success: whether the run succeeded.
        error: message of the first failed step, "" on success.
        rejected: the run failed because the gate rejected the candidate, and for nothing else.
    """

    source: str
    request: dg.RunRequest
    success: bool
    result: dg.ExecuteInProcessResult
    error: str = ""
    rejected: bool = False


@dataclass
class LocalLoop:
    """Evaluates sensors and schedules and executes their run requests in this process.

    Cursors and run keys are kept as the daemon keeps them: a run key fires once.

    Attributes:
        log_level: least severe of Dagster's own log lines that are printed.
    """

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict)
    run_keys: set[tuple[str, str]] = field(default_factory=set)
    log_level: str = "CRITICAL"

    def evaluate(self, sensor: str) -> list[dg.RunRequest]:
        """One tick of a sensor: its requests whose run key is new. Stores the cursor."""
        repository = self.definitions.get_repository_def()
        definition = repository.get_sensor_def(sensor)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor),
            repository_def=repository,
            resources=self._resources(definition.required_resource_keys),
            sensor_name=sensor,
        )
        data = definition.evaluate_tick(context)
        self.cursors[sensor] = data.cursor
        return self._new(sensor, data.run_requests or [])

    def evaluate_schedule(self, schedule: str, at: datetime) -> list[dg.RunRequest]:
        """One tick of a schedule at `at`: its requests whose run key is new."""
        repository = self.definitions.get_repository_def()
        definition = repository.get_schedule_def(schedule)
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at,
            repository_def=repository,
            resources=self._resources(definition.required_resource_keys),
        )
        return self._new(schedule, definition.evaluate_tick(context).run_requests or [])

    def tick(self, *sensors: str) -> list[Executed]:
        """One tick of each sensor in order; requested runs are executed before the next sensor."""
        done: list[Executed] = []
        for sensor in sensors or ("arrivals", "drift_sensor", "freshness_sensor"):
            done += [self.execute(sensor, request) for request in self.evaluate(sensor)]
        return done

    def execute(self, source: str, request: dg.RunRequest) -> Executed:
        """Execute one requested run in this process."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or []),
            partition_key=request.partition_key,
            tags={k: v for k, v in request.tags.items() if k != "dagster/partition"},
            run_config={"loggers": {"console": {"config": {"log_level": self.log_level}}}},
            raise_on_error=False,
        )
        return Executed(
            source, request, result.success, result, _first_error(result), _rejected(result)
        )

    def _new(self, source: str, requests: Sequence[dg.RunRequest]) -> list[dg.RunRequest]:
        fresh = []
        for request in requests:
            key = (source, request.run_key or "")
            if request.run_key is None or key not in self.run_keys:
                self.run_keys.add(key)
                fresh.append(request)
        return fresh

    def _resources(self, keys: set[str]) -> Mapping[str, object]:
        resources = self.definitions.resources or {}
        return {key: resources[key] for key in keys}


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return data.user_failure_data.description
            return data.error.to_string() if data.error else str(event.message)
    return ""


def _rejected(result: dg.ExecuteInProcessResult) -> bool:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return bool(failures) and all(
        data.user_failure_data is not None and "retrain/rejected" in data.user_failure_data.metadata
        for data in failures
    )
