"""Profiles at rest: one beside each feature partition, all of a model on the same grids.

Belongs here: the grids that a model's partitions share, making a partition's profile, reading and
merging several. Does not: what a profile holds (`profile`), paths (`data.tables`), which partitions
are compared (`watch`).

Profiles merge only on one grid. The first partition in which a column has values fixes the column's
grid, for all later ones: it is open to both sides and logarithmic outwards, so values far outside
cost precision, not truth. A partition for which a grid is too coarse (the first one was constant,
say) replaces it by its own finer one.

A profile is derived from rows and never the only copy: one that is missing (an earlier release wrote
the partition), unreadable or on a former grid (also where two partitions were the first at the same
time) is made anew from its rows when it is needed. `features` removes a profile before it changes
the rows and writes the new one after, so that a kill leaves none rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retrain_assets.drift.categories import CategoryCounts
from retrain_assets.drift.columns import (
    NUMERIC_FAMILIES,
    ArrowSource,
    column_family,
    numeric_pieces,
)
from retrain_assets.drift.exact import sample_of
from retrain_assets.drift.grid import Grid, choose_grid
from retrain_assets.drift.kernels import Counts
from retrain_assets.drift.profile import (
    CategoryProfile,
    NumericProfile,
    TableProfile,
    build_profile,
    numeric_profile,
)
from retrain_assets.errors import DriftError

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore

__all__ = [
    "emptied", "load_profiles", "merge_profiles", "profile_rows", "read_profile", "store_profile",
    "with_all_columns",
]  # fmt: skip

_FEATURES, _GRIDS = "features", "feature_grids"
_FEWEST_CELLS = 64
"""Cells between the quartiles of a partition, below which its column needs a finer grid."""
_ROUNDS = 4


def store_profile(
    store: TableStore, model: str, partition: str | None, rows: pa.Table
) -> TableProfile:
    """Profile a feature partition's rows and store the profile beside them."""
    profile = profile_rows(store, model, rows)
    store.write_profile(model, _FEATURES, partition, profile.to_bytes())
    return profile


def profile_rows(store: TableStore, model: str, rows: pa.Table) -> TableProfile:
    """Profile rows on the model's grids, which are stored where the rows add to them."""
    source, grids = ArrowSource(rows), _stored_grids(store, model)
    fitted = _fitted(source, grids)
    if _as_grids(fitted) != _as_grids(grids):
        store.write_profile(model, _GRIDS, None, fitted.to_bytes())
    return build_profile(source, like=fitted)


def load_profiles(
    store: TableStore, model: str, partitions: Sequence[str | None]
) -> list[TableProfile]:
    """Profiles of feature partitions, in the order asked for, all on the model's grids.

    Raises:
        TableError: a partition has neither a profile nor rows.
        DriftError: the grids change faster than profiles are made, or columns that have none.
    """
    for _ in range(_ROUNDS):
        found = store.read_profiles(model, _FEATURES, partitions)
        profiles = [read_profile(data) for data in found]
        grids = _as_grids(_stored_grids(store, model))
        stale = [i for i, profile in enumerate(profiles) if not _fits(profile, grids)]
        rows_of = store.read_each(model, _FEATURES, [partitions[i] for i in stale])
        for place, rows in zip(stale, rows_of, strict=True):
            if found[place] is not None or not store.profile_exists(
                model, _FEATURES, partitions[place]
            ):
                profiles[place] = store_profile(store, model, partitions[place], rows)
        if not stale:
            return [profile for profile in profiles if profile is not None]
    raise DriftError(
        f"{model}: {len(stale)} profiles of features are still on other grids after {_ROUNDS} "
        "rounds, since other runs change the grids meanwhile; run this step again"
    )


def read_profile(data: bytes | None) -> TableProfile | None:
    """A stored profile; None without one that this release reads, since rows can always make it."""
    if data is None:
        return None
    try:
        return TableProfile.from_bytes(data)
    except DriftError:
        return None


def merge_profiles(profiles: Sequence[TableProfile]) -> TableProfile:
    """The profile of all rows together; a column that one lacks is null there, as in `TableStore.read`.

    Raises:
        DriftError: no profile, or columns that do not merge.
    """
    if not profiles:
        raise DriftError("profiles: there must be one to merge, got none")
    return reduce(TableProfile.merged, with_all_columns(profiles))


def with_all_columns(profiles: Sequence[TableProfile]) -> list[TableProfile]:
    """The profiles, each with the columns of all; those that it lacks are null."""
    names = dict.fromkeys(name for profile in profiles for name in profile.columns)
    return [
        replace(p, columns={name: p.columns.get(name) or _nulls(p.rows) for name in names})
        for p in profiles
    ]


def emptied(profile: TableProfile) -> TableProfile:
    """No rows, with the same columns."""
    return TableProfile(0, dict.fromkeys(profile.columns, _nulls(0)), profile.left_out)


def _nulls(rows: int) -> CategoryProfile:
    return CategoryProfile("null", "null", CategoryCounts(nulls=rows))


def _stored_grids(store: TableStore, model: str) -> TableProfile | None:
    (data,) = store.read_profiles(model, _GRIDS, [None])
    return read_profile(data)


def _as_grids(profile: TableProfile | None) -> dict[str, tuple[str, Grid]]:
    columns = {} if profile is None else profile.columns
    return {
        name: (column.family, column.grid)
        for name, column in columns.items()
        if isinstance(column, NumericProfile)
    }


def _fits(profile: TableProfile | None, grids: dict[str, tuple[str, Grid]]) -> bool:
    """Whether every column with values is on its grid; one of another type merges with none anyway."""
    if profile is None:
        return False
    for name, column in profile.columns.items():
        if isinstance(column, NumericProfile) and column.finite:
            family, grid = grids.get(name, (column.family, None))
            if family == column.family and grid != column.grid:
                return False
    return True


def _fitted(source: ArrowSource, grids: TableProfile | None) -> TableProfile:
    """The grids as a profile without rows; a column gets one where it has values and none fits."""
    columns = {} if grids is None else dict(grids.columns)
    for name in source.schema.names:
        kind = source.schema.field(name).type
        family = column_family(kind)
        if family not in NUMERIC_FAMILIES:
            continue
        sample = sample_of(lambda name=name: numeric_pieces(source, name))  # type: ignore[misc]
        if not np.isfinite(sample).any():
            continue
        own, held = choose_grid(sample), columns.get(name)
        if (
            not isinstance(held, NumericProfile)
            or held.family != family
            or _too_coarse(held.grid, own)
        ):
            columns[name] = numeric_profile(Counts(own, with_sums=True), str(kind), family)
    return TableProfile(0, columns)


def _too_coarse(held: Grid, own: Grid) -> bool:
    """Whether `held` sees next to nothing of the values that `own` was chosen for.

    Only a finer grid takes a grid's place, so that two kinds of partitions do not take turns.
    """
    if own.scale >= held.scale:
        return False
    middle = float(own.origin - held.origin)
    first, last = held.cells(np.array([middle - own.scale / 2, middle + own.scale / 2]))
    return bool(last - first < _FEWEST_CELLS)
