"""Which models a tick looks at: what changed, what waits, and the next few in turn."""

import pytest
from orchestration.harness import World

from retrain_assets.orchestration import turns
from retrain_assets.orchestration.turns import Turn

NAMES = [f"m{n:02d}" for n in range(12)]


@pytest.fixture
def large(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fleet of which a tick looks at three in turn, and at four others."""
    monkeypatch.setattr(turns, "IN_TURN", 3)
    monkeypatch.setattr(turns, "AT_ONCE", 4)
    for name in NAMES[:2]:
        world.add(name)
    return world


def tick(world: World, turn: Turn) -> tuple[list[str], Turn]:
    """What a tick chooses, and what the next one finds in the cursor."""
    chosen = turn.choose(world.instance, NAMES)
    return chosen, Turn.stored(turn.to_store())


def settled(world: World) -> Turn:
    """A turn that has looked at everything once."""
    turn = Turn()
    for _ in range(4):
        _, turn = tick(world, turn)
    assert turn.queue == []
    return turn


def test_the_first_ticks_look_at_everything_a_bounded_number_at_a_time(large: World) -> None:
    turn, seen = Turn(), []
    for _ in range(3):
        chosen, turn = tick(large, turn)
        assert len(chosen) <= 7
        seen += chosen
    assert set(seen) == set(NAMES)


def test_without_news_all_are_looked_at_in_turn(large: World) -> None:
    turn, seen = settled(large), []
    for _ in range(4):
        chosen, turn = tick(large, turn)
        seen += chosen
    assert sorted(seen) == NAMES


def test_the_models_of_a_run_that_ended_come_at_once_and_only_once(large: World) -> None:
    turn = settled(large)
    with large.monitoring_in_flight("m01"):
        pass
    chosen, turn = tick(large, turn)
    assert "m01" in chosen
    following = []
    for _ in range(2):
        chosen, turn = tick(large, turn)
        following.append(chosen)
    assert sum("m01" in chosen for chosen in following) <= 1, "in its turn at most"


def test_who_was_not_served_is_first_and_who_waits_is_last(large: World) -> None:
    turn = settled(large)
    turn.queue = ["m05"]
    turn.again(open_=["m01"], first=["m09"])
    assert turn.queue == ["m09", "m05", "m01"]
    chosen, _ = tick(large, turn)
    assert chosen[:3] == ["m09", "m05", "m01"]


def test_models_that_are_gone_are_forgotten(large: World) -> None:
    turn = settled(large)
    turn.queue = ["gone"]
    chosen, _ = tick(large, turn)
    assert "gone" not in chosen


def test_the_only_run_of_a_model_since_its_last_look_is_known(large: World) -> None:
    turn = settled(large)
    with large.monitoring_in_flight("m01"):
        (run,) = large.instance.get_runs(limit=1)
    turn.choose(large.instance, NAMES)
    assert turn.sole_runs == {"m01": run.run_id}
    turn.choose(large.instance, NAMES)
    assert turn.sole_runs == {}, "it is known from then on"


def test_of_two_runs_or_after_a_wait_no_run_is_the_only_one(large: World) -> None:
    turn = settled(large)
    for _ in range(2):
        with large.monitoring_in_flight("m00"):
            pass
    with large.monitoring_in_flight("m01"):
        pass
    turn.queue = ["m01"]
    turn.choose(large.instance, NAMES)
    assert turn.sole_runs == {}
