"""The status of a whole fleet from real runs: what is read, what is reported, and how rarely."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from click.testing import CliRunner
from orchestration.harness import World, base_spec, day, days, succeeded

from retrain_assets.cli import _forget_status, main
from retrain_assets.errors import LedgerError
from retrain_assets.fleet.shared_snapshot import SharedSnapshot
from retrain_assets.fleet.snapshot import Snapshot, specs_digest
from retrain_assets.fleet.status import StatusRow
from retrain_assets.orchestration import fleet_status as module
from retrain_assets.orchestration import status
from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.dashboard import FleetReader
from retrain_assets.orchestration.fleet_status import FLEET_STATUS
from retrain_assets.orchestration.keys import monitor_keys
from retrain_assets.orchestration.status import read_fleet, status_rows
from retrain_assets.spec.loading import load_specs


def rows(world: World) -> dict[str, StatusRow]:
    found = status_rows(world.instance, world.platform, load_specs(world.specs_folder))
    return {row.model: row for row in found}


def test_a_row_says_what_the_model_s_life_has_brought(world: World) -> None:
    world.add(
        gate={"floor": 0.55}, group="shop", freshness={"raw_data": {"fail": "48h"}},
        retrain={"on_drift": False},
    )  # fmt: skip
    champion = world.first_champion()
    succeeded(world.ingest(day(7)))
    row = rows(world)["churn"]
    assert (row.state, row.group, row.champion) == ("healthy", "shop", champion.version)
    assert (row.bound, row.meets, row.value) == (0.55, True, champion.value)
    assert (row.newest, row.freshness, row.stale) == (day(7), "ok", "")
    assert row.drift_score is not None
    assert row.trend[-1] == pytest.approx(row.drift_score, abs=0.001)
    assert len(row.trend) == 7
    assert (row.last_run, row.promotions, row.rejections) == ("SUCCESS", 1, 0)
    assert row.week_runs == {"monitor success": 2, "retrain success": 1}
    assert 0 < (row.last_run_seconds or 0) < row.week_seconds
    assert row.links["run"].endswith(str(row.last_run_id))
    assert row.decision is not None
    assert datetime.fromisoformat(str(row.decided_at)) > datetime.now(UTC) - timedelta(minutes=5)


def test_the_last_run_is_found_where_no_run_is_of_this_week(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    world.first_champion()
    newest = rows(world)["churn"]
    monkeypatch.setattr(status, "_WEEK", timedelta(0))
    row = rows(world)["churn"]
    assert row.week_runs == {}
    run = world.instance.get_run_by_id(str(row.last_run_id))
    assert run is not None
    assert run.tags["retrain/kind"] == "retrain", "its promoted_model was made by no monitor run"
    assert row.last_run_id == newest.last_run_id


def test_a_champion_below_its_bound_does_not_meet_it(world: World) -> None:
    world.add(gate={"floor": 0.9}, retrain={"on_performance": {"floor": 0.95}})
    world.promote(day(6))
    row = rows(world)["churn"]
    assert (row.value, row.bound, row.meets) == (0.8, 0.95, False)


def test_a_rejected_candidate_is_not_a_failure(world: World) -> None:
    world.add(gate={"floor": 1.0})
    succeeded(world.ingest(*days(1, 6)))
    (run,) = world.loop.tick("freshness_sensor")
    assert run.rejected
    row = rows(world)["churn"]
    assert (row.state, row.rejections, row.champion) == ("rejected", 1, None)
    assert row.note.startswith("v1 was not promoted: ")


def test_a_model_without_a_spec_is_retired_and_keeps_its_champion(world: World) -> None:
    world.add()
    world.add("gone")
    world.promote(day(1), "gone")
    world.promote(day(1))
    (world.specs_folder / "gone.yaml").unlink()
    (world.specs_folder / "torn.yaml").write_text("name: torn\n", encoding="utf-8")
    found = rows(world)
    assert {name: row.state for name, row in found.items()} == {
        "torn": "broken", "churn": "healthy", "gone": "retired",
    }  # fmt: skip
    assert (found["gone"].champion, found["gone"].promotions) == ("1", 1)
    assert "asset" in found["gone"].links


def test_a_former_name_of_a_model_is_not_retired(world: World) -> None:
    world.add("old")
    world.promote(day(1), "old")
    (world.specs_folder / "old.yaml").unlink()
    world.add("new", renamed_from="old")
    found = rows(world)
    assert list(found) == ["new"]
    assert found["new"].champion == "1", "the former name's, until the sensor has copied it"


def test_of_a_shared_run_only_the_model_whose_step_failed_is_failing(world: World) -> None:
    for name in ("churn", "sales"):
        world.add(name)
    world.say(bad={"sales": [day(1)]})
    world.materialize([*monitor_keys("churn"), *monitor_keys("sales")], day(1))
    states = {name: row.state for name, row in rows(world).items()}
    assert states == {"churn": "waiting", "sales": "failing"}


def test_a_fleet_is_read_in_the_same_number_of_queries_whatever_its_size(world: World) -> None:
    counts: list[int] = []
    for size in (2, 2, 12):  # the first read makes the ledger's tables
        for n in range(size):
            path = world.specs_folder / f"m{n}.yaml"
            path.write_text(_spec_text(world, f"m{n}"), encoding="utf-8")
            world.report("features", day(1), f"m{n}")
        queries: list[str] = []

        def count(_connection: Any, _cursor: Any, text: str, *rest: Any) -> None:
            queries.append(text)  # noqa: B023

        sa.event.listen(sa.engine.Engine, "before_cursor_execute", count)
        assert len(rows(world)) == size
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", count)
        counts.append(len(queries))
    assert counts[1] == counts[2]


def _spec_text(world: World, name: str) -> str:
    return yaml.safe_dump(base_spec(name, world.folder))


# ---------------------------------------------------------------------------------------- the asset


def _tick(world: World, cursor: str | None = None) -> tuple[Any, str | None]:
    defs = build_definitions(world.specs_folder, world.settings)
    repository = defs.get_repository_def()
    context = dg.build_sensor_context(
        instance=world.instance, cursor=cursor, repository_def=repository,
        resources={"platform": world.platform}, sensor_name="fleet_status_sensor",
    )  # fmt: skip
    with context:
        result = repository.get_sensor_def("fleet_status_sensor").evaluate_tick(context)
    return result, result.cursor


def test_the_sensor_reports_the_fleet_without_a_run_and_leaves_the_snapshot(world: World) -> None:
    world.add()
    world.first_champion()
    before = world.instance.get_runs_count()
    result, cursor = _tick(world)
    assert result.run_requests == []
    assert world.instance.get_runs_count() == before
    (event,) = result.asset_events
    assert event.asset_key == FLEET_STATUS
    assert event.metadata["models"].value == 1
    assert event.metadata["state/healthy"].value == 1
    assert "| churn | healthy | v1" in event.metadata["fleet"].value
    assert event.metadata["trends"].value.startswith("![drift scores](data:image/svg+xml,")
    left = _left(world)
    assert left is not None
    assert [row.model for row in left.rows] == ["churn"]
    assert cursor is not None


def _shifted(cursor: str | None, seconds: float) -> str:
    state = json.loads(cursor or "")
    return json.dumps(
        state | {"at": state["at"] - seconds, "reported": state["reported"] - seconds}
    )


def test_it_renews_after_a_run_has_ended_and_each_hour_and_never_for_itself(world: World) -> None:
    world.add()
    succeeded(world.ingest(day(1)))
    _, cursor = _tick(world)
    assert _tick(world, cursor)[0].asset_events == [], "a moment ago"
    assert _tick(world, _shifted(cursor, 120))[0].asset_events == [], "nothing has ended"
    assert len(_tick(world, _shifted(cursor, 3700))[0].asset_events) == 1
    succeeded(world.ingest(day(2)))
    assert _tick(world, cursor)[0].asset_events == [], "not at once"
    result, renewed = _tick(world, _shifted(cursor, 120))
    assert len(result.asset_events) == 1
    assert _tick(world, _shifted(renewed, 120))[0].asset_events == []


def _left(world: World, max_age_seconds: float = 60.0) -> Snapshot | None:
    found = SharedSnapshot(world.platform.ledger).read(specs_digest([world.specs_folder]))
    if found is None or not found.is_young(datetime.now(UTC), max_age_seconds):
        return None
    return found


def _aged(world: World, cursor: str | None, seconds: float) -> str:
    """The snapshot and what was said of it, so many seconds later."""
    shared = SharedSnapshot(world.platform.ledger)
    found = shared.read(specs_digest([world.specs_folder]))
    assert found is not None
    earlier, confirmed = found.as_of - timedelta(seconds=seconds), found.confirmed_at
    shared.forget()
    shared.leave(replace(found, as_of=earlier))
    if confirmed is not None:
        shared.confirm(earlier, confirmed - timedelta(seconds=seconds))
    state = json.loads(_shifted(cursor, seconds))
    then = datetime.fromisoformat(state["as_of"]) - timedelta(seconds=seconds)
    return json.dumps(state | {"as_of": then.isoformat()})


def test_a_snapshot_stays_young_while_nothing_happens_and_the_sensor_says_so(world: World) -> None:
    world.add()
    world.first_champion()
    _, cursor = _tick(world)
    cursor = _aged(world, cursor, 300)
    assert _left(world) is None, "nobody has looked for five minutes"
    result, cursor = _tick(world, cursor)
    assert result.asset_events == []
    found = _left(world)
    assert found is not None
    assert found.confirmed_at is not None
    assert 290 < (found.confirmed_at - found.as_of).total_seconds() < 360
    _aged(world, cursor, 90)
    assert _left(world) is None, "a daemon that has stopped confirms nothing"


def test_a_snapshot_is_confirmed_for_ten_minutes_since_the_clock_changes_rows_too(
    world: World,
) -> None:
    world.add()
    world.first_champion()
    _, cursor = _tick(world)
    read_before = _left(world)
    result, cursor = _tick(world, _aged(world, cursor, 700))
    assert result.asset_events == [], "nothing that the asset's history should tell of"
    found = _left(world)
    assert read_before is not None
    assert found is not None
    assert found.confirmed_at is None, "it was read anew"
    assert found.as_of > read_before.as_of


def _run_ends(world: World) -> None:
    succeeded(world.ingest(day(7)))


def _run_starts(world: World) -> None:
    world.instance.add_run(
        dg.DagsterRun("retrain", run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED)
    )


def _decision_is_taken(world: World) -> None:
    (entry,) = world.platform.decisions.last("churn", 1)
    world.platform.decisions.record([replace(entry, state="another")])


def _specs_change(world: World) -> None:
    path = world.specs_folder / "another.yaml"
    path.write_text(_spec_text(world, "another"), encoding="utf-8")


@pytest.mark.parametrize("change", [_run_ends, _run_starts, _decision_is_taken, _specs_change])
def test_what_happens_makes_the_snapshot_old(
    world: World, change: Callable[[World], object]
) -> None:
    world.add()
    world.first_champion()
    _, cursor = _tick(world)
    cursor = _aged(world, cursor, 65)
    before = _left(world, 3600)
    change(world)
    _, cursor = _tick(world, cursor)
    found = _left(world)
    assert before is not None
    assert found is not None
    assert (found.confirmed_at, found.as_of > before.as_of) == (None, True)


def test_a_snapshot_that_was_removed_is_read_anew_though_nothing_has_happened(world: World) -> None:
    world.add()
    world.first_champion()
    _, cursor = _tick(world)
    cursor = _aged(world, cursor, 65)
    SharedSnapshot(world.platform.ledger).forget()
    assert _left(world) is None
    _tick(world, cursor)
    found = _left(world)
    assert found is not None
    assert found.confirmed_at is None


def test_a_large_fleet_is_read_less_often(world: World) -> None:
    world.add()
    _, cursor = _tick(world)
    slow = json.dumps(
        json.loads(_shifted(cursor, 120)) | {"took": 5.0, "ended": "another", "happened": []}
    )
    assert _tick(world, slow)[0].asset_events == []
    assert len(_tick(world, _shifted(slow, 300))[0].asset_events) == 1


def test_without_the_ledger_the_tick_says_why_and_asks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()

    def away(*arguments: Any) -> None:
        raise LedgerError("promotion ledger: away")

    monkeypatch.setattr(module, "read_fleet", away)
    result, cursor = _tick(world)
    assert cursor is None
    assert result.skip_message == "the status cannot be read: promotion ledger: away"


def test_a_person_can_materialize_it(world: World) -> None:
    world.add()
    run = world.materialize([FLEET_STATUS], None)
    assert run.success, run.error
    event = world.instance.get_latest_materialization_event(FLEET_STATUS)
    assert event is not None
    assert rows(world)["churn"].last_run is None, "its own run is nobody's"


# ------------------------------------------------------------------------- dashboard, command line


def test_the_dashboard_reads_rows_and_the_history_of_one_model(world: World) -> None:
    world.add()
    world.first_champion()
    reader = FleetReader(world.specs_folder, world.instance, world.platform)
    assert [row.model for row in reader.snapshot().rows] == ["churn"]
    found = reader.history("churn")
    assert found is not None
    assert [one["partition"] for one in found["drift"]] == days(1, 6)
    assert [one["kind"] for one in found["promotions"]] == ["promotion"]
    assert found["decisions"][0]["said"] == "retrained (first)"
    assert found["metric"][0]["kind"] == "holdout"
    assert json.loads(json.dumps(found)) == found
    assert reader.history("nobody") is None
    world.specs_folder.joinpath("sales.yaml").write_text(_spec_text(world, "sales"))
    assert {row.model for row in reader.snapshot().rows} == {"churn", "sales"}


def test_the_command_shows_a_young_snapshot_and_reads_again_when_told(
    stored_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stored_world
    world.add()
    world.promote(day(1))
    monkeypatch.setenv("RETRAIN_HOME", str(world.settings.home))
    monkeypatch.setenv("DAGSTER_HOME", str(world.folder / "dagster"))

    def status(*arguments: str) -> str:
        result = CliRunner().invoke(
            main, ["status", "--specs", str(world.specs_folder), *arguments]
        )
        assert result.exit_code == 0, result.output
        return result.output

    assert "1 model: 1 healthy" in status()
    world.promote(day(2))
    assert "v1 " in status()
    assert "v2 " in status("--max-age", "0")
    assert "v2 " in status(), "what was just read is what others see"
    assert json.loads(status("--json", "--state", "drifting"))["models"] == []
    assert "0 models" in status("--group", "nobody")
    page = world.folder / "fleet.html"
    assert status("--html", str(page)) == f"wrote {page}\n"
    assert '"model":"churn"' in page.read_text(encoding="utf-8")
    world.promote(day(3))
    _tick(world)
    assert "v3 " in status(), "what the sensor has read since"
    _forget_status(world.platform)
    world.promote(day(4))
    assert "v4 " in status(), "neither is left"
    (world.specs_folder / "churn.yaml").unlink()
    assert "1 model: 1 retired" in status(), "other specs, another status"
    assert "retired" in status("churn", "--max-age", "0")


def test_read_fleet_says_from_when_on_runs_are_counted(world: World) -> None:
    world.add()
    found = read_fleet(world.instance, world.platform, world.specs, "key")
    assert found.as_of - found.runs_since == timedelta(days=7)
