"""A model's partitions as Dagster sees them.

https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

import warnings
from functools import cache

import dagster as dg

from retrain_assets.spec.partitions import PartitionScheme

__all__ = ["dagster_partitions", "trailing_mapping"]


@cache
def dagster_partitions(scheme: PartitionScheme | None) -> dg.TimeWindowPartitionsDefinition | None:
    """Dagster's partitions of `scheme`; the keys are the same (a contract test holds them equal)."""
    if scheme is None:
        return None
    start, end = scheme.first, scheme.stop  # Dagster's end_date is exclusive, as `stop` is
    match scheme.every:
        case "hour":
            return dg.HourlyPartitionsDefinition(start_date=start, end_date=end)
        case "day":
            return dg.DailyPartitionsDefinition(start_date=start, end_date=end)
        case "week":
            return dg.WeeklyPartitionsDefinition(start_date=start, end_date=end, day_offset=1)
        case "month":
            return dg.MonthlyPartitionsDefinition(start_date=start, end_date=end)


@cache
def trailing_mapping(partitions: int, end_offset: int = 0) -> dg.TimeWindowPartitionMapping:
    """Partition P depends on the `partitions` partitions that end `-end_offset` before P's own."""
    with warnings.catch_warnings():
        # The parameter is beta in Dagster 1.13; without it the first partitions, whose window
        # reaches back before the first day, could never be materialized.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(
            start_offset=-(partitions - 1) + end_offset,
            end_offset=end_offset,
            allow_nonexistent_upstream_partitions=True,
        )
