"""`Performance`: one metric of one model on one stretch of data, with its interval.

Belongs here: the value, what it is relative to an expected level, how it is said in words. Does not:
how it is found (`realised`, `confidence`, `losses`). It imports nothing of the package, so that the
policy can be fed with it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Direction", "Kind", "Performance", "compact", "expanded"]

Direction = Literal["maximize", "minimize"]
Kind = Literal["realised", "estimated"]


@dataclass(frozen=True)
class Performance:
    """A metric of the champion on the rows of one partition.

    Attributes:
        metric: name, as in `gate.metric`.
        direction: whether larger or smaller is better.
        kind: `realised` from labels, or `estimated` without them.
        partition: key of the partition, None without partitions.
        value: the metric, in its own unit; None where it has no value on these rows.
        se: its standard error; None where the data does not bear one.
        low, high: lower and upper bound, each alone at `confidence`; None likewise.
        confidence: one-sided.
        n: rows (ranking: groups).
        method: how value and interval were made.
        problem: why there is no interval, "" where there is one.
    """

    metric: str
    direction: Direction
    kind: Kind
    partition: str | None
    value: float | None
    se: float | None
    low: float | None
    high: float | None
    confidence: float
    n: int
    method: str
    problem: str = ""

    def __post_init__(self) -> None:
        numbers = (self.value, self.se, self.low, self.high)
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.metric}: numbers must be finite or None, got {numbers}")
        if self.decided and None in numbers:
            raise ValueError(f"{self.metric}: an interval needs all its numbers, got {numbers}")

    @property
    def decided(self) -> bool:
        """Whether there is an interval: `False` is "the data cannot tell", never "all is well"."""
        return not self.problem

    def drop_from(self, level: float) -> float | None:
        """How much worse the value is than `level`, in the metric's unit; negative: better.

        >>> Performance("mae", "minimize", "realised", None, 3.5, 0.1, 3.3, 3.7, 0.95, 90, "t"
        ...     ).drop_from(3.0)
        0.5
        """
        if self.value is None:
            return None
        return level - self.value if self.direction == "maximize" else self.value - level

    def __str__(self) -> str:
        where = f" on {self.partition}" if self.partition else ""
        value = "undefined" if self.value is None else f"{self.value:.4g}"
        if self.low is None or self.high is None:
            return f"{self.kind} {self.metric}{where}: {value} ({self.problem})"
        return f"{self.kind} {self.metric} {value} [{self.low:.4g}, {self.high:.4g}]{where}"


_SHARED = ("metric", "direction", "confidence")
_OWN = ("kind", "partition", "value", "se", "low", "high", "n", "method", "problem")


def compact(performances: Iterable[Performance]) -> dict[str, Any]:
    """Performances of one metric as a small JSON document; numbers to eight digits.

    >>> one = Performance("mae", "minimize", "realised", "2024-01-01", 3.5, 0.1, 3.3, 3.7, 0.95, 9, "t")
    >>> expanded(compact([one])) == (one,)
    True
    """
    found = list(performances)
    if not found:
        return {"rows": []}
    shared = {name: getattr(found[0], name) for name in _SHARED}
    return {**shared, "rows": [[_rounded(getattr(one, name)) for name in _OWN] for one in found]}


def expanded(document: Mapping[str, Any]) -> tuple[Performance, ...]:
    """The performances that `compact` was given."""
    rows: Sequence[Sequence[Any]] = document["rows"]
    shared = {name: document[name] for name in _SHARED} if rows else {}
    return tuple(Performance(**shared, **dict(zip(_OWN, row, strict=True))) for row in rows)


def _rounded(value: Any) -> Any:
    return float(f"{value:.8g}") if isinstance(value, float) else value
