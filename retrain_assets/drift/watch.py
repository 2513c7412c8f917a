"""The drift report of a partition: which rows are compared with which.

Belongs here: choosing the current window and the reference, remembering earlier verdicts. Does not:
how two tables are compared (`verdict`).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrain_assets.drift.measure import Picture
from retrain_assets.drift.report import DriftReport
from retrain_assets.drift.verdict import alarm, compare_with_pictures
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.data.tables import TableStore

__all__ = ["ChampionReference", "Watched", "watch"]


@dataclass(frozen=True)
class ChampionReference:
    """The rows that a champion was trained on, kept beside its evidence.

    Attributes:
        version: the champion's version.
        fingerprint: names its training rows in the table `reference` of the model.
    """

    version: str
    fingerprint: str


@dataclass(frozen=True)
class Watched:
    """One partition's report, whether it raises the alarm, and distributions by feature."""

    partition: str | None
    report: DriftReport
    alarm: bool
    alarm_is_new: bool
    pictures: dict[str, Picture]


def watched_columns(spec: ModelSpec, columns: list[str]) -> list[str]:
    """Feature columns that drift is measured on: all but the target, excluded and key columns."""
    left_out = {spec.target, *spec.drift.exclude, *spec.train.exclude}
    left_out |= {name for name in (spec.train.group, spec.train.time_column) if name is not None}
    return [column for column in columns if column not in left_out]


def watch(
    spec: ModelSpec,
    partitions: list[str] | None,
    store: "TableStore",
    champion: ChampionReference | None,
    existing: Collection[str] = (),
) -> Iterator[Watched]:
    """Compare each of `partitions` (in order) with the reference and store its report.

    The current side is the last `drift.window` feature partitions that end with the partition. The
    reference is the champion's training rows; without a champion, or with `against: first_window`,
    the oldest partitions, as many as the first training will need.

    Args:
        spec: the model.
        partitions: sorted keys, None for an unpartitioned table.
        store: holds feature tables, reports and the champion's training rows.
        champion: the champion's training rows, None without a champion.
        existing: keys of all stored feature partitions.
    """
    use_champion = champion is not None and spec.drift.against == "champion"
    if partitions is None:
        current = store.read(spec.name, "features", [None])
        if use_champion and champion is not None:
            name, reference = f"champion v{champion.version}", _rows_of(spec, store, champion)
        else:
            name, reference = "no reference yet", current.slice(0, 0)
        yield _watch_one(spec, None, store, name, reference, current)
        return
    scheme = spec.scheme
    assert scheme is not None
    known = sorted(existing)
    first = known[: spec.min_window]
    name, fixed = "", None
    if use_champion and champion is not None:
        name, fixed = f"champion v{champion.version}", _rows_of(spec, store, champion)
    for partition in partitions:
        window = [
            key for key in scheme.trailing(partition, spec.drift.window) if key in set(existing)
        ]
        current = store.read(spec.name, "features", window)
        if use_champion:
            reference = fixed
        elif len(first) < spec.min_window or window[0] <= first[-1]:
            name, reference = "no reference yet", current.slice(0, 0)
        else:
            if fixed is None:
                fixed = store.read(spec.name, "features", first)
            name, reference = f"first window {first[0]} to {first[-1]}", fixed
        yield _watch_one(spec, partition, store, name, reference, current)


def _rows_of(spec: ModelSpec, store: "TableStore", champion: ChampionReference) -> "pa.Table":
    return store.read(spec.name, "reference", [champion.fingerprint])


def _watch_one(
    spec: ModelSpec,
    partition: str | None,
    store: "TableStore",
    reference_name: str,
    reference: "pa.Table",
    current: "pa.Table",
) -> Watched:
    report, pictures = compare_with_pictures(
        reference,
        current,
        spec.drift,
        columns=watched_columns(spec, list(reference.column_names)),
        reference_name=reference_name,
        current_name=partition or "current table",
    )
    before = _earlier_verdicts(spec, partition, store, reference_name)
    settings = spec.drift.alert
    raised = alarm([*before, report.verdict], settings)
    store.write_json(spec.name, "drift_report", partition, _document(report))
    return Watched(partition, report, raised, raised and not alarm(before, settings), pictures)


def _document(report: DriftReport) -> Any:
    import json

    return json.loads(report.to_json())


def _earlier_verdicts(
    spec: ModelSpec, partition: str | None, store: "TableStore", reference_name: str
) -> list[str]:
    """Verdicts of the partitions before, oldest first, as far as they have the same reference."""
    if partition is None or spec.scheme is None:
        return []
    earlier = spec.scheme.trailing(partition, spec.drift.alert.of_last + 1)[:-1]
    verdicts = []
    for key in earlier:
        if not store.json_exists(spec.name, "drift_report", key):
            continue
        document = store.read_json(spec.name, "drift_report", key)
        if document["reference"] == reference_name:
            verdicts.append(str(document["verdict"]))
    return verdicts
