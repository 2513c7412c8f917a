"""From YAML files to specs: every problem of every file at once; a broken file harms nobody else.

Belongs here: finding files, reading them, turning validation errors into `Problem`s with a line
and a remedy. Does not: the fields' rules (`model`).
"""

import ast
import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from retrain_assets.errors import Problem, SpecError
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.source_lines import Document, YamlProblem, parse_yaml
from retrain_assets.spec.types import environment_references

__all__ = ["BrokenSpec", "LoadedSpec", "SpecSet", "load_specs", "parse_spec", "spec_files"]

_CONNECTION_FIELDS = (
    ("source", "files"),
    ("source", "storage_options"),
    ("source", "sql", "connection"),
)


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec and the file it came from."""

    spec: ModelSpec
    file: Path


@dataclass(frozen=True)
class BrokenSpec:
    """A file that is quarantined, with everything that is wrong with it.

    Attributes:
        name: the model's name where it could be read, else the file's stem.
    """

    name: str
    file: Path
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class SpecSet:
    """All specs of a folder: the valid ones by name, and the quarantined ones."""

    models: dict[str, LoadedSpec]
    broken: tuple[BrokenSpec, ...]

    @property
    def problems(self) -> list[Problem]:
        """Every problem of every file."""
        return [problem for spec in self.broken for problem in spec.problems]

    def specs(self) -> list[ModelSpec]:
        """The valid specs, by name."""
        return [loaded.spec for loaded in self.models.values()]


def spec_files(paths: Iterable[Path | str]) -> list[Path]:
    """The YAML files among `paths`; folders are searched, without hidden files, in sorted order.

    Raises:
        SpecError: a path does not exist, or a folder holds no spec.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for given in map(Path, paths):
        if given.is_dir():
            found = sorted(
                path
                for pattern in ("*.yaml", "*.yml")
                for path in given.rglob(pattern)
                if not any(part.startswith(".") for part in path.relative_to(given).parts)
            )
            files.extend(found)
        elif given.is_file():
            files.append(given)
        else:
            problems.append(
                Problem(str(given), 0, "", "no such file or folder; give --specs DIR or a path")
            )
    if problems:
        raise SpecError(problems)
    return files


def load_specs(paths: Path | str | Sequence[Path | str]) -> SpecSet:
    """Load all specs below `paths`; broken ones are quarantined, never raised.

    Two files with the same model name are both quarantined, since neither is the right one.

    Raises:
        SpecError: a path does not exist.
    """
    loaded: list[LoadedSpec] = []
    broken: list[BrokenSpec] = []
    for file in spec_files([paths] if isinstance(paths, Path | str) else paths):
        try:
            loaded.append(LoadedSpec(parse_spec(file), file))
        except SpecError as error:
            broken.append(BrokenSpec(_name_in(file), file, tuple(error.problems)))
    by_name: dict[str, list[LoadedSpec]] = {}
    for entry in loaded:
        by_name.setdefault(entry.spec.name, []).append(entry)
    models: dict[str, LoadedSpec] = {}
    for name, entries in sorted(by_name.items()):
        if len(entries) == 1:
            models[name] = entries[0]
            continue
        for entry in entries:
            others = ", ".join(str(other.file) for other in entries if other is not entry)
            problem = Problem(
                str(entry.file),
                _line_of_name(entry.file),
                "name",
                f"'{name}' is also the name in {others}; names must be unique",
            )
            broken.append(BrokenSpec(name, entry.file, (problem,)))
    return SpecSet(models, tuple(sorted(broken, key=lambda spec: str(spec.file))))


def parse_spec(file: Path | str) -> ModelSpec:
    """Read one spec file.

    Raises:
        SpecError: with every problem of the file.
    """
    path = Path(file)
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(str(file), 0, "", f"cannot be read: {error}")]) from None
    except YamlProblem as error:
        raise SpecError(
            [Problem(str(file), line, "", message) for line, message in error.found]
        ) from None
    return validate_document(document, str(file), path.parent)


def validate_document(document: Document, file: str, base_dir: Path) -> ModelSpec:
    """Validate parsed YAML; relative paths in it start at `base_dir`.

    Raises:
        SpecError: with every problem of the document.
    """
    data = _absolute_files(document.data, base_dir)
    problems = _misplaced_references(data, document, file)
    spec: ModelSpec | None = None
    try:
        spec = ModelSpec.model_validate(data, context={"base_dir": str(base_dir)})
    except ValidationError as error:
        problems += _problems_of(error, document, file)
    if spec is not None:
        problems += _unknown_functions(spec, document, file)
    if problems or spec is None:
        raise SpecError(sorted(set(problems)))
    return spec


