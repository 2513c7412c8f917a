"""What Dagster and the ledger know about all models, in a fixed number of batched reads.

Belongs here: reading. Does not: deciding (`retrain_assets.policy`), requesting runs (`deciding`).

What `drift_report` has computed, the champion's performance among it, is read from the metadata of its
materialization, which comes with the one read of the event log.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from retrain_assets.orchestration.keys import EVIDENCE, Tag, asset_key, models_of
from retrain_assets.performance.measured import Performance, expanded
from retrain_assets.policy import Evidence, History, PastRun
from retrain_assets.spec.code import training_code
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.promotion.decisions import Judgement
    from retrain_assets.promotion.ledger import Ledger, Promotion

__all__ = [
    "Latest",
    "ModelState",
    "end_of",
    "observe",
    "plain",
    "runs_in_progress",
    "with_past",
]

_IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Latest:
    """The newest materialization of one asset (not of its newest partition).

    Attributes:
        run_id: "" of one that no run has made.
    """

    storage_id: int
    partition: str | None
    timestamp: float
    metadata: Mapping[str, object]
    run_id: str = ""


@dataclass(frozen=True)
class ModelState:
    """One model at one moment.

    Attributes:
        spec: the model.
        latest: newest materialization by stage; stages that never ran are missing.
        champion: the ledger's champion.
        in_flight: id of a queued or running retraining, if any.
        decides_itself: what is in flight is a monitor run that decides at its end (`retrain.inline`).
        vacancy: the ledger's row since which there is no champion; None where it never had one too.
        judged: the last retraining: the last candidate that was judged, whatever the verdict.
        asked_by: the trigger that had asked for it, where the policy has follow-ups.
        bad_data: the newest partition that was ever bad, and its problem ("" when it was mended).
        run_ids: of the latest runs of the assets that were read, however they ended.
    """

    spec: ModelSpec
    latest: Mapping[str, Latest]
    champion: "Promotion | None"
    in_flight: str | None
    decides_itself: bool = False
    vacancy: "Promotion | None" = None
    judged: "Judgement | None" = None
    bad_data: tuple[str, str] | None = None
    run_ids: frozenset[str] = frozenset()
    asked_by: str | None = None

    def now(self, partition: str | None) -> datetime:
        """Data time: the end of `partition`; the moment of the last read without partitions."""
        return end_of(self.spec, partition, self.latest.get("features"))

    def evidence(
        self,
        partition: str | None,
        *,
        partitions: int,
        report: Latest | None = None,
        new_partitions: int | None = None,
        asked: Literal["schedule", "on_demand"] | None = None,
    ) -> Evidence:
        """Evidence for a decision about training on data up to `partition`.

        Args:
            partition: the newest feature partition.
            partitions: how many there are.
            report: the drift report that the decision looks at; None where it looks at none.
            new_partitions: since the last retraining.
            asked: what asks from outside.
        """
        age: timedelta | None = None
        if self.champion is not None:
            trained = _promoted_data_end(self.spec, self.champion)
            age = max(self.now(partition) - trained, timedelta(0))
        values = report.metadata if report else {}
        expected, performance = self.performance()
        return Evidence(
            has_champion=self.champion is not None,
            partitions=partitions,
            needed=self.spec.min_window + self.spec.train.label_delay if self.spec.scheme else 1,
            drift_alarm=self.alarms(report) if report else None,
            drift_score=_number(values.get("drift_score")),
            prediction_drift=_truth(values.get("prediction_drifted")),
            performance=performance,
            expected=expected,
            bad_data=self._newest_is_bad(partition),
            champion_age=age,
            new_partitions=new_partitions,
            promoted_by=self._promoted_by(),
            changed=self._changed(),
            asked=asked,
        )

    def alarms(self, report: Latest) -> bool:
        """Whether a report raises the alarm about the present champion, not a former one."""
        present = f"champion v{self.champion.version}" if self.champion else None
        reference = str(report.metadata.get("reference"))
        stale = reference.startswith("champion v") and reference != present
        return bool(report.metadata.get("alarm")) and not stale

    def performance(self) -> tuple[Performance | None, tuple[Performance, ...]]:
        """The present champion's on its holdout and since, as the newest report has measured it."""
        return self._performance

    @cached_property
    def _performance(self) -> tuple[Performance | None, tuple[Performance, ...]]:
        report = self.latest.get("drift_report")
        found: Any = report.metadata.get(EVIDENCE) if report else None
        if not found or self.champion is None or found["champion"] != self.champion.version:
            return None, ()
        expected, *partitions = expanded(found["performance"])
        return expected, tuple(partitions)

    def _newest_is_bad(self, partition: str | None) -> str:
        """What is wrong with the newest data; a later partition than the bad one has superseded it."""
        where, problem = self.bad_data or ("", "")
        return problem if partition is None or where >= partition else ""

    def new_partitions(
        self, partition: str | None, stored: Collection[str] | None = None
    ) -> int | None:
        """Feature partitions since the last retraining; None without one.

        Args:
            partition: the newest feature partition as far as the tick knows.
            stored: the partitions that exist; None counts those that the calendar has, which may be
                more. Counted only where the policy asks.
        """
        policy = self.spec.retrain
        asked = (
            policy.on_new_partitions is not None
            or policy.min_new_partitions > 1
            or policy.cost is not None
            or policy.follow_up is not None
        )
        last = self.judged.partition if self.judged else None
        if not asked or self.spec.scheme is None or partition is None or last is None:
            return None
        if stored is not None:
            return sum(key > last for key in stored)
        return max(len(self.spec.scheme.between(last, partition)) - 1, 0)

    def _promoted_by(self) -> str | None:
        """The trigger of the last retraining where its candidate is the champion now."""
        if self.judged is None or self.champion is None:
            return None
        return self.asked_by if self.judged.version == self.champion.version else None

    def _changed(self) -> bool | None:
        """Whether code or spec changed since the last retraining; None where it cannot be told."""
        if not self.spec.retrain.on_change or self.judged is None:
            return None
        return self.judged.training_code != training_code(self.spec)

    def history(self) -> History:
        """What was done before, as far as the reads of all models show it; see `with_past`."""
        last, judged = None, self.judged
        # What was judged before the champion was lost holds nothing back.
        if judged is not None and not (
            self.vacancy and judged.judged_at < self.vacancy.promoted_at
        ):
            last = judged.judged_at
            if self.spec.scheme is not None and judged.partition is not None:
                last = self.spec.scheme.window(judged.partition).end
        return History(in_flight=self.in_flight is not None, last_retraining=last)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def with_past(
    instance: dg.DagsterInstance,
    ledger: "Ledger",
    histories: Mapping[str, tuple[ModelSpec, History]],
) -> dict[str, History]:
    """Histories by model with rejections and past runs, where the policy asks for them.

    Two reads in all, and only for models that are about to be retrained: they grow with what happened
    in the last week.
    """
    from retrain_assets.promotion.decisions import Decisions

    backing_off = [name for name, (spec, _) in histories.items() if spec.retrain.backoff]
    budgeted = {name for name, (spec, _) in histories.items() if spec.retrain.budget}
    rejections = Decisions(ledger).rejections(backing_off) if backing_off else {}
    runs = _past_runs(instance, budgeted) if budgeted else {}
    return {
        name: replace(history, rejections=rejections.get(name), runs=runs.get(name))
        for name, (_, history) in histories.items()
    }


