"""YAML with line numbers: plain data, and where each key and item stands in the file.

Belongs here: what a spec file may be written in, which is YAML's plain part: mappings, lists and
scalars, anchors and merge keys; no tags, no recursion. Does not: what the fields mean (`model`).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = ["Document", "YamlProblem", "parse_yaml"]

Path = tuple[str | int, ...]

_MAX_DEPTH = 50  # the C parser recurses: ten thousand brackets would end the process
_MAX_VALUES = 100_000  # aliases of aliases grow without bound
_TAG = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class YamlProblem(Exception):
    """The text is not one plain YAML mapping without duplicate keys.

    Attributes:
        found: (1-based line, message) of everything that is wrong.
    """

    def __init__(self, found: list[tuple[int, str]]) -> None:
        self.found = found
        super().__init__("; ".join(f"line {line}: {text}" for line, text in found))


@dataclass
class Document:
    """A parsed YAML mapping.

    Attributes:
        data: plain dicts, lists and scalars.
        lines: 1-based line of every key and list item, by path.
    """

    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Line of `path`, or of its nearest parent that is in the file."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return 1


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Document:
    """Parse one YAML mapping.

    Raises:
        YamlProblem: not YAML, more than one document, not a mapping, a duplicate or non-text key,
            a value that is no plain YAML, such as the date 2024-13-45.
    """
    last_line = max(1, len(text.splitlines()))
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise YamlProblem([(line, f"not valid YAML: contains the character {found[0]!r}")])
    try:
        _check_depth(text)
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, last_line) if mark else 1
        raise YamlProblem([(line, f"not valid YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise YamlProblem([(1, f"not valid YAML: {error}")]) from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            message = f"nested more than {_MAX_DEPTH} levels deep"
            raise YamlProblem([(_line(event), message)])


def _parse(text: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise YamlProblem(
                [(1, "the file is empty; `retrain new NAME` writes a commented spec")]
            )
        if not isinstance(node, yaml.MappingNode):
            raise YamlProblem([(1, "must be a mapping of fields (name: …), not a list or a text")])
        walk = _Walk(loader)
        walk.visit(node, ())
        if walk.problems:
            raise YamlProblem(sorted(set(walk.problems)))
        return Document(loader.construct_document(node), walk.lines)
    finally:
        loader.dispose()


class _Walk:
    """One pass over the nodes: lines of all keys and items, and what plain YAML does not have."""

    def __init__(self, loader: Any, outer: "_Walk | None" = None) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[tuple[int, str]] = []
        self._loader = loader
        self._parents: list[yaml.Node] = [*outer._parents] if outer else []
        self._visits: Iterator[int] = outer._visits if outer else itertools.count()

    def visit(self, node: yaml.Node, path: Path) -> None:
        if node in self._parents:
            self._report(node, "an anchor that contains itself")
            return
        if next(self._visits) > _MAX_VALUES:
            message = f"more than {_MAX_VALUES} values, anchors expanded"
            raise YamlProblem([(_line(node), message)])
        self._parents.append(node)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "map")
            self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = _line(item)
                self.visit(item, (*path, index))
        else:
            self._scalar(node)
        self._parents.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> None:
        own: set[str] = set()
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(key, "keys must be plain text")
            elif key.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif key.tag != f"{_TAG}str":
                self._report(key, f"keys must be text: write '{key.value}' in quotes")
            else:
                here = (*path, key.value)
                if key.value in own:
                    dotted = ".".join(map(str, here))
                    self._report(key, f"{dotted}: given twice, first on line {self.lines[here]}")
                else:
                    own.add(key.value)
                    self.lines[here] = _line(key)
                self.visit(value, here)
        for other in merged:
            self._inherit(other, path, own)

    def _inherit(self, node: yaml.Node, path: Path, own: set[str]) -> None:
        """Keys that `<<` brings in: those that are not given here, the first mapping's first."""
        if not isinstance(node, yaml.MappingNode):
            self._report(node, "`<<` must be given a mapping, or a list of mappings")
            return
        inner = _Walk(self._loader, self)
        inner.visit(node, path)
        self.problems += inner.problems
        new = {where for where in inner.lines if where[len(path)] not in own}
        self.lines |= {where: inner.lines[where] for where in new}
        own |= {str(where[len(path)]) for where in new}

    def _scalar(self, node: yaml.Node) -> None:
        plain = self._loader.resolve(yaml.ScalarNode, node.value, (True, False))
        if node.tag not in (plain, f"{_TAG}str"):
            self._report(node, f"tag {_short(node.tag)} is not supported; write the value without")
            return
        try:
            self._loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            self._report(
                node, f"{node.value[:40]} cannot be read ({error}); correct it or quote it"
            )

    def _check_tag(self, node: yaml.Node, plain: str) -> None:
        if node.tag != f"{_TAG}{plain}":
            self._report(node, f"tag {_short(node.tag)} is not supported; write the value without")

    def _report(self, node: yaml.Node, message: str) -> None:
        self.problems.append((_line(node), message))


def _line(where: Any) -> int:
    """1-based line of a node or event."""
    return int(where.start_mark.line) + 1


def _short(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
