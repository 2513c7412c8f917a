"""The stored feature partitions of one model, as a snapshot that only replay writes to.

Belongs here: copying what changed, partitions in order, their fingerprints. Does not: what is computed
from them. The live store is read in batched calls and never written; drift reports, profiles and
references that a replay makes go to the snapshot's own store.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.data.tables import TableStore
from retrain_assets.errors import ReplayError

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    from upath import UPath

    from retrain_assets.spec.model import ModelSpec
    from retrain_assets.spec.partitions import PartitionScheme

__all__ = ["History", "SnapshotStore", "scheme_of", "snapshot"]

_BATCH = 64
_HELD_BYTES = 256 << 20


class SnapshotStore(TableStore):
    """A snapshot's store, which keeps the rows it has decoded, by the content of their files.

    Two trainings after one another share all partitions of their windows but one: decoding them again
    would be a fifth of a training's CPU.
    """

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self._held: OrderedDict[tuple[str, bytes], pa.Table] = OrderedDict()
        self._held_bytes = 0

    def _rows(self, path: "UPath", content: bytes, columns: Sequence[str] | None) -> "pa.Table":
        if columns is not None:
            return super()._rows(path, content, columns)
        place = (path.name, hashlib.sha256(content).digest())
        found = self._held.pop(place, None)
        if found is None:
            found = super()._rows(path, content, None)
            self._held_bytes += found.nbytes
        self._held[place] = found
        while self._held_bytes > _HELD_BYTES and len(self._held) > 1:
            _, oldest = self._held.popitem(last=False)
            self._held_bytes -= oldest.nbytes
        return found


@dataclass(frozen=True)
class History:
    """One model's feature partitions.

    Attributes:
        spec: the model.
        store: the snapshot: features, profiles and grids; what replay makes is written here too.
        keys: the partitions, oldest first.
        fingerprints: of each partition's rows, by key.
    """

    spec: "ModelSpec"
    store: TableStore
    keys: tuple[str, ...]
    fingerprints: dict[str, str]

    @cached_property
    def index(self) -> dict[str, int]:
        """Place of each key."""
        return {key: place for place, key in enumerate(self.keys)}

    @property
    def scheme(self) -> "PartitionScheme":
        """The model's partitions."""
        return scheme_of(self.spec)

    @cached_property
    def ends(self) -> "dict[str, datetime]":
        """End of each partition: the moment at which it has come."""
        return {key: self.scheme.window(key).end for key in self.keys}

    def until(self, key: str) -> tuple[str, ...]:
        """The partitions that existed when `key` came."""
        return self.keys[: self.index[key] + 1]


def scheme_of(spec: "ModelSpec") -> "PartitionScheme":
    """The partitions of a model that can be replayed.

    Raises:
        ReplayError: it has none.
    """
    if spec.scheme is None:
        raise ReplayError(
            f"{spec.name}: replay walks partitions in time, but the spec says partitions: none; "
            "give the model partitions"
        )
    return spec.scheme


def snapshot(
    spec: "ModelSpec",
    live: TableStore,
    folder: Path,
    *,
    first: str | None = None,
    last: str | None = None,
) -> History:
    """Copy the feature partitions that the snapshot does not have yet, or has otherwise.

    Args:
        spec: the model.
        live: the deployment's store; only read.
        folder: the snapshot's.
        first, last: partitions between which to replay; by default all that are stored.

    Raises:
        ReplayError: no partitions, a key that is none, or too few to train on and to serve.
        TableError: a partition is damaged.
    """
    scheme = scheme_of(spec)
    for key in (first, last):
        try:
            scheme.parse(key) if key is not None else None
        except ValueError as error:
            raise ReplayError(f"{spec.name}: {error}") from error
    stored = live.partitions(spec.name, "features")
    keys = [key for key in stored if (first or key) <= key <= (last or key)]
    needed = spec.min_window + spec.train.label_delay + 1
    if len(keys) < needed:
        raise ReplayError(
            f"{spec.name}: a replay needs at least {needed} feature partitions (train.min_window, "
            f"train.label_delay and one to serve), got {len(keys)} from {first or 'the first'} to "
            f"{last or 'the last'}; materialize features of more partitions"
        )
    copy = SnapshotStore(str(folder))
    fingerprints: dict[str, str] = {}
    held = set(copy.partitions(spec.name, "features"))
    _copy_grids(spec, live, copy)
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        found = live.fingerprints(spec.name, "features", batch)
        known = [key for key in batch if key in held]
        same = copy.fingerprints(spec.name, "features", known) if known else {}
        _copy(spec, live, copy, [key for key in batch if same.get(key) != found[key]])
        fingerprints |= found
    return History(spec, copy, tuple(keys), fingerprints)


def _copy(spec: "ModelSpec", live: TableStore, copy: TableStore, keys: Sequence[str]) -> None:
    """Rows first: a snapshot killed in between has a partition that is copied again, or profiled."""
    profiles = live.read_profiles(spec.name, "features", keys)
    for key, profile in zip(keys, profiles, strict=True):
        copy.remove_profile(spec.name, "features", key)
        copy.write(spec.name, "features", key, live.read(spec.name, "features", [key]))
        if profile is not None:
            copy.write_profile(spec.name, "features", key, profile)


def _copy_grids(spec: "ModelSpec", live: TableStore, copy: TableStore) -> None:
    """The grids that profiles share; without them all profiles would be made anew."""
    (grids,) = live.read_profiles(spec.name, "feature_grids", [None])
    if grids is not None:
        copy.write_profile(spec.name, "feature_grids", None, grids)
