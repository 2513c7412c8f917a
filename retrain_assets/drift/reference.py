"""What a champion was trained on, kept under the fingerprint of its training.

Belongs here: what is stored of a candidate for the reports to come, reading it back, references of
earlier releases, and the first window of a model without a champion. Does not: training and scores
(`promotion.candidate`), the comparison (`verdict`), which partitions are judged (`watch`).

Three files per fingerprint, all named `reference`: a table with a sample of the training rows and
the model's scores of them, for what needs rows; a document with partitions, feature importance and
calibration; last, and so the sign that the others are there, the profile of all training rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrain_assets.drift.calibration import MIN_PARTITIONS, Calibration, calibrate
from retrain_assets.drift.profile import TableProfile
from retrain_assets.drift.stored import (
    load_profiles,
    merge_profiles,
    profile_rows,
    read_profile,
    with_all_columns,
)
from retrain_assets.errors import TableError

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.spec.model import ModelSpec

__all__ = [
    "SAMPLE_ROWS", "SCORE", "ChampionReference", "Reference", "first_window", "load_reference",
    "load_sample", "sample_rows", "store_reference", "watched_columns", "with_scores",
]  # fmt: skip

SAMPLE_ROWS = 20_000

SCORE = "__score__"
"""Column of the model's scores; of a multiclass model one per class, `__score__` and its label."""

_NAME = "reference"


@dataclass(frozen=True)
class ChampionReference:
    """Which training a champion comes from.

    Attributes:
        version: the champion's version.
        fingerprint: names what is stored of its training.
        trained_on: its training partitions, `first to last` (or one), for references that an earlier
            release stored; empty where unknown.
    """

    version: str
    fingerprint: str
    trained_on: str = ""


@dataclass(frozen=True)
class Reference:
    """One side of the comparison, and how its features count.

    Attributes:
        name: for people.
        profile: of all its rows.
        importance: weight per feature, None where all weigh the same.
        calibration: None where it spans too few partitions, or the spec does not want any.
        partitions: keys of its feature partitions, oldest first; empty where unknown.
        fingerprint: of the champion's training, empty for the first window.
    """

    name: str
    profile: TableProfile
    importance: Mapping[str, float] | None = None
    calibration: Calibration | None = None
    partitions: tuple[str, ...] = ()
    fingerprint: str = ""


def watched_columns(spec: ModelSpec, columns: Sequence[str]) -> list[str]:
    """Feature columns that drift is measured on: all but the target, excluded and key columns."""
    left_out = {spec.target, *spec.drift.exclude, *spec.train.exclude}
    left_out |= {name for name in (spec.train.group, spec.train.time_column) if name is not None}
    return [column for column in columns if column not in left_out]


def sample_rows(rows: pa.Table, limit: int = SAMPLE_ROWS) -> pa.Table:
    """At most `limit` rows in their order: of as many equal stretches one row each, at random.

    Rows of all partitions are therefore there in proportion. The same rows give the same sample.
    """
    if rows.num_rows <= limit:
        return rows
    edges = np.arange(limit + 1) * rows.num_rows // limit
    places = edges[:-1] + np.random.default_rng(0).random(limit) * np.diff(edges)
    return rows.take(pa.array(places.astype(np.int64)))


def with_scores(
    sample: pa.Table, scores: npt.NDArray[np.float64], classes: Sequence[Any] | None = None
) -> pa.Table:
    """The rows with the model's scores of them.

    Args:
        sample: n rows.
        scores: shape (n,), or (n, k) in the order of the k `classes`.
        classes: labels of a multiclass model.
    """
    if scores.ndim == 1:
        return sample.append_column(SCORE, pa.array(scores))
    assert classes is not None
    for place, label in enumerate(classes):
        sample = sample.append_column(f"{SCORE}{label}", pa.array(scores[:, place]))
    return sample


