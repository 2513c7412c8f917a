"""Python files that a spec names: where they are and what is in them, without running them.

Belongs here: what `retrain check` and the code versions need to know of the user's code. Does not:
importing and calling it (`data`).
"""

import hashlib
import importlib.util
import pkgutil
from importlib.machinery import ModuleSpec
from pathlib import Path

from retrain_assets.spec.model import ModelSpec

__all__ = ["find_module", "module_hash", "source_file", "training_code"]


def find_module(module: str) -> ModuleSpec | None:
    """Where a module is, None where there is none.

    `importlib.util.find_spec` would import the parent packages, and so run code that may fail.
    """
    top, *rest = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except ValueError:  # a module made by hand, such as __main__
        return None
    name = top
    for part in rest:
        name += f".{part}"
        folders = found.submodule_search_locations if found is not None else None
        found = _find_in(name, list(folders or ()))
    return found


def _find_in(name: str, folders: list[str]) -> ModuleSpec | None:
    """A module or package in some folders. PathFinder would look for its parent in sys.modules."""
    portions: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        found = finder.find_spec(name) if finder is not None else None
        if found is not None and found.loader is not None:
            return found
        portions += (found.submodule_search_locations or ()) if found is not None else ()
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def source_file(module: ModuleSpec) -> Path | None:
    """The Python file of a module, None where there is none to read (compiled, zipped)."""
    if not module.origin or not module.origin.endswith(".py"):
        return None
    file = Path(module.origin)
    return file if file.is_file() else None


def module_hash(dotted: str | None) -> str:
    """SHA-256 (first 16 hex digits) of the source file that `package.module:function` is in.

    Empty where there is no function, or no source file to read. What the module imports is not
    followed.
    """
    found = find_module(dotted.partition(":")[0]) if dotted is not None else None
    file = source_file(found) if found is not None else None
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file is not None else ""


def training_code(spec: ModelSpec) -> str:
    """What a training is made of beside its raw rows, as a hash; `retrain.on_change` compares it.

    Covers the sections features (SQL as text), target, task and train, and the source file of Python
    features.
    """
    sections = spec.section_hash("features", "target", "task", "train")
    return "-".join(filter(None, (sections, module_hash(spec.features.python))))
