"""The evidence on which a candidate is judged: truth and every model's scores on the same rows.

Belongs here: scoring the holdout, and keeping the arrays so that the gate can be computed again.
Does not: metrics (`metrics`), verdicts (the gate).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.baselines import baseline_predictions
from retrain_assets.training.encoding import Label, encode_target, has_target
from retrain_assets.training.metrics import Metric
from retrain_assets.training.model import TabularModel

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "Evaluation",
    "check_same_classes",
    "evaluate_on_holdout",
    "ranking_groups",
    "score_array",
    "score_labelled",
]

CANDIDATE = "candidate"
CHAMPION = "champion"

_METADATA = b"retrain_assets.evaluation"
_FORMAT_VERSION = 1
_SCORE = "score."
_COLUMN = "column."


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Truth and scores of the holdout rows, n of them.

    Attributes:
        task: kind of prediction.
        y_true: truth as metrics take it, shape (n,).
        scores: by scorer, `candidate`, `champion` (where there is one) and each baseline; shape
            (n,), multiclass (n, k).
        row_partitions: partition key of each row ("" without partitions), shape (n,).
        groups: ranking: group of each row, shape (n,).
        classes: labels of a classification; binary: the last is the positive one.
        notes: what a reader of the numbers must know.
        columns: labels of each row by feature column, for slices and groups; text or None, (n,).
    """

    task: str
    y_true: NDArray[Any]
    scores: Mapping[str, NDArray[np.float64]]
    row_partitions: NDArray[Any]
    groups: NDArray[Any] | None = None
    classes: tuple[Label, ...] | None = None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if CANDIDATE not in self.scores:
            raise TrainingError(f"an evaluation needs scores of '{CANDIDATE}', got {_keys(self)}")
        lengths = {f"scores of '{name}'": len(s) for name, s in self.scores.items()}
        lengths |= {f"column '{name}'": len(c) for name, c in self.columns.items()}
        lengths["row_partitions"] = len(self.row_partitions)
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        wrong = [f"{what} {n}" for what, n in lengths.items() if n != len(self.y_true)]
        if wrong:
            raise TrainingError(
                f"an evaluation needs {len(self.y_true)} entries of each (y_true), "
                f"got {', '.join(wrong)}"
            )

    @property
    def n_rows(self) -> int:
        """Rows that were scored."""
        return len(self.y_true)

    @property
    def baselines(self) -> list[str]:
        """Names of the scorers that are neither candidate nor champion."""
        return [name for name in self.scores if name not in (CANDIDATE, CHAMPION)]

    def values(self, metric: Metric) -> dict[str, float]:
        """The metric's value of every scorer.

        Raises:
            TrainingError: the metric does not fit the task, or is undefined on these rows.
        """
        return {
            name: metric.evaluate(self.y_true, score, groups=self.groups, classes=self.classes)
            for name, score in self.scores.items()
        }

    def to_table(self) -> pa.Table:
        """One row per holdout row; `from_table` reads it back without loss, also from Parquet."""
        columns = {"y_true": pa.array(self.y_true), "partition": pa.array(self.row_partitions)}
        if self.groups is not None:
            columns["group"] = pa.array(self.groups)
        for name, score in self.scores.items():
            flat = pa.array(np.ascontiguousarray(score).reshape(-1))
            columns[_SCORE + name] = (
                flat if score.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, score.shape[1])
            )
        for name, labels in self.columns.items():
            columns[_COLUMN + name] = pa.array(labels, pa.string())
        document = {
            "format_version": _FORMAT_VERSION,
            "task": self.task,
            "classes": None if self.classes is None else list(self.classes),
            "notes": list(self.notes),
        }
        return pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(document)})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Evaluation":
        """The evaluation that `to_table` wrote.

        Raises:
            TrainingError: the table is something else, or of a format that this code does not read.
        """
        document = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
        version = document.get("format_version")
        if version != _FORMAT_VERSION:
            raise TrainingError(
                f"evidence of an evaluation must have format_version {_FORMAT_VERSION}, got "
                f"{version}; evaluate the candidate again"
            )
        classes = document["classes"]
        return cls(
            task=document["task"],
            y_true=table.column("y_true").to_numpy(),
            scores={
                name.removeprefix(_SCORE): score_array(table.column(name))
                for name in table.column_names
                if name.startswith(_SCORE)
            },
            row_partitions=table.column("partition").to_numpy(),
            groups=table.column("group").to_numpy() if "group" in table.column_names else None,
            classes=None if classes is None else tuple(classes),
            notes=tuple(document["notes"]),
            columns={
                name.removeprefix(_COLUMN): table.column(name).to_numpy()
                for name in table.column_names
                if name.startswith(_COLUMN)
            },
        )


