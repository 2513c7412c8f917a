"""The decision ledger, on every database that it supports."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from integration.postgres import PostgresServer

from retrain_assets.policy import Decision, Evidence, History, PastRun
from retrain_assets.policy.record import Entry, entry_of
from retrain_assets.promotion.decisions import Decisions, Judgement
from retrain_assets.promotion.ledger import Ledger

NOW = datetime(2024, 2, 1, 6, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def decisions(request: pytest.FixtureRequest, tmp_path: Path) -> Decisions:
    if request.param == "sqlite":
        return Decisions(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Decisions(Ledger(server.create_database("decisions")))


def entry(
    partition: str | None = "2024-01-31",
    action: str = "wait",
    model: str = "churn",
    **known: object,
) -> Entry:
    decision = Decision(action, None, ("no trigger fired",))  # type: ignore[arg-type]
    evidence = Evidence(True, 9, 4, champion_age=timedelta(days=3), **known)  # type: ignore[arg-type]
    history = History(runs=(PastRun(timedelta(hours=3), 9.0),))
    return entry_of(model, partition, decision, evidence, history, data_time=NOW, decided_at=NOW)


def judgement(run: str, verdict: str, version: str = "2", model: str = "churn") -> Judgement:
    return Judgement(
        model, run, "state", "2024-01-31", version, "code", verdict, "it is better", 0.01, 12.5, NOW
    )


def test_a_state_of_affairs_is_recorded_once_and_reads_back(decisions: Decisions) -> None:
    first = entry()
    assert decisions.record([first, entry(), entry(model="sales")]) == 2
    assert decisions.record([entry()]) == 0
    assert decisions.last("churn", 9) == [first]
    assert first.evidence["evidence"]["champion_age"] == "3 days, 0:00:00"


def test_what_asked_for_retrainings_is_found_by_their_decisions(decisions: Decisions) -> None:
    asked = replace(entry(action="retrain"), trigger="drift")
    waited = entry("2024-02-01")
    decisions.record([asked, waited])
    many = [f"unknown {n}" for n in range(600)]
    assert decisions.triggers([asked.state, waited.state, *many]) == {asked.state: "drift"}


def test_another_partition_action_or_evidence_is_another_row_newest_first(
    decisions: Decisions,
) -> None:
    rows = [entry(), entry("2024-02-01"), entry(action="hold"), entry(drift_score=0.4)]
    for row in rows:
        assert decisions.record([row]) == 1
    assert decisions.last("churn", 3) == rows[:0:-1]
    assert decisions.newest(["churn", "sales"]) == {"churn": rows[-1]}


def test_without_partitions_a_state_is_recorded_once_too(decisions: Decisions) -> None:
    assert decisions.record([entry(None)]) == 1
    assert decisions.record([entry(None)]) == 0


def test_of_a_step_that_runs_twice_the_first_judgement_stays(decisions: Decisions) -> None:
    decisions.record_judgement(judgement("run 1", "promote"))
    decisions.record_judgement(judgement("run 1", "reject"))
    assert decisions.judgements("churn") == [judgement("run 1", "promote")]
    decisions.record_judgement(judgement("run 2", "reject", "3"))
    decisions.record_judgement(judgement("run 3", "reject", model="sales"))
    assert decisions.judged(["churn"]) == {"churn": judgement("run 2", "reject", "3")}


def test_rejections_count_each_candidate_once_since_the_last_promotion(
    decisions: Decisions,
) -> None:
    verdicts = [("reject", "1"), ("promote", "2"), ("reject", "3"), ("reject", "3"),
                ("undecided", "4"), ("awaiting", "5")]  # fmt: skip
    for n, (verdict, version) in enumerate(verdicts):
        decisions.record_judgement(judgement(f"run {n}", verdict, version))
    assert decisions.rejections(["churn", "sales"]) == {"churn": 2, "sales": 0}


def test_bad_data_is_recorded_once_and_mending_only_where_it_was_bad(decisions: Decisions) -> None:
    decisions.record_data("churn", {"2024-01-01": ""})
    assert decisions.bad_data(["churn"]) == {}
    for _ in range(2):
        decisions.record_data("churn", {"2024-01-02": "nulls", "2024-01-01": "too few rows"})
    assert decisions.bad_data(["churn"]) == {"churn": ("2024-01-02", "nulls")}
    decisions.record_data("churn", {"2024-01-02": "", "2024-01-03": ""})
    assert decisions.bad_data(["churn"]) == {"churn": ("2024-01-02", "")}
