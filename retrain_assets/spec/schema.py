"""The JSON Schema of a spec, the field reference, and the commented spec that `retrain new` writes.

`python -m retrain_assets.spec.schema` writes `model_specs/schema.json`, `fleet.schema.json` and the
tables of `model_specs/README.md` again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrain_assets.spec.model import ModelSpec

__all__ = [
    "SCHEMAS",
    "field_reference",
    "fleet_schema",
    "json_schema",
    "reference_markdown",
    "template",
    "with_reference",
]

_BEGIN, _END = "<!-- fields: made by `make schema` -->", "<!-- end of fields -->"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a spec file."""
    schema = ModelSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "retrain-assets model spec"
    partitions = schema["properties"]["partitions"]
    partitions["anyOf"] = [
        {"const": "none"},
        *(option for option in partitions.get("anyOf", []) if option.get("type") != "null"),
    ]
    return schema


def fleet_schema() -> dict[str, Any]:
    """JSON Schema of a fleet file: a spec in whose place of any value may stand a `{column}`."""
    spec = json_schema()
    definitions = {name: _as_template(section) for name, section in spec["$defs"].items()}
    rows = {
        "description": "The rows: a list, a CSV or Parquet file, or a query; one model each.",
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"type": "object"}},
            {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {
                        "type": "string",
                        "pattern": r"\.(csv|parquet)$",
                        "description": "CSV or Parquet file, relative to this one.",
                    },
                    "ignore": _IGNORE,
                },
            },
            {
                "type": "object",
                "required": ["sql"],
                "additionalProperties": False,
                "properties": {"sql": {"$ref": "#/$defs/SqlSource"}, "ignore": _IGNORE},
            },
        ],
    }
    return {
        "$schema": spec["$schema"],
        "title": "retrain-assets fleet",
        "type": "object",
        "required": ["template", "for_each"],
        "additionalProperties": False,
        "properties": {"template": _as_template(spec), "for_each": rows},
        "$defs": definitions,
    }


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "schema.json": json_schema,
    "fleet.schema.json": fleet_schema,
}
"""File name → schema, as they lie beside the specs."""

_IGNORE = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Columns that are meant for somebody else.",
}
_FROM_ROW = {"type": "string", "pattern": r"\{[A-Za-z_][A-Za-z0-9_.]*\}"}


def _as_template(section: dict[str, Any]) -> dict[str, Any]:
    """A section in which nothing is required and any value may be text with a `{column}`."""
    if "properties" not in section:
        return section
    return {
        "type": "object",
        "additionalProperties": False,
        "description": section.get("description", ""),
        "properties": {
            name: {
                "description": field.get("description", ""),
                "anyOf": [_nested(field), _FROM_ROW],
            }
            for name, field in section["properties"].items()
        },
    }


def _nested(field: dict[str, Any]) -> dict[str, Any]:
    """A field whose mappings and lists may hold a `{column}` too."""
    found = dict(field)
    for key in ("additionalProperties", "items"):
        if isinstance(found.get(key), dict):
            found[key] = {"anyOf": [_nested(found[key]), _FROM_ROW]}
    if "anyOf" in found:
        found["anyOf"] = [_nested(option) for option in found["anyOf"]]
    return found


def field_reference() -> list[tuple[str, str, str, str]]:
    """(dotted path, type, default, description) of every field, in the order of the schema."""
    schema = json_schema()
    definitions = schema["$defs"]
    rows: list[tuple[str, str, str, str]] = []

    def visit(section: dict[str, Any], prefix: str) -> None:
        required = section.get("required", [])
        for name, field in section["properties"].items():
            inner = _reference_in(field)
            default = "required" if name in required else _default_of(field)
            rows.append((prefix + name, _type_of(field), default, field.get("description", "")))
            if inner is not None:
                star = "*." if "additionalProperties" in field else ""
                visit(definitions[inner], f"{prefix}{name}.{star}")

    visit(schema, "")
    return rows