def score_array(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Scores of shape (n,) or (n, k) from a column of numbers or of lists of k numbers."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat.reshape(-1, column.type.list_size)


def _keys(evaluation: Evaluation) -> str:
    return ", ".join(evaluation.scores) or "none"


def evaluate_on_holdout(
    candidate: TabularModel,
    champion: TabularModel | None,
    *,
    train: pa.Table,
    holdout: pa.Table,
    last: pa.Table | None,
    entity: Sequence[str] = (),
    group: str | None = None,
    row_partitions: ArrayLike | None = None,
    champion_train_keys: Collection[str] = (),
    keep: Sequence[str] = (),
) -> Evaluation:
    """Let candidate, champion and baselines score the same holdout rows, those with a target.

    Args:
        candidate: the model to judge; its target, task and classes are the evaluation's.
        champion: the model in production, None where there is none.
        train: the candidate's training rows, for baselines.
        holdout: rows that neither model was trained on.
        last: rows of the last training partition, None without partitions.
        entity: columns that name the thing predicted.
        group: ranking: the column that names each row's group.
        row_partitions: partition key of each holdout row, None without partitions.
        champion_train_keys: partitions that the champion was trained on.
        keep: feature columns whose labels are kept with the rows (gate.slices, gate.group_gaps).

    Raises:
        TrainingError: a column to keep is missing; no holdout row has a target; the champion saw
            part of the holdout; or it predicts something else than the candidate.
    """
    rows, partitions = _labelled(holdout, candidate.target, row_partitions)
    _check_unseen(partitions, champion_train_keys)
    found = score_labelled(
        candidate, champion, rows, group=group, row_partitions=partitions, keep=keep
    )
    if found is None:
        raise TrainingError(
            f"holdout: none of its {holdout.num_rows} rows has a value of target "
            f"'{candidate.target}'; raise train.label_delay if labels arrive later"
        )
    baselines = baseline_predictions(
        train, rows, target=candidate.target, task=candidate.task, entity=entity, last=last,
        classes=candidate.classes,
    )  # fmt: skip
    return replace(found, scores={**found.scores, **baselines})


def score_labelled(
    candidate: TabularModel,
    champion: TabularModel | None,
    table: pa.Table,
    *,
    group: str | None = None,
    row_partitions: ArrayLike | None = None,
    keep: Sequence[str] = (),
) -> Evaluation | None:
    """Let one or two models score the rows whose label is there; None where no row has one.

    Args:
        candidate: its target, task and classes are the evaluation's.
        champion: a second model that predicts the same, or None.
        table: feature rows.
        group, row_partitions, keep: as in `evaluate_on_holdout`.

    Raises:
        TrainingError: a column to keep is missing, or the models predict different things.
    """
    rows, partitions = _labelled(table, candidate.target, row_partitions)
    if not rows.num_rows:
        return None
    scorers = {CANDIDATE: candidate}
    if champion is not None:
        _check_comparable(candidate, champion)
        scorers[CHAMPION] = champion
    scores = {name: _score(name, model, rows) for name, model in scorers.items()}
    return Evaluation(
        task=candidate.task,
        y_true=encode_target(
            rows.column(candidate.target),
            target=candidate.target,
            task=candidate.task,
            classes=candidate.classes,
        ),
        scores=scores,
        row_partitions=partitions,
        groups=ranking_groups(rows, group) if candidate.task == "ranking" else None,
        classes=candidate.classes,
        notes=tuple(note for name, model in scorers.items() for note in _notes(name, model, rows)),
        columns=_kept(rows, keep),
    )


def _labelled(
    holdout: pa.Table, target: str, row_partitions: ArrayLike | None
) -> tuple[pa.Table, NDArray[Any]]:
    """The rows with a target, and their partitions."""
    partitions = np.asarray(
        [""] * holdout.num_rows if row_partitions is None else row_partitions, dtype=object
    )
    if partitions.shape != (holdout.num_rows,):
        raise TrainingError(
            f"row_partitions must name the partition of each of the {holdout.num_rows} holdout "
            f"rows, got shape {partitions.shape}"
        )
    labelled = has_target(holdout, target)
    return holdout.filter(labelled), partitions[labelled.to_numpy()]


def _score(name: str, model: TabularModel, rows: pa.Table) -> NDArray[np.float64]:
    names = [n for n in model.encoding.names if n in rows.column_names]
    try:
        return model.predict(rows.select(names).to_pandas())
    except TrainingError as error:
        raise TrainingError(f"the {name} cannot score the holdout: {error}") from error


def ranking_groups(rows: pa.Table, group: str | None) -> NDArray[Any]:
    """The group of each row, shape (n,).

    Raises:
        TrainingError: there is no such column.
    """
    if group is None or group not in rows.column_names:
        raise TrainingError(
            f"train.group: ranking needs the column that names each row's group, got {group!r}; "
            f"the holdout has {', '.join(rows.column_names)}"
        )
    return np.asarray(rows.column(group).to_numpy())


def _kept(rows: pa.Table, keep: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Labels as text, so that they read back the same whatever their type."""
    missing = [name for name in keep if name not in rows.column_names]
    if missing:
        raise TrainingError(
            f"gate.slices, gate.group_gaps: {', '.join(map(repr, missing))} not among the feature "
            f"columns {', '.join(rows.column_names)}"
        )
    return {name: rows.column(name).cast(pa.string()).to_numpy() for name in keep}


def _notes(name: str, model: TabularModel, rows: pa.Table) -> list[str]:
    absent = [n for n in model.encoding.names if n not in rows.column_names]
    if not absent:
        return []
    return [f"{name}: feature columns {', '.join(absent)} are gone and were scored as missing"]


def _check_comparable(candidate: TabularModel, champion: TabularModel) -> None:
    if champion.task != candidate.task or champion.target != candidate.target:
        raise TrainingError(
            f"champion and candidate cannot be compared: the champion predicts "
            f"'{champion.target}' ({champion.task}), the candidate '{candidate.target}' "
            f"({candidate.task}); give the changed model a new name"
        )
    check_same_classes(candidate.classes, champion.classes)


def check_same_classes(
    candidate: tuple[Label, ...] | None, champion: tuple[Label, ...] | None
) -> None:
    """Two models of one target know the same classes.

    Raises:
        TrainingError: they do not.
    """
    if champion != candidate:
        raise TrainingError(
            f"champion and candidate cannot be compared: the champion knows the classes "
            f"{list(champion or ())}, the candidate {list(candidate or ())}; take a "
            "train.window in which all classes occur, or give the model with the new classes a new "
            "name"
        )


def _check_unseen(partitions: NDArray[Any], champion_train_keys: Collection[str]) -> None:
    seen = sorted(set(partitions.tolist()) & set(champion_train_keys))
    if seen:
        raise TrainingError(
            f"holdout: the champion was trained on {', '.join(seen[:5])}"
            f"{f' and {len(seen) - 5} more' if len(seen) > 5 else ''} of it, so it cannot be judged "
            "there; train the candidate for a later partition"
        )
