"""The rule that suspects the data behind many alarms, on any fleet of reports."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.orchestration.suspects import Suspects
from retrain_assets.policy import Reported, SuspectRule, Suspicion, suspected
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOURS = st.floats(0, 72)
_unhurried = settings(deadline=None, max_examples=150)  # the machine is shared


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@st.composite
def reports(draw: st.DrawFn) -> Reported:
    """A report of the last three days, whose alarm, if any, began with it or before."""
    at = draw(HOURS)
    return Reported(ago(at), draw(st.none() | st.floats(at, 73).map(ago)))


RULES = st.builds(
    SuspectRule,
    models=st.integers(2, 4),
    share=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    window=st.floats(0.1, 48).map(lambda hours: timedelta(hours=hours)),
    hold=st.floats(0.1, 48).map(lambda hours: timedelta(hours=hours)),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Reported]:
    """Reports of this moment, alarms and others in numbers near the bounds, and some of any age."""
    alarms, calm = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    now = [Reported(NOW, NOW)] * alarms + [Reported(NOW, None)] * calm
    return now + draw(st.lists(reports(), max_size=3))


FLEETS = fleets()
BEFORE = st.none() | st.builds(Suspicion, HOURS.map(ago), st.integers(2, 25), st.just(25))


@_unhurried
@given(RULES, FLEETS, BEFORE)
def test_never_with_fewer_alarms_than_the_bound(
    rule: SuspectRule, fleet: list[Reported], before: Suspicion | None
) -> None:
    alarms = sum(one.alarm_began is not None for one in fleet)
    if suspected(rule, fleet, NOW, before):
        assert alarms >= rule.models


@_unhurried
@given(RULES, FLEETS)
def test_it_begins_with_alarms_of_the_window_that_are_the_share_of_what_was_reported_in_it(
    rule: SuspectRule, fleet: list[Reported]
) -> None:
    found = suspected(rule, fleet, NOW)
    recent = [one for one in fleet if NOW - one.at <= rule.window]
    new = [one for one in recent if one.alarm_began and NOW - one.alarm_began <= rule.window]
    if found is None:
        assert len(new) < rule.models or len(new) < rule.share * len(recent)
    else:
        assert found == Suspicion(NOW, len(new), len(recent))
        assert len(new) >= max(rule.models, rule.share * len(recent))


@_unhurried
@given(RULES, FLEETS, BEFORE)
def test_one_that_goes_on_is_the_one_that_was(
    rule: SuspectRule, fleet: list[Reported], before: Suspicion | None
) -> None:
    found = suspected(rule, fleet, NOW, before)
    if before is not None and found is not None:
        assert found is before
        assert NOW - before.since < rule.hold


@_unhurried
@given(RULES, FLEETS, st.floats(0, 100))
def test_every_hold_ends_whatever_is_reported(
    rule: SuspectRule, fleet: list[Reported], later: float
) -> None:
    before = Suspicion(NOW, 12, 12)
    end = NOW + rule.hold
    reported = [Reported(end, one.alarm_began) for one in fleet]
    assert suspected(rule, reported, end + timedelta(hours=later), before) is None


@_unhurried
@given(RULES, FLEETS, BEFORE, st.data())
def test_one_alarm_more_never_ends_a_suspicion(
    rule: SuspectRule, fleet: list[Reported], before: Suspicion | None, data: st.DataObject
) -> None:
    calm = [n for n, one in enumerate(fleet) if one.alarm_began is None]
    if not calm or not suspected(rule, fleet, NOW, before):
        return
    n = data.draw(st.sampled_from(calm))
    fleet[n] = Reported(fleet[n].at, fleet[n].at)
    assert suspected(rule, fleet, NOW, before)


@_unhurried
@given(RULES, FLEETS, BEFORE, reports())
def test_one_calm_report_more_never_begins_a_suspicion(
    rule: SuspectRule, fleet: list[Reported], before: Suspicion | None, one: Reported
) -> None:
    if suspected(rule, fleet, NOW, before) is None:
        assert suspected(rule, [*fleet, Reported(one.at, None)], NOW, before) is None


@_unhurried
@given(RULES, FLEETS, BEFORE, st.randoms(use_true_random=False))
def test_the_order_of_the_reports_does_not_matter(
    rule: SuspectRule, fleet: list[Reported], before: Suspicion | None, dice: object
) -> None:
    shuffled = list(fleet)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert suspected(rule, shuffled, NOW, before) == suspected(rule, fleet, NOW, before)


# -- the sensor's memory of it, where groups meet -------------------------------------------------

SPEC = ModelSpec.model_validate(
    {
        "name": "shop", "partitions": {"every": "day", "start": "2024-01-01"},
        "source": {"python": "builtins:print", "available": "builtins:print"}, "target": "y",
        "task": "binary", "train": {"window": 3, "holdout": 1},
    }
)  # fmt: skip
SETTINGS = Settings(suspect_models=2)


def asked(members: dict[str, list[bool]]) -> tuple[set[str], dict[str, object]]:
    """Which groups become suspected by alarms of this minute, and what is remembered of each."""
    specs = {
        f"{group}_{n}": SPEC.model_copy(update={"name": f"{group}_{n}", "group": group})
        for group, alarms in members.items()
        for n in range(len(alarms))
    }
    minute = (datetime.now(UTC) - timedelta(minutes=1)).timestamp()
    stored = {
        f"{group}_{n}": [minute, minute if alarm else None]
        for group, alarms in members.items()
        for n, alarm in enumerate(alarms)
    }
    suspects = Suspects.stored({"reports": stored})
    began = suspects.update({}, specs, SETTINGS)
    return set(began), {name: suspects.text(spec, SETTINGS) != "" for name, spec in specs.items()}


ALARMS = st.lists(st.booleans(), max_size=8)


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from(["cars", "shops", "ads"]), ALARMS, min_size=1))
def test_groups_do_not_touch_each_other(members: dict[str, list[bool]]) -> None:
    began, held = asked(members)
    for group, alarms in members.items():
        alone, held_alone = asked({group: alarms})
        assert alone == began & {group}
        assert held_alone == {name: held[name] for name in held_alone}
        assert all(value == (group in began) for value in held_alone.values())
