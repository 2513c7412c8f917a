"""What `retrain why` prints of one decision."""

from retrain_assets.fleet.why import Explained

AT = "2024-02-01T06:00:07.123456+00:00"


def test_a_promotion_says_what_fired_what_came_of_it_and_what_it_cost() -> None:
    found = Explained(
        AT, "2024-01-31", "retrain", "performance", ("roc_auc 0.6 is beyond the floor 0.7",),
        run_id="r1", verdict="promote", outcome="candidate v2 is promoted", version="2",
        expected_gain=0.0123, realised_gain=-0.004, compute_seconds=12.4,
    )  # fmt: skip
    assert found.lines() == [
        "2024-02-01 06:00:07  data up to 2024-01-31  retrained (performance)",
        "    roc_auc 0.6 is beyond the floor 0.7",
        "    -> candidate v2 is promoted",
        "       expected gain +0.0123, realised gain -0.004, compute seconds 12",
    ]
    assert found.to_dict()["expected_gain"] == 0.0123


def test_what_was_held_back_says_until_when_and_claims_no_run() -> None:
    reasons = ("the drift alarm is raised", "but a cool-down ends with data up to 2024-02-03")
    found = Explained(AT, None, "wait", "drift", reasons)
    assert found.lines() == [
        "2024-02-01 06:00:07  waited (drift)", *(f"    {reason}" for reason in reasons),
    ]  # fmt: skip
    assert found.summary == f"waited (drift): {'; '.join(reasons)}"


def test_a_retraining_whose_candidate_was_never_judged_shows_its_run() -> None:
    told = {
        "failure": "    -> run r1 ended (failure) before a candidate was judged",
        "started": "    -> run r1 is on its way (started)",
    }
    for status, line in told.items():
        asked = Explained(AT, None, "retrain", "age", (), run_id="r1", run_status=status)
        assert asked.lines()[-1] == line
    assert Explained(AT, None, "retrain", "age", ()).lines()[-1] == "    -> no run of it is known"