def store_reference(
    spec: ModelSpec,
    store: TableStore,
    fingerprint: str,
    *,
    rows: pa.Table,
    partitions: Sequence[str] | None,
    sample: pa.Table,
    importance: Mapping[str, float],
) -> dict[str, bytes]:
    """Store what later reports need of a training; the same training stores the same.

    Args:
        spec: the model.
        store: has the profiles of the training partitions.
        fingerprint: of the training.
        rows: all training rows; read only where their partitions' profiles do not give the same.
        partitions: keys that `rows` are from, oldest first; None without partitions.
        sample: see `sample_rows` and `with_scores`.
        importance: share of each feature.

    Returns:
        The profile and the document, as files to keep with the model version.
    """
    profile: TableProfile | None = None
    parts: list[TableProfile] = []
    if partitions is not None:
        parts = load_profiles(store, spec.name, partitions)
        profile = merge_profiles(parts)
    # Another run may have written a partition since its rows were read.
    if profile is None or profile.rows != rows.num_rows:
        profile = profile_rows(store, spec.name, rows)
    document = {
        "partitions": None if partitions is None else list(partitions),
        "importance": dict(importance),
        "calibration": _calibrated(spec, parts),
    }
    store.write(spec.name, _NAME, fingerprint, sample)
    data = _store(spec, store, fingerprint, profile, document)
    return {"drift/training.profile": data, "drift/reference.json": _text(document).encode()}


def _store(
    spec: ModelSpec,
    store: TableStore,
    fingerprint: str,
    profile: TableProfile,
    document: Mapping[str, Any],
) -> bytes:
    store.write_json(spec.name, _NAME, fingerprint, document)
    data = profile.to_bytes()
    store.write_profile(spec.name, _NAME, fingerprint, data)
    return data


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, indent=1, sort_keys=True)


def load_sample(store: TableStore, model: str, fingerprint: str) -> pa.Table:
    """At most SAMPLE_ROWS training rows of a model, with columns of its scores that begin with SCORE.

    What an earlier release stored has no scores.

    Raises:
        TableError: nothing is stored under the fingerprint.
    """
    return sample_rows(store.read(model, _NAME, [fingerprint]))


def load_reference(
    spec: ModelSpec, store: TableStore, champion: ChampionReference, existing: Collection[str]
) -> Reference:
    """What the champion was trained on, from its stored profile.

    What an earlier release stored is profiled once, from its rows or from the feature partitions;
    it has no feature importance.

    Args:
        spec: the model.
        store: see the module's docstring.
        champion: which training.
        existing: keys of all stored feature partitions.

    Raises:
        TableError: there is neither a profile nor rows.
    """
    (data,) = store.read_profiles(spec.name, _NAME, [champion.fingerprint])
    profile = read_profile(data)
    if profile is not None:
        document = store.read_json(spec.name, _NAME, champion.fingerprint)
    else:
        profile, document = _remade(spec, store, champion, existing)
    partitions = document["partitions"] or ()
    found = document["calibration"]
    stored = set(partitions) <= set(existing)
    if stored and _n_blocks(spec, len(partitions)) and not _is_current(found, spec, profile):
        found = _calibrated(spec, load_profiles(store, spec.name, partitions))
        store.write_json(spec.name, _NAME, champion.fingerprint, {**document, "calibration": found})
    return Reference(
        f"champion v{champion.version}",
        profile,
        document["importance"],
        _calibration_of(found, spec, profile),
        tuple(partitions),
        champion.fingerprint,
    )


def _remade(
    spec: ModelSpec, store: TableStore, champion: ChampionReference, existing: Collection[str]
) -> tuple[TableProfile, dict[str, Any]]:
    """Profile and document of a training of which no readable profile is stored."""
    fingerprint = champion.fingerprint
    if store.json_exists(spec.name, _NAME, fingerprint):
        document, only_sample = store.read_json(spec.name, _NAME, fingerprint), True
    else:  # an earlier release stored all training rows, and nothing else
        partitions = _trained_on(spec, champion, existing)
        document = {"partitions": partitions, "importance": None, "calibration": None}
        only_sample = False
    partitions = document["partitions"]
    has_rows = store.exists(spec.name, _NAME, fingerprint)
    if partitions and set(partitions) <= set(existing) and (only_sample or not has_rows):
        profile = merge_profiles(load_profiles(store, spec.name, partitions))
    elif has_rows:
        profile = profile_rows(store, spec.name, store.read(spec.name, _NAME, [fingerprint]))
    else:
        raise TableError(
            f"{spec.name}: nothing is stored of what champion v{champion.version} was trained on "
            f"(fingerprint {fingerprint}): no profile, no rows, not all of its feature partitions "
            f"({champion.trained_on or 'unknown'}); materialize candidate_model and promoted_model"
        )
    _store(spec, store, fingerprint, profile, document)
    return profile, document


