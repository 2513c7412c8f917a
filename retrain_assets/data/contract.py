"""The data contract: which rows and columns of raw data break the user's rules.

Belongs here: checking a table against a `Contract`, the report, the offending rows. Does not:
deciding what happens then, and where rows kept aside are stored.

NaN counts as null in every rule. Nulls satisfy `min`, `max` and `allowed` (whether they may come is
said by `nullable` and `max_null_rate`) and equal one another in `unique`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from retrain_assets.data.arrow import duplicates, null_mask, plain
from retrain_assets.spec.model import Column, Contract

__all__ = ["RULE_COLUMN", "Breach", "breach_report", "check_contract", "offending_rows"]

RULE_COLUMN = "__rule__"
"""Column that `offending_rows` adds."""

_EXAMPLES = 3
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Breach:
    """One rule that does not hold.

    Attributes:
        rule: missing_column, extra_column, duplicate_column, type, null, max_null_rate, min, max,
            allowed, unique, min_rows or max_rows.
        column: the column; the columns, joined by comma, for unique; None for the table as a whole.
        count: rows that break the rule (rows of the table for min_rows and max_rows; all rows for
            rules about a whole column).
        total: rows of the table.
        limit: what the rule allows, None where the rule says it all.
        examples: up to three offending rows.
        detail: what was found instead, "" where count says it.
    """

    rule: str
    column: str | None
    count: int
    total: int
    limit: Any
    examples: tuple[dict[str, Any], ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class _Finding:
    breach: Breach
    mask: Mask | None = None


def _true(mask: pa.ChunkedArray) -> Mask:
    """Arrow mask to numpy, null (nothing to say) as False."""
    import pyarrow.compute as pc

    result: Mask = pc.fill_null(mask, False).to_numpy()
    return result


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _has_type(kind: pa.DataType, expected: str) -> bool:
    if pa.types.is_null(kind):
        return True  # a column without a single value contradicts nothing
    if expected == "int":
        return bool(pa.types.is_integer(kind))
    if expected == "float":
        return _is_number(kind)
    if expected == "string":
        return _is_text(kind)
    if expected == "bool":
        return bool(pa.types.is_boolean(kind))
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _mistyped(column: pa.ChunkedArray, expected: str) -> Mask:
    """Rows whose value is not of the expected type; none where the column passes after all.

    In a column of text that should hold numbers, these are the values that are no numbers, if any.
    A column of whole floats with nulls passes as int: pandas has no other way to write it.
    """
    import pyarrow.compute as pc

    nulls = null_mask(column)
    if expected == "int" and pa.types.is_floating(column.type):
        fractional = _true(pc.not_equal(column, pc.floor(column))) & ~nulls
        return fractional if fractional.any() or nulls.any() else ~nulls
    if expected in ("int", "float") and _is_text(column.type):
        pattern = _WHOLE if expected == "int" else _NUMBER
        strange = _true(pc.invert(pc.match_substring_regex(column, pattern)))
        return strange if strange.any() else ~nulls
    return ~nulls


def _allowed_values(allowed: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The allowed values that a column of type `kind` can hold at all."""
    if pa.types.is_boolean(kind):
        return pa.array([v for v in allowed if isinstance(v, bool)], kind)
    if pa.types.is_integer(kind):
        numbers = [v for v in allowed if not isinstance(v, bool | str) and v == int(v)]
        bounds = np.iinfo(kind.to_pandas_dtype())
        return pa.array([int(v) for v in numbers if bounds.min <= v <= bounds.max], kind)
    return pa.array([float(v) for v in allowed if not isinstance(v, bool | str)], pa.float64())


def _not_allowed(column: pa.ChunkedArray, allowed: Sequence[Any]) -> Mask:
    import pyarrow.compute as pc

    if pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=np.bool_)
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        values = _allowed_values(allowed, column.type)
    elif _is_number(column.type):
        column = pc.add(column.cast(pa.float64()), 0.0)  # -0.0 is 0
        values = _allowed_values(allowed, column.type)
    else:
        column = column.cast(pa.string())
        values = pa.array([v for v in allowed if isinstance(v, str)], pa.string())
    outside: Mask = pc.invert(pc.is_in(column, value_set=values)).to_numpy()
    return outside & ~null_mask(column)


