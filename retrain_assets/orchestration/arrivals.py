"""New partitions of the sources, as monitor runs.

Belongs here: what each source has that was not ingested yet, and what failed and is due again. Does not:
reading sources (`data.sources`), retraining, unless a model does that in its monitor run
(`retrain.inline`).
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.orchestration.cursors import read_cursor, written_cursor
from retrain_assets.orchestration.deciding import RETRY_AFTER_SECONDS
from retrain_assets.orchestration.keys import (
    RANGE_END,
    RANGE_START,
    Tag,
    asset_key,
    monitor_keys,
    retrain_keys,
)
from retrain_assets.orchestration.kubernetes import run_tags
from retrain_assets.orchestration.retries import unfinished
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.sources import Reported

__all__ = ["arrivals"]

_MAX_REQUESTS_PER_TICK = 25  # run-key look-ups are serial in the daemon
_MAX_PARTITIONS_PER_RUN = 100
_MAX_MODELS_PER_RUN = 10
_MAX_LATE_PARTITIONS = 50
_MAX_LOOKED_INTO = 30
"""Models per tick whose partitions are read one by one."""
_MAX_REPORTS = 60
"""Models per tick whose newest report is read."""
_SECONDS_PER_TICK = 25.0
"""An evaluation ends after 60 s, and a source may be slow."""


@dataclass(frozen=True)
class _Group:
    """Neighbouring partitions for one monitor run, or one version of an unpartitioned source."""

    keys: tuple[str, ...]
    attempt: int = 1


@dataclass(frozen=True)
class _Asked:
    """A partition that was asked for and has not delivered a report so far.

    Attributes:
        times: how often it was asked for.
        at: when last, seconds since 1970.
        failed: its run has ended, and it is known that it waits for nobody else.
    """

    times: int
    at: float
    failed: bool = False


class _Tick:
    """What one tick has read, and may still read.

    Attributes:
        now: seconds since 1970.
        reported: what sources have answered, so that models with one source ask it once.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.now = datetime.now(UTC).timestamp()
        self.reported: Reported = {}
        self._looks = _MAX_LOOKED_INTO
        self._reads = _MAX_REPORTS
        self._newest: dict[str, str | None] = {}

    @property
    def is_over(self) -> bool:
        """Whether it has read as much as a tick may; the other models come first in the next one."""
        return self._looks <= 0 or self._reads <= 0

    def read_newest(self, models: Collection[str]) -> None:
        """The newest drift reports of these models, in one read."""
        keys = [asset_key(name, "drift_report") for name in models]
        for record in self.instance.get_asset_records(keys) if keys else ():
            latest = record.asset_entry.last_materialization_record
            if latest is not None:
                self._reads -= 1
                self._newest[record.asset_entry.asset_key.path[0]] = latest.partition_key

    def delivered(self, model: str, asked: Collection[str]) -> bool:
        """Whether the newest report is of the one partition that was asked for."""
        return list(asked) == [self._newest.get(model)]

    def reported_partitions(self, model: str) -> Collection[str]:
        """Partitions of a model that have reports; of one that never had any for nothing."""
        if model not in self._newest:
            return ()
        self._looks -= 1
        return self.instance.get_materialized_partitions(asset_key(model, "drift_report"))

    def may_look(self) -> bool:
        """Whether this tick may still read partitions of one model."""
        self._looks -= 1
        return self._looks >= 0


