"""The status of the fleet as Prometheus metrics.

https://prometheus.io/docs/practices/naming/

Belongs here: names, types and help texts. Does not: rows (`status`), serving (`server`). Everything is
read from one snapshot at scrape time; nothing is counted in this process, so that a restart changes no
number.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import STATES, StatusRow

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["exposition", "registry_of"]


def registry_of(read: Callable[[], Snapshot]) -> "CollectorRegistry":
    """A registry of its own whose numbers are those of the snapshot at each scrape."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class _Fleet(Collector):
        def collect(self) -> "Iterator[Metric]":
            yield from _families(read())

        def describe(self) -> "list[Metric]":
            return []  # else registering would read everything

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fleet())
    return registry


def exposition(registry: "CollectorRegistry", accept: str) -> tuple[bytes, str]:
    """What a scrape is answered: body and content type.

    Args:
        registry: of `registry_of`.
        accept: the request's Accept header.
    """
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _families(snapshot: Snapshot) -> "Iterator[Metric]":
    rows = snapshot.rows
    yield from _states(snapshot)
    yield _gauge(
        "retrain_champion_age_seconds", "Time since the champion was promoted.", rows,
        lambda row: _age(row, snapshot.as_of),
    )  # fmt: skip
    yield _gauge(
        "retrain_drift_score", "Newest drift score, 0 to 1; 0.5: every feature at its threshold.",
        rows, lambda row: row.drift_score,
    )  # fmt: skip
    yield _metric_values(rows)
    yield _gauge(
        "retrain_metric_bound", "Worst value of the gate's metric that the spec puts up with.", rows,
        lambda row: row.bound, metric=lambda row: row.metric or "",
    )  # fmt: skip
    yield _gauge(
        "retrain_compute_seconds_last_week", "What the model's runs took in 7 days.", rows,
        lambda row: row.week_seconds,
    )  # fmt: skip
    yield _runs(rows)
    yield _counter("retrain_promotions", "Candidates that became champion.", rows, "promotions")
    yield _counter("retrain_rejections", "Candidates that did not pass.", rows, "rejections")
    yield _gauge(
        "retrain_freshness", "Freshness policies: 0 ok, 1 warn, 2 fail.", rows,
        lambda row: None if row.freshness is None else ("ok", "warn", "fail").index(row.freshness),
    )  # fmt: skip


def _states(snapshot: Snapshot) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    state = GaugeMetricFamily(
        "retrain_state", "1 for the state that the model is in, else 0.",
        labels=["model", "group", "state"],
    )  # fmt: skip
    for row in snapshot.rows:
        for name in STATES:
            state.add_metric([row.model, row.group or "", name], float(row.state == name))
    yield state
    yield GaugeMetricFamily(
        "retrain_snapshot_timestamp_seconds", "When these numbers were read.",
        value=snapshot.as_of.timestamp(),
    )  # fmt: skip


def _age(row: StatusRow, now: datetime) -> float | None:
    if row.promoted_at is None:
        return None
    return max(0.0, (now - datetime.fromisoformat(row.promoted_at)).total_seconds())


def _gauge(
    name: str,
    text: str,
    rows: tuple[StatusRow, ...],
    value: Callable[[StatusRow], float | None],
    **labels: Callable[[StatusRow], str],
) -> "Metric":
    """A gauge of the models that have a value."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=["model", *labels])
    for row in rows:
        found = value(row)
        if found is not None:
            family.add_metric([row.model, *(label(row) for label in labels.values())], found)
    return family


def _metric_values(rows: tuple[StatusRow, ...]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "retrain_metric_value",
        "The gate's metric of the champion: on its holdout, and as realised or estimated since.",
        labels=["model", "metric", "kind"],
    )
    for row in rows:
        for kind, value in (("holdout", row.value), (row.live_kind, row.live)):
            if kind is not None and value is not None:
                family.add_metric([row.model, row.metric or "", kind], value)
    return family


def _runs(rows: tuple[StatusRow, ...]) -> "Metric":
    """A gauge, not a counter: Dagster's runs can be deleted, and only a week of them is read."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "retrain_runs_last_week", "Runs that ended in 7 days.", labels=["model", "kind", "status"]
    )
    for row in rows:
        for name, count in row.week_runs.items():
            kind, _, status = name.partition(" ")
            family.add_metric([row.model, kind, status], count)
    return family


def _counter(name: str, text: str, rows: tuple[StatusRow, ...], field: str) -> "Metric":
    """A counter from the ledger, which is append-only."""
    from prometheus_client.core import CounterMetricFamily

    family: Any = CounterMetricFamily(name, text, labels=["model"])
    for row in rows:
        family.add_metric([row.model], getattr(row, field))
    counted: Metric = family
    return counted
