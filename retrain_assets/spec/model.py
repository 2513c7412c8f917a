"""ModelSpec: what a user may say about one model, as frozen pydantic models.

Belongs here: fields, their rules and their documentation (the field reference and the JSON Schema
are made from it). Does not: reading files (`loading`), what the fields do.
"""

import hashlib
import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from retrain_assets.spec.partitions import Every, PartitionScheme
from retrain_assets.spec.resources import Resources
from retrain_assets.spec.section import Section
from retrain_assets.spec.types import Connection, Cron, DottedPath, Duration, shown

__all__ = [
    "METRICS",
    "MINIMIZED",
    "Alarm",
    "Backoff",
    "Budgets",
    "Column",
    "Contract",
    "Cost",
    "Drift",
    "Features",
    "Freshness",
    "FreshnessWindow",
    "Gate",
    "GroupGaps",
    "Guard",
    "ModelSpec",
    "Multivariate",
    "OnPerformance",
    "Partitions",
    "Retrain",
    "RetrainBudget",
    "Slices",
    "Source",
    "SqlSource",
    "Thresholds",
    "Train",
    "is_sql_file",
]

Stage = Literal["raw_data", "features", "drift_report", "candidate_model", "promoted_model"]
Task = Literal["binary", "multiclass", "regression", "ranking"]
Metric = Literal[
    "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1", "f1_macro",
    "mae", "rmse", "mape", "r2", "pinball@0.1", "pinball@0.5", "pinball@0.9",
    "ndcg@5", "ndcg@10", "map@10",
]  # fmt: skip

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1"),
    "multiclass": ("log_loss", "accuracy", "f1_macro"),
    "regression": ("mae", "rmse", "mape", "r2", "pinball@0.1", "pinball@0.5", "pinball@0.9"),
    "ranking": ("ndcg@10", "ndcg@5", "map@10"),
}
"""Metrics that a task may be judged by; the first is the default of `gate.metric`."""

MINIMIZED = frozenset(
    {"log_loss", "brier", "mae", "rmse", "mape", "pinball@0.1", "pinball@0.5", "pinball@0.9"}
)
"""Metrics of which less is better. Written out, since importing `training.metrics` imports numpy, a tenth of
`retrain status`; a test holds them equal to what the metrics say."""


# What the orchestrator accepts; one asset that it refuses would take all models down with it.
OWNER_PATTERN = r"^(team:[\w-]+|[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$"
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")


