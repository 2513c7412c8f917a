"""What sensors remember between ticks, as the text that Dagster keeps.

Belongs here: the text. Does not: what is remembered (each sensor's).

Dagster keeps the cursor with every tick, of which there are 17,000 a day, for a week: what a sensor knows of a
thousand models would be gigabytes. So a long one is compressed; that of a few models stays readable.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["read_cursor", "written_cursor"]

_READABLE = 2_000
"""Characters up to which a cursor is plain JSON."""
_COMPRESSED = "zlib:"


def read_cursor(text: str | None) -> dict[str, Any]:
    """What `written_cursor` was given; nothing of a sensor that never ticked or was reset.

    >>> read_cursor(written_cursor({"models": ["m"] * 5_000})) == {"models": ["m"] * 5_000}
    True
    """
    if not text:
        return {}
    if text.startswith(_COMPRESSED):
        text = zlib.decompress(base64.b85decode(text.removeprefix(_COMPRESSED))).decode()
    found: dict[str, Any] = json.loads(text)
    return found


def written_cursor(document: Mapping[str, Any]) -> str:
    """The text of a JSON document, the same for the same content.

    >>> written_cursor({"since": 1})
    '{"since":1}'
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    if len(text) <= _READABLE:
        return text
    return _COMPRESSED + base64.b85encode(zlib.compress(text.encode(), 6)).decode()
