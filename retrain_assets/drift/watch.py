"""The drift report of a partition: which rows are compared with which.

Belongs here: choosing the current window and the reference, remembering earlier verdicts. Does not:
how two sides are compared (`verdict`), where they are kept (`stored`, `reference`).

Both sides are stored profiles; rows are read only for what stands beside the features (`sections`).
Rows of the current side would give no exacter numbers against a profile, and cost more: a week of 6,000
flights in 12 columns takes 11 CPU ms to read and profile, 7 to merge from its profiles
(docs/decisions/0006).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrain_assets.drift.measure import Picture
from retrain_assets.drift.profile import TableProfile
from retrain_assets.drift.reference import (
    ChampionReference,
    Reference,
    first_window,
    load_reference,
    watched_columns,
)
from retrain_assets.drift.report import DriftReport
from retrain_assets.drift.sections import SectionsOf
from retrain_assets.drift.stored import emptied, load_profiles, merge_profiles
from retrain_assets.drift.verdict import alarm, compare_with_pictures
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.drift.outcomes import Predict

__all__ = [
    "ChampionReference",
    "Watched",
    "compare_window",
    "raises_alarm",
    "watch",
    "window_keys",
]

_AHEAD = 16


@dataclass(frozen=True)
class Watched:
    """One partition's report, whether it raises the alarm, and distributions by feature."""

    partition: str | None
    report: DriftReport
    alarm: bool
    alarm_is_new: bool
    pictures: dict[str, Picture]


def watch(
    spec: ModelSpec,
    partitions: list[str] | None,
    store: "TableStore",
    champion: ChampionReference | None,
    existing: Collection[str] = (),
    predict: "Predict | None" = None,
) -> Iterator[Watched]:
    """Compare each of `partitions` (in order) with the reference and store its report.

    The current side is the last `drift.window` feature partitions that end with the partition. The
    reference is what the champion was trained on, weighted by its feature importance; without a
    champion, or with `against: first_window`, the oldest partitions, as many as the first training
    will need. Where the reference spans enough partitions it is calibrated on them.

    Args:
        spec: the model.
        partitions: sorted keys, None for an unpartitioned table.
        store: holds feature tables, profiles, reports and what champions were trained on.
        champion: which training the champion comes from, None without a champion.
        existing: keys of all stored feature partitions.
        predict: the champion's scores of partitions, for prediction drift; see `sections`.

    Raises:
        TableError: a partition, or all that is known of the champion's training, is missing.
        DriftError: columns that cannot be compared or merged.
    """
    use_champion = champion is not None and spec.drift.against == "champion"
    fixed: Reference | None = None
    if champion is not None and use_champion:
        fixed = load_reference(spec, store, champion, existing)
    if partitions is None:
        (current,) = load_profiles(store, spec.name, [None])
        sections = SectionsOf(spec, store, fixed, existing, predict) if fixed else None
        yield _watch_one(spec, None, [None], store, fixed, sections, current)
        return
    known = sorted(existing)
    first = known[: spec.min_window]
    windows = {key: window_keys(spec, key, existing) for key in partitions}
    sections = None
    for partition, current in _current(spec, store, windows):
        window = windows[partition]
        if not use_champion and len(first) == spec.min_window and window[0] > first[-1]:
            fixed = fixed or first_window(spec, store, first)
        if fixed is not None and sections is None:
            sections = SectionsOf(spec, store, fixed, existing, predict if use_champion else None)
        yield _watch_one(spec, partition, window, store, fixed, sections, current)


def window_keys(spec: ModelSpec, partition: str, existing: Collection[str]) -> list[str]:
    """The feature partitions of a report's current side, oldest first."""
    assert spec.scheme is not None
    held = set(existing)
    return [key for key in spec.scheme.trailing(partition, spec.drift.window) if key in held]


def _current(
    spec: ModelSpec, store: "TableStore", windows: dict[str, list[str]]
) -> Iterator[tuple[str, TableProfile]]:
    """Each partition's window as one profile; profiles of several partitions are read at once."""
    keys = list(windows)
    for start in range(0, len(keys), _AHEAD):
        batch = keys[start : start + _AHEAD]
        needed = sorted({key for partition in batch for key in windows[partition]})
        held = dict(zip(needed, load_profiles(store, spec.name, needed), strict=True))
        for partition in batch:
            yield partition, merge_profiles([held[key] for key in windows[partition]])


def _no_reference(current: TableProfile) -> Reference:
    return Reference("no reference yet", emptied(current))


def _watch_one(
    spec: ModelSpec,
    partition: str | None,
    window: Sequence[str | None],
    store: "TableStore",
    fixed: Reference | None,
    sections: SectionsOf | None,
    current: TableProfile,
) -> Watched:
    reference = fixed or _no_reference(current)
    report, pictures = compare_window(spec, partition, window, reference, sections, current)
    earlier = _earlier_verdicts(spec, partition, store, reference.name)
    raised, is_new = raises_alarm(spec, partition, report.verdict, earlier)
    store.write_json(spec.name, "drift_report", partition, _document(report))
    return Watched(partition, report, raised, is_new, pictures)


def compare_window(
    spec: ModelSpec,
    partition: str | None,
    window: Sequence[str | None],
    reference: Reference,
    sections: SectionsOf | None,
    current: TableProfile,
    *,
    pictures: bool = True,
) -> tuple[DriftReport, dict[str, Picture]]:
    """The report of one partition and distributions by feature; nothing is stored.

    Args:
        spec: the model.
        partition: the newest of the current side, None for an unpartitioned table.
        window: the feature partitions of the current side, see `window_keys`.
        reference: what is compared with.
        sections: of the same reference, None without a champion.
        current: the merged profile of `window`.
        pictures: whether distributions are wanted.
    """
    report, shown = compare_with_pictures(
        reference.profile,
        current,
        spec.drift,
        columns=watched_columns(spec, list(reference.profile.columns)),
        reference_name=reference.name,
        current_name=partition or "current table",
        importance=reference.importance,
        calibration=reference.calibration,
        pictures=pictures,
    )
    if sections is not None:
        report = report.completed(sections.window(window, current))
    return report, shown


def raises_alarm(
    spec: ModelSpec, partition: str | None, verdict: str, earlier: Mapping[str, str]
) -> tuple[bool, bool]:
    """Whether a partition's verdict raises the alarm, and whether it was not raised before.

    Args:
        spec: the model.
        partition: the verdict's.
        verdict: of the newest report.
        earlier: verdicts by partition that were measured against the same reference; those that
            `drift.alert.of_last` does not reach are left out.
    """
    before = []
    if partition is not None and spec.scheme is not None:
        keys = spec.scheme.trailing(partition, spec.drift.alert.of_last + 1)[:-1]
        before = [earlier[key] for key in keys if key in earlier]
    raised = alarm([*before, verdict], spec.drift.alert)
    return raised, raised and not alarm(before, spec.drift.alert)


def _document(report: DriftReport) -> Any:
    import json

    return json.loads(report.to_json())


def _earlier_verdicts(
    spec: ModelSpec, partition: str | None, store: "TableStore", reference_name: str
) -> dict[str, str]:
    """Verdicts of the partitions before, by key, as far as they have the same reference."""
    if partition is None or spec.scheme is None:
        return {}
    earlier = spec.scheme.trailing(partition, spec.drift.alert.of_last + 1)[:-1]
    documents = store.read_many_json(spec.name, "drift_report", earlier)
    return {
        key: str(document["verdict"])
        for key, document in documents.items()
        if document["reference"] == reference_name
    }
