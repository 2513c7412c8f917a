"""A `dagster dev` that lives a model's life, and a browser to look at it."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from e2e.dev_server import DevServer, copy_project
from playwright.sync_api import Page, sync_playwright

_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """A started server; a test has to wait until it is ready."""
    folder = tmp_path_factory.mktemp("dev")
    copy_project(folder, seconds_per_day=2)
    server = DevServer.start(folder)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def instance(server: DevServer) -> Iterator[dg.DagsterInstance]:
    """The server's instance, looked at from outside."""
    with dg.DagsterInstance.from_config(str(server.home / "dagster")) as instance:
        yield instance


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RETRAIN_SCREENSHOTS, else a temporary folder."""
    chosen = os.environ.get("RETRAIN_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of headless Chromium, 1400 by 900."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_ARGUMENTS))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()
