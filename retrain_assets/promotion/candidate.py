"""A candidate, from feature partitions to a registered version with its evidence.

Belongs here: the order of the steps, and what makes two trainings the same. Does not: how rows are
split, models trained, metrics computed, versions stored.

Safe to kill anywhere: tables and documents are written atomically and again on the next run, the
version is found by its fingerprint, and the document that `promoted_model` reads is written last.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import TableError
from retrain_assets.promotion.validation import (
    Validation,
    has_predictions,
    store_predictions,
    validate,
)
from retrain_assets.spec.model import METRICS, ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry
    from retrain_assets.training.evaluation import Evaluation
    from retrain_assets.training.model import TabularModel
    from retrain_assets.training.split import WindowPlan

__all__ = [
    "Candidate",
    "TrainingRows",
    "build_candidate",
    "load_evidence",
    "planned_fingerprint",
    "train_model",
    "training_rows",
]

_DOCUMENT = "candidate_model"


@dataclass(frozen=True)
class Candidate:
    """A registered version and what it was compared with.

    Attributes:
        version, run_id, model_uri: where the registry has it.
        fingerprint: hash of the feature rows and of everything else that decides the training.
        champion_version: the champion it was compared with, None where there was none.
        champion_saw_holdout: whether that champion was trained on part of the holdout.
        scores: the gate's metric on the holdout, of `candidate`, `champion` and each baseline.
        train_until: the last partition (or time, or row) that the model was trained on.
        holdout_until: the last partition of the holdout; empty without partitions, and in the
            documents of releases that did not keep it.
        evidence: path of the holdout's truth and scores, relative to the store.
        reused: the version existed before this run.
        notes: what a reader of the numbers must know.
        earlier_uses: other candidates that were compared with a champion on the same holdout before.
        measured: size_bytes of the model's files and, where `gate.budgets` asks, p95 of the
            milliseconds to predict one row (row_ms) and 1,000 rows (batch_ms).
        validation: what a fresh process made of the registered version; None in the documents of
            releases that did not ask.
    """

    model: str
    partition: str | None
    version: str
    run_id: str
    model_uri: str
    fingerprint: str
    champion_version: str | None
    champion_saw_holdout: bool
    metric: str
    scores: Mapping[str, float]
    trained_on: str
    holdout: str
    train_until: str
    rows_train: int
    rows_holdout: int
    evidence: str
    reused: bool
    notes: tuple[str, ...]
    measured: Mapping[str, float] = field(default_factory=dict)
    earlier_uses: int = 0
    validation: Validation | None = None
    holdout_until: str = ""

    @classmethod
    def stored(cls, store: "TableStore", model: str, partition: str | None) -> "Candidate":
        """The candidate that was built last for `partition`.

        Raises:
            TableError: there is none, or another release of this package has written it.
        """
        document = store.read_json(model, _DOCUMENT, partition)
        try:
            found = document.get("validation")
            return cls(
                **{
                    **document,
                    "notes": tuple(document["notes"]),
                    "validation": None if found is None else Validation(**found),
                }
            )
        except (TypeError, KeyError) as error:
            raise TableError(
                f"{model}: the stored candidate of {partition or 'the table'} has other fields than "
                f"this release reads ({error}); materialize candidate_model again"
            ) from None


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one training, cut into what is trained on and what is held out."""

    train: "pa.Table"
    holdout: "pa.Table"
    last: "pa.Table | None"
    holdout_partitions: Any
    trained_on: str
    holdout_name: str
    train_until: str
    holdout_from: str
    holdout_until: str
    fingerprints: Mapping[str, str]
    missing: tuple[str, ...]
    partitions: tuple[str, ...] | None = None

    @cached_property
    def data_digest(self) -> str:
        """Hash over the fingerprints of all partitions of the window."""
        return _digest(self.fingerprints)

    def fingerprint(self, spec: ModelSpec) -> str:
        """Names the training of these rows."""
        return _fingerprint_of(spec, self.data_digest, self.trained_on, self.holdout_name)


