"""Manual approval, on every database that the ledger supports."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integration.postgres import PostgresServer

from retrain_assets.errors import ChampionChanged, LedgerError, NotAwaiting
from retrain_assets.promotion.ledger import Candidate, Ledger
from retrain_assets.promotion.reviews import Review, Reviews


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database("reviews")


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


@pytest.fixture
def reviews(ledger: Ledger) -> Reviews:
    return Reviews(ledger)


def candidate(version: str, model: str = "churn") -> Candidate:
    return Candidate(model, version, f"run{version}", f"f{version}", "2024-01-31", "roc_auc", 0.75)


def ask(
    reviews: Reviews, version: str, expected: str | None = None, model: str = "churn"
) -> Review:
    return reviews.ask(
        candidate(version, model), expected_champion=expected, actor="run 7",
        reason="it is better", evidence={"gain": 0.01},
    )  # fmt: skip


def promoted(ledger: Ledger, model: str = "churn") -> list[str]:
    return [row.version for row in ledger.history(model)]


def test_what_passed_waits_until_a_person_promotes_it(reviews: Reviews, ledger: Ledger) -> None:
    asked = ask(reviews, "1")
    assert (asked.kind, asked.sequence, asked.candidate) == ("awaiting", 1, candidate("1"))
    assert reviews.waiting() == reviews.waiting(["churn"]) == {"churn": asked}
    assert reviews.waiting(["sales"]) == {}
    assert promoted(ledger) == []
    review, promotion = reviews.approve("churn", "1", actor="anna", reason="agreed")
    assert promotion is not None
    assert promotion == ledger.champion("churn")
    assert (promotion.actor, promotion.reason, promotion.kind) == ("anna", "agreed", "promotion")
    assert promotion.evidence == {"gain": 0.01}, "what was asked for is what is recorded"
    assert reviews.history("churn") == [asked, review]
    assert reviews.waiting() == {}


def test_asking_again_for_the_same_writes_nothing(reviews: Reviews) -> None:
    first = ask(reviews, "1")
    assert ask(reviews, "1") == first
    assert ask(reviews, "1", expected="9").sequence == 2, "compared with another champion"


def test_the_second_approver_is_told_who_did_it(reviews: Reviews, ledger: Ledger) -> None:
    ask(reviews, "1")
    first, _ = reviews.approve("churn", "1", actor="anna", reason="agreed")
    assert reviews.approve("churn", "1", actor="bert", reason="me too") == (first, None)
    assert first.signed.startswith("approved by anna on 20")
    with pytest.raises(NotAwaiting, match=r"v1 was approved by anna .*agreed\); nothing was chan"):
        reviews.reject("churn", "1", actor="bert", reason="no")
    assert promoted(ledger) == ["1"]


def test_what_was_rejected_is_not_promoted_and_says_who_rejected_it(
    reviews: Reviews, ledger: Ledger
) -> None:
    ask(reviews, "1")
    rejection, new = reviews.reject("churn", "1", actor="anna", reason="too early")
    assert new
    assert reviews.reject("churn", "1", actor="bert", reason="no") == (rejection, False)
    with pytest.raises(NotAwaiting, match=r"v1 was rejected by anna on .* \(too early\)"):
        reviews.approve("churn", "1", actor="bert", reason="yes")
    assert promoted(ledger) == []
    assert reviews.waiting() == {}


def test_a_newer_candidate_supersedes_the_one_that_waits(reviews: Reviews, ledger: Ledger) -> None:
    ask(reviews, "1")
    newer = ask(reviews, "2")
    assert reviews.waiting() == {"churn": newer}
    for decide in (reviews.approve, reviews.reject):
        with pytest.raises(NotAwaiting, match="v1 waits no longer, v2 has superseded it"):
            decide("churn", "1", actor="anna", reason="x")
    reviews.approve("churn", "2", actor="anna", reason="agreed")
    assert promoted(ledger) == ["2"]


def test_a_version_that_never_passed_the_gate_cannot_be_promoted(reviews: Reviews) -> None:
    with pytest.raises(NotAwaiting, match=r"v5 never passed the gate .*; nothing waits"):
        reviews.approve("churn", "5", actor="anna", reason="x")
    ask(reviews, "1")
    with pytest.raises(NotAwaiting, match=r"v5 never passed the gate .*; v1 waits"):
        reviews.reject("churn", "5", actor="anna", reason="x")


def test_another_champion_than_the_compared_one_holds_an_approval_back(
    reviews: Reviews, ledger: Ledger
) -> None:
    ask(reviews, "2")
    ledger.promote(candidate("1"), expected_champion=None, actor="a", reason="b", evidence={})
    with pytest.raises(
        ChampionChanged, match="was compared with no champion, but now v1 is champi"
    ) as e:
        reviews.approve("churn", "2", actor="anna", reason="agreed")
    assert "materialize candidate_model and promoted_model of 2024-01-31" in str(e.value)
    assert [row.kind for row in reviews.history("churn")] == ["awaiting"]
    ask(reviews, "2", expected="1")
    reviews.approve("churn", "2", actor="anna", reason="agreed")
    assert promoted(ledger) == ["1", "2"]


def test_an_approval_without_a_reason_is_refused_and_promotes_nothing(
    reviews: Reviews, ledger: Ledger
) -> None:
    ask(reviews, "1")
    with pytest.raises(LedgerError, match="reason is empty; nothing was recorded"):
        reviews.approve("churn", "1", actor="anna", reason=" ")
    with pytest.raises(LedgerError, match="actor is empty"):
        reviews.reject("churn", "1", actor="", reason="x")
    assert promoted(ledger) == []


def test_models_wait_separately(reviews: Reviews) -> None:
    ask(reviews, "1")
    sales = ask(reviews, "1", model="sales")
    reviews.reject("churn", "1", actor="anna", reason="x")
    assert reviews.waiting() == {"sales": sales}
    assert replace(sales, model="churn").sequence == 1


RACER = """
import json, sys
import sqlalchemy
from retrain_assets.errors import NotAwaiting
from retrain_assets.promotion.ledger import Ledger
from retrain_assets.promotion.reviews import Reviews
url, who, decision = json.loads(sys.argv[1])
reviews = Reviews(Ledger(url))
print("ready", flush=True)
sys.stdin.readline()
try:
    review, new = getattr(reviews, decision)("churn", "1", actor=who, reason="race")
    print(review.actor, bool(new))
except NotAwaiting as error:
    print(error)
"""


def race(url: str, racers: list[tuple[str, str]]) -> list[str]:
    arguments: Any = {"stdin": -1, "stdout": -1, "stderr": -1, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", RACER, json.dumps([url, *racer])], **arguments)
        for racer in racers
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), ends
    return [out.strip() for out, _ in ends]


def test_of_people_who_decide_at_once_one_decides_and_the_others_are_told(
    url: str, reviews: Reviews, ledger: Ledger
) -> None:
    ask(reviews, "1")
    ends = race(url, [("anna", "approve"), ("bert", "approve"), ("carl", "reject")])
    decided = reviews.history("churn")[1:]
    assert len(decided) == 1
    winner = decided[0].actor
    assert ends.count(f"{winner} True") == 1
    assert all(winner in end for end in ends), ends
    assert len(promoted(ledger)) == (decided[0].kind == "approved")
