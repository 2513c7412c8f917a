"""Single lines of the JSON logs."""

import json
import logging
import sys

from retrain_assets.orchestration.logs import EventFilter, JsonFormatter


def record(level: int, message: str, **metadata: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"levelno": level, "levelname": "X", "msg": message})
    if metadata:
        made.dagster_meta = {"orig_message": message, "dagster_event": None, **metadata}
    return made


def line(made: logging.LogRecord) -> dict[str, str]:
    text = JsonFormatter().format(made)
    assert "\n" not in text
    found: dict[str, str] = json.loads(text)
    return found


def test_a_retraining_names_its_decision() -> None:
    tags = {"retrain/model": "churn", "retrain/kind": "retrain", "retrain.decision/churn": "d1",
            "dagster/partition": "2024-01-06"}  # fmt: skip
    found = line(
        record(20, "trained", job_tags=tags, run_id="r1", step_key="churn__candidate_model")
    )
    assert {**found, "time": ""} == {
        "time": "", "level": "X", "message": "trained", "model": "churn", "run": "r1",
        "asset": "churn/candidate_model", "partition": "2024-01-06", "kind": "retrain", "decision": "d1",
    }  # fmt: skip


def test_a_range_names_both_ends() -> None:
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    assert line(record(20, "x", job_tags=tags))["partition"] == "a...b"


def test_an_exception_stays_on_its_line_with_its_stack() -> None:
    made = record(40, "it failed")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        made.exc_info = sys.exc_info()
    found = line(made)
    assert found["error"].startswith("Traceback")
    assert found["error"].endswith("ValueError: first\nsecond")


def test_chatter_below_info_is_left_out() -> None:
    assert not EventFilter().filter(record(10, "loaded input"))
    assert EventFilter().filter(record(20, "said"))