def build_candidate(
    spec: ModelSpec,
    partition: str | None,
    *,
    store: "TableStore",
    registry: "MlflowRegistry",
    ledger: "Ledger",
    parent_run_id: str | None = None,
    log: Callable[[str], object] = lambda text: None,
) -> tuple[Candidate, dict[str, bytes]]:
    """Train (or find), evaluate beside the champion, register, store the evidence.

    Stored with it, and with the version: what drift is measured against, see `drift.reference`.

    Returns:
        The candidate, and PNG pictures by title.

    Raises:
        TableError, TrainingError: too little data, or data that cannot be trained on.
        RegistryError, LedgerError: the registry or the ledger cannot be used.
    """
    from retrain_assets.promotion.model_files import store_model
    from retrain_assets.training.lightgbm_trainer import feature_importance

    rows = training_rows(spec, partition, store) if partition else _unpartitioned(spec, store)
    fingerprint = rows.fingerprint(spec)
    log(
        f"training on {rows.trained_on} ({rows.train.num_rows:,} rows), holdout {rows.holdout_name}"
    )
    found = registry.find(spec.name, fingerprint)
    model = registry.load(found) if found else train_model(spec, rows.train)
    champion = ledger.champion(spec.name)
    evaluation = _evaluate(spec, rows, model, champion, registry)
    versus = f"v{champion.version}" if champion else "none"
    evidence = f"evidence/{spec.name}/{fingerprint}-against-{versus}.parquet"
    _store_evidence(store, evidence, evaluation)
    importance = feature_importance(model)
    store_model(store, spec.name, fingerprint, model)
    reference = _store_reference(spec, rows, model, fingerprint, importance, store)
    if found is None or not has_predictions(store, spec.name, fingerprint):
        store_predictions(store, spec.name, fingerprint, model, rows.holdout)
    pictures = _pictures(spec, evaluation, importance)
    scores = _values(evaluation, spec.metric)
    if found:  # a kill may have come after the version was created
        registry.complete(found)
    version = found or _register(
        spec, partition, rows, model, fingerprint, evaluation, registry, pictures, reference,
        parent_run_id,
    )  # fmt: skip
    log(f"version {version.version} {'found' if found else 'registered'}: {_listed(scores)}")
    candidate = Candidate(
        model=spec.name,
        partition=partition,
        version=version.version,
        run_id=version.run_id,
        model_uri=version.model_uri,
        fingerprint=fingerprint,
        champion_version=champion.version if champion else None,
        champion_saw_holdout=_saw_holdout(champion, fingerprint, rows),
        metric=spec.metric,
        scores=scores,
        trained_on=rows.trained_on,
        holdout=rows.holdout_name,
        train_until=rows.train_until,
        rows_train=rows.train.num_rows,
        rows_holdout=evaluation.n_rows,
        evidence=evidence,
        reused=found is not None,
        notes=(*evaluation.notes, *(f"{key} is missing" for key in rows.missing)),
        measured=_measured(spec, model, rows.holdout),
        earlier_uses=_earlier_uses(spec, rows, fingerprint, store) if champion else 0,
        validation=validate(version, store=store, registry=registry),
        holdout_until=rows.holdout_until,
    )
    store.write_json(spec.name, _DOCUMENT, partition, asdict(candidate))
    return candidate, pictures


def _store_reference(
    spec: ModelSpec,
    rows: TrainingRows,
    model: "TabularModel",
    fingerprint: str,
    importance: Mapping[str, float],
    store: "TableStore",
) -> dict[str, bytes]:
    """What drift will be measured against while this candidate is champion; files for its version."""
    from retrain_assets.drift.reference import sample_rows, store_reference, with_scores

    sample = sample_rows(rows.train)
    scores = model.predict(sample.select(model.encoding.names).to_pandas())
    return store_reference(
        spec,
        store,
        fingerprint,
        rows=rows.train,
        partitions=rows.partitions,
        sample=with_scores(sample, scores, model.classes),
        importance=importance,
    )


def _store_evidence(store: "TableStore", path: str, evaluation: "Evaluation") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(evaluation.to_table(), sink, compression="zstd")
    store.write_bytes(path, sink.getvalue().to_pybytes())


