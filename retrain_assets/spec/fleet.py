"""Fleet files: a `template:` and the rows of `for_each:` become one spec document per row.

Belongs here: what a row does to the template, and where in the file each value of the result came
from. Does not: reading rows (`rows`), the rules for the result (`loading`, `model`).

A row's column goes where the template says `{column}`, and nowhere else. A column that the template
does not use, and whose name is the path of a field (`owner`, `retrain.schedule`), replaces that
field, or is merged into that section. Any other column is an error.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from retrain_assets.errors import Problem, SpecError
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.rows import ForEach, Row, RowsError, read_rows
from retrain_assets.spec.source_lines import Document, Path

__all__ = ["Fleet", "Member", "expand", "is_fleet"]

_PATTERN = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.]*)\}")
_PARTITION = "partition"  # `{partition}` in source.files is the partition's key
_FIELDS = frozenset(ModelSpec.model_fields)


@dataclass
class _MemberDocument(Document):
    """A row's document.

    Attributes:
        fleet: the fleet file that it came from.
        origins: where its overrides stand in there; all else stands in the template.
    """

    fleet: Document = field(default_factory=lambda: Document({}))
    origins: dict[Path, Path] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Line of `path` in the fleet file, or of its nearest parent."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(path[:length])
            if origin is not None:
                return self.fleet.line_of((*origin, *path[length:]))
        return self.fleet.line_of(("template", *path))


@dataclass(frozen=True)
class Member:
    """One model's document before it is validated: what a row of a fleet becomes, or a file.

    Attributes:
        row: 1-based number of the row, None where the file is one model's.
        name: of the model as far as it is known, for the quarantine.
        document: the spec, with lines in the fleet file.
        problems: what is wrong already; the document is then incomplete.
    """

    row: int | None
    name: str
    document: Document
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """A fleet file, expanded.

    Attributes:
        members: one per row, in their order.
        files: files beside the fleet file that the rows came from.
        repeatable: whether the rows are in files, and not in a database.
    """

    members: tuple[Member, ...]
    files: tuple[FilePath, ...]
    repeatable: bool


def is_fleet(data: dict[str, Any]) -> bool:
    """Whether a spec file describes many models."""
    return "template" in data or "for_each" in data


def expand(document: Document, file: str, base_dir: FilePath) -> Fleet:
    """One member per row; a row that cannot be used carries its problems.

    Args:
        document: the parsed fleet file.
        file: its path, for problems.
        base_dir: where relative paths in it start.

    Raises:
        SpecError: the file as a whole is unusable: no template, unreadable rows, a column of the
            file or query that is neither used by the template nor the path of a field.
    """
    problems = _shape(document, file)
    if problems:
        raise SpecError(problems)
    try:
        rows = read_rows(document.data["for_each"], base_dir)
        template = _Template(document, rows)
    except RowsError as error:
        line = document.line_of(error.path)
        path = ".".join(map(str, error.path))
        raise SpecError([Problem(file, line, path, str(error), error.row)]) from None
    members = tuple(_member(row, template, document, rows, file) for row in rows.rows)
    for_each = document.data["for_each"]
    return Fleet(members, rows.files, not (isinstance(for_each, dict) and "sql" in for_each))


def _shape(document: Document, file: str) -> list[Problem]:
    data = document.data
    problems = [
        Problem(file, document.line_of((key,)), key,
                "unknown field of a fleet file; known here: template, for_each "
                "(fields of all models go below template)")
        for key in data
        if key not in ("template", "for_each")
    ]  # fmt: skip
    for key, what in (("template", "a spec"), ("for_each", "the rows")):
        if key not in data:
            message = f"required field is missing: a fleet file has template and for_each ({what})"
            problems.append(Problem(file, 0, key, message))
    template = data.get("template", {})
    if not isinstance(template, dict):
        message = f"must be a mapping of fields, got {template!r:.80}"
        problems.append(Problem(file, document.line_of(("template",)), "template", message))
    return problems


class _Template:
    """The template with what is the same for every row.

    Attributes:
        data: as it stands in the file.
        uses: column → the first path whose text uses it.
    """

    def __init__(self, document: Document, rows: ForEach) -> None:
        self.data: dict[str, Any] = document.data["template"]
        self.uses: dict[str, Path] = {}
        for path, text in _texts(self.data, ()):
            for column in _PATTERN.findall(text):
                if column != _PARTITION:
                    self.uses.setdefault(column, path)
        known = rows.columns
        for column in known:
            if problem := self.unusable(column, rows.ignore):
                raise RowsError(("for_each",), problem)
        for column, path in self.uses.items():
            if known and column not in known:
                message = f"{{{column}}}: the rows have no such column{_suggest(column, known)}"
                raise RowsError(("template", *path), message)
        if missing := sorted(rows.ignore - set(known)):
            raise RowsError(("for_each", "ignore"), f"there is no column {missing[0]!r}")

    def unusable(self, column: str, ignore: frozenset[str] = frozenset()) -> str:
        """What is wrong with a column of this name, "" where nothing is."""
        if column in self.uses or column in ignore or column.partition(".")[0] in _FIELDS:
            return ""
        hint = _suggest(column, [*self.uses, *_FIELDS])
        return (
            f"column {column!r} is used nowhere{hint}: write {{{column}}} in the template, name it "
            f"after a field (retrain.schedule), or list it in for_each.ignore"
        )


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _suggest(word: str, known: Any) -> str:
    close = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _member(row: Row, template: _Template, document: Document, rows: ForEach, file: str) -> Member:
    filled = _Filled(row, template, document, rows, file)
    if row.problem:
        filled.report((), row.problem)
        name = None
    else:
        filled.fill()
        name = filled.data.get("name")
    usable = isinstance(name, str) and name
    label = str(name) if usable else f"{FilePath(file).stem}_row_{row.number}"
    member = _MemberDocument(filled.data, fleet=document, origins=filled.origins)
    return Member(row.number, label, member, tuple(filled.problems))


class _Filled:
    """The template filled with one row: its values in the patterns, then its overrides."""

    def __init__(
        self, row: Row, template: _Template, document: Document, rows: ForEach, file: str
    ) -> None:
        self.data: dict[str, Any] = {}
        self.origins: dict[Path, Path] = {}
        self.problems: list[Problem] = []
        self._row, self._template, self._document = row, template, document
        self._inline = rows.inline
        self._ignore = rows.ignore
        self._file = file

    def report(self, column: Path, message: str) -> None:
        """Note what is wrong with the row, or with one of its columns."""
        self._report_at(self._origin(column), ".".join(map(str, column)), message)

    def _report_at(self, where: Path, path: str, message: str) -> None:
        line = self._document.line_of(where)
        self.problems.append(Problem(self._file, line, path, message, self._row.number))

    def _origin(self, column: Path) -> Path:
        """Where a column of this row stands; rows that come from outside stand at `for_each`."""
        return ("for_each", self._row.number - 1, *column) if self._inline else ("for_each",)

    def fill(self) -> None:
        """Make the row's document, or note why it cannot be made."""
        self.data = self._substituted(self._template.data, ())
        for column, value in self._row.values.items():
            if column in self._template.uses or column in self._ignore:
                continue
            if self._inline and (problem := self._template.unusable(column)):
                self.report((column,), problem)
                continue
            self._override(self.data, column.split("."), (), value, (column,))

    def _substituted(self, value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return self._text(value, path) if "{" in value else value
        if isinstance(value, dict):
            return {key: self._substituted(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._substituted(item, (*path, n)) for n, item in enumerate(value)]
        return value

    def _text(self, text: str, path: Path) -> Any:
        whole = _PATTERN.fullmatch(text)
        if whole is not None and whole[1] != _PARTITION:
            return self._cell(whole[1], path, lambda column: deepcopy(self._row.values[column]))
        return _PATTERN.sub(lambda match: self._piece(match, path), text)

    def _piece(self, match: re.Match[str], path: Path) -> str:
        column = match[1]
        return match[0] if column == _PARTITION else str(self._cell(column, path, self._plain))

    def _cell(self, column: str, path: Path, read: Callable[[str], Any]) -> Any:
        if self._row.values.get(column) is not None:
            return read(column)
        hint = _suggest(column, self._row.values)
        message = f"{{{column}}}: the row has no value in column {column!r}{hint}; give it one"
        self._report_at(("template", *path), ".".join(map(str, path)), message)
        return f"{{{column}}}"

    def _plain(self, column: str) -> str:
        """A cell as a part of a longer text."""
        value = self._row.texts.get(column, self._row.values[column])
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, date):  # and datetime
            return value.isoformat()
        if isinstance(value, dict | list):
            self.report(
                (column,), f"must be one value to stand inside of a text, got {value!r:.80}"
            )
        return str(value)

    def _override(
        self, section: dict[str, Any], keys: list[str], path: Path, value: Any, at: Path
    ) -> None:
        """Set the field `keys` of `section`, a mapping's fields one by one; `path` leads to it.

        `at` is where the value stands in the row.
        """
        for key in keys[:-1]:
            path = (*path, key)
            inner = section.get(key)
            if not isinstance(inner, dict):
                if inner is not None and path in self.origins:
                    self.report(at, f"{'.'.join(map(str, path))} is given twice in this row")
                    return
                inner = section[key] = {}
            section = inner
        path = (*path, keys[-1])
        if isinstance(value, dict) and isinstance(section.get(keys[-1]), dict):
            for key, item in value.items():
                self._override(section[keys[-1]], [key], path, item, (*at, key))
            return
        if path in self.origins:
            self.report(at, f"{'.'.join(map(str, path))} is given twice in this row")
            return
        self.origins[path] = self._origin(at)
        section[keys[-1]] = deepcopy(value)  # rows may share it by an anchor
