"""One suite over every database that the ledger supports."""

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from integration.postgres import PostgresServer

from retrain_assets.errors import ChampionChanged, LedgerError
from retrain_assets.promotion.ledger import Candidate, Ledger, Promotion
from retrain_assets.promotion.tables import promotions


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    yield server.create_database("ledger")


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


def candidate(version: str = "1", model: str = "churn") -> Candidate:
    return Candidate(
        model=model,
        version=version,
        run_id=f"run{version}",
        fingerprint=f"fingerprint{version}",
        partition="2024-01-31",
        metric="roc_auc",
        value=0.75,
    )


def promote(ledger: Ledger, version: str, expected: str | None, model: str = "churn") -> Promotion:
    return ledger.promote(
        candidate(version, model),
        expected_champion=expected,
        actor="tester",
        reason="it is better",
        evidence={"gain": 0.01},
    )


def test_an_empty_ledger_has_no_champion_and_no_history(ledger: Ledger) -> None:
    assert ledger.champion("churn") is None
    assert ledger.newest() == {}
    assert ledger.history("churn") == []
    assert ledger.champions() == {}
    assert ledger.champions(["churn"]) == {}


def test_a_promotion_is_read_back_exactly_as_it_was_returned(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    promoted = promote(ledger, "1", None)
    assert ledger.champion("churn") == promoted
    assert promoted == Promotion(
        **vars(candidate("1")),
        sequence=1,
        expected_version=None,
        kind="promotion",
        actor="tester",
        reason="it is better",
        evidence={"gain": 0.01},
        promoted_at=promoted.promoted_at,
    )
    assert before <= promoted.promoted_at <= before + timedelta(minutes=1)
    with pytest.raises(FrozenInstanceError):
        promoted.version = "2"  # type: ignore[misc]


def test_a_model_without_partitions_is_promoted_with_none(ledger: Ledger) -> None:
    ledger.promote(
        replace(candidate(), partition=None),
        expected_champion=None,
        actor="tester",
        reason="first",
        evidence={},
    )
    champion = ledger.champion("churn")
    assert champion is not None
    assert champion.partition is None


def test_each_promotion_follows_the_champion_it_expected(ledger: Ledger) -> None:
    promote(ledger, "1", None)
    promote(ledger, "4", "1")
    third = promote(ledger, "7", "4")
    assert ledger.champion("churn") == third
    assert [(p.sequence, p.version, p.expected_version) for p in ledger.history("churn")] == [
        (1, "1", None),
        (2, "4", "1"),
        (3, "7", "4"),
    ]
    assert third.previous_version == "4"


def test_promoting_the_champion_again_writes_nothing_whatever_was_expected(ledger: Ledger) -> None:
    first = promote(ledger, "1", None)
    assert promote(ledger, "1", None) == first
    assert promote(ledger, "1", "1") == first
    assert len(ledger.history("churn")) == 1


@pytest.mark.parametrize(("expected", "compared"), [(None, "no champion"), ("9", "champion v9")])
def test_a_promotion_against_another_champion_is_refused_and_names_both(
    ledger: Ledger, expected: str | None, compared: str
) -> None:
    promote(ledger, "1", None)
    with pytest.raises(ChampionChanged) as caught:
        promote(ledger, "2", expected)
    message = str(caught.value)
    assert message.startswith(
        f"churn: candidate v2 was compared with {compared}, but now v1 is champion (promoted "
    )
    assert "nothing was promoted" in message
    assert [p.version for p in ledger.history("churn")] == ["1"]


def test_expecting_a_champion_where_there_is_none_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ChampionChanged, match=r"compared with champion v1, but now there is none;"):
        promote(ledger, "2", "1")
    assert ledger.history("churn") == []


def test_models_do_not_see_each_other(ledger: Ledger) -> None:
    promote(ledger, "1", None, model="churn")
    promote(ledger, "5", None, model="sales")
    promote(ledger, "6", "5", model="sales")
    found = ledger.champions()
    assert {model: row.version for model, row in found.items()} == {"churn": "1", "sales": "6"}
    assert ledger.champions(["sales", "unknown"]) == {"sales": found["sales"]}
    assert ledger.champions([]) == {}


