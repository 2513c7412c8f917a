"""From YAML files to specs: every problem of every file at once; a broken file harms nobody else.

Belongs here: finding files, reading them, turning validation errors into `Problem`s with a line
and a remedy. Does not: the fields' rules (`model`), what a fleet's rows become (`fleet`).
"""

import ast
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from retrain_assets.errors import Problem, SpecError
from retrain_assets.spec.cache import SpecCache
from retrain_assets.spec.code import find_module, source_file
from retrain_assets.spec.fleet import Member, expand, is_fleet
from retrain_assets.spec.model import OWNER_PATTERN, ModelSpec, Retrain, is_sql_file
from retrain_assets.spec.source_lines import Document, YamlProblem, parse_yaml
from retrain_assets.spec.types import environment_references, shown

__all__ = [
    "BrokenSpec",
    "Functions",
    "LoadedSpec",
    "SpecSet",
    "advice",
    "load_specs",
    "members_of",
    "parse_spec",
    "spec_files",
    "validate_member",
]

_FEWEST_HOLDOUT_PARTITIONS = 4
"""`promotion.intervals.MIN_CLUSTERS`, written out, since that imports numpy; a test compares them."""

_CONNECTION_FIELDS = (
    ("source", "files"),
    ("source", "storage_options"),
    ("source", "sql", "connection"),
)


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec, the file it came from, and its row there (from 1) where the file is a fleet."""

    spec: ModelSpec
    file: Path
    row: int | None = None


@dataclass(frozen=True)
class BrokenSpec:
    """A file, or one row of a fleet file, that is quarantined, with everything that is wrong with it.

    Attributes:
        name: the model's name where it could be read, else the file's stem.
        rivals: other files that give the same name, where that is what is wrong.
        row: of the fleet file, from 1; None for a file as a whole.
    """

    name: str
    file: Path
    problems: tuple[Problem, ...]
    rivals: tuple[Path, ...] = ()
    row: int | None = None


class Functions:
    """Looks functions up, each once: the models of a fleet name the same few."""

    def __init__(self) -> None:
        self._problems: dict[str, str | None] = {}

    def problem(self, dotted: str) -> str | None:
        """What is wrong with `module:function`, found without running any of the user's code."""
        if dotted not in self._problems:
            self._problems[dotted] = _find_function(dotted)
        return self._problems[dotted]

    def all_there(self, spec: ModelSpec) -> bool:
        """Whether nothing is wrong with any function of a spec."""
        return not any(self.problem(dotted) for _, dotted in _functions_of(spec) if dotted)


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


def advice(loaded: LoadedSpec) -> list[Problem]:
    """What a valid spec would better say otherwise: warnings of `retrain check`."""
    found = [*_few_holdout_partitions(loaded.spec), *_blind_to_concept_drift(loaded.spec.retrain)]
    return [
        Problem(
            str(loaded.file), _line_of(loaded, place), ".".join(place), message, loaded.row or 0
        )
        for place, message in found
    ]


_Advice = tuple[tuple[str, ...], str]


def _few_holdout_partitions(spec: ModelSpec) -> list[_Advice]:
    train = spec.train
    if spec.partitions is None or train.holdout >= _FEWEST_HOLDOUT_PARTITIONS:
        return []
    message = (
        f"with {train.holdout:g} of them, rows of one partition are taken for independent, which "
        f"promotes equal models more often than gate.confidence says where a whole partition is good "
        f"or bad at once; from {_FEWEST_HOLDOUT_PARTITIONS} on, partitions are what is compared"
    )
    return [(("train", "holdout"), message)]


def _blind_to_concept_drift(retrain: Retrain) -> list[_Advice]:
    """Labels that come to mean something else move no feature: only performance and cost can see it.

    They are asked for here, but whatever comes to hold beside them by itself (age, new data) does not
    reach what is needed without a drift alarm.
    """
    seeing = [name for name in ("performance", "cost") if name in retrain.conditions]
    without_drift = [name for name in retrain.conditions if name not in ("drift", "change")]
    if not seeing or retrain.schedule or len(without_drift) >= retrain.conditions_needed:
        return []
    place = ("retrain", "combine" if retrain.at_least is None else "at_least")
    message = (
        f"{retrain.conditions_needed} of {', '.join(retrain.conditions)} must hold, so that a champion "
        f"that does worse is never retrained while no feature drifts (labels that change their meaning); "
        f"let {' or '.join(seeing)} be enough (combine: any), or add retrain.schedule"
    )
    return [(place, message)]


