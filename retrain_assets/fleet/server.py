"""The dashboard's web application: the page, its rows as JSON, one model's history, metrics, health.

https://www.starlette.io/applications/

Belongs here: routes, caching, headers. Does not: reading (it is given two functions), the page
(`page`), numbers (`metrics`). It changes nothing: every route is a GET.

Whoever asks gets the newest snapshot that is there. A snapshot older than a few seconds is replaced by
one thread while the others go on with the old one, so that a hundred open pages cost one read.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from retrain_assets.errors import RetrainError
from retrain_assets.fleet.metrics import exposition, registry_of
from retrain_assets.fleet.page import live_page, page_data
from retrain_assets.fleet.snapshot import Snapshot

__all__ = ["Cache", "application"]

_LOG = logging.getLogger(__name__)
_WHEN = frozenset({"as_of", "confirmed_at", "runs_since"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Cache:
    """The newest snapshot, read again when it is asked for and too old; one read at a time.

    Args:
        read: reads everything.
        max_age_seconds: how old a snapshot may get before it is replaced. A read that takes long
            makes it larger: at most a fifth of the time goes into reading.
    """

    def __init__(self, read: Callable[[], Snapshot], max_age_seconds: float = 3.0) -> None:
        self._read = read
        self._max_age = max_age_seconds
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._read_at = float("-inf")
        self._took = 0.0
        self.error = ""

    def get(self) -> Snapshot:
        """The newest snapshot; `error` says why it could not be replaced, if it could not.

        Raises:
            RetrainError: there is none yet, and reading failed.
        """
        if self._snapshot is not None and self._is_young():
            return self._snapshot
        # The first one waits for the first read; later ones go on with what there is.
        if self._lock.acquire(blocking=self._snapshot is None):
            try:
                if self._snapshot is None or not self._is_young():
                    self._replace()
            finally:
                self._lock.release()
        assert self._snapshot is not None
        return self._snapshot

    def _is_young(self) -> bool:
        return time.monotonic() - self._read_at < max(self._max_age, 4 * self._took)

    def _replace(self) -> None:
        started = time.monotonic()
        try:
            self._snapshot = self._read()
            self.error = ""
        except RetrainError as error:
            if self._snapshot is None:
                raise
            # Old rows with the reason beside them are worth more than none.
            self.error = str(error)
            _LOG.warning("the status cannot be read: %s", error)
        finally:
            self._took = time.monotonic() - started
            self._read_at = time.monotonic()


def application(
    cache: Cache, history: Callable[[str], dict[str, Any] | None], dagster_url: str = ""
) -> Starlette:
    """The application.

    Args:
        cache: where rows come from.
        history: one model's decisions, promotions, drift and metric; None for an unknown model.
        dagster_url: address of the Dagster UI, for a link.
    """
    answers = _Answers(cache, history, dagster_url)
    return Starlette(
        routes=[
            Route("/", answers.page),
            Route("/status.json", answers.status),
            Route("/models/{name}.json", answers.model),
            Route("/metrics", answers.metrics),
            Route("/healthz", answers.health),
        ],
        exception_handlers={RetrainError: answers.failed},
    )


class _Answers:
    """One method per route. Not coroutines: Starlette runs them in threads, so that a slow database
    holds up nobody else."""

    def __init__(
        self, cache: Cache, history: Callable[[str], dict[str, Any] | None], dagster_url: str
    ) -> None:
        self._cache, self._history, self._dagster_url = cache, history, dagster_url
        self._registry = registry_of(cache.get)

    def _data(self) -> dict[str, Any]:
        snapshot = self._cache.get()
        return page_data(snapshot, dagster_url=self._dagster_url, error=self._cache.error)

    def page(self, request: Request) -> Response:
        return HTMLResponse(live_page(self._data()), headers=_HEADERS)

    def status(self, request: Request) -> Response:
        found = self._data()
        tag = _tag(found)
        headers = {**_HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return JSONResponse(found, headers=headers)

    def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = self._history(name)
        if found is None:
            unknown = {"error": f"no model named {name}"}
            return JSONResponse(unknown, status_code=404, headers=_HEADERS)
        return JSONResponse(found, headers=_HEADERS)

    def metrics(self, request: Request) -> Response:
        body, content_type = exposition(self._registry, request.headers.get("accept", ""))
        return Response(body, headers={**_HEADERS, "Content-Type": content_type})

    def health(self, request: Request) -> Response:
        self._cache.get()
        error = self._cache.error
        return PlainTextResponse(error or "ok", 503 if error else 200, headers=_HEADERS)

    def failed(self, request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=503, headers=_HEADERS)


def _tag(data: dict[str, Any]) -> str:
    """Changes with everything that the page shows but the moment of reading and what follows from it."""
    steady = {key: value for key, value in data.items() if key not in _WHEN}
    text = json.dumps(steady, sort_keys=True)
    return f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