def load_evidence(store: "TableStore", candidate: Candidate) -> "Evaluation":
    """Truth and scores that the candidate was compared on.

    Raises:
        TableError: they are missing.
        TrainingError: they are of a format that this code does not read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from retrain_assets.training.evaluation import Evaluation

    content = store.read_bytes(candidate.evidence)
    return Evaluation.from_table(pq.read_table(pa.BufferReader(content)))


def training_rows(
    spec: ModelSpec,
    partition: str,
    store: "TableStore",
    existing: Collection[str] | None = None,
) -> TrainingRows:
    """What a candidate for `partition` is trained and judged on.

    Args:
        spec: a model with partitions.
        partition: the newest partition that the candidate may know.
        store: has the feature partitions.
        existing: the feature partitions that exist; by default all that are stored. Replay gives
            those that existed when `partition` came.

    Raises:
        TrainingError, TableError: too few partitions, or one is damaged.
    """
    from retrain_assets.training.split import plan_window

    assert spec.scheme is not None
    if existing is None:
        existing = store.partitions(spec.name, "features")
    plan = plan_window(spec.scheme, partition, spec.train, spec.min_window, existing)
    train = store.read(spec.name, "features", list(plan.train_keys))
    holdout = store.read_with_partition(spec.name, "features", list(plan.holdout_keys))
    held_out = holdout["__partition__"].combine_chunks()
    return TrainingRows(
        train=train,
        holdout=holdout.drop_columns(["__partition__"]),
        last=store.read(spec.name, "features", [plan.train_keys[-1]]),
        holdout_partitions=held_out.dictionary.to_numpy(zero_copy_only=False)[held_out.indices],
        trained_on=_span(plan.train_keys),
        holdout_name=_span(plan.holdout_keys),
        train_until=plan.train_keys[-1],
        holdout_from=plan.holdout_keys[0],
        holdout_until=plan.holdout_keys[-1],
        fingerprints=store.fingerprints(spec.name, "features", list(plan.keys)),
        missing=plan.missing_keys,
        partitions=plan.train_keys,
    )


def _unpartitioned(spec: ModelSpec, store: "TableStore") -> TrainingRows:
    import numpy as np

    from retrain_assets.errors import TrainingError
    from retrain_assets.training.split import split_rows

    table = store.read(spec.name, "features", [None])
    order = None
    column = spec.train.time_column
    if column is not None:
        if column not in table.column_names:
            raise TrainingError(
                f"train.time_column: '{column}' is not a feature column; "
                f"there are {', '.join(table.column_names)}"
            )
        order = table[column].to_numpy()
    train, holdout = split_rows(table.num_rows, float(spec.train.holdout), order)
    if order is None:
        until, since = f"row {train[-1]:012d}", f"row {holdout[0]:012d}"
    else:
        until, since = str(np.max(order[train])), str(np.min(order[holdout]))
    return TrainingRows(
        train=table.take(train),
        holdout=table.take(holdout),
        last=None,
        holdout_partitions=None,
        trained_on=f"up to {until}",
        holdout_name=f"from {since}",
        train_until=until,
        holdout_from=since,
        holdout_until="",
        fingerprints=store.fingerprints(spec.name, "features", [None]),
        missing=(),
    )


def _span(keys: tuple[str, ...]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def _digest(fingerprints: Mapping[str, str]) -> str:
    text = json.dumps(dict(fingerprints), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def planned_fingerprint(
    spec: ModelSpec, plan: "WindowPlan", fingerprints: Mapping[str, str]
) -> str:
    """The fingerprint that the training of a window will have, before any row is read.

    Args:
        spec: the model.
        plan: the window.
        fingerprints: of the feature partitions, by key; others may be among them.
    """
    data = _digest({key: fingerprints[key] for key in plan.keys})
    return _fingerprint_of(spec, data, _span(plan.train_keys), _span(plan.holdout_keys))


def _fingerprint_of(spec: ModelSpec, data_digest: str, trained_on: str, holdout: str) -> str:
    """Same data, same settings, same trainer version and same cut: the same model."""
    document = {
        "model": spec.name,
        "data": data_digest,
        "training": spec.training_hash,
        "trainer": _trainer(),
        "trained_on": trained_on,
        "holdout": holdout,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _trainer() -> str:
    return f"lightgbm {version('lightgbm')}"


def train_model(spec: ModelSpec, train: "pa.Table") -> "TabularModel":
    """Train the spec's model on these rows; the same rows give the same model.

    Raises:
        TrainingError: rows or parameters that cannot be trained on.
    """
    from retrain_assets.training.encoding import feature_names
    from retrain_assets.training.lightgbm_trainer import train_lightgbm

    time_column = (spec.train.time_column,) if spec.train.time_column else ()
    columns = feature_names(
        train.column_names,
        target=spec.target,
        exclude=tuple(dict.fromkeys((*spec.train.exclude, *time_column))),
        group=spec.train.group,
    )
    return train_lightgbm(
        train,
        target=spec.target,
        task=spec.task,
        feature_columns=columns,
        params=spec.train.params,
        seed=spec.train.seed,
        group=spec.train.group,
    )


def _evaluate(
    spec: ModelSpec,
    rows: TrainingRows,
    model: "TabularModel",
    champion: "Promotion | None",
    registry: "MlflowRegistry",
) -> "Evaluation":
    from retrain_assets.training.evaluation import evaluate_on_holdout

    return evaluate_on_holdout(
        model,
        registry.load(spec.name, champion.version) if champion else None,
        train=rows.train,
        holdout=rows.holdout,
        last=rows.last,
        entity=spec.train.entity,
        group=spec.train.group,
        row_partitions=rows.holdout_partitions,
        keep=spec.gate.columns,
    )


def _earlier_uses(
    spec: ModelSpec, rows: TrainingRows, fingerprint: str, store: "TableStore"
) -> int:
    """Count this comparison on its holdout; how many other candidates were compared on it before.

    The same candidate counts once, however often it is built.
    """
    used: list[str] = []
    if store.json_exists(spec.name, "holdout_uses", rows.holdout_name):
        used = store.read_json(spec.name, "holdout_uses", rows.holdout_name)
    if fingerprint not in used:
        used.append(fingerprint)
        store.write_json(spec.name, "holdout_uses", rows.holdout_name, used)
    return used.index(fingerprint)


def _measured(spec: ModelSpec, model: "TabularModel", holdout: "pa.Table") -> dict[str, float]:
    """Size of the model's files; latency only where the gate has a budget for it."""
    with tempfile.TemporaryDirectory(prefix="retrain-") as folder:
        model.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    measured = {"size_bytes": float(size)}
    budgets = spec.gate.budgets
    if budgets is not None and budgets.row_ms is not None:
        measured["row_ms"] = _latency(model, holdout, rows=1, times=100)
    if budgets is not None and budgets.batch_ms is not None:
        measured["batch_ms"] = _latency(model, holdout, rows=1000, times=20)
    return measured