def _absolute_files(data: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    source = data.get("source")
    files = source.get("files") if isinstance(source, dict) else None
    if not isinstance(files, str) or "://" in files or files.startswith(("/", "${")):
        return data
    assert isinstance(source, dict)
    return {**data, "source": {**source, "files": str(base_dir.resolve() / files)}}


def _misplaced_references(data: Any, document: Document, file: str) -> list[Problem]:
    """`${NAME}` outside the fields where it is read."""
    found: list[Problem] = []

    def visit(value: Any, path: tuple[str | int, ...]) -> None:
        if any(path[: len(field)] == field for field in _CONNECTION_FIELDS):
            return
        if isinstance(value, dict):
            for key, item in value.items():
                visit(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*path, index))
        elif isinstance(value, str) and (names := environment_references(value)):
            message = (
                f"${{{names[0]}}}: environment references are read only in source.files, "
                "source.storage_options and source.sql.connection"
            )
            found.append(Problem(file, document.line_of(path), _dotted(path), message))

    visit(data, ())
    return found


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problems_of(error: ValidationError, document: Document, file: str) -> list[Problem]:
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        path = tuple(
            part for part in detail["loc"] if not _is_union_tag(part, document, detail["loc"])
        )
        if detail["type"] == "value_error" and not path:
            # Rules that span sections name their fields themselves.
            for line in str(detail["ctx"]["error"]).splitlines():
                name, _, message = line.partition(": ")
                where = tuple(name.split("."))
                found.append(Problem(file, document.line_of(where), name, message))
            continue
        found.append(Problem(file, document.line_of(path), _dotted(path), _message(detail, path)))
    return found


def _is_union_tag(part: str | int, document: Document, loc: tuple[str | int, ...]) -> bool:
    """Pydantic adds the tried type of a union as a last path element; it is no field."""
    return part in ("int", "float", "str", "bool", "list[int]", "list[float]") and part == loc[-1]


def _message(detail: Any, path: tuple[str | int, ...]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    value = detail.get("input")
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        return f"unknown field{_suggest(str(path[-1]), known)}; known here: {', '.join(known)}"
    if kind == "missing":
        return "required field is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = [text.strip().strip("'") for text in _split_expected(context["expected"])]
        return f"'{value}' is not one of {', '.join(expected)}{_suggest(str(value), expected)}"
    if kind == "string_pattern_mismatch":
        rule = _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
        return f"{rule}, got '{value}'"
    bounds = {
        "greater_than": (">", "gt"),
        "greater_than_equal": (">=", "ge"),
        "less_than": ("<", "lt"),
        "less_than_equal": ("<=", "le"),
    }
    if kind in bounds:
        sign, name = bounds[kind]
        return f"must be {sign} {context[name]}, got {value}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping of fields, got {value!r}"
    text = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{text[0].lower() + text[1:]}, got {value!r}"


_PATTERNS = {
    r"^[a-z][a-z0-9_]{1,62}$": "must be 2 to 63 lower-case letters, digits or _, beginning with a letter",
    r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$": "must be team:name or a mail address",
    r"^[A-Za-z0-9_]+$": "must be letters, digits or _",
    r"^[a-z][a-z0-9_]*$": "must be lower-case letters, digits or _ (the URL is in RETRAIN_ALERT_<NAME>)",
}


def _split_expected(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(",")


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _fields_at(path: tuple[str | int, ...]) -> list[str]:
    """Field names of the spec's section at `path`."""
    section: Any = ModelSpec
    for part in path:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        info = section.model_fields.get(str(part))
        section = _model_in(info.annotation) if info is not None else section
    return list(section.model_fields) if hasattr(section, "model_fields") else []


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside `X | None`, `dict[str, X]` or X itself."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return annotation


def _unknown_functions(spec: ModelSpec, document: Document, file: str) -> list[Problem]:
    """Dotted paths whose module or function cannot be found; nothing is imported but packages."""
    found = []
    for path, dotted in (
        (("source", "python"), spec.source.python),
        (("source", "available"), spec.source.available),
        (("features", "python"), spec.features.python),
    ):
        if dotted is not None and (message := _find_function(dotted)):
            found.append(Problem(file, document.line_of(path), _dotted(path), message))
    return found


def _find_function(dotted: str) -> str | None:
    """What is wrong with `module:function`, found without running the module."""
    import importlib.util

    module, _, function = dotted.partition(":")
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        return (
            f"'{dotted}': there is no module '{module}'; install its package in this environment "
            f"or add its folder to PYTHONPATH"
        )
    if not found.origin or not found.origin.endswith(".py") or not os.path.exists(found.origin):
        return None
    names = _top_level_names(Path(found.origin))
    if names is not None and function not in names:
        return (
            f"'{dotted}': module '{module}' has no '{function}'{_suggest(function, sorted(names))}"
        )
    return None


def _top_level_names(file: Path) -> set[str] | None:
    """Names that a module binds at top level, None where a star import hides them."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names.add(alias.asname or alias.name.partition(".")[0])
    return names


def _name_in(file: Path) -> str:
    """The model's name in a broken file as far as it can be read, else the file's stem."""
    try:
        name = parse_yaml(file.read_text(encoding="utf-8")).data.get("name")
    except (OSError, UnicodeDecodeError, YamlProblem):
        return file.stem
    return name if isinstance(name, str) and name else file.stem


def _line_of_name(file: Path) -> int:
    return parse_yaml(file.read_text(encoding="utf-8")).line_of(("name",))
