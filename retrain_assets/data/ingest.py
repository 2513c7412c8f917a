"""One partition on its way in: source → contract → raw table → features and their profile.

Belongs here: the order of the steps and what is kept when one of them refuses. Does not: how a
source is read, a rule checked, a table stored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain_assets.errors import ContractError
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.tables import StoredTable, TableStore

__all__ = ["Ingested", "ingest", "make_features"]


@dataclass(frozen=True)
class Ingested:
    """A stored table of one partition and what is worth plotting about it.

    Attributes:
        partition: its key, None without partitions.
        stored: where it is, and its fingerprint.
        numbers: `rows`, `columns`, `null_rate` and, for features, `target_mean`.
    """

    partition: str | None
    stored: "StoredTable"
    numbers: Mapping[str, float]


def ingest(spec: ModelSpec, partition: str | None, store: "TableStore") -> Ingested:
    """Read one partition from the source, hold it against the contract, store it.

    Rows that break the contract are kept aside in the table `raw_data_rejected`, and nothing is
    stored as raw data: what was there before stays.

    Raises:
        SourceError: the source cannot be read.
        ContractError: with every broken rule, its count and three example rows.
    """
    from retrain_assets.data.contract import breach_report, check_contract, offending_rows
    from retrain_assets.data.features import null_rate
    from retrain_assets.data.sources import read_source

    window = None if spec.scheme is None or partition is None else spec.scheme.window(partition)
    table = read_source(spec.source, window)
    breaches = check_contract(table, spec.contract)
    if breaches:
        subject = f"{spec.name} raw_data" + (f" {partition}" if partition else "")
        message = breach_report(breaches, subject)
        rejected = offending_rows(table, spec.contract)
        if rejected.num_rows:
            aside = store.write(spec.name, "raw_data_rejected", partition, rejected)
            message += f"\n{aside.rows} offending rows are kept in {aside.path}"
        raise ContractError(message)
    stored = store.write(spec.name, "raw_data", partition, table)
    numbers = {"rows": stored.rows, "columns": table.num_columns, "null_rate": null_rate(table)}
    return Ingested(partition, stored, numbers)


def make_features(
    spec: ModelSpec,
    partition: str | None,
    store: "TableStore",
    existing: Collection[str] = (),
) -> Ingested:
    """Transform one stored raw partition into its feature table, store it and profile it.

    Args:
        existing: keys of all stored raw partitions; those of the look-back that exist are read.

    Raises:
        TableError: the raw partition is not stored.
        FeatureError: the transform failed, or its result breaks the rules.
    """
    from retrain_assets.data.features import build_features, null_rate
    from retrain_assets.drift.stored import store_profile

    raw = store.read(spec.name, "raw_data", [partition])
    history = None
    if spec.features.lookback and spec.scheme is not None and partition is not None:
        before = spec.scheme.trailing(partition, spec.features.lookback + 1)[:-1]
        past = [key for key in before if key in set(existing)]
        history = store.read(spec.name, "raw_data", past) if past else raw.slice(0, 0)
    table = build_features(spec.features, raw, history, target=spec.target)
    # Killed in between, the partition has no profile, which is noticed, and never a wrong one.
    store.remove_profile(spec.name, "features", partition)
    stored = store.write(spec.name, "features", partition, table)
    store_profile(store, spec.name, partition, table)
    numbers = {"rows": stored.rows, "columns": table.num_columns, "null_rate": null_rate(table)}
    target_mean = _target_mean(spec, table)
    if target_mean is not None:
        numbers["target_mean"] = target_mean
    return Ingested(partition, stored, numbers)


def _target_mean(spec: ModelSpec, table: object) -> float | None:
    """Mean of a numeric or boolean target, None for text or where every label is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    assert isinstance(table, pa.Table)
    column = table[spec.target]
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    mean = pc.mean(column.cast(pa.float64())).as_py()
    return None if mean is None else float(mean)
