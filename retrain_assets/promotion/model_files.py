"""A model's native files in the store, under the fingerprint of its training.

Belongs here: writing them while a candidate is made, reading them back for prediction drift. Does not:
versions, which the registry has (`registry`), and which stay the only thing that serves.

Reading a champion's scores from here needs neither mlflow (2 CPU s to import, in every monitor run) nor
its server. Nothing can go stale: a fingerprint names one model, and the files carry its checksum.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.errors import TableError, TrainingError

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.training.model import TabularModel

__all__ = ["copy_model", "load_model", "store_model"]


def store_model(store: "TableStore", name: str, fingerprint: str, model: "TabularModel") -> None:
    """Write the files of a model; writing them again changes nothing.

    Raises:
        TableError: the store cannot be written.
    """
    from retrain_assets.training.model import ENCODING_FILE, MODEL_FILE

    with tempfile.TemporaryDirectory(prefix="retrain-") as folder:
        model.save(Path(folder))
        # The encoding last: it holds the checksum of the other.
        for file in (MODEL_FILE, ENCODING_FILE):
            store.write_bytes(_path(name, fingerprint, file), (Path(folder) / file).read_bytes())


def copy_model(store: "TableStore", name: str, to: str, fingerprint: str) -> None:
    """Store the files under another model's name too; nothing where there are none."""
    from retrain_assets.training.model import ENCODING_FILE, MODEL_FILE

    if store.file_exists(_path(name, fingerprint, ENCODING_FILE)):
        for file in (MODEL_FILE, ENCODING_FILE):
            content = store.read_bytes(_path(name, fingerprint, file))
            store.write_bytes(_path(to, fingerprint, file), content)


def load_model(store: "TableStore", name: str, fingerprint: str) -> "TabularModel | None":
    """The model that was stored; None for one that an earlier release trained.

    Raises:
        TableError: a file is missing, damaged, or of a format that this code does not read.
    """
    from retrain_assets.training.model import ENCODING_FILE, MODEL_FILE, TabularModel

    if not store.file_exists(_path(name, fingerprint, ENCODING_FILE)):
        return None
    with tempfile.TemporaryDirectory(prefix="retrain-") as folder:
        for file in (MODEL_FILE, ENCODING_FILE):
            content = store.read_bytes(_path(name, fingerprint, file))
            (Path(folder) / file).write_bytes(content)
        try:
            return TabularModel.load(Path(folder))
        except TrainingError as error:
            raise TableError(
                f"{name}: the stored files of model {fingerprint} cannot be loaded: {error}; "
                "materialize candidate_model of the champion's partition again"
            ) from error


def _path(name: str, fingerprint: str, file: str) -> str:
    return f"models/{name}/{fingerprint}/{file}"