def _latency(model: "TabularModel", holdout: "pa.Table", *, rows: int, times: int) -> float:
    """p95 of the milliseconds to predict `rows` rows of the holdout, repeated where it is shorter.

    The first call is not counted; the others are, whatever else the machine does.
    """
    import numpy as np

    taken = []
    names = [name for name in model.encoding.names if name in holdout.column_names]
    for turn in range(times + 1):
        at = np.arange(turn * rows, (turn + 1) * rows) % holdout.num_rows
        frame = holdout.select(names).take(at).to_pandas()
        started = time.perf_counter()
        model.predict(frame)
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.quantile(taken[1:], 0.95, method="higher"))


def _saw_holdout(champion: "Promotion | None", fingerprint: str, rows: TrainingRows) -> bool:
    """Whether the champion was trained on part of the holdout; retraining an older partition."""
    if champion is None or champion.fingerprint == fingerprint:
        return False
    return str(champion.evidence["candidate"]["train_until"]) >= rows.holdout_from


def _values(evaluation: "Evaluation", metric: str) -> dict[str, float]:
    from retrain_assets.training.metrics import get_metric

    return evaluation.values(get_metric(metric))


def _pictures(
    spec: ModelSpec, evaluation: "Evaluation", importance: Mapping[str, float]
) -> dict[str, bytes]:
    from retrain_assets.training.metrics import get_metric
    from retrain_assets.training.render import comparison_picture, importance_picture

    return {
        "Candidate against champion": comparison_picture(evaluation, get_metric(spec.metric)),
        "Feature importance": importance_picture(importance),
    }


def _register(
    spec: ModelSpec,
    partition: str | None,
    rows: TrainingRows,
    model: "TabularModel",
    fingerprint: str,
    evaluation: "Evaluation",
    registry: "MlflowRegistry",
    pictures: Mapping[str, bytes],
    reference: Mapping[str, bytes],
    parent_run_id: str | None,
) -> Any:
    metrics = {
        f"{who}.{name}": value
        for name in METRICS[spec.task]
        for who, value in _defined_values(evaluation, name).items()
    }
    sample = rows.holdout.slice(0, 50).select(model.encoding.names).to_pandas()
    settings = spec.model_dump(mode="json", include={"target", "task", "train", "gate"})
    params = {
        **{f"params.{key}": value for key, value in spec.train.params.items()},
        "seed": spec.train.seed,
        "trained_on": rows.trained_on,
        "holdout": rows.holdout_name,
        "rows_train": rows.train.num_rows,
        "rows_holdout": evaluation.n_rows,
    }
    tags = {
        "retrain/partition": partition or "",
        "retrain/spec_hash": spec.training_hash,
        "retrain/data_digest": rows.data_digest[:32],
        "retrain/trained_on": rows.trained_on,
        "retrain/holdout": rows.holdout_name,
    }
    with tempfile.TemporaryDirectory(prefix="retrain-") as folder:
        target = Path(folder) / "model"
        model.save(target)
        return registry.log_candidate(
            spec.name,
            fingerprint,
            model_folder=target,
            params=params,
            metrics=metrics,
            tags=tags,
            signature_frame=sample,
            predictions=model.predict(sample),
            pictures={
                f"{title.lower().replace(' ', '_')}.png": png for title, png in pictures.items()
            },
            documents={
                "spec.json": json.dumps(settings, indent=2),
                "data.json": json.dumps(dict(rows.fingerprints), indent=2),
                **reference,
            },
            dataset={
                "name": f"{spec.name} features",
                "digest": rows.data_digest[:32],
                "source": f"{spec.name}/features {rows.trained_on}",
            },
            parent_run_id=parent_run_id,
        )


def _defined_values(evaluation: "Evaluation", metric: str) -> dict[str, float]:
    """A metric of everyone; empty where it is undefined on these rows (one class, say)."""
    from retrain_assets.errors import TrainingError

    try:
        return _values(evaluation, metric)
    except TrainingError:
        return {}


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{who} {value:.4f}" for who, value in scores.items())
