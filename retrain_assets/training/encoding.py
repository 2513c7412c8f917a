"""From feature tables to the numbers that a trainer takes, the same way at training and serving.

Belongs here: which columns are features, their kinds, category maps, the target's classes. Does
not: learned parameters, imputation, scaling. Maps are made once, from the training rows, and
stored with the model; nothing is fitted again at scoring time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ColumnEncoding",
    "Encoding",
    "Label",
    "class_labels",
    "drop_null_targets",
    "encode_target",
    "feature_names",
    "fit_encoding",
    "has_target",
]

FloatArray = NDArray[np.float64]
Label = bool | int | str
Kind = Literal["number", "boolean", "timestamp", "category", "empty"]


@dataclass(frozen=True)
class ColumnEncoding:
    """How one feature column becomes float64; nulls become nan whatever the kind.

    Attributes:
        name: the column.
        kind: `number` and `boolean` as they are, `timestamp` as seconds since 1970 UTC (to the
            microsecond; naive times count as UTC), `category` as the position in `values`
            (others: nan), `empty` (nothing but nulls in training) as nan.
        values: the categories seen in training, sorted.
    """

    name: str
    kind: Kind
    values: tuple[str | int | float, ...] = ()

    def __hash__(self) -> int:
        """Without the values, of which there may be thousands; equality compares them."""
        return hash((self.name, self.kind, len(self.values)))

    def encode(self, column: "pd.Series[Any]") -> FloatArray:
        """The column's numbers, shape (n,).

        Raises:
            TrainingError: values of another kind than in training.
        """
        if self.kind == "empty" or not column.notna().any():
            return np.full(len(column), np.nan)
        try:
            if self.kind == "timestamp":
                return _epoch_seconds(column)
            if self.kind == "boolean":
                return _numbers(column.astype("boolean").astype("Float64"))
            if self.kind == "category":
                return self._positions(column)
            return _numbers(column)
        except (ValueError, TypeError) as error:
            raise TrainingError(
                f"feature '{self.name}' was trained as {self.kind}, got {column.dtype} values "
                f"that are not ({error}); give the column the type it had in training"
            ) from error

    def _positions(self, column: "pd.Series[Any]") -> FloatArray:
        import pandas as pd

        if isinstance(self.values[0], str):
            if pd.api.types.is_numeric_dtype(column.dtype):
                raise TypeError("numbers where text is expected")
            index = pd.Index(self.values, dtype=object)
            if isinstance(column.dtype, pd.CategoricalDtype):
                # Each distinct text is looked up once; the last place is that of nulls.
                known = index.get_indexer(pd.Index(column.cat.categories, dtype=object))
                codes = np.append(known, -1)[column.cat.codes.to_numpy()]
            else:
                codes = index.get_indexer(pd.Index(column.astype(object), dtype=object))
        else:
            codes = pd.Index(self.values, dtype=np.float64).get_indexer(pd.Index(_numbers(column)))
        return np.where(codes < 0, np.nan, codes)


def _numbers(column: "pd.Series[Any]") -> FloatArray:
    import pandas as pd

    plain = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    return pd.to_numeric(plain).to_numpy(dtype=np.float64, na_value=np.nan)


def _epoch_seconds(column: "pd.Series[Any]") -> FloatArray:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError("numbers where times are expected")
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        moments = pd.to_datetime(column, utc=True)
    else:
        moments = pd.to_datetime(column, utc=True, format="ISO8601")
    # Whole microseconds are exact in float64, so one instant gives one number in every time unit.
    micros = moments.dt.as_unit("us").astype("int64").to_numpy()
    return np.where(moments.isna(), np.nan, micros / 1e6)


@dataclass(frozen=True)
class Encoding:
    """The feature columns of one model, in the order of its inputs."""

    columns: tuple[ColumnEncoding, ...]

    @property
    def names(self) -> list[str]:
        """Feature columns in input order."""
        return [column.name for column in self.columns]

    @property
    def categorical(self) -> list[int]:
        """Positions of the category columns."""
        return [i for i, column in enumerate(self.columns) if column.kind == "category"]

    def present(self, columns: Sequence[str]) -> list[str]:
        """The feature columns that are among the columns of a table, in input order.

        Raises:
            TrainingError: none is, or one is there twice.
        """
        counts = Counter(columns)
        present = [name for name in self.names if name in counts]
        if not present:
            raise TrainingError(
                f"none of the model's {len(self.names)} feature columns ({_listed(self.names)}) is "
                f"in the table, got {_listed([str(c) for c in columns])}"
            )
        twice = sorted({name for name in present if counts[name] > 1})
        if twice:
            raise TrainingError(f"feature columns must be there once, got twice: {_listed(twice)}")
        return present

    def matrix(self, frame: "pd.DataFrame") -> FloatArray:
        """Inputs of shape (n, features); absent columns are missing, others are ignored.

        Raises:
            TrainingError: no feature column is there, one is there twice, or values of another
                kind than in training.
        """
        present = set(self.present(list(frame.columns)))
        matrix = np.full((len(frame), len(self.columns)), np.nan)
        for i, column in enumerate(self.columns):
            if column.name in present:
                matrix[:, i] = column.encode(frame[column.name])
        return matrix

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON document that `from_json` reads back as an equal encoding."""
        return [{"name": c.name, "kind": c.kind, "values": list(c.values)} for c in self.columns]

    @classmethod
    def from_json(cls, document: Sequence[Mapping[str, Any]]) -> "Encoding":
        """The encoding that `to_json` wrote."""
        return cls(
            tuple(ColumnEncoding(d["name"], d["kind"], tuple(d["values"])) for d in document)
        )