def reference_markdown() -> str:
    """The field reference: a table of the top-level fields, and one for each of their sections."""
    tables: dict[str, list[str]] = {"": []}
    for path, kind, default, description in field_reference():
        section = path.partition(".")[0] if "." in path else ""
        name = path.removeprefix(f"{section}.")
        default = default if default in ("", "required") else f"`{default}`"
        cells = [f"`{name}`", kind, default, description]
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        tables.setdefault(section, []).append(f"| {row} |")
    texts = []
    for section, rows in tables.items():
        title = f"### `{section}`" if section else "### The file"
        texts.append(
            "\n".join([f"{title}\n", "| Field | Type | Default | |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(texts)


def with_reference(text: str) -> str:
    """`text` with the field reference between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the text needs the lines {_BEGIN} and {_END} around the field reference")
    return f"{before}{_BEGIN}\n\n{reference_markdown()}\n\n{_END}{after}"


def _reference_in(field: dict[str, Any]) -> str | None:
    inner = [field.get("additionalProperties"), field.get("items")]
    for option in (field, *field.get("anyOf", []), *inner):
        if isinstance(option, dict) and "$ref" in option:
            return str(option["$ref"]).rsplit("/", 1)[-1]
    return None


def _type_of(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        options = [_type_of(option) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(options))
    if "x-kind" in field:
        return str(field["x-kind"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type_of(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping of {_type_of(values) if isinstance(values, dict) else 'anything'}"
    if kind == "string" and field.get("format") == "date":
        return "date"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(kind, kind)


def _default_of(field: dict[str, Any]) -> str:
    default = field.get("default")
    if default is None or default in ([], {}) or "$ref" in field:
        return ""
    return json.dumps(default)


def template(name: str) -> str:
    """A commented spec named `name` that passes `retrain check` as it is."""
    import yaml

    # A name such as `yes` is a valid one, but not text where it stands without quotes.
    first = yaml.safe_dump({"name": name}).strip()
    return _TEMPLATE.replace("name: NAME", first, 1).replace("NAME", name)


_TEMPLATE = """\
# One model. `retrain check` says what is wrong with it; `retrain schema` helps your editor.
# Every field: model_specs/README.md
name: NAME
description: What this model predicts, for the people who will read it at night.
owner: team:data-science              # team:name or a mail address

# How the data is cut in time (UTC): hour, day, week, month; or `partitions: none` for one table.
partitions: {every: day, start: 2024-01-01}

# Raw rows: files, sql or python. {partition} is the partition key, for example 2024-01-31.
source:
  files: ../data/NAME/{partition}.parquet
  # sql:
  #   connection: ${WAREHOUSE_URL}    # read from the environment when it is used
  #   query: SELECT * FROM events WHERE at >= :partition_start AND at < :partition_end
  # python: my_package.sources:load   # def load(window): return a DataFrame

# What raw rows must look like; a breach stops the partition before anything downstream sees it.
contract:
  min_rows: 1
  columns:
    label: {type: int, allowed: [0, 1]}
    # amount: {type: float, min: 0, max_null_rate: 0.1}

# Raw rows → features with the target: DuckDB SQL over `raw` (a query or a .sql file), or Python.
features:
  sql: SELECT * FROM raw
  # python: my_package.features:transform
  # lookback: 7                       # the last 7 partitions, as `history`

target: label
task: binary                          # binary, multiclass, regression, ranking

train:
  window: 60                          # partitions, holdout included
  holdout: 7                          # the last 7 are never trained on
  label_delay: 0                      # partitions until labels are complete
  params: {num_leaves: 31, n_estimators: 200}

drift:
  alert: {share_of_features: 0.2, of_last: 3, at_least: 2}

retrain:
  schedule: "0 6 * * 1"               # Mondays at six
  on_drift: true
  # max_age: 30d
  # on_new_partitions: 14             # or so many new partitions
  # on_change: true                   # or features, target, task or train changed
  # combine: all                      # all of these at once; by default any
  cooldown: 3d
  # budget: {runs_per_week: 3}

gate:
  metric: roc_auc
  min_gain: 0.0                       # over the champion, shown with this confidence:
  confidence: 0.95
  # floor: 0.6

freshness:
  raw_data: {warn: 26h, fail: 48h}

# alerts: [ops]                       # the Apprise URL is in RETRAIN_ALERT_OPS
"""


def _write(folder: Path) -> None:
    """Write the schemas and the tables of README.md in `folder` again."""
    for name, schema in SCHEMAS.items():
        text = json.dumps(schema(), indent=2, sort_keys=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    readme = folder / "README.md"
    readme.write_text(with_reference(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _write(Path("model_specs"))
