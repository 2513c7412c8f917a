"""The field reference and the JSON Schema are what the code says, and accept what it accepts."""

import json
import re
from pathlib import Path

import pytest
import yaml

from retrain_assets.spec.loading import load_specs, validate_document
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.schema import (
    field_reference,
    fleet_schema,
    json_schema,
    reference_markdown,
    template,
    with_reference,
)
from retrain_assets.spec.source_lines import parse_yaml

SPECS = Path(__file__).parents[2] / "model_specs"
SHIPPED = sorted(SPECS.glob("*.yaml"))
REGENERATE = "run `make schema` (python -m retrain_assets.spec.schema in the repository's root)"


def _readme_examples():
    text = (SPECS / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    return [block for block in blocks if block.startswith("name: ")]


# ------------------------------------------------------------ a validator for the schema's keywords

_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip
_ANNOTATIONS = {
    "title",
    "description",
    "default",
    "examples",
    "x-kind",
    "$defs",
    "$schema",
    "format",
}
_BOUNDS = {
    "minimum": lambda v, b: v >= b, "maximum": lambda v, b: v <= b,
    "exclusiveMinimum": lambda v, b: v > b, "exclusiveMaximum": lambda v, b: v < b,
    "minLength": lambda v, b: len(v) >= b, "minItems": lambda v, b: len(v) >= b,
}  # fmt: skip


def _is_type(value, name):
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _errors(value, schema, root, path="$"):
    """Where `value` breaks `schema`; fails on a keyword that it does not know."""
    if "$ref" in schema:
        definition = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        yield from _errors(value, definition, root, path)
    for keyword, rule in sorted(schema.items(), key=lambda item: item[0] != "type"):
        if keyword in _ANNOTATIONS or keyword in ("$ref", "additionalProperties"):
            continue
        if keyword == "type":
            if not _is_type(value, rule):
                yield f"{path}: not {rule}"
                return
        elif keyword == "anyOf":
            if all(list(_errors(value, option, root, path)) for option in rule):
                yield f"{path}: fits none"
        elif keyword in ("enum", "const"):
            if value not in (rule if keyword == "enum" else [rule]):
                yield f"{path}: not {rule}"
        elif keyword == "pattern":
            if not re.search(rule, value):
                yield f"{path}: does not match"
        elif keyword in _BOUNDS:
            if not _BOUNDS[keyword](value, rule):
                yield f"{path}: breaks {keyword} {rule}"
        elif not isinstance(value, (dict, list)):
            continue  # applies to mappings and lists only
        elif keyword == "required":
            yield from (f"{path}.{name}: missing" for name in rule if name not in value)
        elif keyword == "properties":
            for name in rule.keys() & value.keys():
                yield from _errors(value[name], rule[name], root, f"{path}.{name}")
        elif keyword == "items":
            for index, item in enumerate(value):
                yield from _errors(item, rule, root, f"{path}[{index}]")
        else:
            raise AssertionError(f"{path}: unknown keyword {keyword}")
    yield from _extra_errors(value, schema, root, path)


def _extra_errors(value, schema, root, path):
    extra = schema.get("additionalProperties", True)
    if not isinstance(value, dict) or extra is True:
        return
    for name in value.keys() - schema.get("properties", {}).keys():
        if extra is False:
            yield f"{path}.{name}: unknown"
        else:
            yield from _errors(value[name], extra, root, f"{path}.{name}")


def _schema_errors(text, schema=None):
    schema = schema or json_schema()
    # An editor sees dates as text.
    document = json.loads(json.dumps(yaml.safe_load(text), default=str))
    return list(_errors(document, schema, schema))


# ------------------------------------------------------------------------------------- the schema


def test_the_schema_says_which_draft_it_is():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "retrain-assets model spec"
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("schema", [json_schema(), fleet_schema()], ids=["spec", "fleet"])
def test_every_reference_in_the_schema_leads_somewhere_and_every_pattern_is_one(schema):
    used = set()

    def visit(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                assert node["$ref"].startswith("#/$defs/")
                used.add(node["$ref"].removeprefix("#/$defs/"))
            if isinstance(node.get("pattern"), str):
                re.compile(node["pattern"])
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(schema)
    assert used == set(schema["$defs"])


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_specs_pass_the_schema_and_the_check(file):
    text = file.read_text(encoding="utf-8")
    schema = fleet_schema() if "\ntemplate:" in text else json_schema()
    assert text.startswith(
        f"# yaml-language-server: $schema=./{'fleet.' if 'template:' in text else ''}schema.json\n"
    )
    assert _schema_errors(text, schema) == []
    assert load_specs(file).problems == []


def test_the_fleets_in_the_readme_pass_the_schema(tmp_path):
    text = (SPECS / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (fleet,) = [block for block in blocks if block.startswith("template:")]
    others = [block for block in blocks if block.startswith("for_each:")]
    assert len(others) == 2
    (tmp_path / "fleet.yaml").write_text(fleet)
    assert list(load_specs(tmp_path).models) == ["churn_de", "churn_fr"]
    for rows in ("", *others):
        document = {**yaml.safe_load(fleet), **(yaml.safe_load(rows) or {})}
        assert _schema_errors(yaml.safe_dump(document), fleet_schema()) == []


def test_there_are_shipped_specs():
    assert {file.stem: len(load_specs(file).models) for file in SHIPPED} == {
        "daily_departures": 1, "flight_delay": 1, "recommenders": 50, "route_delays": 23,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"template": {"task": "binry"}}, "$.template.task: fits none"),
        ({"template": {"nam": "x"}}, "$.template.nam: unknown"),
        ({"template": {"train": {"window": 1}}}, "$.template.train: fits none"),
        ({"for_each": {"file": "rows.txt"}}, "$.for_each: fits none"),
        ({"for_each": []}, "$.for_each: fits none"),
        ({"name": "x"}, "$.name: unknown"),
    ],
)
def test_the_fleet_schema_finds_what_is_wrong(change, error):
    good = {
        "template": {"name": "rec_{city}", "train": {"window": "{days}"}},
        "for_each": [{"city": "x"}],
    }
    assert _schema_errors(yaml.safe_dump(good), fleet_schema()) == []
    assert _schema_errors(yaml.safe_dump({**good, **change}), fleet_schema()) == [error]


