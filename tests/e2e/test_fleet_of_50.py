"""Fifty models in a real `dagster dev`: all get champions, five drift, and these five are retrained.

The tests are one story in order, on one server; each waits for its own chapter.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from e2e.dev_server import DevServer
from e2e.fleet_of_50 import MODELS, Calendar, day, write_project
from playwright.sync_api import Page, expect

from retrain_assets.orchestration.keys import Tag, asset_key, models_of
from retrain_assets.promotion.decisions import Decisions
from retrain_assets.promotion.ledger import Ledger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

DRIFTING = MODELS[3::10]
FIRST_DAYS, ALL_DAYS = 3, 6
WITHIN_SECONDS = 1800
"""For a machine that has ten other things to do; alone each chapter takes a minute."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calendar]:
    folder = tmp_path_factory.mktemp("fleet")
    return folder, write_project(folder)


@pytest.fixture(scope="module")
def calendar(project: tuple[Path, Calendar]) -> Calendar:
    return project[1]


@pytest.fixture(scope="module")
def server(project: tuple[Path, Calendar]) -> Iterator[DevServer]:
    running = DevServer.start(project[0])
    yield running
    running.kill()


@pytest.fixture(scope="module")
def ledger(server: DevServer) -> Ledger:
    return Ledger(f"sqlite:///{server.home / 'ledger.db'}")


def ended(instance: dg.DagsterInstance) -> bool | None:
    """True when there is no run that has not ended."""
    return True if all(run.is_finished for run in instance.get_runs()) else None


def begun(instance: dg.DagsterInstance, trigger: str) -> list[dg.DagsterRun]:
    """Retrainings by one trigger; those left out that Dagster could not launch, and launched again."""
    found = instance.get_run_records(
        dg.RunsFilter(tags={Tag.KIND: "retrain", Tag.TRIGGER: trigger})
    )
    return [record.dagster_run for record in found if record.start_time is not None]


def judgements(ledger: Ledger) -> dict[str, int]:
    """How often each model was retrained to the end."""
    judged = Decisions(ledger)
    return {name: len(judged.judgements(name)) for name in MODELS}


def test_all_fifty_get_their_first_champions_in_runs_that_they_share(
    server: DevServer, instance: dg.DagsterInstance, calendar: Calendar, ledger: Ledger
) -> None:
    calendar.say(FIRST_DAYS)
    server.wait_until_ready()
    server.wait_for(
        "fifty champions",
        lambda: True if len(ledger.champions()) == len(MODELS) else None,
        WITHIN_SECONDS,
    )
    server.wait_for("the end of all runs", lambda: ended(instance), WITHIN_SECONDS)
    first = begun(instance, "first")
    assert {name for run in first for name in models_of(run.asset_selection)} == set(MODELS)
    # How few runs depends on how many reports come between two ticks; four go on at once.
    assert len(first) < len(MODELS)
    assert max(len(models_of(run.asset_selection)) for run in first) > 1
    assert judgements(ledger) == dict.fromkeys(MODELS, 1)


def test_of_the_fifty_exactly_the_five_that_drift_are_retrained(
    server: DevServer, instance: dg.DagsterInstance, calendar: Calendar, ledger: Ledger
) -> None:
    drifted = range(FIRST_DAYS + 1, ALL_DAYS + 1)
    calendar.say(ALL_DAYS, drifts={name: [*drifted] for name in DRIFTING})
    judged = Decisions(ledger)

    def five_are_judged() -> bool | None:
        found = judged.judged(DRIFTING)
        return True if {one.partition for one in found.values()} == {day(ALL_DAYS)} else None

    def all_have_reported() -> bool | None:
        records = instance.get_asset_records([asset_key(name, "drift_report") for name in MODELS])
        newest = [record.asset_entry.last_materialization_record for record in records]
        days = {one.partition_key if one else None for one in newest}
        return True if days == {day(ALL_DAYS)} else None

    server.wait_for("fifty reports", all_have_reported, WITHIN_SECONDS)
    server.wait_for("five judgements", five_are_judged, WITHIN_SECONDS)
    time.sleep(12)  # two more looks of every sensor, which must find nothing to do
    server.wait_for("the end of all runs", lambda: ended(instance), WITHIN_SECONDS)
    drift = begun(instance, "drift")
    assert {name for run in drift for name in models_of(run.asset_selection)} == set(DRIFTING)
    assert judgements(ledger) == {name: 2 if name in DRIFTING else 1 for name in MODELS}
    versions = {name: one.version for name, one in ledger.champions().items()}
    assert versions == {name: "2" if name in DRIFTING else "1" for name in MODELS}


def test_the_page_of_one_model_says_why_it_was_retrained(
    server: DevServer, page: Page, screenshots: Path
) -> None:
    page.goto(f"{server.url}/assets/{DRIFTING[0]}/promoted_model?view=events")
    expect(page.get_by_text("promoted_model", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile("drift")).first).to_be_visible()
    page.screenshot(path=screenshots / "fleet_one_model.png")


def test_the_fleet_is_one_table(
    server: DevServer, instance: dg.DagsterInstance, page: Page, screenshots: Path
) -> None:
    key = dg.AssetKey(["fleet_status"])

    def renewed() -> bool | None:
        (found,) = instance.fetch_materializations(key, limit=1).records or [None]
        last = max(record.end_time or 0.0 for record in instance.get_run_records(limit=5))
        return True if found is not None and found.timestamp > last else None

    server.wait_for("fleet_status after the last run", renewed, 300)
    page.goto(f"{server.url}/assets/fleet_status?view=events")
    page.get_by_text("[Show Markdown]").first.click()
    for name in (DRIFTING[0], MODELS[0]):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.screenshot(path=screenshots / "fleet_status.png")
