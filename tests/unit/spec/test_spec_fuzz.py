"""No file, however broken, raises anything but SpecError; every problem stands inside the file."""

import copy
import json
from datetime import date, datetime

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrain_assets.errors import SpecError
from retrain_assets.spec.loading import load_specs, parse_spec
from retrain_assets.spec.model import ModelSpec

FULL = {
    "name": "churn",
    "description": "Who leaves?",
    "owner": "team:ops",
    "group": "sales",
    "tags": {"tier": "gold"},
    "partitions": {"every": "day", "start": "2024-01-01", "end": "2024-12-31"},
    "source": {"python": "json:loads", "available": "json:dumps", "options": {"a": 1}, "lag": "1h"},
    "contract": {
        "columns": {
            "label": {"type": "int", "allowed": [0, 1]},
            "amount": {"type": "float", "min": 0, "max": 9.5, "max_null_rate": 0.1},
        },
        "min_rows": 1,
        "max_rows": 10,
        "extra": "forbid",
        "unique": ["label", "amount"],
    },
    "features": {"sql": "SELECT * FROM raw", "lookback": 3},
    "target": "label",
    "task": "binary",
    "train": {
        "window": 10,
        "min_window": 4,
        "holdout": 2,
        "label_delay": 1,
        "params": {"num_leaves": 31, "rate": 0.1, "metrics": [1, 2], "boosting": "gbdt"},
        "seed": 7,
        "entity": ["customer"],
        "exclude": ["day"],
    },
    "drift": {
        "against": "champion",
        "window": 2,
        "alpha": 0.05,
        "thresholds": {"ks": 0.2, "unseen": 0.1},
        "alert": {"share_of_features": 0.2, "of_last": 3, "at_least": 2},
        "exclude": ["day"],
    },
    "retrain": {
        "schedule": "0 6 * * 1",
        "timezone": "Europe/Paris",
        "on_drift": True,
        "on_performance": {"floor": 0.6, "max_drop": 0.02, "of_last": 3, "at_least": 2},
        "cost": {"retraining": 5, "per_unit_loss": 100, "per": "partition"},
        "max_age": "30d",
        "at_least": 2,
        "cooldown": "3d",
        "backoff": {"first": "1d", "at_most": "8d"},
        "budget": {"runs_per_week": 3, "compute_seconds_per_week": 7200},
    },
    "gate": {"metric": "roc_auc", "min_gain": 0.0, "confidence": 0.95, "floor": 0.6},
    "freshness": {"raw_data": {"warn": "26h", "fail": "48h"}, "promoted_model": {"fail": "45d"}},
    "alerts": ["ops"],
}


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from _paths(item, (*path, key))


def _at(path):
    value = FULL
    for part in path:
        value = value[part]
    return value


_PATHS = [path for path in _paths(FULL) if path]
_SECTIONS = [path for path in _paths(FULL) if isinstance(_at(path), dict)]
_WORDS = st.sampled_from(
    ["none", "null", "day", "champion", "auc", "1h", "0 6 * * 1", "${X}", "{partition}", "x.sql",
     "json:loads", "a.b:c", "2024-01-31", "int", "str", "float", "list[int]", "", "\n", "a: b"]
)  # fmt: skip
_PRINTABLE = st.text(st.characters(codec="utf-8"), max_size=20)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers()
    | st.sampled_from([10**30, -(10**30), 10**400, 2**63, 2**31])
    | st.floats()
    | _WORDS
    | _PRINTABLE
    | st.dates(date(1, 1, 1), date(9999, 12, 31))
    | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_WORDS | _PRINTABLE | st.integers(-1, 3), inner, max_size=3)
    ),
    max_leaves=6,
)
_quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _replace(document, path, value):
    document = copy.deepcopy(document)
    target = document
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return document


def _check(file, text):
    """A valid spec, or problems that can be shown and lie inside the file."""
    file.write_text(text, encoding="utf-8", newline="")
    found = load_specs(file)
    assert len(found.models) + len(found.broken) == 1
    lines = max(1, len(text.splitlines()))
    for problem in found.problems:
        assert 1 <= problem.line <= lines, problem
        shown = str(problem)
        assert shown.isprintable(), problem
        assert len(shown) < 700, problem
    for spec in found.specs():
        _use(spec)
    return found


