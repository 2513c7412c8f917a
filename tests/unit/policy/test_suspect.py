"""Many models that drift together: the rule, its bounds, how it begins and ends."""

from datetime import UTC, datetime, timedelta

import pytest

from retrain_assets.policy import Reported, SuspectRule, Suspicion, suspected

NOW = datetime(2024, 1, 2, 12, tzinfo=UTC)
RULE = SuspectRule(models=10, share=0.5)


def reports(alarmed: int, quiet: int, *, began: timedelta = timedelta(0)) -> list[Reported]:
    return [Reported(NOW, NOW - began)] * alarmed + [Reported(NOW, None)] * quiet


@pytest.mark.parametrize(
    ("alarmed", "quiet", "many"), [(10, 10, True), (9, 0, False), (10, 11, False), (600, 400, True)]
)
def test_it_takes_enough_alarms_and_enough_of_those_that_reported(
    alarmed: int, quiet: int, many: bool
) -> None:
    assert (suspected(RULE, reports(alarmed, quiet), NOW) is not None) == many


def test_alarms_that_began_longer_ago_than_the_window_raise_nothing() -> None:
    old = reports(50, 0, began=timedelta(minutes=61))
    assert suspected(RULE, old, NOW) is None
    assert suspected(RULE, reports(50, 0, began=timedelta(minutes=60)), NOW) is not None


def test_models_that_have_not_reported_do_not_count_as_quiet() -> None:
    silent = [Reported(NOW - timedelta(hours=5), None)] * 900
    assert suspected(RULE, [*reports(20, 0), *silent], NOW) == Suspicion(NOW, 20, 20)


def test_a_suspicion_lasts_as_it_began_while_the_alarms_do() -> None:
    before = Suspicion(NOW - timedelta(hours=5), 30, 40)
    lasting = reports(20, 20, began=timedelta(hours=5))
    assert suspected(RULE, lasting, NOW, before) is before
    assert suspected(RULE, reports(19, 20, began=timedelta(hours=5)), NOW, before) is None


def test_a_suspicion_lapses() -> None:
    before = Suspicion(NOW - timedelta(hours=24), 30, 40)
    assert suspected(RULE, reports(30, 0, began=timedelta(hours=24)), NOW, before) is None
