"""One JSON object per event on standard output, for log collectors; an instance's `dagster.yaml` asks for it:

    python_logs:
      python_log_level: INFO
      dagster_handler_config:
        handlers:
          json: {class: logging.StreamHandler, stream: "ext://sys.stdout", level: DEBUG,
                 formatter: json, filters: [events]}
        formatters: {json: {(): retrain_assets.orchestration.logs.JsonFormatter}}
        filters: {events: {(): retrain_assets.orchestration.logs.EventFilter}}

https://docs.dagster.io/guides/log-debug/logging/python-logging

Dagster marks that section beta. The alternative, `loggers` of `Definitions`, is used by runs only whose
configuration names the logger, which those started in the UI do not. Without the section, as on a laptop,
lines are text for people.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from retrain_assets.orchestration.keys import Tag

__all__ = ["EventFilter", "JsonFormatter"]

_EVENTS = {
    "PIPELINE_START", "PIPELINE_SUCCESS", "PIPELINE_CANCELED", "STEP_START", "STEP_SUCCESS",
    "STEP_UP_FOR_RETRY", "STEP_SKIPPED", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION",
}  # fmt: skip


class EventFilter(logging.Filter):
    """What is said at level INFO or above, and the landmarks of a run that Dagster logs at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record becomes a line."""
        event = _metadata(record).get("dagster_event")
        return record.levelno >= logging.INFO or (
            event is not None and event.event_type_value in _EVENTS
        )


class JsonFormatter(logging.Formatter):
    """time, level, message; and where there is one: model, asset, partition, run, decision, event, error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a field without a value is left out."""
        said = _metadata(record)
        tags, event = said.get("job_tags") or {}, said.get("dagster_event")
        asset = _asset(said.get("step_key"))
        model = asset.partition("/")[0] or tags.get(Tag.MODEL) or tags.get(Tag.MODELS) or ""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": said.get("orig_message") or record.getMessage(),
            "model": model,
            "asset": asset,
            "partition": _partition(tags, event),
            "run": said.get("run_id"),
            "kind": tags.get(Tag.KIND),
            "decision": tags.get(Tag.decision(model)),
            "event": event.event_type_value if event is not None else None,
            "error": _error(record, event),
        }
        return json.dumps({name: value for name, value in line.items() if value}, default=str)


def _metadata(record: logging.LogRecord) -> dict[str, Any]:
    """What Dagster knows about the record; nothing for one that is not Dagster's."""
    found: dict[str, Any] = getattr(record, "dagster_meta", {})
    return found


def _asset(step_key: str | None) -> str:
    """`model/stage` of a step; "" for none."""
    return "/".join((step_key or "").rsplit("__", 1))


def _partition(tags: dict[str, str], event: dg.DagsterEvent | None) -> str | None:
    if event is not None and event.is_step_materialization and event.partition:
        return event.partition
    first = tags.get("dagster/asset_partition_range_start")
    if first is not None:
        return f"{first}...{tags.get('dagster/asset_partition_range_end')}"
    return tags.get("dagster/partition")


def _error(record: logging.LogRecord, event: dg.DagsterEvent | None) -> str | None:
    """Message and stack of what failed: of the event, else of the exception that was logged."""
    if record.exc_info and record.exc_info[0] is not None:
        return logging.Formatter().formatException(record.exc_info)
    error = getattr(event.event_specific_data, "error", None) if event is not None else None
    return error.to_string() if error is not None else None