def _use(spec):
    """What later stages ask a valid spec; none of it may fail."""
    assert spec.metric
    if spec.scheme is not None:
        first = spec.scheme.key_of(spec.scheme.first)
        assert spec.scheme.window(first).key == first
        assert spec.scheme.stop is None or spec.scheme.stop > spec.scheme.first
        assert spec.scheme.trailing(first, spec.min_window) == [first]
    again = ModelSpec.model_validate(spec.model_dump(mode="json"))
    sections = tuple(ModelSpec.model_fields)
    text = json.dumps(spec.model_dump(mode="json", exclude={"source": {"options"}}))
    assert "NaN" not in text
    assert "Infinity" not in text
    assert again.section_hash(*sections) == spec.section_hash(*sections)


_NASTY = [
    "~", ".nan", ".inf", "-.inf", "1e400", "0", "-1", "1", "0.5", "1" + "0" * 400, "9" * 5000, "yes",
    "''", "' '", "2024-13-45", "9999-12-31", "0001-01-01", "2024-01-01T25:00:00", "9999999999d",
    "2024-01-01 06:00:00+14:00", "0001-01-01 00:00:00+14:00", "0x_", "0b_", "'${X}'",
    "'{partition}'", "x.sql", '"a\\0.sql"', "/", "json:loads", "no_such_module:f", "0 0 30 2 *",
    "'* * * * *'", "[]", "{}", "[[]]", "{a: b}", "[1, x, ~]", "*a", "<<", "=", "!!int 5", "none",
    "null", "'\u2028'", "9223372036854775808", "-0.0", "1:30", "+1", "1_000", "~x", "é",
]  # fmt: skip


@pytest.mark.parametrize("nasty", _NASTY, ids=lambda text: text[:20])
def test_no_field_chokes_on_what_people_and_machines_type_by_accident(tmp_path, nasty):
    for path in _PATHS:
        text = yaml.safe_dump(_replace(FULL, path, "PLACEHOLDER"), sort_keys=False)
        file = tmp_path / "spec.yaml"
        _check(file, text.replace("PLACEHOLDER", nasty))


def test_the_spec_that_the_fuzzing_starts_from_is_valid(tmp_path):
    found = _check(tmp_path / "spec.yaml", yaml.safe_dump(FULL))
    assert not found.problems


@_quick
@given(path=st.sampled_from(_PATHS), value=_VALUES)
def test_a_field_with_any_value_gives_a_spec_or_problems(tmp_path, path, value):
    text = yaml.safe_dump(_replace(FULL, path, value), sort_keys=False, allow_unicode=True)
    _check(tmp_path / "spec.yaml", text)


@_quick
@given(
    path=st.sampled_from(_SECTIONS),
    name=_WORDS | _PRINTABLE,
    value=_VALUES,
)
def test_an_extra_field_anywhere_gives_a_spec_or_problems(tmp_path, path, name, value):
    text = yaml.safe_dump(_replace(FULL, (*path, name), value), sort_keys=False)
    _check(tmp_path / "spec.yaml", text)


@_quick
@given(path=st.sampled_from(_PATHS))
def test_a_spec_without_some_field_gives_a_spec_or_problems(tmp_path, path):
    document = copy.deepcopy(FULL)
    target = document
    for part in path[:-1]:
        target = target[part]
    del target[path[-1]]
    _check(tmp_path / "spec.yaml", yaml.safe_dump(document, sort_keys=False))


_TEXT = yaml.safe_dump(FULL, sort_keys=False)
_SNIPPETS = st.sampled_from(
    ["[", "]", "{", "}", ":", "- ", "\n", "  ", "\t", "&a ", "*a", "<<: *a", "'", '"', "|\n", ">",
     "---\n", "...\n", "!!int ", "!x ", "? ", "# ", "%YAML 1.1\n", "\r", "\0", "\x85", "\u2028",
     "name: x\n", "=", "~", "1:30", "0x_", "\ufeff", "@", "`"]
)  # fmt: skip


@_quick
@given(
    edits=st.lists(st.tuples(st.integers(0, len(_TEXT)), st.integers(0, 5), _SNIPPETS), max_size=4)
)
def test_a_spec_file_with_anything_typed_into_it_gives_a_spec_or_problems(tmp_path, edits):
    text = _TEXT
    for at, length, snippet in edits:
        text = text[:at] + snippet + text[at + length :]
    _check(tmp_path / "spec.yaml", text)


@_quick
@given(text=st.text(st.characters(codec="utf-8")) | st.lists(_SNIPPETS).map("".join))
def test_any_text_gives_problems(tmp_path, text):
    assert _check(tmp_path / "spec.yaml", text).broken


@_quick
@given(content=st.binary())
def test_any_bytes_give_problems(tmp_path, content):
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        parse_spec(file)
    lines = max(1, len(content.splitlines()))
    assert all(0 <= problem.line <= lines for problem in caught.value.problems)