def test_the_template_passes_the_schema_and_the_check():
    assert _schema_errors(template("churn")) == []
    spec = validate_document(parse_yaml(template("churn")), "churn.yaml", Path("model_specs"))
    assert spec.name == "churn"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"nam": "x"}, "$.nam: unknown"),
        ({"task": "binry"}, "$.task: not"),
        ({"partitions": "nothing"}, "$.partitions: fits none"),
        ({"partitions": None}, "$.partitions: fits none"),
        ({"train": {"window": 1}}, "$.train.window: fits none"),
        ({"retrain": {"cooldown": "3 years"}}, "$.retrain.cooldown: fits none"),
        ({"drift": {"alpha": 1}}, "$.drift.alpha: breaks exclusiveMaximum 1"),
        ({"source": {"python": "load"}}, "$.source.python: fits none"),
        ({"owner": "me"}, "$.owner: fits none"),
        ({"contract": {"columns": {"a": {"tipe": "int"}}}}, "$.contract.columns.a.tipe: unknown"),
    ],
)
def test_the_schema_refuses_what_the_check_refuses(change, error):
    document = yaml.safe_load(template("churn")) | change
    text = yaml.safe_dump(document)
    assert [found for found in _schema_errors(text) if found.startswith(error)]


@pytest.mark.parametrize("field", ["name", "partitions", "source", "target", "task"])
def test_the_schema_misses_a_required_field(field):
    document = yaml.safe_load(template("churn"))
    del document[field]
    assert _schema_errors(yaml.safe_dump(document)) == [f"$.{field}: missing"]


def test_schema_json_is_what_the_code_says():
    file = SPECS / "schema.json"
    expected = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    assert file.read_text(encoding="utf-8") == expected, f"{file} is out of date: {REGENERATE}"


# ---------------------------------------------------------------------------- the field reference


def test_the_readme_has_the_field_reference_that_the_code_says():
    file = SPECS / "README.md"
    text = file.read_text(encoding="utf-8")
    assert with_reference(text) == text, f"{file} is out of date: {REGENERATE}"


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="needs the lines <!-- fields"):
        with_reference("# Nothing here\n")


def test_every_field_of_every_section_has_one_row_with_a_description():
    rows = field_reference()
    paths = [path for path, *_ in rows]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if "." not in path] == list(ModelSpec.model_fields)
    assert {"source.sql.query", "contract.columns.*.allowed", "drift.alert.at_least"} <= set(paths)
    assert [path for path, kind, _, description in rows if not (kind and description)] == []
    assert not [kind for _, kind, _, _ in rows if kind in ("any", "object", "array", "string")]


def test_every_field_of_the_code_is_in_the_reference():
    def visit(model, prefix):
        for name, field in model.model_fields.items():
            yield prefix + name
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and hasattr(inner, "model_fields"):
                    star = "*." if "dict" in str(field.annotation) else ""
                    yield from visit(inner, f"{prefix}{name}.{star}")

    assert [path for path, *_ in field_reference()] == list(visit(ModelSpec, ""))


def test_defaults_and_types_are_told_in_the_words_of_a_spec():
    rows = {path: (kind, default) for path, kind, default, _ in field_reference()}
    assert rows["name"] == ("text", "required")
    assert rows["partitions"] == ("`none` or section", "required")
    assert rows["partitions.start"] == ("date", "required")
    assert rows["train.holdout"] == ("whole number or number", "0.2")
    assert rows["retrain.cooldown"] == ("duration", "")
    assert rows["retrain.schedule"] == ("cron expression", "")
    assert rows["retrain.on_drift"] == ("true or false", "true")
    assert rows["source.storage_options"] == ("mapping of text with ${NAME}", "")
    assert rows["gate.on_reject"] == ("fail, keep", '"fail"')


def test_the_tables_have_four_cells_in_every_row():
    for line in reference_markdown().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_the_examples_of_the_readme_are_valid_specs(tmp_path):
    examples = _readme_examples()
    assert len(examples) == 4
    for number, text in enumerate(examples):
        assert _schema_errors(text) == []
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
    found = load_specs(tmp_path)
    assert found.problems == []
    assert {spec.source.kind for spec in found.specs()} == {"files", "sql", "python"}
    assert any(spec.scheme is None for spec in found.specs())