def _date(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    if not isinstance(value, date):
        raise ValueError(f"must be a date like 2024-01-31, got {shown(value)}")
    if not 1900 <= value.year <= 2199:
        raise ValueError(f"must be in the years 1900 to 2199, got {value.isoformat()}")
    return value


Day = Annotated[date, BeforeValidator(_date)]


class Partitions(Section):
    """How the model's data is cut in time (UTC)."""

    every: Every = Field(description="Length of one partition; weeks begin on Monday.")
    start: Day = Field(description="First day with data.")
    end: Day | None = Field(None, description="Last day with data; left out for a live source.")

    @model_validator(mode="after")
    def _ordered(self) -> "Partitions":
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        scheme = PartitionScheme(self.every, self.start, self.end)
        try:
            scheme.parse(scheme.key_of(scheme.first))
        except ValueError:
            message = f"no whole {self.every} lies between {self.start} and {self.end}"
            raise ValueError(message) from None
        return self


class SqlSource(Section):
    """A query against any database that SQLAlchemy speaks to."""

    connection: Connection = Field(
        description="SQLAlchemy URL; credentials as ${NAME}. Write `postgresql+psycopg2://` for PostgreSQL."
    )
    query: str = Field(
        min_length=1,
        description=(
            "SELECT with the bound parameters `:partition_start` and `:partition_end` (timestamps, "
            "UTC, half-open) and `:partition_key` (text). Values are bound, never formatted in."
        ),
    )


class Source(Section):
    """Where the raw rows of a partition come from: exactly one of files, sql, python."""

    files: Connection | None = Field(
        None,
        description=(
            "Path or URL (any fsspec protocol) of Parquet or CSV files, with `{partition}` where the "
            "partition key stands and `*` for several files. Relative paths start at the spec file."
        ),
    )
    format: Literal["parquet", "csv"] | None = Field(
        None, description="Format of `files`; by default from the file name's ending."
    )
    storage_options: dict[str, Connection] = Field(
        default_factory=dict,
        description="Options for the fsspec filesystem; values may be ${NAME}.",
    )
    sql: SqlSource | None = Field(None, description="A database query.")
    python: DottedPath | None = Field(
        None,
        description=(
            "Function `load(window, **options)` that returns a DataFrame or Arrow table; `window` has "
            "`key`, `start` and `end` (UTC), and is None for `partitions: none`."
        ),
    )
    available: DottedPath | None = Field(
        None,
        description=(
            "Function `available(**options)` that returns the partition keys that the source has. "
            "By default: files are listed; other sources are asked `lag` after a partition's end."
        ),
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for `python` and `available`."
    )
    lag: Duration | None = Field(
        None, description="How long after a partition's end its data is complete."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        kinds = [k for k in ("files", "sql", "python") if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"needs exactly one of files, sql, python, got {', '.join(kinds) or 'none'}"
            )
        if self.files is None and (self.format is not None or self.storage_options):
            raise ValueError("format and storage_options belong to files")
        if self.options and self.python is None and self.available is None:
            raise ValueError("options belong to python or available")
        if self.files is not None and self.file_format is None:
            raise ValueError(
                f"cannot tell the format from {self.files!r}; set format: parquet or format: csv"
            )
        return self

    @property
    def kind(self) -> Literal["files", "sql", "python"]:
        """Which of the three it is."""
        return "files" if self.files is not None else "sql" if self.sql is not None else "python"

    @property
    def file_format(self) -> Literal["parquet", "csv"] | None:
        """Format of `files`, from the ending where it is not said."""
        if self.format is not None or self.files is None:
            return self.format
        name = self.files.lower()
        if name.endswith((".parquet", ".pq")):
            return "parquet"
        return "csv" if name.endswith((".csv", ".csv.gz")) else None


class Column(Section):
    """What the contract promises about one raw column."""

    type: Literal["int", "float", "string", "bool", "timestamp"] | None = Field(
        None, description="Type; whole numbers also pass as float."
    )
    nullable: bool = Field(True, description="Whether nulls are allowed.")
    max_null_rate: float | None = Field(None, ge=0, le=1, description="Largest share of nulls.")
    min: float | None = Field(None, description="Smallest allowed value.")
    max: float | None = Field(None, description="Largest allowed value.")
    allowed: tuple[str | int | float | bool, ...] | None = Field(
        None, min_length=1, description="The only allowed values."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Column":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if (self.min is not None or self.max is not None) and self.type not in (
            None,
            "int",
            "float",
        ):
            raise ValueError(f"min and max are for numbers, not for type {self.type}")
        if not self.nullable and self.max_null_rate is not None:
            raise ValueError("max_null_rate says nothing where nullable is false")
        return self


class Contract(Section):
    """What raw data must look like; a breach fails raw_data before anything is written."""

    columns: dict[str, Column] = Field(
        default_factory=dict, description="Required columns and their rules."
    )
    min_rows: int = Field(1, ge=0, description="Fewest rows in a partition.")
    max_rows: int | None = Field(None, ge=1, description="Most rows in a partition.")
    extra: Literal["allow", "forbid"] = Field(
        "allow", description="Whether columns beyond the listed ones may come."
    )
    unique: tuple[str, ...] = Field((), description="Columns whose combination must be unique.")

    @model_validator(mode="after")
    def _rows(self) -> "Contract":
        if self.max_rows is not None and self.max_rows < self.min_rows:
            raise ValueError(f"max_rows {self.max_rows} is below min_rows {self.min_rows}")
        return self


def is_sql_file(value: Any) -> TypeGuard[str]:
    """Whether `features.sql` is the path of a file, and not a query."""
    return isinstance(value, str) and value.strip().endswith(".sql") and "\n" not in value.strip()


class Features(Section):
    """How raw rows become a feature table (with the target): one of sql, python, or neither."""

    sql: str | None = Field(
        None,
        min_length=1,
        description=(
            "DuckDB SQL, or the path of a .sql file relative to the spec. It reads `raw` (this "
            "partition) and, with lookback, `history` (the earlier partitions)."
        ),
    )
    python: DottedPath | None = Field(
        None,
        description=(
            "Function `transform(raw)` or, with lookback, `transform(raw, history)`: pandas "
            "DataFrames in, the feature DataFrame out."
        ),
    )
    lookback: int = Field(0, ge=0, le=1000, description="How many earlier raw partitions are read.")

    @field_validator("sql")
    @classmethod
    def _read_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Replace a path by the file's text, so that the spec's hash covers it."""
        if value is None or not is_sql_file(value):
            return value
        path = Path((info.context or {}).get("base_dir", ".")) / value.strip()
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
        except ValueError as error:  # not UTF-8, or no path at all
            raise ValueError(f"cannot read {str(path)!r}: {error}") from None

    @model_validator(mode="after")
    def _one_kind(self) -> "Features":
        if self.sql is not None and self.python is not None:
            raise ValueError("takes sql or python, not both")
        if self.lookback and self.sql is None and self.python is None:
            raise ValueError("lookback needs sql or python")
        return self


_HoldoutPartitions = Annotated[int, Field(gt=0, le=100_000)]
_HoldoutShare = Annotated[float, Field(gt=0, le=100_000)]


class Train(Section):
    """What a candidate is trained on and how."""

    window: int | None = Field(
        None,
        ge=2,
        le=100_000,
        description="Partitions per training, holdout included; required with partitions.",
    )
    min_window: int | None = Field(
        None,
        ge=2,
        le=100_000,
        description="Fewest partitions that must exist; by default half of window, rounded up.",
    )
    holdout: _HoldoutPartitions | _HoldoutShare = Field(
        0.2,
        description=(
            "The last part of the window, never trained on: partitions (a whole number) or, with "
            "partitions: none, a share of the rows below 1."
        ),
    )
    label_delay: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Partitions until a partition's labels are complete; these are not used.",
    )
    time_column: str | None = Field(
        None,
        description="With partitions: none, the column that orders the rows; by default file order.",
    )
    trainer: Literal["lightgbm"] = Field("lightgbm", description="Training library.")
    params: dict[str, str | int | float | bool | list[int] | list[float] | None] = Field(
        default_factory=dict, description="Parameters of the trainer."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of everything random.")
    group: str | None = Field(
        None, description="Ranking: the column that names the query or session."
    )
    entity: tuple[str, ...] = Field(
        (), description="Columns that name the thing predicted, for the last-value baseline."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Feature columns that the model must not see (keys, timestamps)."
    )

    @field_validator("params")
    @classmethod
    def _own_params(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {
            "objective": "task", "metric": "gate.metric", "seed": "train.seed",
            "random_state": "train.seed", "num_class": "task", "deterministic": "(always true)",
        }  # fmt: skip
        for name in value:
            if name in ours:
                raise ValueError(f"'{name}' is set from {ours[name]}; remove it from params")
        return value


class Thresholds(Section):
    """Effect sizes from which one feature counts as drifted."""

    ks: float = Field(0.1, gt=0, le=1, description="Kolmogorov-Smirnov distance, numbers.")
    wasserstein: float = Field(
        0.25, gt=0, description="Wasserstein distance over the reference's standard deviation."
    )
    psi: float = Field(0.2, gt=0, description="Population stability index.")
    cramers_v: float = Field(0.1, gt=0, le=1, description="Cramér's V, categories.")
    null_rate: float = Field(0.05, gt=0, le=1, description="Absolute change of the share of nulls.")
    unseen: float = Field(0.02, gt=0, le=1, description="Share of categories the reference lacks.")


class Alarm(Section):
    """When drift of single partitions becomes an alarm."""

    share_of_features: float = Field(
        0.2,
        gt=0,
        le=1,
        description=(
            "Share of drifted features that makes a partition drifted; a feature counts by its "
            "importance to the champion."
        ),
    )
    of_last: int = Field(1, ge=1, le=100, description="Reports that are looked at.")
    at_least: int = Field(1, ge=1, description="Drifted reports among them that raise the alarm.")

    @model_validator(mode="after")
    def _possible(self) -> "Alarm":
        if self.at_least > self.of_last:
            raise ValueError(f"at_least {self.at_least} is more than of_last {self.of_last}")
        return self


class Multivariate(Section):
    """All features together: can current rows be told apart from reference rows?"""

    auc: float = Field(
        0.65,
        gt=0.5,
        lt=1,
        description=(
            "AUC of a classifier that tells current rows from reference rows; where it is proven to "
            "be above this, the partition is drifted."
        ),
    )
    rows: int = Field(
        10_000, ge=1000, le=1_000_000, description="Most rows of either side that it is given."
    )


class Drift(Section):
    """How drift is measured."""

    against: Literal["champion", "first_window"] = Field(
        "champion", description="Reference: what the champion was trained on, or the first window."
    )
    window: int = Field(
        1, ge=1, le=1000, description="Latest partitions that are compared together."
    )
    min_rows: int = Field(
        100, ge=10, description="Fewest rows on either side; below, the verdict is undecided."
    )
    alpha: float = Field(
        0.01, gt=0, lt=1, description="False-discovery rate over the features (Benjamini-Hochberg)."
    )
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Effect sizes.")
    alert: Alarm = Field(default_factory=Alarm, description="From drifted features to an alarm.")
    calibrate: bool = Field(
        True,
        description=(
            "Raise thresholds to what is usual between the reference's own partitions (from 8 on), so "
            "that seasons are no drift; false where single thresholds shall hold as they stand."
        ),
    )
    prediction: bool = Field(
        True,
        description=(
            "Compare the champion's scores with those of its training rows, as evidence; false saves "
            "about 1 s of CPU per monitor run, most of it to import LightGBM."
        ),
    )
    multivariate: Multivariate | None = Field(
        None,
        description=(
            "All features together; by default not computed, since it costs about a second of CPU per "
            "report."
        ),
    )
    exclude: tuple[str, ...] = Field((), description="Columns that are not watched.")


class OnPerformance(Section):
    """How much worse the champion may get, in `gate.metric`; floor, max_drop or both."""

    floor: float | None = Field(None, description="Worst value of the metric that is put up with.")
    max_drop: float | None = Field(
        None,
        ge=0,
        description="Largest loss against the value on the champion's holdout, in the metric's unit.",
    )
    estimate: bool = Field(
        False,
        description="Whether performance that is estimated while labels have not come may start a "
        "retraining too; it cannot see concept drift (docs/decisions/0012; not for ranking and r2).",
    )
    of_last: int = Field(
        1, ge=1, le=100, description="Partitions with a known performance that are looked at."
    )
    at_least: int = Field(
        1,
        ge=1,
        description="Partitions among them that must be beyond the bound, interval and all.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "OnPerformance":
        if self.floor is None and self.max_drop is None:
            raise ValueError("give floor, max_drop or both")
        if self.at_least > self.of_last:
            raise ValueError(f"at_least {self.at_least} is more than of_last {self.of_last}")
        return self


class Cost(Section):
    """Prices in one unit (money, seconds): retrain when staleness has come to cost more."""

    retraining: float = Field(gt=0, description="Cost of one retraining.")
    per_unit_loss: float = Field(
        gt=0, description="Cost of one unit of `gate.metric` lost against the champion's holdout."
    )
    per: Literal["partition", "1000 rows"] = Field(
        "partition", description="On how much data a unit is lost at that cost."
    )


class Backoff(Section):
    """Longer and longer waits while candidates are rejected (data time)."""

    first: Duration = Field(
        description="Wait after the first rejection; doubled after each further."
    )
    at_most: Duration = Field(description="Longest wait.")

    @model_validator(mode="after")
    def _ordered(self) -> "Backoff":
        if self.at_most < self.first:
            raise ValueError("at_most must not be shorter than first")
        return self


class RetrainBudget(Section):
    """What retrainings may use up in any 7 days; only a person's demand goes beyond."""

    runs_per_week: int | None = Field(None, ge=1, description="Retrainings that were started.")
    compute_seconds_per_week: float | None = Field(
        None, gt=0, description="Seconds that they ran; when used up, none is started."
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "RetrainBudget":
        if self.runs_per_week is None and self.compute_seconds_per_week is None:
            raise ValueError("give runs_per_week, compute_seconds_per_week or both")
        return self


class Retrain(Section):
    """What starts a retraining, and what holds it back.

    The schedule, the first champion, a follow-up and a person start one by themselves; the conditions (on_drift,
    on_performance, cost, max_age, on_new_partitions, on_change) as `combine` or `at_least` says.
    """

    schedule: Cron | None = Field(None, description="Cron expression.")
    timezone: str = Field("UTC", description="Time zone of the schedule.")
    on_drift: bool = Field(True, description="Retrain when the drift alarm is raised.")
    min_drift_score: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "Least drift score beside the alarm (0.5: every feature at its threshold, weighed by "
            "importance)."
        ),
    )
    needs_prediction_drift: bool = Field(
        False,
        description="Whether the champion's predictions must have drifted beside the alarm: drift "
        "that does not move them changes nothing for whoever uses them.",
    )
    on_performance: OnPerformance | None = Field(
        None, description="Retrain when the champion is worse than this on labels that have come."
    )
    cost: Cost | None = Field(
        None,
        description="Retrain when the loss since the last retraining and until the next partition "
        "costs more than retraining.",
    )
    max_age: Duration | None = Field(
        None, description="Retrain when the champion's data is older than this (data time)."
    )
    on_new_partitions: int | None = Field(
        None, ge=1, description="Retrain when this many partitions came since the last retraining."
    )
    follow_up: int | None = Field(
        None,
        ge=1,
        description="Retrain once more, this many partitions after drift, performance or cost brought a "
        "champion: the first model after a change has learned from both sides of it. Half of "
        "`train.window` is a good value.",
    )
    on_change: bool = Field(
        False,
        description="Retrain when features, target, task or train changed since the last retraining "
        "(of Python features, their file).",
    )
    combine: Literal["any", "all"] = Field(
        "any", description="Whether one of the conditions that are on must hold, or every one."
    )
    at_least: int | None = Field(
        None, ge=2, description="Instead of `combine`: how many conditions must hold at once."
    )
    cooldown: Duration | None = Field(
        None, description="Least time between two retrainings that conditions start (data time)."
    )
    min_new_partitions: int = Field(
        1, ge=1, description="Fewest partitions between two retrainings that conditions start."
    )
    backoff: Backoff | None = Field(
        None, description="How long conditions wait after rejected candidates."
    )
    budget: RetrainBudget | None = Field(
        None, description="What may be used up in 7 days, by the schedule too."
    )

    inline: bool = Field(
        False,
        description=(
            "Whether the run that measures drift takes the decision too and goes on to retrain: within "
            "a second, without a second process. A backlog of partitions goes the sensors' way."
        ),
    )

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions that are on, in the order in which they are reported."""
        on = {
            "drift": self.on_drift,
            "performance": self.on_performance is not None,
            "cost": self.cost is not None,
            "age": self.max_age is not None,
            "new_data": self.on_new_partitions is not None,
            "change": self.on_change,
        }
        return tuple(name for name, is_on in on.items() if is_on)

    @property
    def conditions_needed(self) -> int:
        """How many of them must hold."""
        if self.at_least is not None:
            return self.at_least
        return max(len(self.conditions), 1) if self.combine == "all" else 1

    @model_validator(mode="after")
    def _possible(self) -> "Retrain":
        if self.at_least is not None and self.combine == "all":
            raise ValueError("give combine: all or at_least, not both")
        if self.at_least is not None and self.at_least > len(self.conditions):
            raise ValueError(
                f"at_least asks for {self.at_least} conditions, but {len(self.conditions)} are on "
                f"({', '.join(self.conditions) or 'none'})"
            )
        if self.on_new_partitions is not None and self.on_new_partitions < self.min_new_partitions:
            raise ValueError(
                f"on_new_partitions {self.on_new_partitions} is below min_new_partitions "
                f"{self.min_new_partitions}, which would hold it back"
            )
        needs = self.min_drift_score > 0 or self.needs_prediction_drift
        if needs and not self.on_drift:
            raise ValueError(
                "min_drift_score and needs_prediction_drift say more of on_drift: true"
            )
        return self

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{shown(value)} is not a time zone, for example Europe/Paris"
            ) from None
        return value


class Slices(Section):
    """Parts of the holdout on which the candidate may not be worse than the champion."""

    columns: tuple[str, ...] = Field(
        min_length=1,
        description="Feature columns of categories (excluded ones too); each value is a slice.",
    )
    max_loss: float = Field(
        0.0,
        ge=0,
        description=(
            "Largest loss against the champion in a slice, in the metric's unit; a slice fails when "
            "a larger one is shown at gate.confidence, corrected for the number of slices."
        ),
    )
    min_rows: int = Field(
        100, ge=30, description="Slices with fewer rows are reported and not judged."
    )


class GroupGaps(Section):
    """How differently groups of people may be treated (task binary)."""

    columns: tuple[str, ...] = Field(
        min_length=1, description="Feature columns that name the groups (excluded ones too)."
    )
    demographic_parity: float | None = Field(
        None, gt=0, lt=1, description="Largest gap in the share of rows predicted positive."
    )
    equal_opportunity: float | None = Field(
        None, gt=0, lt=1, description="Largest gap in the share of true positives found (recall)."
    )
    min_rows: int = Field(
        100, ge=30, description="Groups with fewer rows (or true positives) are not judged."
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "GroupGaps":
        if self.demographic_parity is None and self.equal_opportunity is None:
            raise ValueError("give demographic_parity, equal_opportunity or both")
        return self


class Budgets(Section):
    """What serving the candidate may cost, as measured when it is built."""

    size_bytes: int | None = Field(None, ge=1, description="Largest size of the model's files.")
    row_ms: float | None = Field(
        None, gt=0, description="Largest p95 of milliseconds to predict one row."
    )
    batch_ms: float | None = Field(
        None, gt=0, description="Largest p95 of milliseconds to predict 1,000 rows at once."
    )


class Guard(Section):
    """Comparing a promoted model with the one it replaced, on rows that came after its holdout."""

    partitions: int = Field(
        7,
        ge=4,
        le=1000,
        description="Partitions after the holdout on which the two are compared, as labels arrive.",
    )
    max_loss: float = Field(
        0.0,
        ge=0,
        description=(
            "Loss against the replaced model, in the metric's unit, beyond which the promoted one "
            "counts as worse."
        ),
    )
    confidence: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description=(
            "One-sided confidence with which that must be shown, over all looks of the guard period "
            "together; by default gate.confidence."
        ),
    )
    auto_rollback: bool = Field(
        False, description="Whether a worse model is rolled back at once; an alert goes out anyway."
    )


class Gate(Section):
    """What a candidate must show before it becomes champion."""

    metric: Metric | None = Field(None, description="Metric; by default the task's first.")
    min_gain: float = Field(
        0.0, description="Least gain over the champion (negative: how much worse may pass)."
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="One-sided confidence with which min_gain must be shown."
    )
    floor: float | None = Field(None, description="Worst value of the metric that may be promoted.")
    min_rows: int = Field(
        200, ge=2, description="Fewest holdout rows (ranking: groups) to judge on."
    )
    resamples: int = Field(
        2000,
        ge=200,
        le=100_000,
        description="Bootstrap resamples, for average_precision, f1, f1_macro and r2.",
    )
    holdout_reuse: Literal["spend", "ignore"] = Field(
        "spend",
        description=(
            "Whether the k-th comparison on one holdout is held to (1 - confidence) / (k (k - 1)) "
            "from the second on, or to the same confidence each time."
        ),
    )
    detectable: float | None = Field(
        None,
        gt=0,
        description=(
            "Gain that the holdout must be able to show with 80% chance; a candidate that fails on "
            "one that cannot is undecided instead of rejected."
        ),
    )
    slices: Slices | None = Field(None, description="Parts of the holdout that may not get worse.")
    group_gaps: GroupGaps | None = Field(None, description="Bounds on gaps between groups.")
    max_calibration_error: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest expected calibration error (tasks binary and multiclass).",
    )
    budgets: Budgets | None = Field(None, description="Bounds on size and latency.")
    max_churn: float | None = Field(
        None,
        gt=0,
        description=(
            "Largest prediction churn against the champion: share of changed labels (ranking: of "
            "groups with another first row); regression: mean absolute change over the standard "
            "deviation of the champion's predictions."
        ),
    )
    guard: Guard | None = Field(
        None, description="Watching a promoted model for a while after its promotion."
    )
    approval: Literal["auto", "manual"] = Field(
        "auto",
        description=(
            "Whether a candidate that passes is promoted at once, or waits for `retrain promote`."
        ),
    )
    on_reject: Literal["fail", "keep"] = Field(
        "fail", description="Whether a rejection fails the run or ends it green; both alert."
    )
    on_undecided: Literal["fail", "keep"] | None = Field(
        None,
        description="The same where the data cannot tell (too few rows); by default as on_reject.",
    )

    def fails_run(self, decision: Literal["promote", "reject", "undecided"]) -> bool:
        """Whether a run that ends with this decision of the gate fails."""
        undecided = self.on_undecided or self.on_reject
        ending = {"promote": "keep", "reject": self.on_reject, "undecided": undecided}
        return ending[decision] == "fail"

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns whose labels the gate needs beside the scores."""
        sections = (self.slices, self.group_gaps)
        return tuple(dict.fromkeys(c for s in sections if s is not None for c in s.columns))


class FreshnessWindow(Section):
    """How long an asset may go without a new materialization (wall-clock time)."""

    warn: Duration | None = Field(None, description="Warn after this.")
    fail: Duration = Field(description="Fail after this.")

    @model_validator(mode="after")
    def _ordered(self) -> "FreshnessWindow":
        if self.warn is not None and self.warn >= self.fail:
            raise ValueError("warn must be shorter than fail")
        if min(self.warn or self.fail, self.fail) < timedelta(minutes=1):
            raise ValueError("warn and fail must be at least 1m")
        return self


class Freshness(Section):
    """Freshness policies shown in the Dagster UI."""

    raw_data: FreshnessWindow | None = Field(None, description="Is data still arriving?")
    promoted_model: FreshnessWindow | None = Field(None, description="How old is the champion?")


def _partitions(value: Any) -> Any:
    return None if value == "none" else value


class ModelSpec(Section):
    """One model: where its data comes from, when it is retrained, what it must show."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description="Name in lower case; the registry's model name and the assets' prefix.",
    )
    renamed_from: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description=(
            "The model's name until now: its champion and history go with it. May be removed once "
            "`retrain history` shows them under the new name."
        ),
    )
    description: str = Field("", description="What the model predicts, for people.")
    owner: str | None = Field(
        None,
        pattern=OWNER_PATTERN,
        description="`team:name` or a mail address.",
    )
    group: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]+$", description="Asset group; by default the name."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags on the assets.")
    partitions: Annotated[Partitions | None, BeforeValidator(_partitions)] = Field(
        description="Time partitions, or `none` for one table.",
        json_schema_extra={"examples": ["none", {"every": "day", "start": "2024-01-01"}]},
    )
    source: Source = Field(description="Raw data.")
    contract: Contract = Field(default_factory=Contract, description="Rules for raw data.")
    features: Features = Field(default_factory=Features, description="Feature transform.")
    target: str = Field(min_length=1, description="Feature column that is predicted.")
    task: Task = Field(description="Kind of prediction.")
    train: Train = Field(default_factory=Train, description="Training.")
    drift: Drift = Field(default_factory=Drift, description="Drift detection.")
    retrain: Retrain = Field(default_factory=Retrain, description="When to retrain.")
    gate: Gate = Field(default_factory=Gate, description="The validation gate.")
    freshness: Freshness = Field(default_factory=Freshness, description="Freshness policies.")
    resources: dict[Stage, Resources] = Field(
        default_factory=dict,
        description=(
            "What the steps of single assets ask for; such a step runs in a process or pod of its own."
        ),
    )
    alerts: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ...] = Field(
        (), description="Alert targets; target `ops` is the URL in RETRAIN_ALERT_OPS."
    )

    @field_validator("tags")
    @classmethod
    def _known_tags(cls, value: dict[str, str]) -> dict[str, str]:
        allowed = "at most 63 letters, digits, '_', '-' or '.'"
        for key, text in value.items():
            if not _TAG_KEY.fullmatch(key):
                raise ValueError(f"a key is {allowed}, after one 'prefix/' or none, got {key!r}")
            if key.startswith(("dagster/", "retrain/")):
                raise ValueError(f"{key!r}: the prefixes dagster/ and retrain/ are taken")
            if not _TAG_VALUE.fullmatch(text):
                raise ValueError(f"{key}: a value is {allowed}, got {shown(text)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSpec":
        """Rules that span sections; each problem names its field as `path: message`."""
        problems = self._partitioned() if self.partitions is not None else self._unpartitioned()
        problems += self._of_task()
        if self.renamed_from == self.name:
            problems.append(f"renamed_from: must be another name, got {self.name!r} for both")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _partitioned(self) -> list[str]:
        train, problems = self.train, list[str]()
        if train.window is None:
            problems.append("train.window: required with partitions (how many to train on)")
        if isinstance(train.holdout, float) and train.holdout != int(train.holdout):
            problems.append(
                f"train.holdout: must be a whole number of partitions, got {train.holdout:g}"
            )
        elif train.window is not None and train.holdout >= train.window:
            problems.append(
                f"train.holdout: must be below train.window ({train.window}), got {train.holdout}"
            )
        if (
            train.window is not None
            and train.min_window is not None
            and not train.holdout < train.min_window <= train.window
        ):
            problems.append(
                f"train.min_window: must be above holdout and at most window ({train.window}), "
                f"got {train.min_window}"
            )
        if train.time_column is not None:
            problems.append("train.time_column: only with partitions: none (partitions order time)")
        return problems

    def _unpartitioned(self) -> list[str]:
        train = self.train
        problems = [
            f"train.{field}: only with partitions"
            for field in ("window", "min_window")
            if getattr(train, field) is not None
        ]
        if train.label_delay:
            problems.append("train.label_delay: only with partitions")
        if self.gate.guard is not None:
            problems.append("gate.guard: only with partitions (it compares on those that follow)")
        if train.holdout >= 1:
            problems.append(
                f"train.holdout: with partitions: none it is a share below 1, got {train.holdout:g}"
            )
        if self.features.lookback:
            problems.append("features.lookback: only with partitions")
        if self.drift.window != 1:
            problems.append("drift.window: only with partitions")
        silent = self.source.kind != "files" and self.source.available is None
        if silent and self.retrain.schedule is None:
            problems.append(
                "source.available: with partitions: none nothing says when there is new data to "
                "read; give available, or add retrain.schedule"
            )
        problems += [
            f"retrain.{field}: only with partitions"
            for field in ("on_performance", "cost", "on_new_partitions", "follow_up", "inline")
            if getattr(self.retrain, field)
        ]
        if self.retrain.min_new_partitions > 1:
            problems.append("retrain.min_new_partitions: only with partitions")
        if self.retrain.max_age is not None and self.retrain.schedule is None:
            problems.append(
                "retrain.max_age: with partitions: none, age is measured when data is read; "
                "add retrain.schedule"
            )
        return problems

    def _of_task(self) -> list[str]:
        train, gate, problems = self.train, self.gate, list[str]()
        if gate.metric is not None and gate.metric not in METRICS[self.task]:
            problems.append(
                f"gate.metric: '{gate.metric}' does not fit task {self.task}; "
                f"use one of {', '.join(METRICS[self.task])}"
            )
        if gate.group_gaps is not None and self.task != "binary":
            problems.append(f"gate.group_gaps: only for task binary, got {self.task}")
        if gate.max_calibration_error is not None and self.task not in ("binary", "multiclass"):
            problems.append(
                f"gate.max_calibration_error: only for tasks binary and multiclass, got {self.task}"
            )
        if self.task == "ranking" and train.group is None:
            problems.append("train.group: required for ranking (the column that names the query)")
        if self.task != "ranking" and train.group is not None:
            problems.append("train.group: only for ranking")
        if self.target in train.exclude:
            problems.append(
                f"train.exclude: {self.target!r} is the target, which is never an input"
            )
        if self.source.kind == "files" and self.partitions is not None:
            if "{partition}" not in (self.source.files or ""):
                problems.append("source.files: needs {partition} where the partition key stands")
        elif self.source.kind == "files" and "{partition}" in (self.source.files or ""):
            problems.append("source.files: {partition} needs partitions, got partitions: none")
        return problems

    @property
    def metric(self) -> str:
        """The gate's metric, the task's first by default."""
        return self.gate.metric or METRICS[self.task][0]

    @property
    def scheme(self) -> PartitionScheme | None:
        """The partitions as arithmetic, None for `partitions: none`."""
        if self.partitions is None:
            return None
        return PartitionScheme(self.partitions.every, self.partitions.start, self.partitions.end)

    @property
    def min_window(self) -> int:
        """Fewest partitions from which a candidate is trained."""
        window = self.train.window or 2
        return self.train.min_window or max((window + 1) // 2, int(self.train.holdout) + 1)

    def section_hash(self, *sections: str) -> str:
        """SHA-256 (first 16 hex digits) over some of the spec's fields; a SQL file counts as its text."""
        document = self.model_dump(mode="json", include=set(sections))
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def training_hash(self) -> str:
        """Hash over the fields that, beside the feature rows, decide what is trained."""
        return self.section_hash("target", "task", "train")
