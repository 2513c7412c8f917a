"""Output of steps on an object store (moto's server over HTTP) and in a folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from moto.server import ThreadedMotoServer

from retrain_assets.errors import TableError
from retrain_assets.orchestration.compute_logs import ObjectStoreComputeLogManager


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import boto3
    import s3fs

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    # fsspec keeps filesystems for ever, with the address that the environment had at first.
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="logs")
        yield "s3://logs/steps"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["s3", "folder"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = (
        request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path / "logs")
    )
    return f"{found}/{request.node.originalname}"


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two machines' temporary folders; the first one is in use."""
    folders = [tmp_path / "run-pod", tmp_path / "webserver"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folders[0]))
    return folders


def move_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(machine))


@dg.asset
def talkative() -> None:
    print("trained 17 trees")
    print("a warning", file=sys.stderr)


def test_the_webserver_reads_a_step_whose_pod_is_gone(
    base: str, tmp_path: Path, machines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("RETRAIN_COMPUTE_LOGS", base)
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "compute_logs:\n"
        "  module: retrain_assets.orchestration.compute_logs\n"
        "  class: ObjectStoreComputeLogManager\n"
        "  config: {base: {env: RETRAIN_COMPUTE_LOGS}}\n"
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = dg.materialize([talkative], instance=instance)
        (event,) = [e for e in result.all_events if e.event_type_value == "LOGS_CAPTURED"]
        key = [result.run_id, "compute_logs", event.logs_captured_data.file_key]
    move_to(machines[1], monkeypatch)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        manager = instance.compute_log_manager
        assert manager.is_capture_complete(key)
        data = manager.get_log_data(key)
        assert data.stdout == b"trained 17 trees\n"
        assert b"a warning\n" in (data.stderr or b"")
        assert manager.get_log_metadata(key).stdout_location == f"{base}/{'/'.join(key)}.out"


def test_bytes_are_read_from_where_the_reader_stopped(base: str, machines: list[Path]) -> None:
    manager = ObjectStoreComputeLogManager(base)
    with manager.open_log_stream(["run", "step"], ComputeIOType.STDOUT) as stream:
        assert stream is not None
        stream.write("abcdef")
    first = manager.get_log_data(["run", "step"], max_bytes=4)
    second = manager.get_log_data(["run", "step"], first.cursor, max_bytes=4)
    third = manager.get_log_data(["run", "step"], second.cursor, max_bytes=4)
    assert (first.stdout, second.stdout, third.stdout) == (b"abcd", b"ef", b"")
    assert third.cursor == second.cursor


def test_a_step_that_runs_can_be_read_and_ends_with_one_object(
    base: str, machines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ["run", "compute_logs", "step"]
    writer = ObjectStoreComputeLogManager(base)
    with writer.local_manager.capture_logs(key):
        print("so far", flush=True)
        writer.on_progress(key)
        move_to(machines[1], monkeypatch)
        reader = ObjectStoreComputeLogManager(base)
        assert not reader.is_capture_complete(key)
        assert reader.get_log_data(key).stdout == b"so far\n"
    writer.upload_to_cloud_storage(key, ComputeIOType.STDOUT)
    writer.upload_to_cloud_storage(key, ComputeIOType.STDERR)
    assert reader.is_capture_complete(key)
    assert not reader.cloud_storage_has_logs(key, ComputeIOType.STDOUT, partial=True)


def test_deleting_a_run_deletes_its_output_and_nothing_else(
    base: str, machines: list[Path]
) -> None:
    manager = ObjectStoreComputeLogManager(base)
    for run in ("kept", "deleted"):
        with manager.open_log_stream([run, "compute_logs", "step"], ComputeIOType.STDOUT) as stream:
            assert stream is not None
            stream.write(run)
    manager.delete_logs(prefix=["deleted"])
    assert manager.get_log_data(["deleted", "compute_logs", "step"]).stdout is None
    assert manager.get_log_data(["kept", "compute_logs", "step"]).stdout == b"kept"
    manager.delete_logs(log_key=["kept", "compute_logs", "step"])
    assert manager.get_log_data(["kept", "compute_logs", "step"]).stdout is None


def test_a_key_from_a_browser_does_not_leave_the_folder(base: str, machines: list[Path]) -> None:
    manager = ObjectStoreComputeLogManager(base)
    with pytest.raises(TableError, match=r"neither empty parts nor '\.\.', got \['\.\.', 'x'\]"):
        manager.cloud_storage_has_logs(["..", "x"], ComputeIOType.STDOUT)