def test_the_champions_of_many_models_cost_one_query(ledger: Ledger) -> None:
    names = [f"model_{i}" for i in range(1500)]
    for name in names[:3]:
        promote(ledger, "1", None, model=name)
    statements: list[str] = []
    engine = ledger.database.engine()
    sa.event.listen(
        engine,
        "before_cursor_execute",
        lambda c, cu, statement, *rest: statements.append(statement),
    )
    assert set(ledger.champions(names)) == set(names[:3])
    assert set(ledger.champions(names[1:900])) == {"model_1", "model_2"}
    assert len([s for s in statements if s.startswith("SELECT")]) == 2


def test_history_says_which_version_was_champion_at_a_time(ledger: Ledger) -> None:
    first, second = promote(ledger, "1", None), promote(ledger, "2", "1")
    tick = timedelta(microseconds=1)
    assert ledger.champion_at("churn", first.promoted_at - tick) is None
    assert ledger.champion_at("churn", first.promoted_at) == first
    assert ledger.champion_at("churn", second.promoted_at - tick) == first
    paris = second.promoted_at.astimezone(ZoneInfo("Europe/Paris"))
    assert ledger.champion_at("churn", paris) == second
    assert ledger.champion_at("sales", paris) is None
    with pytest.raises(LedgerError, match="a moment needs a time zone, got 2024-01-01T00:00:00;"):
        ledger.champion_at("churn", datetime(2024, 1, 1))


def test_time_goes_on_from_row_to_row_whatever_the_clocks_say(ledger: Ledger) -> None:
    first = promote(ledger, "1", None)
    ahead = first.promoted_at + timedelta(days=1)
    with ledger.database.transaction(write=True) as connection:
        table = promotions()
        connection.execute(sa.update(table).values(promoted_at=ahead.isoformat()))
    assert promote(ledger, "2", "1").promoted_at == ahead + timedelta(microseconds=1)


def lose(ledger: Ledger, target: Promotion | None) -> Promotion:
    lost = ledger.champion("churn")
    assert lost is not None
    return ledger.replace_lost(lost, target, actor="reconciler", reason="deleted")


def test_a_lost_champion_is_replaced_by_an_earlier_one_on_the_record(ledger: Ledger) -> None:
    first, second = promote(ledger, "1", None), promote(ledger, "2", "1")
    row = lose(ledger, first)
    assert (row.kind, row.version, row.expected_version) == ("fallback", "1", "2")
    assert row.previous_version is None, "the alias cannot point to what is gone"
    assert ledger.champion("churn") == row
    assert ledger.replace_lost(second, first, actor="another", reason="deleted") == row
    with pytest.raises(ChampionChanged, match="v1 is champion now; nothing was changed"):
        ledger.replace_lost(second, None, actor="another", reason="deleted")
    assert [p.sequence for p in ledger.history("churn")] == [1, 2, 3]
    with pytest.raises(LedgerError, match=r"v1 is the only version .* is still registered; there"):
        ledger.roll_back(
            "churn", to_version=None, expected_champion="1", actor="anna", reason="back"
        )
    assert promote(ledger, "3", "1").previous_version == "1"


def test_without_any_earlier_champion_there_is_none_until_the_next_promotion(
    ledger: Ledger,
) -> None:
    first = promote(ledger, "1", None)
    row = lose(ledger, None)
    assert (row.kind, row.version, row.is_vacancy) == ("vacancy", "1", True)
    assert ledger.champion("churn") is None
    assert ledger.champions() == {}
    assert ledger.newest() == {"churn": row}
    assert ledger.champion_at("churn", first.promoted_at) == first
    assert ledger.champion_at("churn", row.promoted_at) is None
    with pytest.raises(ChampionChanged, match="but now there is none"):
        promote(ledger, "2", "1")
    again = promote(ledger, "1", None)
    assert (again.sequence, again.kind, again.expected_version) == (3, "promotion", None)


def test_two_ledgers_on_one_database_see_the_same_rows(ledger: Ledger, url: str) -> None:
    promote(ledger, "1", None)
    assert Ledger(url).champion("churn") == ledger.champion("churn")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"value": float("nan")}, "roc_auc must be finite, got nan"),
        ({"version": ""}, "version is empty"),
        ({"run_id": " "}, "run_id is empty"),
    ],
)
def test_an_entry_that_says_nothing_is_refused(
    ledger: Ledger, change: dict[str, object], problem: str
) -> None:
    with pytest.raises(LedgerError) as caught:
        ledger.promote(
            replace(candidate(), **change),  # type: ignore[arg-type]
            expected_champion=None,
            actor="tester",
            reason="why not",
            evidence={},
        )
    assert str(caught.value) == f"churn: {problem}; nothing was recorded"


