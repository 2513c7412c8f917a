"""The status of the fleet as one self-contained HTML page: served live, or saved as a file.

Belongs here: putting markup, style, script and rows into one text. Does not: serving (`server`); what
the page looks like and does is in `web/`. No request goes anywhere but to where the page came from.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import STATES

__all__ = ["live_page", "page_data", "static_page"]


def page_data(snapshot: Snapshot, *, dagster_url: str = "", error: str = "") -> dict[str, Any]:
    """What the page shows, JSON-compatible.

    Args:
        snapshot: the rows.
        dagster_url: address of the Dagster UI; "" for no link.
        error: why these rows are not the newest; "" where they are.
    """
    return {
        **snapshot.to_dict(),
        "states": list(STATES),
        "dagster_url": dagster_url,
        "error": error,
    }


def static_page(snapshot: Snapshot) -> str:
    """The page as a file that shows this snapshot for ever."""
    return _page({**page_data(snapshot), "live": False})


def live_page(data: dict[str, Any]) -> str:
    """The page as a server sends it; it asks that server for newer rows.

    Args:
        data: of `page_data`.
    """
    return _page({**data, "live": True})


def _page(data: dict[str, Any]) -> str:
    # In a script element only "<" could end the data early; as an escape it is the same JSON.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    head, tail = _frame()
    return f"{head}{text}{tail}"


@cache
def _frame() -> tuple[str, str]:
    """The page before and after its data."""
    folder = files("retrain_assets.fleet") / "web"
    html, style, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("index.html", "style.css", "app.js")
    )
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    head, _, tail = html.partition("/*DATA*/")
    return head, tail
