"""The present champion's performance on the partitions that it serves, measured once each and kept.

Belongs here: which partitions are due, what is read again, the stored documents. Does not: how one
partition is measured (`level`), scores (`scores`), what follows from it (`policy`).

Partitions after the champion's holdout count: it was neither trained nor chosen on them. A partition is
measured when its report is made, and again when its labels have come (`train.label_delay` partitions
later at the earliest; later ones are looked for in `LATE` partitions). Two documents are kept: one for each
champion (`champion_level`) and one for each partition (`performance`); written atomically, so that a
kill costs at most what was being measured.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retrain_assets.errors import TrainingError
from retrain_assets.performance.level import (
    Level,
    fit_level,
    level_document,
    level_of_document,
    performance_on,
)
from retrain_assets.performance.measured import Performance
from retrain_assets.performance.realised import undecided
from retrain_assets.training.encoding import has_target
from retrain_assets.training.metrics import get_metric

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.performance.scores import ChampionScores
    from retrain_assets.promotion.ledger import Promotion
    from retrain_assets.spec.model import ModelSpec

__all__ = ["LATE", "SPAN", "Served", "load_level", "measure_served"]

SPAN = 100
"""Most partitions with labels that a decision looks back on, as `retrain.on_performance.of_last` allows;
those whose labels are not due yet come on top, so that late labels never hide the realised values."""

LATE = 14
"""Partitions, of those whose labels are due, that are looked at again until labels are there."""

_LEVEL, _PARTITION = "champion_level", "performance"


@dataclass(frozen=True)
class Served:
    """A champion's performance so far.

    Attributes:
        version: of the champion.
        expected: on its holdout.
        partitions: one per feature partition since then, oldest first; at most `SPAN` whose labels
            are due, and all after.
    """

    version: str
    expected: Performance
    partitions: tuple[Performance, ...]


def measure_served(
    spec: "ModelSpec",
    store: "TableStore",
    champion: "Promotion",
    scores: "ChampionScores",
    *,
    renewed: Collection[str],
    existing: Collection[str],
) -> Served:
    """Measure what is due and return all that is known.

    Args:
        spec: the model; it has partitions.
        store: features, scores, documents.
        champion: the ledger's.
        scores: its scores.
        renewed: partitions whose features are new.
        existing: keys of all stored feature partitions.

    Raises:
        TableError: stored data cannot be read.
        TrainingError: stored evidence is of a format that this release does not read.
    """
    assert spec.scheme is not None
    level = load_level(spec, store, champion, scores, existing)
    since = str(_candidate(champion).get("holdout_until") or champion.partition or "")
    labelled = spec.scheme.shift(max(existing), -spec.train.label_delay) or ""
    span = sorted(key for key in existing if key > since)
    span = span[-(SPAN + sum(key > labelled for key in span)) :]
    stored = store.read_many_json(spec.name, _PARTITION, span)
    again = {key for key in span if key <= labelled}
    late = set(sorted(again)[-LATE:])
    found = []
    for key in span:
        before = _known(stored.get(key), champion.fingerprint, spec.metric)
        settled = before is not None and key not in renewed
        if settled and before is not None and before.kind == "estimated" and key in late:
            settled = not _labels_came(spec, store, key)
            if not settled:
                scores.forget(key)
        if settled and before is not None:
            found.append(before)
            continue
        measured = _measured(spec, level, scores, key, due=key in again)
        store.write_json(
            spec.name, _PARTITION, key,
            {"fingerprint": champion.fingerprint, "version": champion.version,
             "performance": asdict(measured)},
        )  # fmt: skip
        found.append(measured)
    return Served(champion.version, level.expected, tuple(found))


def load_level(
    spec: "ModelSpec",
    store: "TableStore",
    champion: "Promotion",
    scores: "ChampionScores",
    existing: Collection[str],
) -> Level:
    """The champion's level, fitted on the first call for a champion and metric and kept."""
    from retrain_assets.promotion.model_files import load_model, store_model

    loss_model = f"{champion.fingerprint}-loss"
    if store.json_exists(spec.name, _LEVEL, champion.fingerprint):
        document = store.read_json(spec.name, _LEVEL, champion.fingerprint)
        if document["metric"] == spec.metric:
            losses = document.get("losses")
            usable = losses is not None and not losses["problem"]
            return level_of_document(
                document, load_model(store, spec.name, loss_model) if usable else None
            )
    level = _fitted(spec, store, champion, scores, existing)
    model = getattr(level.estimator, "model", None)
    if model is not None:
        store_model(store, spec.name, loss_model, model)
    store.write_json(spec.name, _LEVEL, champion.fingerprint, level_document(spec.metric, level))
    return level


def _fitted(
    spec: "ModelSpec",
    store: "TableStore",
    champion: "Promotion",
    scores: "ChampionScores",
    existing: Collection[str],
) -> Level:
    import pyarrow.parquet as pq

    from retrain_assets.training.evaluation import Evaluation

    path = _candidate(champion).get("evidence", "")
    if not path or not store.file_exists(path):
        gone = "what the champion was judged on is not stored"
        rule = get_metric(spec.metric)
        return Level(undecided(rule, "realised", None, None, 0, 0.95, gone), None, gone)
    holdout = Evaluation.from_table(pq.read_table(pa.BufferReader(store.read_bytes(path))))
    features = None
    if get_metric(spec.metric).is_regression:
        features = _holdout_features(spec, store, list(holdout.row_partitions), scores, existing)
    return fit_level(spec.metric, holdout, features, seed=spec.train.seed)


def _holdout_features(
    spec: "ModelSpec",
    store: "TableStore",
    partitions: Sequence[str],
    scores: "ChampionScores",
    existing: Collection[str],
) -> pa.Table | None:
    """The features of the holdout's rows, None where a partition is gone."""
    keys = list(dict.fromkeys(partitions))
    if not keys or not set(existing).issuperset(keys):
        return None
    rows = store.read(spec.name, "features", keys)
    return scores.columns(rows.filter(has_target(rows, spec.target)))


def _measured(
    spec: "ModelSpec", level: Level, scores: "ChampionScores", key: str, *, due: bool
) -> Performance:
    rule = get_metric(spec.metric)
    try:
        found = scores.of(key)
    except TrainingError as error:
        problem = f"the champion cannot score it: {error}"
        return undecided(rule, "estimated", key, None, 0, 0.95, problem)
    if due and found.problem:
        n = len(found.y_score)
        return undecided(rule, "realised", key, None, n, 0.95, found.problem)
    estimates = rule.is_regression and level.estimator is not None
    return performance_on(
        spec.metric,
        level,
        key,
        y_score=found.y_score,
        y_true=found.y_true if due else None,
        groups=found.groups,
        features=scores.features(key) if estimates and not (due and found.has_labels) else None,
    )


def _labels_came(spec: "ModelSpec", store: "TableStore", key: str) -> bool:
    target = store.read(spec.name, "features", [key], [spec.target])
    return bool(has_target(target, spec.target).to_numpy().any())


def _known(document: Any, fingerprint: str, metric: str) -> Performance | None:
    """A stored measurement of this champion in this metric."""
    if document is None or document["fingerprint"] != fingerprint:
        return None
    found = Performance(**document["performance"])
    return found if found.metric == metric else None


def _candidate(champion: "Promotion") -> dict[str, Any]:
    found: dict[str, Any] = champion.evidence.get("candidate", {})
    return found