def _repeated(columns: Sequence[pa.ChunkedArray]) -> Mask:
    """Rows whose combination of values occurs more than once."""
    import pyarrow.compute as pc

    rows = len(columns[0])
    codes = np.zeros(rows, dtype=np.int64)
    for column in columns:
        if pa.types.is_floating(column.type):
            # NaN as null, and the two zeros as one.
            missing = pa.array(null_mask(column))
            column = pc.if_else(missing, pa.scalar(None, column.type), pc.add(column, 0.0))
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        indices = encoded.indices.to_numpy().astype(np.int64)
        mixed = codes * (int(indices.max(initial=0)) + 1) + indices
        # Numbering anew keeps the codes below the number of rows, so that they never overflow.
        codes = np.unique(mixed, return_inverse=True)[1].reshape(-1)
    result: Mask = np.bincount(codes, minlength=1)[codes] > 1
    return result


def _breach(
    rule: str, name: str | None, mask: Mask, limit: Any, detail: str = ""
) -> Iterator[_Finding]:
    """A finding if `mask` has any row."""
    count = int(mask.sum())
    if count:
        yield _Finding(Breach(rule, name, count, len(mask), limit, detail=detail), mask)


def _null_findings(name: str, nulls: Mask, rule: Column) -> Iterator[_Finding]:
    if not rule.nullable:
        yield from _breach("null", name, nulls, 0)
    elif rule.max_null_rate is not None and nulls.sum() > rule.max_null_rate * len(nulls):
        yield from _breach("max_null_rate", name, nulls, rule.max_null_rate)


def _range_findings(name: str, column: pa.ChunkedArray, rule: Column) -> Iterator[_Finding]:
    import pyarrow.compute as pc

    if pa.types.is_null(column.type) or (rule.min is None and rule.max is None):
        return
    if not _is_number(column.type):
        if rule.type is None:
            detail = f"min and max need numbers, got {column.type}"
            yield from _breach("type", name, ~null_mask(column), "number", detail)
        return
    if rule.min is not None:
        yield from _breach("min", name, _true(pc.less(column, rule.min)), rule.min)
    if rule.max is not None:
        yield from _breach("max", name, _true(pc.greater(column, rule.max)), rule.max)


def _column_findings(name: str, column: pa.ChunkedArray, rule: Column) -> Iterator[_Finding]:
    yield from _null_findings(name, null_mask(column), rule)
    if rule.type is not None and not _has_type(column.type, rule.type):
        detail = f"the column is {column.type}"
        yield from _breach("type", name, _mistyped(column, rule.type), rule.type, detail)
        if not _is_number(column.type):
            return
    yield from _range_findings(name, column, rule)
    if rule.allowed is not None:
        yield from _breach("allowed", name, _not_allowed(column, rule.allowed), rule.allowed)


def _table_findings(table: pa.Table, contract: Contract) -> Iterator[_Finding]:
    rows, names = table.num_rows, table.column_names
    if rows < contract.min_rows:
        yield _Finding(Breach("min_rows", None, rows, rows, contract.min_rows))
    if contract.max_rows is not None and rows > contract.max_rows:
        yield _Finding(Breach("max_rows", None, rows, rows, contract.max_rows))
    for name in duplicates(names):
        yield _Finding(Breach("duplicate_column", name, rows, rows, None))
    for name in dict.fromkeys([*contract.columns, *contract.unique]):
        if name not in names:
            detail = f"the table has {', '.join(names) or 'no columns'}"
            yield _Finding(Breach("missing_column", name, rows, rows, None, detail=detail))
    if contract.extra == "forbid":
        known = {*contract.columns, *contract.unique}
        for name in dict.fromkeys(names):
            if name not in known:
                yield _Finding(Breach("extra_column", name, rows, rows, None))


def _findings(table: pa.Table, contract: Contract) -> list[_Finding]:
    found = list(_table_findings(table, contract))
    if table.num_rows == 0:
        return found
    once = [name for name in table.column_names if table.column_names.count(name) == 1]
    used = [name for name in once if name in contract.columns or name in contract.unique]
    values = plain(table.select(used))
    for name, rule in contract.columns.items():
        if name in used:
            found.extend(_column_findings(name, values[name], rule))
    if contract.unique and all(name in used for name in contract.unique):
        mask = _repeated([values[name] for name in contract.unique])
        found.extend(_breach("unique", ", ".join(contract.unique), mask, None))
    return found


def _positional(table: pa.Table) -> pa.Table:
    """`table` with unique column names, so that a row can be a dict."""
    seen: dict[str, int] = {}
    names = []
    for name in table.column_names:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return table.rename_columns(names)


