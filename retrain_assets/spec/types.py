"""Field types of a spec: durations, dotted paths, cron expressions, environment references."""

import os
import re
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from retrain_assets.errors import SettingsError

__all__ = [
    "Connection",
    "Cron",
    "DottedPath",
    "Duration",
    "environment_references",
    "format_duration",
    "resolve_environment",
    "rough_duration",
    "shown",
]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,8})\s*([smhdw])")
_LONGEST = timedelta(days=36500)  # so that no date minus a duration leaves the calendar
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_LONGEST_STEPS = {"minute": 59, "hour": 23, "day": 31, "month": 12, "weekday": 7}
# The orchestrator's cron reader knows less than cronsim does.
_NOT_DAGSTER = re.compile(r"LW|\dL|L\d|#\d*,|,\w*#", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def shown(value: Any) -> str:
    """A value as an error message shows it: on one line, at most 80 characters."""
    text = value.isoformat() if isinstance(value, date) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse_duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match and int(match[1]) > 0:
            length = timedelta(**{_UNITS[match[2]]: int(match[1])})
            if length <= _LONGEST:
                return length
            raise ValueError(f"must be at most {_LONGEST.days}d, got {shown(value)}")
    raise ValueError(
        f"must be a number and a unit (s, m, h, d or w), for example 36h or 30d, got {shown(value)}"
    )


def format_duration(value: timedelta) -> str:
    """The shortest spelling that `Duration` reads back as `value`."""
    seconds = int(value.total_seconds())
    for unit, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def rough_duration(value: timedelta) -> str:
    """A length of time for people, in its largest unit: `17.3 days`, `5.0 hours`, `12 s`."""
    seconds = value.total_seconds()
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^{_DURATION.pattern}$",
            "examples": ["36h", "30d"],
            "x-kind": "duration",
        }
    ),
]
"""A length of time: a whole number and one of s, m, h, d, w."""


def _check_dotted(value: str) -> str:
    if not _DOTTED.fullmatch(value):
        raise ValueError(f"must name a function as package.module:function, got {shown(value)}")
    return value


DottedPath = Annotated[
    str,
    AfterValidator(_check_dotted),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_DOTTED.pattern}$", "x-kind": "package.module:function"}
    ),
]
"""A Python function in an importable package, `package.module:function`."""


def _check_cron(value: str) -> str:
    from datetime import datetime

    from cronsim import CronSim, CronSimError

    if len(value.split()) != 5:
        raise ValueError(
            "must be a cron expression of five fields (minute hour day month weekday), "
            f"got {shown(value)}"
        )
    for (name, most), text in zip(_LONGEST_STEPS.items(), value.split(), strict=True):
        if any(int(step) > most for step in re.findall(r"/([0-9]+)", text)):
            raise ValueError(
                f"the {name} '{text}' steps by more than {most}, and so fires once per range; "
                f"got {shown(value)}"
            )
    if _NOT_DAGSTER.search(value):
        raise ValueError(f"{shown(value)}: of L and #, only L as the day and one n#m weekday work")
    try:
        CronSim(value, datetime(2000, 1, 1))
    except CronSimError as error:
        raise ValueError(f"{shown(value)} is not a cron expression: {error}") from None
    return value


Cron = Annotated[
    str,
    AfterValidator(_check_cron),
    WithJsonSchema({"type": "string", "examples": ["0 6 * * 1"], "x-kind": "cron expression"}),
]
"""A five-field cron expression."""

Connection = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "examples": ["${WAREHOUSE_URL}"], "x-kind": "text with ${NAME}"}
    ),
]
"""Text in which `${NAME}` stands for an environment variable, read only when it is used."""


def environment_references(value: str) -> list[str]:
    """Names of the variables that `value` refers to, in order."""
    return _REFERENCE.findall(value)


def resolve_environment(value: str, field: str) -> str:
    """Replace every `${NAME}` in `value` by the environment's value.

    Args:
        value: text of a connection field.
        field: dotted path of the field, for the error.

    Raises:
        SettingsError: a variable is not set or is empty; names the missing variables only.
    """
    missing = [name for name in environment_references(value) if not os.environ.get(name)]
    if missing:
        names = ", ".join(missing)
        raise SettingsError(
            f"{field}: environment variable{'s' if len(missing) > 1 else ''} {names} not set; "
            f"set {'them' if len(missing) > 1 else 'it'} where this process runs (see .env or the pod's Secret)"
        )
    return _REFERENCE.sub(lambda match: os.environ[match[1]], value)
