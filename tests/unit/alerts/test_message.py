"""What a message says, before anybody sends it."""

from __future__ import annotations

from typing import get_args

import pytest

from retrain_assets.alerts.message import Kind, Message
from retrain_assets.alerts.send import Delivery, send, target_variable


def test_every_kind_has_a_severity_and_only_a_promotion_is_good_news() -> None:
    found = {kind: Message(kind, "m", "t", "b").severity for kind in get_args(Kind)}
    assert set(found.values()) == {"failure", "warning", "success"}
    assert [kind for kind, severity in found.items() if severity == "success"] == ["promoted"]


def test_a_subject_is_one_line_and_names_the_model_once() -> None:
    assert (
        Message("drift", "churn", "3 features\n drifted", "").subject()
        == "churn: 3 features drifted"
    )
    assert Message("drift", "churn", "churn drifted", "").subject() == "churn drifted"
    assert Message("broken_spec", None, "2 broken specs", "").subject() == "2 broken specs"


@pytest.mark.parametrize(
    ("body", "url", "expected"),
    [
        ("text\n", None, "text"),
        ("text", "http://ui/runs/1", "text\n\n[Details](http://ui/runs/1)"),
        ("", "http://ui/runs/1", "[Details](http://ui/runs/1)"),
    ],
)
def test_the_link_stands_below_the_body(body: str, url: str | None, expected: str) -> None:
    assert Message("drift", "m", "t", body, url).markdown() == expected


def test_a_target_without_its_variable_is_an_undelivered_delivery_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RETRAIN_ALERT_OPS", raising=False)
    monkeypatch.setenv("RETRAIN_ALERT_DATA_TEAM", "  ")
    found = send(Message("drift", "m", "t", "b"), ["ops", "data_team"])
    assert [(d.target, d.delivered) for d in found] == [("ops", False), ("data_team", False)]
    assert found[0].error is not None
    assert "RETRAIN_ALERT_OPS is not set" in found[0].error
    assert found[1].error is not None
    assert target_variable("data_team") in found[1].error


def test_no_targets_are_no_deliveries() -> None:
    deliveries: list[Delivery] = send(Message("drift", "m", "t", "b"), [])
    assert deliveries == []