def feature_names(
    columns: Sequence[str], *, target: str, exclude: Sequence[str] = (), group: str | None = None
) -> list[str]:
    """Columns of a feature table that a model sees: all but target, group and `exclude`.

    Raises:
        TrainingError: `exclude` names a column that is not there, or nothing is left.
    """
    unknown = [name for name in exclude if name not in columns]
    if unknown:
        raise TrainingError(
            f"train.exclude: {_listed(unknown)} not in the feature table; "
            f"its columns are {_listed(columns)}"
        )
    names = [name for name in columns if name not in {target, group, *exclude}]
    if not names:
        raise TrainingError(
            f"no feature columns are left of {_listed(columns)} without target, group and "
            "train.exclude; add features or exclude fewer"
        )
    return names


def fit_encoding(table: pa.Table, feature_columns: Sequence[str]) -> Encoding:
    """Kinds by Arrow type, and categories from all rows of `table` (the training rows).

    Raises:
        TrainingError: no columns, absent or repeated ones, or types that cannot be features; all
            such columns at once.
    """
    if not feature_columns:
        raise TrainingError("no feature columns to train on; add features or exclude fewer")
    absent = [name for name in feature_columns if name not in table.column_names]
    if absent or len(set(feature_columns)) < len(feature_columns):
        raise TrainingError(
            f"feature columns must be in the table, each once; absent: {_listed(absent) or 'none'}, "
            f"the table has {_listed(table.column_names)}"
        )
    kinds = {name: _kind(table.schema.field(name).type) for name in feature_columns}
    unusable = [f"{n} ({table.schema.field(n).type})" for n, kind in kinds.items() if kind is None]
    if unusable:
        raise TrainingError(
            f"columns of these types cannot be features: {_listed(unusable)}; "
            "convert them in the feature transform or list them in train.exclude"
        )
    return Encoding(
        tuple(
            ColumnEncoding(
                name, kind, _categories(table.column(name)) if kind == "category" else ()
            )
            if table.column(name).null_count < table.num_rows
            else ColumnEncoding(name, "empty")
            for name, kind in kinds.items()
            if kind is not None
        )
    )


def _kind(kind: pa.DataType) -> Kind | None:
    is_ = pa.types
    if is_.is_dictionary(kind):
        inner = _kind(kind.value_type)
        return "category" if inner in ("category", "number") else inner
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "category"
    if is_.is_boolean(kind):
        return "boolean"
    if is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        return "number"
    if is_.is_timestamp(kind) or is_.is_date(kind):
        return "timestamp"
    return "empty" if is_.is_null(kind) else None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with dictionaries decoded."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _categories(column: pa.ChunkedArray) -> tuple[str | int | float, ...]:
    values = _plain(column).unique().drop_null().to_pylist()
    return tuple(sorted(v if isinstance(v, (str, int)) else float(v) for v in values))


def drop_null_targets(table: pa.Table, target: str) -> tuple[pa.Table, int]:
    """The rows with a label (not null, not nan), and how many had none.

    Raises:
        TrainingError: the table has no such column.
    """
    kept = table.filter(has_target(table, target))
    return kept, table.num_rows - kept.num_rows