def check_contract(table: pa.Table, contract: Contract) -> list[Breach]:
    """Every rule of `contract` that `table` breaks; an empty list if it keeps them all.

    Rules about the table come first, then the columns' in the order of the contract.

    >>> rule = Contract(columns={"price": Column(type="float", min=0)})
    >>> [breach] = check_contract(pa.table({"price": [1.0, -2.0, None]}), rule)
    >>> breach.rule, breach.column, breach.count, breach.limit, breach.examples
    ('min', 'price', 1, 0.0, ({'price': -2.0},))
    """
    breaches = []
    rows = _positional(table)
    for finding in _findings(table, contract):
        examples: tuple[dict[str, Any], ...] = ()
        if finding.mask is not None:
            first = np.flatnonzero(finding.mask)[:_EXAMPLES]
            examples = tuple(rows.take(pa.array(first)).to_pylist())
        breaches.append(replace(finding.breach, examples=examples))
    return breaches


def offending_rows(table: pa.Table, contract: Contract) -> pa.Table:
    """The rows that break a rule, in order, each once, with the rules in the column `__rule__`.

    The column reads for example `price: min; qty: null`. Rules about the whole table (a missing
    column, too few rows) have no rows of their own.
    """
    import pyarrow.compute as pc

    findings = [(f.breach, f.mask) for f in _findings(table, contract) if f.mask is not None]
    table = _positional(table)
    if RULE_COLUMN in table.column_names:
        table = table.drop_columns([RULE_COLUMN])
    if not findings:
        return table.slice(0, 0).append_column(RULE_COLUMN, pa.array([], pa.string()))
    bad = np.flatnonzero(np.logical_or.reduce([mask for _, mask in findings]))
    nothing = pa.scalar(None, pa.string())
    # Only over offending rows, each with a label: Arrow drops a row whose parts are all null.
    parts = [
        pc.if_else(pa.array(mask[bad]), pa.scalar(f"{breach.column}: {breach.rule}"), nothing)
        for breach, mask in findings
    ]
    rules = pc.binary_join_element_wise(*parts, "; ", null_handling="skip")
    return table.take(pa.array(bad)).append_column(RULE_COLUMN, rules)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _sentence(breach: Breach) -> str:
    count, total = f"{breach.count:,}", f"{breach.total:,}"
    share = f" ({breach.count / breach.total:.2%})" if breach.total else ""
    of = f"{count} of {total} rows{share}"
    text = {
        "missing_column": "is missing",
        "extra_column": "is not in the contract, which forbids extra columns",
        "duplicate_column": "occurs more than once",
        "type": f"must be {breach.limit}; {of} {'are' if breach.count > 1 else 'is'} not",
        "null": f"must not be null; {of}",
    }.get(breach.rule)
    if text is None and breach.rule in ("min", "max"):
        text = f"must be {'>=' if breach.rule == 'min' else '<='} {_number(breach.limit)}; {of}"
    elif text is None and breach.rule == "max_null_rate":
        text = f"null in {of}, allowed is {breach.limit:.2%}"
    elif text is None and breach.rule == "allowed":
        shown = ", ".join(repr(value) for value in breach.limit[:10])
        more = f", ... ({len(breach.limit)} values)" if len(breach.limit) > 10 else ""
        text = f"must be one of {shown}{more}; {of} are not"
    elif text is None and breach.rule == "unique":
        text = f"must be unique together; {of} share their values with another row"
    elif text is None:
        word = "at least" if breach.rule == "min_rows" else "at most"
        text = f"must have {word} {_number(breach.limit)} rows, got {count}"
    return text + (f" ({breach.detail})" if breach.detail else "")


def _example(row: dict[str, Any], column: str | None) -> str:
    """The row on one line, the offending columns first, cut where it gets long."""
    first = (column or "").split(", ")
    ordered = {name: row[name] for name in first if name in row} | row
    text = json.dumps(ordered, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."


def breach_report(breaches: Sequence[Breach], subject: str) -> str:
    """The breaches as text for a person: rule, count, limit and up to three rows each.

    Args:
        breaches: at least one, from `check_contract`.
        subject: what was checked, such as `flight_delay raw_data 2013-01-01`.
    """
    rules = f"{len(breaches)} rule{'s' if len(breaches) != 1 else ''}"
    lines = [f"{subject}: breaks {rules} of its data contract"]
    for breach in breaches:
        where = f"column {breach.column}" if breach.column is not None else "the table"
        lines.append(f"  {where}: {breach.rule}: {_sentence(breach)}")
        lines.extend(f"    for example {_example(row, breach.column)}" for row in breach.examples)
    lines.append("  Nothing was written. Fix the source, or change `contract` in the spec.")
    return "\n".join(lines)
