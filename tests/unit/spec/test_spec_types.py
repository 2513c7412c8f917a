"""Durations, cron expressions, dotted paths and environment references."""

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from retrain_assets.errors import SettingsError
from retrain_assets.spec.types import (
    Cron,
    DottedPath,
    Duration,
    environment_references,
    format_duration,
    resolve_environment,
    shown,
)

_duration = TypeAdapter(Duration)
_cron = TypeAdapter(Cron)
_dotted = TypeAdapter(DottedPath)


@pytest.mark.parametrize(
    ("text", "length", "shortest"),
    [
        ("90s", timedelta(seconds=90), "90s"),
        ("120s", timedelta(minutes=2), "2m"),
        ("36h", timedelta(hours=36), "36h"),
        ("48 h", timedelta(days=2), "2d"),
        (" 30d ", timedelta(days=30), "30d"),
        ("14d", timedelta(weeks=2), "2w"),
        ("36500d", timedelta(days=36500), "36500d"),
    ],
)
def test_a_duration_is_read_and_written_in_its_shortest_spelling(text, length, shortest):
    assert _duration.validate_python(text) == length
    assert format_duration(length) == shortest
    assert _duration.validate_python(shortest) == length


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "h",
        "0h",
        "-1h",
        "1.5h",
        "1y",
        "123456789s",
        "1 month",
        "٣d",
        5,
        5.0,
        None,
        True,
        ["1h"],
    ],
)
def test_anything_else_is_refused_with_an_example(value):
    with pytest.raises(ValidationError) as caught:
        _duration.validate_python(value)
    assert (
        f"must be a number and a unit (s, m, h, d or w), for example 36h or 30d, got {value!r}"
        in str(caught.value)
    )


@pytest.mark.parametrize("text", ["36501d", "99999999w", "99999999h"])
def test_a_duration_beyond_a_century_is_refused_instead_of_overflowing(text):
    with pytest.raises(ValidationError, match=f"must be at most 36500d, got '{text}'"):
        _duration.validate_python(text)


@pytest.mark.parametrize(
    "text",
    ["0 6 * * 1", "*/5 * * * *", "0 0 L * *", "0 9 * * MON-FRI", "0 0 1 JUL *", "0 0 * * 1#2"],
)
def test_cron_expressions_of_five_fields_are_read(text):
    assert _cron.validate_python(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 6 * *", "of five fields"), ("0 0 6 * * 1", "of five fields"), ("@daily", "of five fields"),
        ("61 6 * * 1", "'61 6 * * 1' is not a cron expression: Bad minute"),
        ("0 0 30 2 *", "is not a cron expression: Bad day-of-month"),
        ("*/90 * * * *", "the minute '*/90' steps by more than 59, and so fires once per range"),
        ("0 */25 * * *", "the hour '*/25' steps by more than 23"),
        ("0 0 LW * *", "of L and #, only L as the day"), ("0 0 * * 5L", "of L and #"),
        ("0 0 * * 1#1,2", "of L and #"), ("0 0 * * 2,1#1", "of L and #"),
    ],
)  # fmt: skip
def test_cron_expressions_that_dagster_would_refuse_are_refused_here(text, message):
    with pytest.raises(ValidationError) as caught:
        _cron.validate_python(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["a:b", "a.b.c:d", "_a:_b", "a1.b2:c3"])
def test_dotted_paths_name_a_function(text):
    assert _dotted.validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["a", "a.b", "a:b.c", "a:b()", ":b", "a:", "a b:c", "a:b\n", "1a:b"]
)
def test_everything_else_is_no_dotted_path(text):
    with pytest.raises(ValidationError, match=r"package\.module:function"):
        _dotted.validate_python(text)


def test_references_are_found_in_order():
    assert environment_references("x${A}/${B_2}$C${}${1}${A}") == ["A", "B_2", "A"]
    assert environment_references("nothing") == []


def test_references_are_replaced_by_the_environment(monkeypatch):
    monkeypatch.setenv("DB_USER", "ann")
    monkeypatch.setenv("DB_PASSWORD", r"p\1${DB_USER}")
    url = resolve_environment("pg://${DB_USER}:${DB_PASSWORD}@h/x", "source.sql.connection")
    assert url == r"pg://ann:p\1${DB_USER}@h/x"  # a value is not read again


def test_an_unset_variable_is_named_and_no_other_secret_is_shown(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.delenv("DB_HOST", raising=False)
    with pytest.raises(SettingsError) as caught:
        resolve_environment("pg://u:${DB_PASSWORD}@${DB_HOST}/x", "source.sql.connection")
    assert str(caught.value) == (
        "source.sql.connection: environment variable DB_HOST not set; "
        "set it where this process runs (see .env or the pod's Secret)"
    )
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.args)


def test_all_unset_and_empty_variables_are_named_at_once(monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    with pytest.raises(SettingsError, match="environment variables EMPTY, UNSET not set; set them"):
        resolve_environment("${EMPTY}${UNSET}", "source.files")


def test_a_value_in_a_message_is_one_short_line():
    assert shown("a\nb") == "'a\\nb'"
    assert shown(timedelta(1)) == "datetime.timedelta(days=1)"
    assert len(shown(list(range(1000)))) == 80
