"""The snapshot in the ledger's database, on sqlite and on PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from integration.postgres import PostgresServer

from retrain_assets.fleet.shared_snapshot import SharedSnapshot
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import StatusRow
from retrain_assets.promotion.ledger import Ledger
from retrain_assets.promotion.tables import status_snapshots

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
SNAPSHOT = Snapshot(NOW, "specs", NOW - timedelta(days=7), (StatusRow("churn", "healthy"),))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "sqlite":
        return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Ledger(server.create_database("snapshots"))


@pytest.fixture
def shared(ledger: Ledger) -> SharedSnapshot:
    return SharedSnapshot(ledger)


def _later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_what_one_leaves_another_finds_for_the_same_specs(
    shared: SharedSnapshot, ledger: Ledger
) -> None:
    assert shared.read("specs") is None
    shared.leave(SNAPSHOT)
    assert SharedSnapshot(ledger).read("specs") == SNAPSHOT
    assert shared.read("others") is None


def test_the_one_that_was_read_later_stays_whoever_leaves_last(shared: SharedSnapshot) -> None:
    newer = replace(SNAPSHOT, as_of=_later(1), rows=(StatusRow("churn", "drifting"),))
    shared.leave(SNAPSHOT)
    shared.leave(newer)
    shared.leave(SNAPSHOT)
    assert shared.read("specs") == newer


def test_a_confirmation_is_about_what_was_read_since(shared: SharedSnapshot) -> None:
    others = replace(SNAPSHOT, specs="others", as_of=_later(5))
    for one in (SNAPSHOT, others):
        shared.leave(one)
    assert shared.confirm(_later(2), _later(60))
    assert shared.read("others") == replace(others, confirmed_at=_later(60))
    assert shared.read("specs") == SNAPSHOT, "somebody had begun to read before"
    assert not shared.confirm(_later(6), _later(60)), "there is nothing that it is about"


def test_a_newer_snapshot_is_as_old_as_it_says_until_it_is_confirmed(
    shared: SharedSnapshot,
) -> None:
    shared.leave(SNAPSHOT)
    shared.confirm(NOW, _later(30))
    newer = replace(SNAPSHOT, as_of=_later(40))
    shared.leave(newer)
    assert shared.read("specs") == newer


def test_specs_that_nobody_has_any_more_are_forgotten_after_a_day(shared: SharedSnapshot) -> None:
    shared.leave(SNAPSHOT)
    shared.leave(replace(SNAPSHOT, specs="others", as_of=NOW + timedelta(hours=23)))
    assert shared.read("specs") == SNAPSHOT
    shared.leave(replace(SNAPSHOT, specs="others", as_of=NOW + timedelta(hours=25)))
    assert shared.read("specs") is None


def test_forgotten_is_gone_for_all_specs(shared: SharedSnapshot) -> None:
    shared.leave(SNAPSHOT)
    shared.leave(replace(SNAPSHOT, specs="others"))
    shared.forget()
    assert (shared.read("specs"), shared.read("others")) == (None, None)


@pytest.mark.parametrize("body", [b"", b"torn", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_what_cannot_be_understood_is_no_snapshot(
    shared: SharedSnapshot, ledger: Ledger, body: bytes
) -> None:
    shared.leave(SNAPSHOT)
    with ledger.database.transaction(write=True) as connection:
        connection.execute(sa.update(status_snapshots()).values(body=body))
    assert shared.read("specs") is None


def test_it_is_not_what_happens_in_the_ledger(shared: SharedSnapshot, ledger: Ledger) -> None:
    before = ledger.newest_ids()
    shared.leave(SNAPSHOT)
    assert ledger.newest_ids() == before


def test_many_at_once_leave_one_and_none_of_them_fails(ledger: Ledger) -> None:
    ledger.newest_ids()  # makes the tables

    def leaving(seconds: int) -> Callable[[], None]:
        return lambda: SharedSnapshot(ledger).leave(replace(SNAPSHOT, as_of=_later(seconds)))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(leaving(seconds)) for seconds in range(12)]:
            done.result()
    with ledger.database.transaction() as connection:
        assert len(connection.execute(sa.select(status_snapshots())).all()) == 1