def arrivals(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Requests the monitor run (raw_data, features, drift_report, guard_report) for every partition that a source
    has and that was not ingested. Models with the same new partitions share a run; a backlog of
    neighbouring partitions is one run, and so is what arrives while a monitor run is going on. A
    partition whose run failed is asked for again after 1, 10 and 60 minutes; a source that cannot be
    asked is logged and asked again."""
    cursor = read_cursor(context.cursor)
    models: dict[str, Any] = {
        name: seen for name, seen in cursor.get("models", {}).items() if name in specs
    }
    requests: list[dg.RunRequest] = []
    failures: list[str] = []
    busy = _queues_in_progress(context.instance)
    free = [members for members in _batches(specs) if _queue(members[0]) not in busy]
    # What arrives in a busy queue is one range run afterwards, however fast the source is.
    tick, began, last = _Tick(context.instance), time.monotonic(), ""
    for members in _in_turn(free, cursor.get("last", "")):
        slow = time.monotonic() - began > _SECONDS_PER_TICK
        if slow or tick.is_over or len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        last = members[0]
        requests += _requests(context, [specs[name] for name in members], models, tick, failures)
    else:
        last = ""
    text = written_cursor({"models": models, "last": last})
    if not requests:
        context.update_cursor(text)
        return dg.SkipReason("; ".join(failures) or "no source has a new partition")
    return dg.SensorResult(run_requests=requests, cursor=text)


def _in_turn(batches: list[list[str]], last: str) -> list[list[str]]:
    """The batches, those first that the tick before did not get to."""
    start = next((n + 1 for n, members in enumerate(batches) if members[0] == last), 0)
    return batches[start:] + batches[:start]


def _requests(
    context: dg.SensorEvaluationContext,
    members: Sequence[ModelSpec],
    models: dict[str, Any],
    tick: _Tick,
    failures: list[str],
) -> list[dg.RunRequest]:
    """Runs of models that may share them; moves their cursors in `models`."""
    from retrain_assets.errors import RetrainError

    wanted: dict[_Group, list[ModelSpec]] = {}
    seen = {spec.name: models.get(spec.name) for spec in members if spec.scheme is not None}
    tick.read_newest([name for name, known in seen.items() if known is None or _asked(known)])
    for spec in members:
        try:
            groups, models[spec.name] = _news(spec, models.get(spec.name), tick)
        except RetrainError as error:
            failures.append(str(error))
            context.log.error(f"{spec.name}: the source cannot be asked what it has: {error}")
            continue
        for group in groups:
            wanted.setdefault(group, []).append(spec)
    return [_monitor_request(group, some, members[0].name) for group, some in wanted.items()]


def _queue(first_model: str) -> str:
    return f"monitor:{first_model}"


def _queues_in_progress(instance: dg.DagsterInstance) -> set[str]:
    """Queues that have a monitor run which has not ended, or which Dagster is about to try again."""
    # Not by tag: the database would go through the tags of all monitor runs that ever were.
    return {
        run.tags[Tag.QUEUE]
        for run in unfinished(instance)
        if run.tags.get(Tag.KIND) == "monitor" and Tag.QUEUE in run.tags
    }


def _batches(specs: Mapping[str, ModelSpec]) -> list[list[str]]:
    """Models that may share a run: the same partitions, no request of their own, at most ten."""
    alike: dict[Any, list[str]] = {}
    for name, spec in specs.items():
        alike.setdefault(name if _asks(spec) else spec.scheme or name, []).append(name)
    return [
        names[i : i + _MAX_MODELS_PER_RUN]
        for names in alike.values()
        for i in range(0, len(names), _MAX_MODELS_PER_RUN)
    ]


def _asks(spec: ModelSpec) -> bool:
    """Whether a step of the monitor run asks for memory, a GPU or a process of its own."""
    trains = ("candidate_model", "promoted_model")
    return any(
        asked.isolated and (spec.retrain.inline or stage not in trains)
        for stage, asked in spec.resources.items()
    )


def _asked(seen: Any) -> dict[str, _Asked]:
    """What the cursor of one model says was asked for."""
    stored = seen["asked"] if isinstance(seen, dict) else {}
    return {
        key: _Asked(int(times), at, bool(failed)) for key, (times, at, failed) in stored.items()
    }


def _news(spec: ModelSpec, seen: Any, tick: _Tick) -> tuple[list[_Group], Any]:
    """What one source has that was not ingested yet, in runs of neighbours, and the new cursor.

    The cursor is the last key asked for (`through`), the latest keys before it that the source did
    not have then (`missing`: files come late and out of order), and the keys whose run has not
    delivered a report so far (`asked`). Without partitions it is the source's version.
    """
    from retrain_assets.data.sources import available_partitions, source_version

    if spec.scheme is None:
        version = source_version(spec.source)
        new = version is not None and version != seen
        return ([_Group((f"version {version}",))] if new else []), version
    scheme = spec.scheme
    through = seen["through"] if seen else None
    missing = set(seen["missing"]) if seen else set()
    groups, asked = _again(spec, _asked(seen), tick)
    after = through and (scheme.shift(min(missing), -1) if missing else through)
    now = datetime.fromtimestamp(tick.now, UTC)
    keys = available_partitions(spec.source, scheme, now, after=after, reported=tick.reported)
    new_keys = [key for key in keys if through is None or key > through or key in missing]
    if not keys:
        return groups, {**seen, "asked": _stored(asked)} if seen else seen
    if through is None:
        done = tick.reported_partitions(spec.name)
        new_keys = [key for key in new_keys if key not in done]
        missing = set(scheme.between(scheme.key_of(scheme.first), keys[-1]))
    elif keys[-1] > through:
        missing |= set(scheme.between(through, keys[-1]))
    late = sorted(missing - set(keys) - {through})[-_MAX_LATE_PARTITIONS:]
    groups += [_Group(tuple(run)) for run in scheme.runs(new_keys, _MAX_PARTITIONS_PER_RUN)]
    asked |= {key: _Asked(1, tick.now) for key in new_keys}
    through = max(through or keys[-1], keys[-1])
    return groups, {"through": through, "missing": late, "asked": _stored(asked)}


def _stored(asked: Mapping[str, _Asked]) -> dict[str, list[Any]]:
    return {key: [one.times, one.at, one.failed] for key, one in asked.items()}


def _again(
    spec: ModelSpec, asked: dict[str, _Asked], tick: _Tick
) -> tuple[list[_Group], dict[str, _Asked]]:
    """Partitions whose run ended without a drift report, to be asked for again, and the rest.

    A partition that got as far as any of its run was held up by another of the same range (a bad
    day): these go again together and at once. The others failed themselves and go again alone, after
    ever longer waits, since a source comes back and data is mended; when `RETRY_AFTER_SECONDS` is
    used up, a person decides. Partitions are read when a run has ended or a wait is over.
    """
    if not asked or spec.scheme is None or tick.delivered(spec.name, asked):
        return [], {}
    waits = all(one.failed and not _is_due(one, tick.now) for one in asked.values())
    if waits or not tick.may_look():
        return [], asked
    done = tick.instance.get_materialized_partitions(asset_key(spec.name, "drift_report"))
    open_ = {
        key: one
        for key, one in asked.items()
        if key not in done and one.times <= len(RETRY_AFTER_SECONDS)
    }
    if not open_:
        return [], {}
    reached: set[str] = set()
    for stage in ("features", "raw_data"):
        keys = tick.instance.get_materialized_partitions(asset_key(spec.name, stage))
        reached = reached or (set(keys) & set(open_))
    held_up = [key for key, one in sorted(open_.items()) if one.times == 1 and key in reached]
    alone = [
        [key] for key, one in sorted(open_.items()) if key not in held_up and _is_due(one, tick.now)
    ][:_MAX_REQUESTS_PER_TICK]
    runs = (*spec.scheme.runs(held_up, _MAX_PARTITIONS_PER_RUN), *alone)
    groups = [_Group(tuple(run), attempt=open_[run[-1]].times + 1) for run in runs]
    again = {key: _Asked(open_[key].times + 1, tick.now) for run in runs for key in run}
    failed = {key: _Asked(one.times, one.at, failed=True) for key, one in open_.items()}
    return groups, failed | again


def _is_due(one: _Asked, now: float) -> bool:
    if one.times > len(RETRY_AFTER_SECONDS):
        return True  # to be forgotten
    return now - one.at >= RETRY_AFTER_SECONDS[one.times - 1]


def _monitor_request(group: _Group, specs: Sequence[ModelSpec], queue: str) -> dg.RunRequest:
    keys, names = group.keys, [spec.name for spec in specs]
    selection = [
        key
        for spec in specs
        for key in monitor_keys(spec.name, guarded=spec.gate.guard is not None)
    ]
    unpartitioned = keys[0].startswith("version ")
    # A backlog goes the sensors' way: they decide about its end, not about every day of it.
    inline = [s.name for s in specs if s.retrain.inline and len(keys) == 1 and not unpartitioned]
    selection += [key for name in inline for key in retrain_keys(name, partitioned=True)]
    tags = {
        Tag.KIND: "monitor",
        Tag.TRIGGER: "arrival",
        # One at a time and in order: look-backs and alarms read what the run before has written.
        Tag.QUEUE: _queue(queue),
        **({Tag.MODEL: names[0]} if len(names) == 1 else {Tag.MODELS: ",".join(names)}),
        # Models with requests of their own are never batched.
        **(run_tags(specs[0], selection) if len(specs) == 1 else {}),
    }
    if inline:
        tags[Tag.INLINE] = "asked"
    if len(keys) > 1:
        tags |= {RANGE_START: keys[0], RANGE_END: keys[-1]}
    return dg.RunRequest(
        run_key=f"monitor|{','.join(names)}|{keys[0]}..{keys[-1]}|{group.attempt}",
        asset_selection=selection,
        partition_key=keys[0] if len(keys) == 1 and not unpartitioned else None,
        tags=tags,
    )
