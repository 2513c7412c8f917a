"""`decide`: laws of the retraining policy over all evidence and histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.performance.measured import Performance
from retrain_assets.policy import Evidence, History, PastRun, decide
from retrain_assets.spec.model import Backoff, Cost, OnPerformance, Retrain, RetrainBudget

_unhurried = settings(deadline=None, max_examples=50)  # the machine is shared
_lengths = st.timedeltas(timedelta(seconds=1), timedelta(days=400))
_moments = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
_numbers = st.floats(-1e6, 1e6, allow_nan=False)
_positive = st.floats(1e-3, 1e6, allow_nan=False)


@st.composite
def _performances(draw, direction):
    """A performance with an interval, or one that could not be told."""
    metric = "roc_auc" if direction == "maximize" else "mae"
    kind, n = draw(st.sampled_from(["realised", "estimated"])), draw(st.integers(1, 10_000))
    if draw(st.integers(0, 4)) == 0:
        return Performance(
            metric, direction, kind, None, None, None, None, None, 0.95, n, "", "few"
        )
    value, se = draw(_numbers), draw(st.floats(0, 100))
    return Performance(
        metric, direction, kind, None, value, se, value - 2 * se, value + 2 * se, 0.95, n, "t"
    )


@st.composite
def _policies(draw):
    """Any policy that the spec allows."""
    optional = {
        "schedule": st.just("0 6 * * 1"),
        "max_age": _lengths,
        "cooldown": _lengths,
        "on_new_partitions": st.integers(50, 90),
        "min_new_partitions": st.integers(1, 50),
        "on_performance": st.builds(
            OnPerformance,
            floor=_numbers,
            max_drop=st.none() | st.floats(0, 1e6),
            estimate=st.booleans(),
            of_last=st.integers(3, 5),
            at_least=st.integers(1, 3),
        ),
        "cost": st.builds(
            Cost,
            retraining=_positive,
            per_unit_loss=_positive,
            per=st.sampled_from(["partition", "1000 rows"]),
        ),
        "on_change": st.booleans(),
        "follow_up": st.integers(1, 90),
        "backoff": st.builds(Backoff, first=_lengths, at_most=st.just(timedelta(days=400))),
        "budget": st.builds(
            RetrainBudget,
            runs_per_week=st.integers(1, 5),
            compute_seconds_per_week=st.none() | _positive,
        ),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional)), max_size=4))
    fields = {name: draw(optional[name]) for name in sorted(chosen)}
    fields["on_drift"] = draw(st.booleans())
    if fields["on_drift"]:
        fields["min_drift_score"] = draw(st.sampled_from([0.0, 0.0, 0.3]))
        fields["needs_prediction_drift"] = draw(st.sampled_from([False, False, True]))
    # What holds by itself is the rule, so that the laws are about decisions to retrain as well.
    combined = draw(st.integers(0, 7))
    conditions = len(Retrain(**fields).conditions)
    if combined == 0:
        return Retrain(**fields, combine="all")
    if combined == 1 and conditions > 1:
        return Retrain(**fields, at_least=draw(st.integers(2, conditions)))
    return Retrain(**fields)


@st.composite
def _evidences(draw):
    direction = draw(st.sampled_from(["maximize", "minimize"]))
    return Evidence(
        has_champion=draw(st.integers(0, 7)) > 0,
        partitions=draw(st.integers(0, 100)),
        needed=draw(st.integers(1, 30)),
        drift_alarm=draw(st.none() | st.booleans()),
        drift_score=draw(st.none() | st.floats(0, 1)),
        prediction_drift=draw(st.none() | st.booleans()),
        performance=tuple(draw(st.lists(_performances(direction), max_size=8))),
        expected=draw(st.none() | _performances(direction)),
        bad_data=draw(st.sampled_from([None, None, None, "", "too many nulls"])),
        champion_age=draw(st.none() | _lengths),
        new_partitions=draw(st.none() | st.integers(0, 100)),
        promoted_by=draw(st.sampled_from([None, "first", "schedule", "drift", "performance"])),
        changed=draw(st.none() | st.booleans()),
        asked=draw(st.sampled_from([None] * 8 + ["schedule", "on_demand"])),
    )


_runs = st.lists(
    st.builds(PastRun, ago=st.timedeltas(timedelta(0), timedelta(days=10)),
              compute_seconds=st.floats(0, 1e6)),
    max_size=5,
)  # fmt: skip
_histories = st.builds(
    History,
    in_flight=st.sampled_from([False, False, False, True]),
    last_retraining=st.none() | _moments,
    rejections=st.none() | st.integers(0, 10_000),
    runs=st.none() | _runs,
)
_policies, _evidence = _policies(), _evidences()
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
        assert decision.held
        assert [reason.startswith("but ") for reason in decision.reasons] == (
            [False] * len(decision.fired) + [True] * len(decision.held)
        )


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
    alone = replace(evidence, asked=None, partitions=evidence.needed, changed=False, bad_data=None)
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


def _at_least_as_eager(policy, less, more, history, now, bigger_history=None):
    """Whether what retrains on `less` retrains on `more`, by its conditions alone."""
    less, more = (replace(one, asked=None, has_champion=True) for one in (less, more))
    before = decide(policy, less, history, now).action
    after = decide(policy, more, bigger_history or history, now).action
    return _ACTIONS[after] >= _ACTIONS[before]


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.floats(0, 1))
def test_more_drift_never_turns_a_retraining_into_a_wait(policy, evidence, history, now, more):
    drifted = replace(
        evidence,
        drift_alarm=True,
        drift_score=max(evidence.drift_score or 0.0, more),
        prediction_drift=True,
    )
    assert _at_least_as_eager(policy, evidence, drifted, history, now)


def _worse(one, by):
    """The same performance, worse by `by`, interval and all."""
    if one.value is None:
        return one
    shift = -by if one.direction == "maximize" else by
    return replace(one, value=one.value + shift, low=one.low + shift, high=one.high + shift)


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.floats(0, 1e3))
def test_a_champion_that_is_worse_on_every_partition_is_never_kept_longer(
    policy, evidence, history, now, by
):
    performance = tuple(_worse(one, by) for one in evidence.performance)
    worse = replace(evidence, performance=performance)
    assert _at_least_as_eager(policy, evidence, worse, history, now)


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.data())
def test_an_estimate_may_start_a_retraining_and_never_prevents_one(
    policy, evidence, history, now, data
):
    estimates = data.draw(
        st.lists(_performances(data.draw(st.sampled_from(["maximize", "minimize"]))), max_size=6)
    )
    blind = [replace(one, kind="estimated") for one in estimates]
    realised = [one for one in evidence.performance if one.kind == "realised"]
    if policy.cost is not None:  # a partition more to have lost on
        policy = policy.model_copy(update={"cost": None, "at_least": None})
    before = replace(evidence, performance=tuple(realised))
    after = replace(evidence, performance=(*realised, *blind))
    assert _at_least_as_eager(policy, before, after, history, now)


@_unhurried
@given(_policies, _evidence, _histories, _moments, _lengths, st.integers(1, 50))
def test_an_older_champion_with_more_new_data_and_changed_code_is_never_kept_longer(
    policy, evidence, history, now, older, more
):
    if policy.cost is not None:  # more partitions since the retraining are others to be judged on
        policy = policy.model_copy(update={"cost": None, "at_least": None})
    stale = replace(
        evidence,
        champion_age=(evidence.champion_age or timedelta(0)) + older,
        new_partitions=None
        if evidence.new_partitions is None and policy.min_new_partitions > 1
        else (evidence.new_partitions or 0) + more,
        changed=True,
    )
    assert _at_least_as_eager(policy, evidence, stale, history, now)


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.integers(0, 5), st.floats(0, 1e6))
def test_more_budget_never_turns_a_retraining_into_a_wait(
    policy, evidence, history, now, runs, seconds
):
    budget = policy.budget
    if budget is None:
        return
    compute = budget.compute_seconds_per_week
    larger = RetrainBudget(
        runs_per_week=budget.runs_per_week + runs,
        compute_seconds_per_week=None if compute is None else compute + seconds,
    )
    richer = policy.model_copy(update={"budget": larger})
    before = decide(policy, evidence, history, now)
    after = decide(richer, evidence, history, now)
    assert _ACTIONS[after.action] >= _ACTIONS[before.action]
    without = policy.model_copy(update={"budget": None})
    assert _ACTIONS[decide(without, evidence, history, now).action] >= _ACTIONS[after.action]


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_nothing_but_a_person_or_the_schedule_retrains_inside_a_cool_down(
    policy, evidence, history, now
):
    decision = decide(policy, evidence, history, now)
    last = history.last_retraining
    inside = policy.cooldown is not None and last is not None and now - last < policy.cooldown
    if inside and decision.action == "retrain":
        assert decision.trigger in ("schedule", "on_demand")


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_nothing_is_trained_on_bad_data_but_by_a_person(policy, evidence, history, now):
    bad = replace(evidence, bad_data="empty")
    decision = decide(policy, bad, history, now)
    assert decision.action != "retrain" or decision.trigger == "on_demand"


@_unhurried
@given(_policies, _evidence, _histories, _moments)
def test_what_is_unknown_never_fires(policy, evidence, history, now):
    unknown = Evidence(
        has_champion=True,
        partitions=evidence.partitions,
        needed=evidence.needed,
    )
    assert decide(policy, unknown, history, now).action == "wait"


@_unhurried
@given(
    st.integers(1, 30).map(lambda days: timedelta(days=days)),
    st.integers(1, 60).map(lambda days: timedelta(days=days)),
    st.integers(0, 300),
)
def test_back_off_delays_a_recovery_by_no_more_than_it_has_been_tried_for(first, more, recovers):
    """Doubled waits lose at most as long again as candidates have been rejected, and never at_most."""
    policy = Retrain(on_drift=False, max_age=timedelta(seconds=1), backoff=Backoff(
        first=first, at_most=first + more))  # fmt: skip
    old = Evidence(True, 60, 30, champion_age=timedelta(days=999))
    start, day = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
    history, n = History(last_retraining=start, rejections=1), 0
    while True:
        n += 1
        if decide(policy, old, history, start + n * day).action != "retrain":
            continue
        if n >= recovers:
            break
        history = History(last_retraining=start + n * day, rejections=(history.rejections or 0) + 1)
    waited = (n - recovers) * day
    assert waited <= recovers * day + first
    assert waited <= first + more


@_unhurried
@given(_policies, _evidence, _histories, _moments, st.integers(1, 100))
def test_another_rejection_never_retrains_sooner(policy, evidence, history, now, more):
    known = replace(history, rejections=history.rejections or 0)
    rejected = replace(known, rejections=known.rejections + more)
    before = decide(policy, evidence, known, now).action
    after = decide(policy, evidence, rejected, now).action
    assert _ACTIONS[after] <= _ACTIONS[before]
