"""What Dagster and the ledger know about all models, in a fixed number of batched reads.

Belongs here: reading. Does not: deciding (`retrain_assets.policy`), requesting runs (`sensors`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.orchestration.keys import asset_key
from retrain_assets.policy import Evidence, History
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.promotion.ledger import Ledger, Promotion

__all__ = ["IN_PROGRESS", "Latest", "ModelState", "end_of", "observe"]

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Latest:
    """The newest materialization of one asset (not of its newest partition)."""

    storage_id: int
    partition: str | None
    timestamp: float
    metadata: Mapping[str, object]


@dataclass(frozen=True)
class ModelState:
    """One model at one moment.

    Attributes:
        spec: the model.
        latest: newest materialization by stage; stages that never ran are missing.
        champion: the ledger's champion.
        in_flight: id of a queued or running retraining, if any.
        vacancy: the ledger's row since which there is no champion; None where it never had one too.
    """

    spec: ModelSpec
    latest: Mapping[str, Latest]
    champion: "Promotion | None"
    in_flight: str | None
    vacancy: "Promotion | None" = None

    def now(self, partition: str | None) -> datetime:
        """Data time: the end of `partition`; the moment of the last read without partitions."""
        return end_of(self.spec, partition, self.latest.get("features"))

    def evidence(self, partition: str | None, *, partitions: int, alarm: bool = False) -> Evidence:
        """Evidence for a decision about training on data up to `partition`."""
        age: timedelta | None = None
        if self.champion is not None:
            trained = _promoted_data_end(self.spec, self.champion)
            age = max(self.now(partition) - trained, timedelta(0))
        return Evidence(
            has_champion=self.champion is not None,
            partitions=partitions,
            needed=self.spec.min_window + self.spec.train.label_delay if self.spec.scheme else 1,
            drift_alarm=alarm,
            champion_age=age,
        )

    def history(self) -> History:
        """What was done before, for the guards."""
        candidate = self.latest.get("candidate_model")
        last = None
        lost = self.vacancy.promoted_at.timestamp() if self.vacancy else 0.0
        # What was trained before the champion was lost holds nothing back.
        if candidate is not None and candidate.timestamp > lost:
            last = end_of(self.spec, candidate.partition, candidate)
        return History(in_flight=self.in_flight is not None, last_retraining=last)


def end_of(spec: ModelSpec, partition: str | None, latest: Latest | None) -> datetime:
    """End of a partition; of an unpartitioned table, when it was last written (or now)."""
    from datetime import UTC

    if spec.scheme is not None and partition is not None:
        return spec.scheme.window(partition).end
    return datetime.fromtimestamp(latest.timestamp, UTC) if latest else datetime.now(UTC)


def _promoted_data_end(spec: ModelSpec, champion: "Promotion") -> datetime:
    if spec.scheme is not None and champion.partition is not None:
        return spec.scheme.window(champion.partition).end
    return champion.promoted_at


def observe(
    instance: dg.DagsterInstance,
    ledger: "Ledger",
    specs: Iterable[ModelSpec],
    stages: tuple[str, ...] = ("features", "drift_report", "candidate_model"),
) -> dict[str, ModelState]:
    """State of every model: one read of the event log, one of the runs, one of the ledger."""
    by_name = {spec.name: spec for spec in specs}
    keys = {asset_key(name, stage): (name, stage) for name in by_name for stage in stages}
    latest: dict[str, dict[str, Latest]] = {name: {} for name in by_name}
    for record in instance.get_asset_records(list(keys)):
        entry = record.asset_entry
        record_of = entry.last_materialization_record
        materialization = record_of.asset_materialization if record_of else None
        found = keys.get(entry.asset_key)
        if materialization is None or found is None or record_of is None:
            continue
        name, stage = found
        latest[name][stage] = Latest(
            storage_id=record_of.storage_id,
            partition=record_of.partition_key,
            timestamp=record_of.timestamp,
            metadata={key: value.value for key, value in materialization.metadata.items()},
        )
    in_flight: dict[str, str] = {}
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=IN_PROGRESS)):
        for key in run.asset_selection or ():
            if key.path[-1] == "candidate_model":
                in_flight[key.path[0]] = run.run_id
    newest = ledger.newest(list(by_name))
    states = {}
    for name, spec in by_name.items():
        row = newest.get(name)
        vacant = row is not None and row.is_vacancy
        states[name] = ModelState(
            spec=spec,
            latest=latest[name],
            champion=None if vacant else row,
            in_flight=in_flight.get(name),
            vacancy=row if vacant else None,
        )
    return states
