"""YAML with line numbers: plain data, and where each key and item stands in the file."""

from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = ["Document", "YamlProblem", "parse_yaml"]

Path = tuple[str | int, ...]


class YamlProblem(Exception):
    """The text is not one YAML mapping without duplicate keys.

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
        YamlProblem: not YAML, more than one document, not a mapping, a duplicate or non-text key.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise YamlProblem(
                [(1, "the file is empty; `retrain new NAME` writes a commented spec")]
            )
        if not isinstance(node, yaml.MappingNode):
            raise YamlProblem([(1, "must be a mapping of fields (name: …), not a list or a text")])
        problems: list[tuple[int, str]] = []
        lines: dict[Path, int] = {}
        _walk(node, (), lines, problems)
        if problems:
            raise YamlProblem(problems)
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(
            [(mark.line + 1 if mark else 1, f"not valid YAML: {error.problem or error.context}")]
        ) from None
    except yaml.YAMLError as error:
        raise YamlProblem([(1, f"not valid YAML: {error}")]) from None
    except ValueError as error:  # such as the date 2024-13-45
        raise YamlProblem([(1, f"not valid YAML: {error}")]) from None
    finally:
        loader.dispose()


def _walk(
    node: yaml.Node, path: Path, lines: dict[Path, int], problems: list[tuple[int, str]]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                problems.append((line, "keys must be plain text"))
                continue
            if key.tag == "tag:yaml.org,2002:merge":
                _walk(value, path, lines, problems)
                continue
            here = (*path, key.value)
            if here in lines:
                dotted = ".".join(map(str, here))
                problems.append((line, f"{dotted}: given twice, first on line {lines[here]}"))
            lines[here] = line
            _walk(value, here, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines, problems)