def _past_runs(
    instance: dg.DagsterInstance, models: Collection[str]
) -> dict[str, tuple[PastRun, ...]]:
    """Retrainings that sensors and schedules started in the last 7 days, on the wall clock.

    A run of several models has run for each of them an equal part of its time.
    """
    now = datetime.now(UTC)
    found: dict[str, list[PastRun]] = {name: [] for name in models}
    for tags in ({Tag.KIND: "retrain"}, {Tag.INLINE: "retrain"}):
        for record in instance.get_run_records(
            filters=dg.RunsFilter(tags=tags, created_after=now - timedelta(days=7))
        ):
            run = record.dagster_run
            retrained = models_of(run.asset_selection, "candidate_model")
            if run.tags.get(Tag.TRIGGER) == "on_demand":
                continue
            if Tag.INLINE in run.tags:
                retrained = [name for name in retrained if Tag.decision(name) in run.tags]
            seconds = (
                0.0
                if record.start_time is None
                else (record.end_time or now.timestamp()) - record.start_time
            )
            for name in found.keys() & set(retrained):
                past = PastRun(now - record.create_timestamp, seconds / len(retrained))
                found[name].append(past)
    return {name: tuple(runs) for name, runs in found.items()}


def end_of(spec: ModelSpec, partition: str | None, latest: Latest | None) -> datetime:
    """End of a partition; of an unpartitioned table, when it was last written (or now)."""
    if spec.scheme is not None and partition is not None:
        return spec.scheme.window(partition).end
    return datetime.fromtimestamp(latest.timestamp, UTC) if latest else datetime.now(UTC)