def _trained_on(
    spec: ModelSpec, champion: ChampionReference, existing: Collection[str]
) -> list[str] | None:
    """Partitions between the first and the last one that are stored; None where unknown."""
    if spec.scheme is None or not champion.trained_on:
        return None
    first, _, last = champion.trained_on.partition(" to ")
    held = set(existing)
    if not {first, last or first} <= held:
        return None
    return [key for key in spec.scheme.between(first, last or first) if key in held]


def first_window(spec: ModelSpec, store: TableStore, partitions: Sequence[str]) -> Reference:
    """The oldest partitions as a reference; all features weigh the same."""
    parts = load_profiles(store, spec.name, partitions)
    profile = merge_profiles(parts)
    name = f"first window {partitions[0]} to {partitions[-1]}"
    if not _n_blocks(spec, len(parts)):
        return Reference(name, profile, partitions=tuple(partitions))
    # Of these very rows: a partition that is written again makes another name.
    digest = hashlib.sha256(" ".join(partitions).encode() + profile.to_bytes()).hexdigest()
    key, found = f"first-window-{digest[:16]}", None
    if store.json_exists(spec.name, _NAME, key):
        found = store.read_json(spec.name, _NAME, key)["calibration"]
    if not _is_current(found, spec, profile):
        found = _calibrated(spec, parts)
        store.write_json(spec.name, _NAME, key, {"calibration": found})
    return Reference(name, profile, None, _calibration_of(found, spec, profile), tuple(partitions))


def _n_blocks(spec: ModelSpec, n: int) -> int:
    """How many blocks `_blocks` makes of n partitions; 0 where there is to be no calibration."""
    if not spec.drift.calibrate or n < MIN_PARTITIONS:
        return 0
    return n // min(spec.drift.window, n // MIN_PARTITIONS)


def _blocks(spec: ModelSpec, parts: Sequence[TableProfile]) -> list[TableProfile]:
    """Neighbouring partitions merged, as many as a report's current side has.

    Fewer at a time where there would not be enough blocks: shorter ones vary more, which errs to
    silence. What is over at the beginning is left out.
    """
    count = _n_blocks(spec, len(parts))
    size = len(parts) // count
    starts = range(len(parts) - count * size, len(parts), size)
    return with_all_columns([merge_profiles(parts[start : start + size]) for start in starts])


def _calibrated(spec: ModelSpec, parts: Sequence[TableProfile]) -> dict[str, Any] | None:
    """The calibration as a document, with the settings that it holds for."""
    if not _n_blocks(spec, len(parts)):
        return None
    blocks = _blocks(spec, parts)
    found = calibrate(blocks, spec.drift, watched_columns(spec, list(blocks[0].columns)))
    return {**asdict(found), "window": spec.drift.window, "min_rows": spec.drift.min_rows}


def _is_current(document: Mapping[str, Any] | None, spec: ModelSpec, profile: TableProfile) -> bool:
    """Whether a calibration was made with the spec's settings, for all of its columns."""
    return (
        document is not None
        and (document["window"], document["min_rows"]) == (spec.drift.window, spec.drift.min_rows)
        and document["limits"].keys() >= set(watched_columns(spec, list(profile.columns)))
    )


def _calibration_of(
    document: Mapping[str, Any] | None, spec: ModelSpec, profile: TableProfile
) -> Calibration | None:
    if document is None or not spec.drift.calibrate or not _is_current(document, spec, profile):
        return None
    return Calibration(document["partitions"], document["limits"], document["usual"])
