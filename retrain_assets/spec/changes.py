"""What a change of the spec files means: which models, and which of their assets.

Belongs here: the files as they were at a Git revision, and the comparison of two sets of specs.
Does not: printing it (`cli`), loading (`loading`). Code that a spec names is not compared, and the
rows of a SQL fleet are those of today on both sides.
"""

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from retrain_assets.errors import RevisionError
from retrain_assets.spec.loading import Functions, LoadedSpec, SpecSet, load_specs
from retrain_assets.spec.model import ModelSpec

__all__ = ["Change", "changes_since", "compare"]

_FILES = ("*.yaml", "*.yml", "*.sql", "*.csv", "*.parquet")
_ALL = ("raw_data", "features", "drift_report", "candidate_model", "promoted_model")
_ASSETS: dict[str, tuple[str, ...]] = {
    "name": _ALL,
    "partitions": _ALL,
    "source": _ALL,
    "contract": _ALL,
    "features": _ALL[1:],
    "target": _ALL[2:],
    "task": _ALL[2:],
    "train": _ALL[3:],
    "drift": ("drift_report",),
    "gate": _ALL[3:],
}
"""The assets whose content depends on a section. The others (retrain, freshness, resources, alerts,
names and labels) say when, where and for whom, but not what."""


@dataclass(frozen=True)
class Change:
    """What became of one model.

    Attributes:
        model: its name now, or, of a removed one, before.
        kind: `renamed` also where no `renamed_from` says so, but all else is the same.
        before: its name before, where it was renamed.
        sections: top-level fields that differ.
        assets: assets whose content depends on them, in the order of the graph.
        note: what a person should do about it.
    """

    model: str
    kind: Literal["added", "removed", "renamed", "changed", "broken"]
    before: str | None = None
    sections: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON-compatible data."""
        return asdict(self)

    def line(self) -> str:
        """The change in one line: `changed  churn  gate, train -> candidate_model, promoted_model`."""
        text = f"{self.kind:<8} {self.model}"
        if self.before is not None:
            text += f" (was {self.before})"
        if self.sections:
            text += f"  {', '.join(self.sections)} -> {', '.join(self.assets) or 'no asset'}"
        return f"{text}  {self.note}" if self.note else text


def changes_since(revision: str, specs: Path) -> list[Change]:
    """How the models of the folder `specs` differ from those at a Git revision, by name.

    Raises:
        RevisionError: not in a Git repository, no such revision, no Git.
        SpecError: there is no folder `specs`.
    """
    after = load_specs(specs)
    root = Path(_git(specs, "rev-parse", "--show-toplevel").decode().strip())
    inside = specs.resolve().relative_to(root)
    with _files_at(root, revision) as folder:
        there = folder / inside
        before = load_specs(there, functions=_AnyFunction()) if there.exists() else SpecSet({}, ())
        return compare(before, after, moved=(str(folder), str(root)))


class _AnyFunction(Functions):
    """A function may have been there at the time."""

    def problem(self, dotted: str) -> str | None:
        """Nothing."""
        return None


def compare(before: SpecSet, after: SpecSet, moved: tuple[str, str] = ("", "")) -> list[Change]:
    """How the models of `after` differ from those of `before`, by name.

    Args:
        before: the old specs.
        after: the new ones.
        moved: the folder that the old specs were read from, and the one that stands for.
    """
    old = {name: _sections(loaded, moved) for name, loaded in before.models.items()}
    new = {name: _sections(loaded, ("", "")) for name, loaded in after.models.items()}
    broken = {spec.name: spec for spec in after.broken}
    renamed = _renamed(old, {name: loaded.spec for name, loaded in after.models.items()}, new)
    changes = [Change(name, "broken", note=str(spec.problems[0])) for name, spec in broken.items()]
    gone = old.keys() - new.keys() - set(renamed.values()) - broken.keys()
    changes += [Change(name, "removed", assets=_ALL) for name in gone]
    for name, sections in new.items():
        source = renamed.get(name, name)
        if source not in old:
            changes.append(Change(name, "added", assets=_ALL))
            continue
        differing = tuple(key for key in sections if sections[key] != old[source].get(key))
        if differing:
            changes.append(_changed(name, source, differing, after.models[name].spec))
    return sorted(changes, key=lambda change: (change.model, change.kind))


def _changed(name: str, before: str, sections: tuple[str, ...], spec: ModelSpec) -> Change:
    touched = {asset for section in sections for asset in _ASSETS.get(section, ())}
    assets = tuple(asset for asset in _ALL if asset in touched)
    if name == before:
        return Change(name, "changed", None, sections, assets)
    declared = spec.renamed_from == before
    note = "" if declared else f"add `renamed_from: {before}`, or it starts without a champion"
    return Change(name, "renamed", before, sections, assets, note)


def _renamed(
    old: dict[str, dict[str, str]], specs: dict[str, ModelSpec], new: dict[str, dict[str, str]]
) -> dict[str, str]:
    """New name → old name: as `renamed_from` says, else where nothing but the name differs."""
    gone = old.keys() - new.keys()
    found = {
        name: str(spec.renamed_from) for name, spec in specs.items() if spec.renamed_from in gone
    }
    rest = {_but_name(old[name]): name for name in gone - set(found.values())}
    for name in new.keys() - old.keys() - found.keys():
        same = rest.pop(_but_name(new[name]), None)
        if same is not None:
            found[name] = same
    return found


def _but_name(sections: dict[str, str]) -> str:
    kept = {key: value for key, value in sections.items() if key not in _OF_THE_NAME}
    return json.dumps(kept, sort_keys=True)


_OF_THE_NAME = ("name", "renamed_from", "description", "tags")
"""What a new name changes with it, in a fleet at least."""


def _sections(loaded: LoadedSpec, moved: tuple[str, str]) -> dict[str, str]:
    """Top-level field → its content as text, with the folder it was read from put right."""
    document = loaded.spec.model_dump(mode="json")
    texts = {key: json.dumps(value, sort_keys=True) for key, value in document.items()}
    here, there = moved
    return {key: text.replace(here, there) for key, text in texts.items()} if here else texts


# -- Git ------------------------------------------------------------------------------------------


@contextmanager
def _files_at(root: Path, revision: str) -> Iterator[Path]:
    """A folder with the spec files of a revision and what they read, while the block runs."""
    commit = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}",
        problem=f"there is no revision {revision!r} in {root}; `git log` lists them",
    ).decode().strip()  # fmt: skip
    listed = _git(root, "ls-tree", "-r", "--name-only", "-z", commit).decode().split("\0")
    # git archive fails where a pattern matches nothing.
    patterns = [pattern for pattern in _FILES if any(n.endswith(pattern[1:]) for n in listed)]
    with tempfile.TemporaryDirectory() as folder:
        if patterns:
            archive = _git(root, "archive", "--format=tar", commit, "--", *patterns)
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
        yield Path(folder).resolve()


def _git(folder: Path, *arguments: str, problem: str = "") -> bytes:
    place = folder if folder.is_dir() else folder.parent
    command: Sequence[str] = ("git", "-C", str(place), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        raise RevisionError("the program git is not installed; install it") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in said:
        raise RevisionError(f"{place} is in no Git repository; `retrain diff` compares with one")
    raise RevisionError(problem or f"git {arguments[0]} failed: {said}")