def _promoted_data_end(spec: ModelSpec, champion: "Promotion") -> datetime:
    if spec.scheme is not None and champion.partition is not None:
        return spec.scheme.window(champion.partition).end
    return champion.promoted_at


def runs_in_progress(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """The runs that have not ended."""
    return instance.get_runs(filters=dg.RunsFilter(statuses=_IN_PROGRESS))


def observe(
    instance: dg.DagsterInstance,
    ledger: "Ledger",
    specs: Iterable[ModelSpec],
    *,
    stages: Callable[[ModelSpec], tuple[str, ...]] = lambda _: ("features", "drift_report"),
    running: Sequence[dg.DagsterRun] | None = None,
    but: str | None = None,
) -> dict[str, ModelState]:
    """State of every model: one read of the event log, one of the runs, three of the ledger.

    Args:
        stages: whose newest materialization is read, by model.
        running: the runs that have not ended, where the caller has read them.
        but: id of a run that asks itself, which is no retraining in flight.
    """
    from retrain_assets.promotion.decisions import Decisions

    by_name = {spec.name: spec for spec in specs}
    latest, run_ids = _events(instance, {name: stages(spec) for name, spec in by_name.items()})
    in_flight: dict[str, str] = {}
    inline: set[str] = set()
    for run in runs_in_progress(instance) if running is None else running:
        for name in models_of(run.asset_selection, "candidate_model"):
            if run.run_id == but:
                continue
            in_flight[name] = run.run_id
            if Tag.INLINE in run.tags:
                inline.add(name)
    newest, recorded = _newest(ledger, by_name), Decisions(ledger)
    judged, bad_data = recorded.judged(list(by_name)), recorded.bad_data(list(by_name))
    followed = {one.state for name, one in judged.items() if by_name[name].retrain.follow_up}
    triggers = recorded.triggers(followed) if followed else {}
    states = {}
    for name, spec in by_name.items():
        row = newest.get(name)
        vacant = row is not None and row.is_vacancy
        states[name] = ModelState(
            spec=spec,
            latest=latest[name],
            champion=None if vacant else row,
            in_flight=in_flight.get(name),
            decides_itself=name in inline,
            vacancy=row if vacant else None,
            judged=judged.get(name),
            bad_data=bad_data.get(name),
            run_ids=frozenset(run_ids[name]),
            asked_by=triggers.get(judged[name].state) if name in judged else None,
        )
    return states


def _events(
    instance: dg.DagsterInstance, wanted: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, dict[str, Latest]], dict[str, set[str]]]:
    """By model the newest materialization of each wanted stage, and the runs that were the last of any."""
    keys = {asset_key(name, stage): (name, stage) for name in wanted for stage in wanted[name]}
    latest: dict[str, dict[str, Latest]] = {name: {} for name in wanted}
    run_ids: dict[str, set[str]] = {name: set() for name in wanted}
    for record in instance.get_asset_records(list(keys)):
        entry = record.asset_entry
        record_of = entry.last_materialization_record
        materialization = record_of.asset_materialization if record_of else None
        found = keys.get(entry.asset_key)
        if found is not None and entry.last_run_id:  # events without a run have an empty one
            run_ids[found[0]].add(entry.last_run_id)
        if materialization is None or found is None or record_of is None:
            continue
        name, stage = found
        latest[name][stage] = Latest(
            storage_id=record_of.storage_id,
            partition=record_of.partition_key,
            timestamp=record_of.timestamp,
            metadata=plain(materialization.metadata),
            run_id=record_of.run_id,
        )
    return latest, run_ids


def plain(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, object]:
    """The values of metadata. Dagster copies JSON with every reading of `value`, item by item, which is a
    quarter of a tick."""
    return {
        key: value.data if isinstance(value, dg.JsonMetadataValue) else value.value
        for key, value in metadata.items()
    }


def _newest(ledger: "Ledger", specs: Mapping[str, ModelSpec]) -> dict[str, "Promotion"]:
    """The newest row of each model; of one that has none and was renamed, that of its former name.

    So that a model is not taken for a new one before its history is taken over.
    """
    found = ledger.newest(list(specs))
    former = {
        spec.renamed_from: name
        for name, spec in specs.items()
        if spec.renamed_from is not None and name not in found
    }
    if former:
        rows = ledger.newest(list(former))
        found |= {former[old]: row for old, row in rows.items() if not row.is_vacancy}
    return found
