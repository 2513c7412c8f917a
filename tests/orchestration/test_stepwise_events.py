"""The event log of `retrain now`, against what Dagster's own makes of the same runs and files."""

import contextlib
import multiprocessing
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from orchestration import stepwise_runs
from orchestration.stepwise_runs import PARTITION, execute, executed_as_worker
from sqlalchemy.exc import OperationalError

from retrain_assets.orchestration import event_log
from retrain_assets.orchestration.event_log import StepwiseEventLog, stepwise
from retrain_assets.orchestration.now_runs import for_workers

CONFIG = "telemetry: {enabled: false}\npython_logs: {python_log_level: INFO}\n"


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's own instance, as a webserver or a daemon has it."""
    (tmp_path / "dagster.yaml").write_text(CONFIG, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def worker(stock: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same one in a worker."""
    with dg.DagsterInstance.from_ref(for_workers(stock)) as instance:
        assert isinstance(instance.event_log_storage, StepwiseEventLog)
        yield instance


@contextlib.contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dagster", stepwise_runs.__name__])
    with ProcessPoolExecutor(count, context) as pool:
        yield pool


def types_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    entries = [record.event_log_entry for record in instance.get_records_for_run(run_id).records]
    return [
        e.dagster_event.event_type_value if e.dagster_event else e.user_message for e in entries
    ]


def known(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """What the UI and the sensors ask about a run and its assets."""
    storage = instance.event_log_storage
    records = instance.get_asset_records([stepwise_runs.first.key, stepwise_runs.second.key])
    checks = [
        storage.get_asset_check_execution_history(key, limit=1)[0]
        for key in sorted(stepwise_runs.first.check_keys)
    ]
    stats = instance.get_run_stats(run_id)
    run = instance.get_run_by_id(run_id)
    materialized = instance.fetch_materializations(stepwise_runs.first.key, limit=5).records
    return {
        "status": run.status if run else None,
        "events": types_of(instance, run_id),
        "last runs": {
            r.asset_entry.asset_key: r.asset_entry.last_run_id == run_id for r in records
        },
        "materialized": [
            r.asset_entry.last_materialization_record is not None
            and r.asset_entry.last_materialization_record.run_id == run_id
            for r in records
        ],
        "rows": [r.asset_materialization.metadata for r in materialized if r.asset_materialization],
        "partitions": storage.get_materialized_partitions(stepwise_runs.second.key),
        "checks": [(check.status, check.partition, check.run_id == run_id) for check in checks],
        "stats": (stats.steps_succeeded, stats.steps_failed, stats.materializations),
        "steps": [(s.step_key, s.status) for s in instance.get_run_step_stats(run_id)],
        "ended": len(
            instance.fetch_run_status_changes(dg.DagsterEventType.RUN_SUCCESS, limit=9).records
        ),
    }


def test_dagster_reads_the_same_whoever_wrote(tmp_path: Path) -> None:
    found = []
    for name in ("stock", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "dagster.yaml").write_text(CONFIG, encoding="utf-8")
        run_id = str(uuid.uuid4())
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            if name == "stock":
                assert execute(instance, run_id)
            else:
                with dg.DagsterInstance.from_ref(for_workers(instance)) as worker:
                    assert execute(worker, run_id)
            found.append(known(instance, run_id))
    assert found[0] == found[1]
    assert found[1]["partitions"] == {PARTITION}
    assert found[1]["ended"] == 1


def test_a_second_run_in_the_same_process_has_a_file_of_its_own(
    stock: dg.DagsterInstance, worker: dg.DagsterInstance
) -> None:
    runs = [str(uuid.uuid4()) for _ in range(3)]
    for run_id in runs:
        assert execute(worker, run_id)
    assert types_of(stock, runs[0]) == types_of(stock, runs[2])
    assert types_of(worker, runs[0]) == types_of(stock, runs[0]), "an earlier run stays readable"
    folder = Path(stock.root_directory, "history", "runs")
    assert {path.stem for path in folder.glob("*.db")} == {*runs, "index"}
    leftover = [p.name for p in folder.iterdir() if p.suffix not in (".db", ".db-wal", ".db-shm")]
    assert leftover == []


def test_others_see_a_step_begin_and_what_it_logs_while_it_runs(
    stock: dg.DagsterInstance, worker: dg.DagsterInstance
) -> None:
    seen: list[list[str]] = []
    run_id = str(uuid.uuid4())

    @dg.asset
    def early() -> int:
        return 1

    @dg.asset(deps=[early])
    def late(context: dg.AssetExecutionContext) -> None:
        seen.append(types_of(stock, run_id))
        context.log.info("half way")
        seen.append(types_of(stock, run_id))

    job = dg.Definitions(assets=[early, late]).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=worker, run_id=run_id, run_config=stepwise_runs.QUIET)
    began, logged = seen
    assert began[-1] == "STEP_START"
    assert {"ASSET_MATERIALIZATION", "STEP_SUCCESS"} <= set(began)
    assert logged[-1] == "half way"


def test_a_kill_loses_nothing_that_a_step_said_before_it_ended(stock: dg.DagsterInstance) -> None:
    run_id = str(uuid.uuid4())
    with processes(1) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(executed_as_worker, stock.root_directory, [run_id], True).result()
    assert types_of(stock, run_id)[-1] == "half way"
    assert stock.get_latest_materialization_event(stepwise_runs.first.key) is not None
    assert stock.get_latest_materialization_event(stepwise_runs.second.key) is None
    run = stock.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.STARTED
    stock.report_run_canceled(run)
    assert types_of(stock, run_id)[-1] == "PIPELINE_CANCELED"


def test_workers_and_dagsters_own_processes_never_find_the_files_locked(
    stock: dg.DagsterInstance,
) -> None:
    runs = [[str(uuid.uuid4()) for _ in range(3)] for _ in range(4)]
    own = [str(uuid.uuid4()) for _ in range(3)]
    with processes(4) as pool:
        done = [pool.submit(executed_as_worker, stock.root_directory, ids) for ids in runs]
        for run_id in own:
            assert execute(stock, run_id)
        while not all(future.done() for future in done):
            known(stock, own[0])
        assert [future.result() for future in done] == [[True] * 3] * 4
    expected = types_of(stock, own[0])
    for run_id in (*own, *(one for ids in runs for one in ids)):
        assert types_of(stock, run_id) == expected
    assert len(stock.fetch_materializations(stepwise_runs.second.key, limit=99).records) == 15
    assert known(stock, own[0])["ended"] == 9


def test_what_could_not_be_stored_comes_with_the_next_event(
    stock: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_BUSY_SECONDS", 0.05)
    run_id = str(uuid.uuid4())
    index = Path(stock.root_directory, "history", "runs", "index.db")
    with dg.DagsterInstance.from_ref(for_workers(stock)) as worker:
        assert execute(worker, run_id)
        run = worker.get_run_by_id(run_id)
        assert run is not None
        with contextlib.closing(sqlite3.connect(index, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OperationalError, match="database is locked"):
                worker.report_run_canceled(run, "while locked")
            other.execute("ROLLBACK")
        worker.report_engine_event("later", run)
    entries = [r.event_log_entry for r in stock.get_records_for_run(run_id).records[-2:]]
    assert [e.dagster_event.message for e in entries if e.dagster_event] == [
        "while locked",
        "later",
    ]


def test_output_is_in_the_files_of_the_run_and_not_on_the_terminal(
    stock: dg.DagsterInstance, worker: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = str(uuid.uuid4())
    assert execute(worker, run_id)
    records = stock.get_records_for_run(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED).records
    (captured,) = [r.event_log_entry.get_dagster_event().event_specific_data for r in records]
    key = [run_id, "compute_logs", captured.file_key]
    data = stock.compute_log_manager.get_log_data(key)
    assert data.stdout is not None
    assert b"said on standard output" in data.stdout
    assert stock.compute_log_manager.is_capture_complete(key)
    assert "said on standard output" not in capfd.readouterr().out


def test_an_instance_on_a_server_is_left_as_it_is(stock: dg.DagsterInstance) -> None:
    ref = stock.get_ref()
    assert ref.event_storage_data is not None
    served = ref._replace(
        event_storage_data=ref.event_storage_data._replace(class_name="PostgresEventLogStorage")
    )
    assert stepwise(served) is served


def test_what_is_read_again_is_soon_what_others_have_stored(
    stock: dg.DagsterInstance, worker: dg.DagsterInstance
) -> None:
    key = dg.AssetKey("watched")

    def found() -> list[str | None]:
        records = worker.fetch_materializations(key, limit=9).records
        return [one.partition_key for one in reversed(records)]

    worker.report_runless_asset_event(dg.AssetMaterialization(key, partition="a"))
    assert found() == ["a"]
    stock.report_runless_asset_event(dg.AssetMaterialization(key, partition="b"))
    assert found() in (["a"], ["a", "b"])
    assert found() == ["a", "b"]
    worker.report_runless_asset_event(dg.AssetMaterialization(key, partition="c"))
    assert found() == ["a", "b", "c"], "what this process has stored is there at once"