def has_target(table: pa.Table, target: str) -> pa.ChunkedArray:
    """Which rows have a label (not null, not nan), as a boolean column.

    Raises:
        TrainingError: the table has no such column.
    """
    import pyarrow.compute as pc

    if target not in table.column_names:
        raise TrainingError(
            f"target '{target}' is not in the feature table; its columns are "
            f"{_listed(table.column_names)}"
        )
    return pc.invert(pc.is_null(_plain(table.column(target)), nan_is_null=True))


def class_labels(column: pa.ChunkedArray, target: str) -> tuple[Label, ...]:
    """The distinct labels of a classification target, sorted; whole floats become integers.

    Raises:
        TrainingError: labels that are neither truth values, whole numbers nor text.
    """
    return tuple(sorted(_label_column(column, target).unique().drop_null().to_pylist()))


def _label_column(column: pa.ChunkedArray, target: str) -> pa.ChunkedArray:
    plain, is_ = _plain(column), pa.types
    if is_.is_floating(plain.type) or is_.is_decimal(plain.type):
        try:
            return plain.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise TrainingError(
                f"target '{target}': classes must be truth values, whole numbers or text, "
                f"got fractions ({error}); use task: regression or map it to classes"
            ) from error
    if is_.is_boolean(plain.type) or is_.is_integer(plain.type) or _kind(plain.type) == "category":
        return plain
    raise TrainingError(
        f"target '{target}': classes must be truth values, whole numbers or text, got {plain.type}"
    )


def encode_target(
    column: pa.ChunkedArray, *, target: str, task: str, classes: Sequence[Label] | None
) -> NDArray[Any]:
    """The target without nulls as numbers, shape (n,).

    Classification: position in `classes`, int64 (binary: 1 is the last class). Regression: float64.
    Ranking: whole relevance grades, int64.

    Raises:
        TrainingError: nulls, labels that are not in `classes`, values that are not finite numbers,
            grades that are negative, fractional or above 30.
    """
    if column.null_count:
        raise TrainingError(f"target '{target}': got {column.null_count} nulls; drop these rows")
    if task in ("binary", "multiclass"):
        if not classes:
            raise TrainingError(f"target '{target}': task {task} needs the model's classes")
        return _class_indices(column, target, classes)
    if pa.types.is_boolean(column.type) or _kind(column.type) != "number":
        raise TrainingError(
            f"target '{target}': task {task} needs numbers, got {column.type}; "
            "convert it in the feature transform"
        )
    values: FloatArray = column.cast(pa.float64()).to_numpy()
    if not np.isfinite(values).all():
        raise TrainingError(
            f"target '{target}': must be finite, got {int(np.sum(~np.isfinite(values)))} infinite "
            f"or nan values in {len(values)} rows"
        )
    return _grades(values, target) if task == "ranking" else values


def _class_indices(
    column: pa.ChunkedArray, target: str, classes: Sequence[Label]
) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    labels = _label_column(column, target)
    text = isinstance(classes[0], str)
    if text != (_kind(labels.type) == "category"):
        raise TrainingError(
            f"target '{target}': the model's classes are {_listed(list(map(repr, classes)))}, "
            f"got {labels.type}; give the target the type it had in training"
        )
    if not text:
        labels = labels.cast(pa.int64())
    values = pa.array([c if text else int(c) for c in classes], type=labels.type)
    found = pc.index_in(labels, value_set=values)
    if found.null_count:
        unknown = sorted(pc.filter(labels, pc.is_null(found)).unique().to_pylist())
        raise TrainingError(
            f"target '{target}': {found.null_count} of {len(labels)} rows have a class that the "
            f"model was not trained on ({_listed(list(map(repr, unknown)))}); take a longer "
            "train.window, or merge rare classes in the feature transform"
        )
    indices: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return indices


def _grades(values: FloatArray, target: str) -> NDArray[np.int64]:
    from retrain_assets.training.metrics import MAX_RELEVANCE

    bad = (values < 0) | (values > MAX_RELEVANCE) | (values != np.floor(values))
    if bad.any():
        raise TrainingError(
            f"target '{target}': relevance must be a whole number from 0 to {MAX_RELEVANCE}, got "
            f"{_listed([f'{v:g}' for v in np.unique(values[bad])])}; map it to a few grades in the "
            "feature transform"
        )
    return values.astype(np.int64)


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
