"""Alerts from inside a run: sent at once, reported in the log, never a reason to fail."""

from typing import Literal

import dagster as dg

from retrain_assets.orchestration.platform import Platform
from retrain_assets.spec.model import ModelSpec

__all__ = ["alert"]


def alert(
    context: dg.AssetExecutionContext,
    spec: ModelSpec,
    kind: Literal["drift", "guard", "rejected"],
    title: str,
    body: str,
) -> None:
    """Send one message to the targets of the spec and log what became of it."""
    if not spec.alerts:
        return
    from retrain_assets.alerts.message import Message
    from retrain_assets.alerts.send import send

    platform: Platform = context.resources.platform
    url = f"{platform.settings.dagster_url}/runs/{context.run.run_id}"
    message = Message(kind=kind, model=spec.name, title=title, body=body, url=url)
    for delivery in send(message, spec.alerts):
        if delivery.delivered:
            context.log.info(f"alert '{title}' sent to {delivery.target}")
        else:
            context.log.warning(f"alert '{title}' not sent to {delivery.target}: {delivery.error}")
