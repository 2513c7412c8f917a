"""The dashboard in a real browser, over 75 made-up models: sort, filter, follow, read on a phone."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from e2e.fleet_of_75 import fleet, history
from integration.served import Client, served
from playwright.sync_api import Browser, Page, expect

from retrain_assets.fleet.page import static_page
from retrain_assets.fleet.server import Cache, application
from retrain_assets.fleet.snapshot import Snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class Fleet:
    """The fleet as it is now; a test may change it."""

    def __init__(self) -> None:
        self.now = fleet()

    def read(self) -> Snapshot:
        return self.now

    def change(self, model: str, **fields: object) -> None:
        rows = [dataclasses.replace(r, **fields) if r.model == model else r for r in self.now.rows]
        self.now = dataclasses.replace(self.now, rows=tuple(rows))


@pytest.fixture(scope="module")
def models() -> Fleet:
    return Fleet()


@pytest.fixture(scope="module")
def server(models: Fleet) -> Iterator[Client]:
    cache = Cache(models.read, max_age_seconds=0.1)
    known = {row.model for row in models.now.rows}
    about = application(
        cache, lambda name: history(name) if name in known else None, "http://127.0.0.1:3000"
    )
    with served(about) as client:
        yield client


@pytest.fixture(scope="module")
def browser(page: Page) -> Browser:
    found = page.context.browser
    assert found is not None
    return found


@pytest.fixture
def complaints(page: Page) -> Iterator[list[str]]:
    """What the console says, and requests to anywhere but the server; there must be none."""
    found: list[str] = []
    on_console = lambda message: found.append(message.text)  # noqa: E731
    on_error = lambda error: found.append(str(error))  # noqa: E731

    def on_request(request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if urlsplit(url).scheme in ("http", "https", "ws") and "127.0.0.1" not in url:
            found.append(url)

    page.on("console", on_console)
    page.on("pageerror", on_error)
    page.on("request", on_request)
    yield found
    page.remove_listener("console", on_console)
    page.remove_listener("pageerror", on_error)
    page.remove_listener("request", on_request)
    assert found == []


@pytest.fixture
def opened(page: Page, server: Client, complaints: list[str]) -> Page:
    page.goto("about:blank")
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#rows tr")
    return page


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all("#rows tr", "rows => rows.map(row => row.dataset.model)")


def test_what_needs_a_person_comes_first_and_nothing_is_asked_elsewhere(opened: Page) -> None:
    states = opened.eval_on_selector_all("#rows tr", "rows => rows.map(row => row.dataset.state)")
    assert len(states) == 75
    assert states[:6] == ["broken", "failing", "failing", "rejected", "approval", "approval"]
    assert states[-1] == "retired"
    expect(opened.locator("#headline")).to_have_text("75 models, 10 need a look")
    assert opened.evaluate("document.querySelectorAll('#rows script').length") == 0
    note = opened.locator("#rows tr .note").first
    assert "<script>alert(1)</script>" in (note.get_attribute("title") or "")


def test_columns_sort_both_ways_and_say_so(opened: Page) -> None:
    header = opened.get_by_role("columnheader", name="Cost, 7 d")
    assert header.get_attribute("aria-sort") is None
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    down = shown(opened)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    costly = [m for m in shown(opened) if m in down[:60]]
    assert costly == down[:60][::-1]
    assert opened.locator("[aria-sort]").count() == 1
    opened.get_by_role("columnheader", name="Model").get_by_role("button").press("Enter")
    assert shown(opened) == sorted(shown(opened))


def test_text_group_and_state_filter_together_and_survive_a_reload(opened: Page) -> None:
    opened.keyboard.press("/")
    opened.keyboard.type("team:RISK")
    expect(opened.locator("#count")).to_have_text("18 of 75 models")
    opened.locator("#states button", has_text="healthy").click()
    assert set(opened.eval_on_selector_all("#rows tr", "r => r.map(x => x.dataset.state)")) == {
        "healthy"
    }
    before = shown(opened)
    opened.reload()
    opened.wait_for_selector("#rows tr")
    assert shown(opened) == before
    opened.get_by_label("Group").select_option("pricing")
    expect(opened.get_by_text("No model matches.")).to_be_visible()
    opened.locator("#again").click()
    assert len(shown(opened)) == 75
    assert opened.locator("#states button[aria-pressed=true]").count() == 0


def test_a_model_opens_by_keyboard_with_its_history_and_gives_the_focus_back(opened: Page) -> None:
    name = opened.locator("#rows tr[data-state=drifting] .name").first
    model = name.inner_text()
    name.press("Enter")
    dialog = opened.get_by_role("dialog", name=model)
    expect(dialog.get_by_role("heading", name="Decisions")).to_be_visible()
    expect(dialog.get_by_text("retrained (drift)")).to_be_visible()
    expect(dialog.get_by_text("rollback v11")).to_be_visible()
    assert dialog.locator("svg.chart").count() == 2
    link = dialog.get_by_role("link", name="Asset in Dagster")
    assert link.get_attribute("href") == f"http://127.0.0.1:3000/assets/{model}/promoted_model"
    assert f"model={model}" in opened.url
    opened.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert opened.evaluate("document.activeElement.textContent") == model


def test_a_change_shows_by_itself_and_keeps_filter_and_focus(opened: Page, models: Fleet) -> None:
    healthy = opened.locator("#rows tr[data-state=healthy]").first
    model = str(healthy.get_attribute("data-model"))
    opened.locator("#text").fill(model)
    opened.locator("#rows .name").first.focus()
    models.change(model, state="failing", note="the source is down")
    row = opened.locator(f"tr[data-model={model}]")
    expect(row).to_have_attribute("data-state", "failing", timeout=15_000)
    expect(row).to_contain_text("the source is down")
    assert shown(opened) == [model]
    assert opened.evaluate("document.activeElement.textContent") == model
    models.now = fleet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everything_fits_and_text_is_readable(
    browser: Browser, server: Client, screenshots: Path, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    phone = context.new_page()
    phone.goto(f"http://127.0.0.1:{server.port}/")
    phone.wait_for_selector("#rows tr")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    phone.get_by_label("Sort by").select_option("model")
    assert shown(phone) == sorted(shown(phone))
    phone.screenshot(path=screenshots / f"dashboard_phone_{scheme}.png")
    phone.locator("#rows .name").nth(9).tap()
    phone.wait_for_selector(".log")
    assert phone.evaluate("document.getElementById('detail').scrollWidth") <= 390
    assert min(phone.evaluate(_CONTRASTS)) >= 4.5
    context.close()


_CONTRASTS = """() => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour, under) => { context.fillStyle = under; context.fillRect(0, 0, 1, 1);
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data]; };
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(linear)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (element) => { for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour; } return 'white'; };
  const all = '.badge,small,.sub,.note,.why,.name,dt,dd,time,a,.bad,.warn,.good,.states b,.states span';
  return [...document.querySelectorAll(all)]
    .filter(e => e.offsetParent && e.textContent.trim()).map(e => {
      const back = ground(e), ink = getComputedStyle(e).color;
      const [x, y] = [rgb(ink, back), rgb(back, 'white')].map(light);
      return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); });
}"""


def test_in_the_dark_and_in_the_light_contrast_is_enough_on_a_wide_screen(
    browser: Browser, server: Client, screenshots: Path
) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 1400, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        wide = context.new_page()
        wide.goto(f"http://127.0.0.1:{server.port}/")
        wide.wait_for_selector("#rows tr")
        assert min(wide.evaluate(_CONTRASTS)) >= 4.5
        wide.screenshot(path=screenshots / f"dashboard_{scheme}.png")
        context.close()


def test_the_saved_file_opens_from_disk_without_a_server(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "fleet.html"
    file.write_text(static_page(fleet()), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("#rows tr")
    page.locator("#rows .name").nth(9).click()
    expect(page.get_by_role("heading", name="Drift score")).to_be_visible()
    assert re.match(r"As of \d{4}-\d\d-\d\d \d\d:\d\d UTC", page.locator("#fresh").inner_text())
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()
