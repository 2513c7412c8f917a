"""`retrain dashboard`: the fleet's page, fed from Dagster and the ledgers.

Belongs here: what the page's server reads. Does not: the page and its routes (`fleet.server`), rows
(`status`).
"""

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.errors import StatusError
from retrain_assets.fleet.server import Cache, application
from retrain_assets.fleet.snapshot import Snapshot, specs_digest
from retrain_assets.orchestration.keys import EVIDENCE, asset_key
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.status import local_instance, read_fleet
from retrain_assets.orchestration.why import explain
from retrain_assets.performance.measured import expanded
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import SpecSet, load_specs

if TYPE_CHECKING:
    from retrain_assets.fleet.why import Explained
    from retrain_assets.promotion.ledger import Promotion

__all__ = ["FleetReader", "serve"]

_LOG = logging.getLogger(__name__)
_DECISIONS = 20
_REPORTS = 120


class FleetReader:
    """Reads the fleet again and again; specs are loaded again when their files have changed.

    Args:
        specs: folder of the spec files.
        instance: Dagster's.
        platform: this deployment's.
    """

    def __init__(self, specs: Path, instance: dg.DagsterInstance, platform: Platform) -> None:
        self._folder = specs
        self._instance = instance
        self._platform = platform
        self._loaded: tuple[str, SpecSet] | None = None
        self._told = ""

    def snapshot(self) -> Snapshot:
        """The status now, left behind for `retrain status` too.

        Raises:
            RetrainError: the specs or the ledger cannot be read.
        """
        key = specs_digest([self._folder])
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, load_specs(self._folder))
        found = read_fleet(self._instance, self._platform, self._loaded[1], key)
        problem = found.leave(self._platform.settings.home)
        if problem and problem != self._told:  # once, and not every three seconds
            _LOG.warning("%s", problem)
        self._told = problem
        return found

    def history(self, model: str) -> dict[str, Any] | None:
        """What one model's page shows beside its row; None for a model that nobody knows.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        ledger = self._platform.ledger
        promotions = ledger.history(model)
        known = self._loaded is not None and model in self._loaded[1].models
        if not promotions and not known:
            return None
        drift, metric = _measured(self._instance, model)
        realised = {one.sequence: one.sentence for one in ledger.outcomes(model)}
        holdout = [
            {"partition": row.partition, "value": row.value, "kind": "holdout",
             "version": row.version, "at": row.promoted_at.isoformat()}
            for row in promotions if row.kind == "promotion"
        ]  # fmt: skip
        return {
            "model": model,
            "decisions": [_decision(one) for one in explain(self._platform, model, _DECISIONS)],
            "promotions": [_promotion(row, realised.get(row.sequence)) for row in promotions[::-1]],
            "drift": drift,
            "metric": sorted(
                metric + holdout, key=lambda one: (one["partition"] or "", one["kind"])
            ),
        }


def _decision(one: "Explained") -> dict[str, Any]:
    return {**one.to_dict(), "said": one.done}


def _promotion(row: "Promotion", realised: str | None) -> dict[str, Any]:
    names = ("sequence", "kind", "version", "partition", "metric", "value", "actor", "reason")
    fields = {name: getattr(row, name) for name in names}
    return {**fields, "at": row.promoted_at.isoformat(), "realised": realised}


def _measured(
    instance: dg.DagsterInstance, model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Drift scores of the last reports, and the champion's performance; both by partition."""
    landed = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key(model, "drift_report")), limit=_REPORTS
    )
    drift: dict[str, dict[str, Any]] = {}
    metric: dict[str, dict[str, Any]] = {}
    for record in landed.records:  # newest first: of a partition the newest report counts
        if record.asset_materialization is None:
            continue
        values: Any = {k: v.value for k, v in record.asset_materialization.metadata.items()}
        where = record.partition_key
        if "drift_score" in values:
            drift.setdefault(
                where or str(record.storage_id),
                {"partition": where, "score": values["drift_score"], "verdict": values["verdict"]},
            )
        if EVIDENCE in values:
            _, *since = expanded(values[EVIDENCE]["performance"])
            for one in since:
                if one.value is not None:
                    metric.setdefault(
                        one.partition or "",
                        {"partition": one.partition, "value": one.value, "kind": one.kind},
                    )
    # Without partitions reports come newest first; with them, late ones come out of order.
    ordered = [*drift.values()][::-1]
    return sorted(ordered, key=lambda one: one["partition"] or ""), [*metric.values()]


def serve(specs: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the dashboard until the process is told to stop.

    Args:
        specs: folder of the spec files.
        host, port: where to listen; port 0 takes a free one.
        announce: is told the address once it is open.

    Raises:
        StatusError: the address cannot be listened on.
        RetrainError: the status cannot be read.
    """
    import uvicorn

    settings = Settings.load()
    with local_instance(settings) as instance, _listening(host, port) as listener:
        reader = FleetReader(specs, instance, Platform(settings))
        cache = Cache(reader.snapshot)
        cache.get()  # what cannot be read at all is said on the command line
        app = application(cache, reader.history, settings.dagster_url)
        config = uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off")
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise StatusError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; give another --port"
        ) from None
