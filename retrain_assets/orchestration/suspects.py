"""Groups of models whose data is suspected, since many of them began to drift together.

Belongs here: what the drift sensor remembers of reports and suspicions, and telling people. Does not: the
rule (`policy.suspect`), what a held model waits for (`policy.guards`).
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from retrain_assets.orchestration.observe import ModelState
from retrain_assets.policy import Reported, SuspectRule, Suspicion, suspected
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.types import rough_duration

__all__ = ["Suspects"]

_NO_GROUP = ""


class Suspects:
    """The newest report of every model that reported lately, and the suspicions by group.

    Models without `group` in their spec are one group together.
    """

    def __init__(self, reports: dict[str, Reported], suspicions: dict[str, Suspicion]) -> None:
        self._reports = reports
        self._suspicions = suspicions

    @classmethod
    def stored(cls, cursor: Mapping[str, Any]) -> "Suspects":
        """From what `to_store` gave."""
        reports = {
            name: Reported(_moment(at), None if began is None else _moment(began))
            for name, (at, began) in cursor.get("reports", {}).items()
        }
        suspicions = {
            group: Suspicion(_moment(since), alarmed, reported)
            for group, (since, alarmed, reported) in cursor.get("suspect", {}).items()
        }
        return cls(reports, suspicions)

    def to_store(self) -> dict[str, Any]:
        """What the cursor keeps."""
        reports = {
            name: [one.at.timestamp(), one.alarm_began and one.alarm_began.timestamp()]
            for name, one in self._reports.items()
        }
        suspicions = {
            group: [one.since.timestamp(), one.alarmed, one.reported]
            for group, one in self._suspicions.items()
        }
        return {"reports": reports, "suspect": suspicions}

    def update(
        self, states: Mapping[str, ModelState], specs: Mapping[str, ModelSpec], settings: Settings
    ) -> list[str]:
        """Take in what this tick has read; returns the groups that are suspected from now on."""
        for state in states.values():
            report = state.latest.get("drift_report")
            if report is not None:
                self._saw(state, _moment(report.timestamp), alarmed=state.alarms(report))
        now, rule = datetime.now(UTC), _rule(settings)
        members: dict[str, list[Reported]] = {}
        for name, one in self._reports.items():
            if name in specs:
                members.setdefault(_group(specs[name]), []).append(one)
        before, self._suspicions = self._suspicions, {}
        for group, reports in members.items():
            found = suspected(rule, reports, now, before.get(group))
            if found is not None:
                self._suspicions[group] = found
        self._forget(specs, now - rule.window)
        return [group for group in self._suspicions if group not in before]

    def _saw(self, state: ModelState, at: datetime, *, alarmed: bool) -> None:
        name, suspicion = state.spec.name, self._suspicions.get(_group(state.spec))
        known = self._reports.get(name)
        if suspicion and state.judged and state.judged.judged_at >= suspicion.since:
            alarmed = False  # somebody has retrained it all the same
        began = (known and known.alarm_began) or at
        self._reports[name] = Reported(at, began if alarmed else None)

    def _forget(self, specs: Mapping[str, ModelSpec], before: datetime) -> None:
        """Old reports without an alarm say nothing about what happens now."""
        self._reports = {
            name: one
            for name, one in self._reports.items()
            if name in specs
            and (one.alarm_began or one.at >= before or _group(specs[name]) in self._suspicions)
        }

    def text(self, spec: ModelSpec, settings: Settings) -> str:
        """Why drift of this model is held back, "" where it is not; the same while it lasts."""
        one = self._suspicions.get(_group(spec))
        if one is None:
            return ""
        until = one.since + settings.suspect_hold
        return (
            f"{_numbers(spec, one, settings)}: suspect the data; held until most alarms are gone, at "
            f"most until {until:%Y-%m-%d %H:%M} UTC, or `{_command(spec)}`"
        )

    def tell(
        self,
        groups: Iterable[str],
        specs: Mapping[str, ModelSpec],
        settings: Settings,
        log: logging.Logger,
    ) -> None:
        """One message for each group that is suspected from now on, to the targets of all its models."""
        from retrain_assets.alerts.message import Message
        from retrain_assets.alerts.send import send

        for group in groups:
            members = [spec for spec in specs.values() if _group(spec) == group]
            said = _numbers(members[0], self._suspicions[group], settings)
            alarmed = sorted(
                name for name, one in self._reports.items()
                if name in specs and one.alarm_began and _group(specs[name]) == group
            )  # fmt: skip
            body = (
                f"{said}. One broken source behind them is likelier than so many changes of the world: "
                f"look at the data first. Their drift retrainings are held for up to "
                f"{rough_duration(settings.suspect_hold)}; `{_command(members[0])}` retrains them all "
                f"the same.\n\n{', '.join(alarmed[:20])}{' …' if len(alarmed) > 20 else ''}"
            )
            title = f"{said}: suspect the data"
            log.warning(title)
            targets = sorted({target for spec in members for target in spec.alerts})
            url = f"{settings.dagster_url}/asset-groups"
            for delivery in send(Message("suspect_data", None, title, body, url), targets):
                if not delivery.delivered:
                    log.warning(f"alert not sent to {delivery.target}: {delivery.error}")


def _group(spec: ModelSpec) -> str:
    return spec.group or _NO_GROUP


def _numbers(spec: ModelSpec, one: Suspicion, settings: Settings) -> str:
    whose = f"of group {spec.group}" if spec.group else "without a group"
    return (
        f"{one.alarmed} of {one.reported} models {whose} began to drift within "
        f"{rough_duration(settings.suspect_window)}"
    )


def _command(spec: ModelSpec) -> str:
    return f"retrain now --group {spec.group}" if spec.group else f"retrain now {spec.name}"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _rule(settings: Settings) -> SuspectRule:
    return SuspectRule(
        settings.suspect_models,
        settings.suspect_share,
        settings.suspect_window,
        settings.suspect_hold,
    )
