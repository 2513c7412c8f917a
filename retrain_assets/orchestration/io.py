"""Tables between assets: Parquet through an IO manager on the platform's store.

https://docs.dagster.io/guides/build/io-managers

The assets of the factory write each partition as soon as it is ready, so that a backfill of sixty
partitions needs the memory of one and keeps what it has done when it is killed; they hand over
references, which the IO manager records. Assets of the user's own may return an Arrow table or a
pandas DataFrame, which the IO manager writes itself, and take any of them as input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.errors import TableError
from retrain_assets.orchestration.platform import Platform

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.data.tables import StoredTable, TableStore

__all__ = ["StoredPartitions", "TableIOManager", "TableWindow"]


@dataclass(frozen=True)
class StoredPartitions:
    """Partitions that the asset has stored itself."""

    tables: Mapping[str | None, "StoredTable"]


@dataclass(frozen=True)
class TableWindow:
    """A lazy view of the partitions of an upstream table; nothing is read before it is asked for.

    Attributes:
        partitions: keys that the input's partition mapping asks for; [None] without partitions.
    """

    store: "TableStore"
    model: str
    table: str
    partitions: tuple[str | None, ...]

    def existing(self) -> list[str]:
        """Keys of all stored partitions of the table, by one listing."""
        return self.store.partitions(self.model, self.table)

    def read(self, columns: list[str] | None = None) -> "pa.Table":
        """All rows of the window; raises TableError where a partition is missing."""
        return self.store.read(self.model, self.table, list(self.partitions), columns)


class TableIOManager(dg.IOManager):
    """Parquet tables on the platform's store, `tables/<model>/<table>/<partition>.parquet`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Record what the asset stored, or store the table that it returned."""
        keys: list[str | None] = (
            list(context.asset_partition_keys) if context.has_asset_partitions else [None]
        )
        if isinstance(obj, StoredPartitions):
            missing = [key for key in keys if key not in obj.tables]
            if missing:
                raise TableError(f"{context.asset_key.to_user_string()}: {missing} were not stored")
            return
        if len(keys) > 1:
            raise TableError(
                f"{context.asset_key.to_user_string()}: one table was returned for {len(keys)} "
                "partitions; materialize them one by one"
            )
        model, table = context.asset_key.path[0], "/".join(context.asset_key.path[1:])
        stored = self._platform.store.write(model, table or model, keys[0], _as_arrow(obj))
        context.add_output_metadata(
            {"path": dg.MetadataValue.path(stored.path), "dagster/row_count": stored.rows}
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """A `TableWindow`, or the table itself where the input is annotated as one."""
        path = context.asset_key.path
        keys: list[str | None] = (
            list(context.asset_partition_keys) if context.has_asset_partitions else [None]
        )
        table = "/".join(path[1:]) or path[0]
        window = TableWindow(self._platform.store, path[0], table, tuple(keys))
        wanted = getattr(context.dagster_type.typing_type, "__qualname__", "")
        if wanted == "DataFrame":
            return window.read().to_pandas()
        return window.read() if wanted == "Table" else window


def _as_arrow(obj: Any) -> "pa.Table":
    import pyarrow as pa

    if isinstance(obj, pa.Table):
        return obj
    if type(obj).__name__ == "DataFrame" and hasattr(obj, "to_records"):
        return pa.Table.from_pandas(obj, preserve_index=False)
    raise TableError(
        f"an asset with the IO manager 'tables' must return a pyarrow.Table or pandas.DataFrame, "
        f"got {type(obj).__name__}"
    )