@pytest.mark.parametrize("evidence", [{"gain": float("inf")}, {"when": datetime.now(UTC)}])
def test_evidence_that_is_not_json_is_refused(ledger: Ledger, evidence: dict[str, object]) -> None:
    with pytest.raises(LedgerError, match="evidence must be JSON without NaN or infinity"):
        ledger.promote(
            candidate(), expected_champion=None, actor="a", reason="b", evidence=evidence
        )


def test_the_database_itself_refuses_a_sequence_twice(ledger: Ledger, url: str) -> None:
    promote(ledger, "1", None)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(
            sa.text(
                "INSERT INTO promotions (model, sequence, version, run_id, fingerprint, metric,"
                " value, kind, actor, reason, evidence, promoted_at) SELECT model, sequence, 'x',"
                " run_id, fingerprint, metric, value, kind, actor, reason, evidence, promoted_at"
                " FROM promotions"
            )
        )


RACER = """
import json, sys
import sqlalchemy
from retrain_assets.errors import ChampionChanged
from retrain_assets.promotion.ledger import Candidate, Ledger

url, version, expected = json.loads(sys.argv[1])
ledger = Ledger(url)
candidate = Candidate("churn", version, "run", "fingerprint", None, "roc_auc", 0.7)
print("ready", flush=True)
sys.stdin.readline()
try:
    row = ledger.promote(
        candidate, expected_champion=expected, actor=version, reason="race", evidence={}
    )
    print("won", row.sequence)
except ChampionChanged as error:
    print("lost", error)
"""


def race(url: str, versions: list[str], expected: str | None) -> list[str]:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, json.dumps([url, version, expected])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in versions
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers), [e for _, e in ends]
    return [out.strip() for out, _ in ends]


def test_of_eight_processes_that_race_on_a_new_database_exactly_one_promotes(
    ledger: Ledger, url: str
) -> None:
    ends = race(url, [f"{i}" for i in range(8)], None)
    won = [i for i, end in enumerate(ends) if end == "won 1"]
    assert len(won) == 1
    assert [end.split()[0] for end in ends].count("lost") == 7
    assert [p.version for p in ledger.history("churn")] == [str(won[0])]
    ends = race(url, [f"{i}" for i in range(8, 12)], str(won[0]))
    assert sorted(end.split()[0] for end in ends) == ["lost"] * 3 + ["won"]
    assert all(f"compared with champion v{won[0]}, but now v" in e for e in ends if e[0] == "l")
    assert [p.sequence for p in ledger.history("churn")] == [1, 2]


def test_processes_that_race_with_the_same_candidate_all_succeed_with_one_row(
    ledger: Ledger, url: str
) -> None:
    assert race(url, ["5"] * 4, None) == ["won 1"] * 4
    assert len(ledger.history("churn")) == 1


def test_a_server_that_is_down_is_a_ledger_error_without_the_password() -> None:
    ledger = Ledger(
        "postgresql+psycopg2://ledger:s3cret@127.0.0.1:1/retrain?application_name=s3cret"
    )
    started = time.monotonic()
    with pytest.raises(LedgerError) as caught:
        ledger.champion("churn")
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert "postgresql+psycopg2://ledger:***@127.0.0.1:1/retrain" in message
    assert "refused" in message
    assert "check that the database runs" in message
    assert "s3cret" not in message
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_database_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is not a database, however long the text is" * 50)
    with pytest.raises(LedgerError, match="file is not a database"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").champions()


def test_a_folder_that_does_not_exist_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"missing/ledger\.db: unable to open database file"):
        promote(Ledger(f"sqlite:///{tmp_path}/missing/ledger.db"), "1", None)


@pytest.mark.parametrize("url", ["s3cret", "postgresql+nodriver://u:s3cret@host/db"])
def test_a_url_that_names_no_database_is_a_ledger_error(url: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url).champions()
    assert "promotion ledger: " in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_first_use_waits_for_another_connection_that_holds_the_new_file(tmp_path: Path) -> None:
    """sqlite itself would not: the switch to the write-ahead log fails at once on a busy file."""
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    try:
        assert Ledger(f"sqlite:///{path}").champion("churn") is None
    finally:
        release.join()
        other.close()
