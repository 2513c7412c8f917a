"""Alerts from runs and sensors: sent at once, reported in the log, never a reason to fail."""

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import dagster as dg

from retrain_assets.orchestration.platform import Platform
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.alerts.message import Message
    from retrain_assets.promotion.reconcile import Repair

__all__ = ["alert", "repair_message", "send_logged"]

_PROMOTION_IN_PROGRESS = timedelta(minutes=2)


def alert(
    context: dg.AssetExecutionContext,
    spec: ModelSpec,
    kind: Literal["drift", "guard", "rejected", "approval"],
    title: str,
    body: str,
) -> None:
    """Send one message to the targets of the spec and log what became of it."""
    if not spec.alerts:
        return
    from retrain_assets.alerts.message import Message

    platform: Platform = context.resources.platform
    url = f"{platform.settings.dagster_url}/runs/{context.run.run_id}"
    send_logged(Message(kind, spec.name, title, body, url), spec, context.log)


def send_logged(message: "Message", spec: ModelSpec, log: logging.Logger) -> None:
    """Send a message to the targets of the spec and log what became of it."""
    from retrain_assets.alerts.send import send

    for delivery in send(message, spec.alerts):
        if delivery.delivered:
            log.info(f"alert '{message.title}' sent to {delivery.target}")
        else:
            log.warning(f"alert '{message.title}' not sent to {delivery.target}: {delivery.error}")


def repair_message(repair: "Repair", url: str) -> "Message | None":
    """What people are told about a difference between ledger and registry; None if nothing.

    Whoever promotes writes the ledger first and the aliases after: aliases that are behind for less
    than two minutes are the work of nobody's hands.
    """
    from retrain_assets.alerts.message import Message

    young = datetime.now(UTC) - repair.since < _PROMOTION_IN_PROGRESS
    if repair.kind == "known" or (repair.kind == "aliases" and young):
        return None
    what = {
        "aliases": "aliases were set again",
        "no_previous": "the champion before was deleted",
        "fallback": "an earlier champion serves again",
        "vacancy": "no champion",
        "unresolved": "champion lost",
    }[repair.kind]
    harmless = repair.kind in ("aliases", "no_previous")
    return Message(
        "aliases" if harmless else "champion_lost",
        repair.model, f"{repair.model}: {what}", repair.text, url,
    )  # fmt: skip
