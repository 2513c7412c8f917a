"""Where standard output and error of steps go.

Belongs here: to the object store, readable when the pod is gone, which `compute_logs` in
`k8s/base/dagster.yaml` names; to files alone, for `retrain now`. Does not: what is logged, and the event
log.

https://docs.dagster.io/deployment/oss/oss-instance-configuration

Dagster exports no public base of such plugins, though the setting that loads one is public. This
module imports from where Dagster's own ones for three clouds do; it writes wherever fsspec can, with
the credentials that the tables use.
"""

import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import dagster as dg
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.cloud_storage_compute_log_manager import (
    PollingComputeLogSubscriptionManager,
    TruncatingCloudStorageComputeLogManager,
)
from dagster._core.storage.compute_log_manager import (
    CapturedLogContext,
    CapturedLogSubscription,
    ComputeIOType,
)
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from retrain_assets.errors import TableError

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef
    from upath import UPath

__all__ = ["FileComputeLogManager", "ObjectStoreComputeLogManager", "in_files_only"]

_UPLOAD_SECONDS = 10
_PARTIAL = ".partial"


class ObjectStoreComputeLogManager(
    TruncatingCloudStorageComputeLogManager[dg.DagsterInstance], ConfigurableClass
):
    """Captures in a local file, uploads it every ten seconds and at the step's end.

    Layout: `{base}/{run id}/compute_logs/{step}.{out|err}`, with the ending `.partial` while the
    step runs. A reader gets the bytes it asks for straight from the store. At most 50 MB of a stream
    are kept (DAGSTER_TRUNCATE_COMPUTE_LOGS_UPLOAD_BYTES).

    Args:
        base: folder or URL, as in `RETRAIN_STORAGE`.
        inst_data: how Dagster made this object.
    """

    def __init__(self, base: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._base = base
        self._inst_data = inst_data
        self._local = LocalComputeLogManager(
            os.path.join(tempfile.gettempdir(), "retrain-compute-logs")
        )
        self._subscriptions = PollingComputeLogSubscriptionManager(self)  # type: ignore[no-untyped-call]
        self._uploaded: dict[tuple[str, ...], int] = {}

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """How Dagster made this object."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Fields of the setting's `config`."""
        return {"base": dg.StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "ObjectStoreComputeLogManager":
        """The manager that the setting describes."""
        return cls(config_value["base"], inst_data)

    @property
    def local_manager(self) -> LocalComputeLogManager:
        """Captures the streams of this process."""
        return self._local

    @property
    def upload_interval(self) -> int:
        """Seconds between two uploads of a step that runs."""
        return _UPLOAD_SECONDS

    @cached_property
    def _root(self) -> "UPath":
        from upath import UPath

        return UPath(self._base)

    def _path(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> "UPath":
        """Where a stream lies.

        Raises:
            TableError: the key, which may come from a browser, would leave the folder.
        """
        if not log_key or any(part in ("", ".", "..") or "/" in part for part in log_key):
            raise TableError(f"a log's key has neither empty parts nor '..', got {list(log_key)!r}")
        *folders, name = log_key
        ending = f".{IO_TYPE_EXTENSION[io_type]}{_PARTIAL if partial else ''}"
        path: UPath = self._root.joinpath(*folders, name + ending)
        return path

    def _size(self, path: "UPath") -> int | None:
        """Bytes of an object, None where there is none; never from a listing made earlier."""
        path.fs.invalidate_cache(path.parent.path)
        try:
            return int(path.fs.info(path.path)["size"])
        except FileNotFoundError:
            return None

    def cloud_storage_has_logs(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> bool:
        """Whether the stream has been uploaded: all of it, or what there was so far."""
        return self._size(self._path(log_key, io_type, partial)) is not None

    def _upload_file_obj(
        self, data: IO[bytes], log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        path = self._path(log_key, io_type, partial)
        content = data.read()
        stream = (*log_key, io_type.value)
        if partial and self._uploaded.get(stream, 0) == len(content):
            return  # most steps say nothing for minutes
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.fs.pipe_file(path.path, content)
        if partial:
            self._uploaded[stream] = len(content)
        elif self._uploaded.pop(stream, None) is not None:
            self._remove(self._path(log_key, io_type, partial=True))

    def _remove(self, path: "UPath") -> None:
        if self._size(path) is not None:
            path.fs.rm_file(path.path)

    def download_from_cloud_storage(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        """Copy a stream to where the webserver serves downloads from."""
        path = self._path(log_key, io_type, partial)
        target = Path(
            self._local.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type], partial)
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(path.fs.cat_file(path.path))
        temporary.replace(target)

    def get_log_data_for_type(
        self, log_key: Sequence[str], io_type: ComputeIOType, offset: int, max_bytes: int | None
    ) -> tuple[bytes | None, int]:
        """Bytes of a stream from `offset` on, and the offset after them; None where there is none."""
        if self.has_local_file(log_key, io_type):
            local = self._local.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type])
            data, after = self._local.read_path(local, offset, max_bytes)
            return data, after
        for partial in (False, True):
            path = self._path(log_key, io_type, partial)
            size = self._size(path)
            if size is None:
                continue
            end = size if max_bytes is None else min(size, offset + max_bytes)
            if end <= offset:
                return b"", offset
            content: bytes = path.fs.cat_file(path.path, start=offset, end=end)
            return content, offset + len(content)
        return None, offset

    def download_url_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str | None:
        """The webserver's own address for it: readers have no credentials of the store."""
        url: str = self._local.get_captured_log_download_url(log_key, io_type)  # type: ignore[no-untyped-call]
        return url

    def display_path_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str:
        """Where the stream lies."""
        return str(self._path(log_key, io_type))

    def delete_logs(
        self, log_key: Sequence[str] | None = None, prefix: Sequence[str] | None = None
    ) -> None:
        """Delete a step's streams, or everything below `prefix`: a deleted run's."""
        self._local.delete_logs(log_key=log_key, prefix=prefix)
        if log_key:
            for io_type in ComputeIOType:
                for partial in (False, True):
                    self._remove(self._path(log_key, io_type, partial))
        elif prefix:
            folder = self._path([*prefix, "all"], ComputeIOType.STDOUT).parent
            folder.fs.invalidate_cache(folder.path)
            if folder.fs.exists(folder.path):
                folder.fs.rm(folder.path, recursive=True)

    def on_subscribe(self, subscription: CapturedLogSubscription) -> None:
        """Show a reader what comes, by asking again every few seconds."""
        self._subscriptions.add_subscription(subscription)

    def on_unsubscribe(self, subscription: CapturedLogSubscription) -> None:
        """The reader has gone."""
        self._subscriptions.remove_subscription(subscription)

    def dispose(self) -> None:
        """End the threads."""
        self._subscriptions.dispose()
        super().dispose()  # type: ignore[no-untyped-call]


def in_files_only(instance: "InstanceRef") -> "InstanceRef":
    """The instance for a worker without a terminal; as it is where output does not go to local files."""
    data = instance.compute_logs_data
    if data.class_name != LocalComputeLogManager.__name__:
        return instance
    ours = ConfigurableClassData(__name__, FileComputeLogManager.__name__, data.config_yaml)
    return instance._replace(compute_logs_data=ours)


class FileComputeLogManager(LocalComputeLogManager):
    """Dagster's files without the four processes per run that repeat them on the terminal."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "FileComputeLogManager":
        """The manager that the setting describes."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Send what this process and its children write to the files of a step."""
        out, error = (
            self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        )
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with redirect_to_file(sys.stdout, out), redirect_to_file(sys.stderr, error):
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()  # type: ignore[no-untyped-call]