def spec_files(paths: Iterable[Path | str]) -> list[Path]:
    """The YAML files among `paths`, each once; folders are searched, but not for hidden files.

    Raises:
        SpecError: a path does not exist.
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
                and not path.is_dir()
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
    return list({file.absolute(): file for file in files}.values())


def load_specs(
    paths: Path | str | Sequence[Path | str],
    *,
    functions: Functions | None = None,
    cache_folder: Path | None = None,
) -> SpecSet:
    """Load all specs below `paths`; broken ones are quarantined, never raised.

    A row of a fleet file is a spec like any other. Two specs with the same model name are both
    quarantined, since neither is the right one.

    Args:
        paths: folders and files.
        functions: finds the functions that specs name; by default where Python would import them.
        cache_folder: where validated specs are kept from one load to the next; its parent must exist.

    Raises:
        SpecError: a path does not exist.
    """
    loaded: list[LoadedSpec] = []
    broken: list[BrokenSpec] = []
    functions = functions or Functions()
    places = [paths] if isinstance(paths, Path | str) else paths
    cache = (
        SpecCache(cache_folder, places) if cache_folder and cache_folder.parent.is_dir() else None
    )
    for file in spec_files(places):
        valid, invalid = _load_file(file, functions, cache)
        loaded += valid
        broken += invalid
    if cache is not None:
        cache.save()
    by_name: dict[str, list[LoadedSpec]] = {}
    for entry in loaded:
        by_name.setdefault(entry.spec.name, []).append(entry)
    models: dict[str, LoadedSpec] = {}
    for name, entries in sorted(by_name.items()):
        if len(entries) == 1:
            models[name] = entries[0]
        else:
            broken += [_clash(entry, entries) for entry in entries]
    early = [_still_there(e, models) for e in models.values() if e.spec.renamed_from in models]
    for one in early:
        del models[one.name]
    broken += early
    return SpecSet(models, tuple(sorted(broken, key=lambda spec: (str(spec.file), spec.row or 0))))


def members_of(file: Path) -> tuple[Member, ...]:
    """The documents of one file, not validated: one, or those of a fleet's rows.

    Raises:
        SpecError: the file as a whole cannot be read.
    """
    return _opened(file)[0]


def _opened(file: Path) -> tuple[tuple[Member, ...], tuple[Path, ...] | None]:
    """The documents of one file, and the other files that it reads; None where a database is read."""
    document = _read(file)
    read: tuple[Path, ...] | None = ()
    if is_fleet(document.data):
        fleet = expand(document, str(file), file.parent)
        members, read = fleet.members, fleet.files if fleet.repeatable else None
    else:
        name = document.data.get("name")
        text = name if isinstance(name, str) and name else file.stem
        members = (Member(None, text, document),)
    if read is not None:
        sections = (member.document.data.get("features") for member in members)
        texts = [section.get("sql") for section in sections if isinstance(section, dict)]
        names = sorted({text.strip() for text in texts if is_sql_file(text)})
        read += tuple(file.parent / name for name in names)
    return members, read


def _load_file(
    file: Path, functions: Functions, cache: SpecCache | None
) -> tuple[list[LoadedSpec], list[BrokenSpec]]:
    """The models of one file."""
    known = cache.get(file) if cache is not None else None
    if known is not None and all(functions.all_there(spec) for _, spec in known):
        return [LoadedSpec(spec, file, row) for row, spec in known], []
    try:
        members, read = _opened(file)
    except SpecError as error:
        return [], [BrokenSpec(file.stem, file, tuple(error.problems))]
    loaded: list[LoadedSpec] = []
    broken: list[BrokenSpec] = []
    for member in members:
        try:
            spec = validate_member(member, file, functions)
            loaded.append(LoadedSpec(spec, file, member.row))
        except SpecError as error:
            broken.append(BrokenSpec(member.name, file, tuple(error.problems), row=member.row))
    if cache is not None and read is not None and not broken:
        cache.put(file, read, [(entry.row, entry.spec) for entry in loaded])
    return loaded, broken


def validate_member(member: Member, file: Path, functions: Functions) -> ModelSpec:
    """The spec of one document of `file`.

    Raises:
        SpecError: with every problem of it.
    """
    if member.problems:
        raise SpecError(list(member.problems))
    try:
        return validate_document(member.document, str(file), file.parent, functions=functions)
    except SpecError as error:
        row = member.row or 0
        raise SpecError([replace(problem, row=row) for problem in error.problems]) from None


def _clash(entry: LoadedSpec, entries: list[LoadedSpec]) -> BrokenSpec:
    """The quarantine of one of several specs with the same name."""
    others = [other for other in entries if other is not entry]
    rivals = tuple(dict.fromkeys(other.file for other in others if other.file != entry.file))
    places = ", ".join(
        f"row {other.row}" if other.file == entry.file else _place(other) for other in others
    )
    message = f"'{entry.spec.name}' is also the name in {places}; names must be unique"
    line = _line_of_name(entry)
    problem = Problem(str(entry.file), line, "name", message, entry.row or 0)
    return BrokenSpec(entry.spec.name, entry.file, (problem,), rivals, entry.row)


def _still_there(entry: LoadedSpec, models: dict[str, LoadedSpec]) -> BrokenSpec:
    former = str(entry.spec.renamed_from)
    message = f"'{former}' is still a model ({_place(models[former])}); remove it there, or this"
    line = _line_of(entry, ("renamed_from",))
    problem = Problem(str(entry.file), line, "renamed_from", message, entry.row or 0)
    rival = models[former].file
    rivals = (rival,) if rival != entry.file else ()
    return BrokenSpec(entry.spec.name, entry.file, (problem,), rivals, entry.row)


def _place(loaded: LoadedSpec) -> str:
    return str(loaded.file) if loaded.row is None else f"row {loaded.row} of {loaded.file}"


def parse_spec(file: Path | str) -> ModelSpec:
    """Read the spec file of one model.

    Raises:
        SpecError: with every problem of the file; or it is a fleet.
    """
    document = _read(Path(file))
    if is_fleet(document.data):
        raise SpecError([Problem(str(file), 0, "", "describes a fleet, not one model")])
    return validate_document(document, str(file), Path(file).parent)


def _read(file: Path) -> Document:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(str(file), 0, "", f"cannot be read: {error}")]) from None
    except YamlProblem as error:
        raise SpecError(
            [Problem(str(file), line, "", message) for line, message in error.found]
        ) from None


def validate_document(
    document: Document, file: str, base_dir: Path, *, functions: Functions | None = None
) -> ModelSpec:
    """Validate parsed YAML; relative paths in it start at `base_dir`.

    Args:
        document: one model's spec.
        file: its path, for problems.
        base_dir: where relative paths start.
        functions: what was found out already about functions that specs name.

    Raises:
        SpecError: with every problem of the document.
    """
    data = _absolute_files(document.data, base_dir)
    problems = _misplaced_references(data, document, file)
    if "partitions" in data and data["partitions"] is None:
        message = "empty; write `none` for one table, or {every: day, start: 2024-01-31}"
        problems.append(Problem(file, document.line_of(("partitions",)), "partitions", message))
    spec: ModelSpec | None = None
    try:
        spec = ModelSpec.model_validate(data, context={"base_dir": str(base_dir)})
    except ValidationError as error:
        problems += _problems_of(error, document, file)
    if spec is not None:
        problems += _unknown_functions(spec, document, file, functions or Functions())
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
        if isinstance(value, dict):
            for key, item in value.items():
                visit(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*path, index))
        elif isinstance(value, str) and "$" in value and (names := environment_references(value)):
            if any(path[: len(field)] == field for field in _CONNECTION_FIELDS):
                return
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
        name = part if isinstance(part, int) or part.isprintable() else repr(part)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def _problems_of(error: ValidationError, document: Document, file: str) -> list[Problem]:
    found: list[Problem] = []
    unions: dict[tuple[str | int, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        path, union = _path_of(detail["loc"], document.data)
        if union is not None:
            unions.setdefault(path[:union], []).append(detail)
        elif detail["type"] == "value_error" and not path:
            # Rules that span sections name their fields themselves.
            for line in str(detail["ctx"]["error"]).splitlines():
                name, _, message = line.partition(": ")
                where = tuple(name.split("."))
                found.append(Problem(file, document.line_of(where), name, message))
        else:
            message = _message(detail, path)
            found.append(Problem(file, document.line_of(path), _dotted(path), message))
    for path, details in unions.items():
        message = _union_message(details, _value_at(document.data, path))
        found.append(Problem(file, document.line_of(path), _dotted(path), message))
    return found


_UNION_TAGS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers",
}
"""What pydantic puts into the location of an error for each type of a union that it tried."""


def _path_of(loc: tuple[str | int, ...], data: Any) -> tuple[tuple[str | int, ...], int | None]:
    """The path of an error in the file, and how much of it leads to a union, if one does."""
    path: list[str | int] = []
    union: int | None = None
    value = data
    for part in loc:
        known = part in value if isinstance(value, dict) else isinstance(value, list)
        if isinstance(part, str) and _union_tag(part) and not (known and isinstance(value, dict)):
            union = len(path) if union is None else union
            continue
        path.append(part)
        value = value[part] if known else None
    return tuple(path), union


def _union_tag(part: str) -> str | None:
    """Words for the type that pydantic names in the location of an error, None for a field."""
    return _UNION_TAGS.get(part.removeprefix("constrained-"))


def _value_at(data: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def _union_message(details: list[Any], value: Any) -> str:
    """One message for a value that fits no type of a union, or breaks the bound of one."""
    for detail in details:
        if detail["type"] in _BOUNDS:
            return _message(detail, ())
    tried = {_union_tag(str(part)) for detail in details for part in detail["loc"]}
    kinds = [words for words in _UNION_TAGS.values() if words in tried]
    return f"must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {shown(value)}"


def _message(detail: Any, path: tuple[str | int, ...]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    value = shown(detail.get("input"))
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        return f"unknown field{_suggest(str(path[-1]), known)}; known here: {', '.join(known)}"
    if kind == "missing":
        return "required field is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = [text.strip().strip("'") for text in _split_expected(context["expected"])]
        hint = _suggest(str(detail["input"]), expected)
        return f"{value} is not one of {', '.join(expected)}{hint}"
    if kind == "string_pattern_mismatch":
        return (
            f"{_PATTERNS.get(context['pattern'], 'must match ' + context['pattern'])}, got {value}"
        )
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        return f"must be {sign} {context[name]:g}, got {value}"
    for prefix, text in _KINDS.items():
        if kind.startswith(prefix) and kind.endswith(("_type", "_parsing", "_from_float")):
            return f"must be {text}, got {value}"
    text = detail["msg"].removeprefix("Input ")
    return f"{text[0].lower() + text[1:]}, got {value}"


_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}

_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "model": "a mapping of fields",
    "dict": "a mapping of fields",
}

_PATTERNS = {
    r"^[a-z][a-z0-9_]{1,62}$": "must be 2 to 63 lower-case letters, digits or _, beginning with a letter",
    OWNER_PATTERN: "must be team:name or a mail address",
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


def _unknown_functions(
    spec: ModelSpec, document: Document, file: str, functions: Functions
) -> list[Problem]:
    """Dotted paths whose module or function cannot be found; nothing is imported but packages."""
    found = []
    for path, dotted in _functions_of(spec):
        if dotted is not None and (message := functions.problem(dotted)):
            found.append(Problem(file, document.line_of(path), _dotted(path), message))
    return found


def _functions_of(spec: ModelSpec) -> tuple[tuple[tuple[str, str], str | None], ...]:
    """Paths of the fields that name a function, and what they name."""
    return (
        (("source", "python"), spec.source.python),
        (("source", "available"), spec.source.available),
        (("features", "python"), spec.features.python),
    )


def _find_function(dotted: str) -> str | None:
    module, _, function = dotted.partition(":")
    found = find_module(module)
    if found is None:
        return (
            f"'{dotted}': there is no module '{module}'; install its package in this environment "
            f"or add its folder to PYTHONPATH"
        )
    file = source_file(found)
    names = _top_level_names(file) if file is not None else None
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
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # what is inside belongs to it, not to the module
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names.add(alias.asname or alias.name.partition(".")[0])
        todo += ast.iter_child_nodes(node)
    return names


def _line_of_name(loaded: LoadedSpec) -> int:
    return _line_of(loaded, ("name",))


def _line_of(loaded: LoadedSpec, path: tuple[str, ...]) -> int:
    """Line of a valid spec's field; of a fleet's, the line in the template."""
    stat = loaded.file.stat()
    document = _parsed(loaded.file, stat.st_mtime_ns, stat.st_size)
    return document.line_of(path if loaded.row is None else ("template", *path))


@lru_cache(maxsize=16)
def _parsed(file: Path, modified: int, size: int) -> Document:
    """A file's content for `_line_of`, which may be asked about every model of a fleet."""
    return parse_yaml(file.read_text(encoding="utf-8"))
