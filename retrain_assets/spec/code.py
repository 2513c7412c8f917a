"""Versions of the user's Python functions, without importing them."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

__all__ = ["module_hash"]


def module_hash(dotted: str | None) -> str:
    """SHA-256 (first 16 hex digits) of the source file that `package.module:function` is in.

    Empty where there is no function, or no source file to read (a compiled module). What the module
    imports is not followed.
    """
    if dotted is None:
        return ""
    found = find_spec(dotted.partition(":")[0])
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ""
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:16]
