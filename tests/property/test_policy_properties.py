"""`decide`: laws of the retraining policy over all evidence and histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.policy import Evidence, History, decide
from retrain_assets.spec.model import Retrain

_unhurried = settings(deadline=None)  # the machine is shared
_lengths = st.timedeltas(timedelta(seconds=1), timedelta(days=400))
_moments = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
_policies = st.builds(
    Retrain,
    schedule=st.sampled_from([None, "0 6 * * 1"]),
    on_drift=st.booleans(),
    max_age=st.none() | _lengths,
    cooldown=st.none() | _lengths,
)
_evidence = st.builds(
    Evidence,
    has_champion=st.booleans(),
    partitions=st.integers(0, 100),
    needed=st.integers(1, 100),
    drift_alarm=st.booleans(),
    champion_age=st.none() | _lengths,
    asked=st.sampled_from([None, "schedule", "on_demand"]),
)
_histories = st.builds(History, in_flight=st.booleans(), last_retraining=st.none() | _moments)
_ACTIONS = {"wait": 0, "hold": 0, "retrain": 1}


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_a_decision_always_has_reasons_and_a_retraining_a_trigger(policy, evidence, history, now):
    decision = decide(policy, evidence, history, now)
    assert decision.reasons
    assert all(reason and reason == reason.strip() for reason in decision.reasons)
    if decision.action == "retrain":
        assert decision.trigger is not None
        assert len(decision.reasons) == len(decision.fired)
        assert not decision.held
    if decision.trigger is not None and decision.action != "retrain":
        assert decision.reasons[-1].startswith("but ")


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_the_same_input_gives_the_same_decision(policy, evidence, history, now):
    assert decide(policy, evidence, history, now) == decide(policy, evidence, history, now)


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_nothing_is_trained_on_too_little_data(policy, evidence, history, now):
    if decide(policy, evidence, history, now).action == "retrain":
        assert evidence.partitions >= evidence.needed


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_only_a_person_starts_a_second_retraining_beside_one_in_flight(
    policy, evidence, history, now
):
    decision = decide(policy, evidence, replace(history, in_flight=True), now)
    assert decision.action != "retrain" or decision.trigger == "on_demand"
    free = decide(policy, evidence, replace(history, in_flight=False), now)
    assert decision.action != "hold" or free.trigger == decision.trigger


@_unhurried
@given(_policies, _evidence, _moments)
def test_what_comes_by_itself_never_comes_twice_on_the_same_data(policy, evidence, now):
    alone = replace(evidence, asked=None, partitions=evidence.needed)
    first = decide(policy, alone, History(), now)
    again = decide(policy, alone, History(last_retraining=now), now)
    assert (again.action, again.trigger) == ("wait", first.trigger)


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.integers(0, 100))
def test_more_data_never_turns_a_retraining_into_a_wait(policy, evidence, history, now, more):
    decision = decide(policy, evidence, history, now)
    richer = replace(evidence, partitions=evidence.partitions + more)
    assert _ACTIONS[decide(policy, richer, history, now).action] >= _ACTIONS[decision.action]


@_unhurried
@given(_policies, _evidence, _moments, _lengths, _lengths)
def test_as_time_passes_the_cool_down_only_ends(policy, evidence, last, since, later):
    history = History(last_retraining=last)
    decision = decide(policy, evidence, history, last + since)
    assert (
        _ACTIONS[decide(policy, evidence, history, last + since + later).action]
        >= _ACTIONS[decision.action]
    )


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_a_longer_cool_down_never_retrains_more(policy, evidence, history, now):
    cooldown = (policy.cooldown or timedelta(0)) * 2 + timedelta(days=1)
    patient = policy.model_copy(update={"cooldown": cooldown})
    assert (
        _ACTIONS[decide(patient, evidence, history, now).action]
        <= _ACTIONS[decide(policy, evidence, history, now).action]
    )


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_the_drift_alarm_alone_decides_nothing_when_on_drift_is_off(policy, evidence, history, now):
    off = policy.model_copy(update={"on_drift": False})
    with_alarm = decide(off, replace(evidence, drift_alarm=True), history, now)
    without = decide(off, replace(evidence, drift_alarm=False), history, now)
    assert (with_alarm.action, with_alarm.trigger) == (without.action, without.trigger)
