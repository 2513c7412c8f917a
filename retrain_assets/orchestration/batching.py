"""How retrainings become runs: many models of the same partition in one, bounded in size.

Belongs here: which models share a run, its name, tags and selection. Does not: whether a model is
retrained (`deciding`), when anybody asks (`sensors`, `schedules`, `on_demand`).

A run process costs about 5 CPU seconds before its first step, a retraining of a small model well under
one. Steps of several models do not depend on each other: one that fails or is rejected fails the run,
and stops nobody else; tags, alerts, retries and the ledger's rows are kept by model.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import dagster as dg

from retrain_assets.orchestration.keys import Tag, retrain_keys
from retrain_assets.orchestration.kubernetes import run_tags
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["Wanted", "grouped", "run_requests"]


@dataclass(frozen=True)
class Wanted:
    """One model that is to be retrained.

    Attributes:
        partition: what for; None without partitions.
        key: what makes the request unique.
        attempt: 1 the first time. What failed before is tried again alone.
        trigger, reason, decision: why, and the digest of the decision's row.
    """

    spec: ModelSpec
    partition: str | None
    key: str
    attempt: int
    trigger: str
    reason: str
    decision: str

    @property
    def run_key(self) -> str:
        """Key of a run for this model alone."""
        return self.key if self.attempt == 1 else f"{self.key}|{self.attempt}"

    @property
    def tags(self) -> dict[str, str]:
        """What a run says about this model, whatever else it carries."""
        name = self.spec.name
        return {
            Tag.request(name): self.key,
            Tag.decision(name): self.decision,
            Tag.trigger(name): self.trigger,
            Tag.reason(name): self.reason,
        }


def run_requests(wanted: Sequence[Wanted], settings: Settings) -> list[dg.RunRequest]:
    """The runs that retrain these models."""
    found = grouped(wanted, settings.parallel_runs, settings.batch_size)
    return [_alone(*one) if len(one) == 1 else _together(one) for one in found]


def grouped(wanted: Sequence[Wanted], parallel: int, most: int) -> list[list[Wanted]]:
    """Who shares a run: n models that may are spread over at least min(n, parallel) runs.

    Only models with the same partitions and without a request of their own for memory or a GPU share
    one, and only in their first attempt.

    Args:
        parallel: how many runs may go on at once.
        most: models in one run.
    """
    alike: dict[Any, list[Wanted]] = {}
    for one in wanted:
        shares = one.attempt == 1 and not any(r.isolated for r in one.spec.resources.values())
        alike.setdefault((one.spec.scheme, one.partition) if shares else one.run_key, []).append(
            one
        )
    return [part for members in alike.values() for part in _spread(members, parallel, most)]


def _spread(members: list[Wanted], parallel: int, most: int) -> Iterable[list[Wanted]]:
    """Parts that differ by one at most, so that the last run is not the one all wait for."""
    count = max(ceil(len(members) / most), min(len(members), parallel))
    for i in range(count):
        yield members[i * len(members) // count : (i + 1) * len(members) // count]


def _alone(one: Wanted) -> dg.RunRequest:
    tags = {Tag.MODEL: one.spec.name, **run_tags(one.spec, _selection([one]))}
    return _request([one], one.run_key, tags)


def _together(members: list[Wanted]) -> dg.RunRequest:
    names = [one.spec.name for one in members]
    digest = hashlib.sha256("\n".join(one.run_key for one in members).encode()).hexdigest()[:16]
    return _request(members, f"retrain|{digest}", {Tag.MODELS: ",".join(names)})


def _request(members: list[Wanted], run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    first = members[0]
    triggers = sorted({one.trigger for one in members})
    reasons = sorted({one.reason for one in members})
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=_selection(members),
        partition_key=first.partition,
        tags={
            Tag.KIND: "retrain",
            Tag.TRIGGER: ",".join(triggers),
            Tag.REASON: reasons[0] if len(reasons) == 1 else f"{len(members)} models",
            Tag.QUEUE: f"retrain:{first.spec.name}",
            **{key: value for one in members for key, value in one.tags.items()},
            **tags,
        },
    )


def _selection(members: Sequence[Wanted]) -> list[dg.AssetKey]:
    return [
        key
        for one in members
        for key in retrain_keys(one.spec.name, partitioned=one.spec.scheme is not None)
    ]
