"""TabularModel: a trained LightGBM model with everything that is needed to score raw columns.

Belongs here: prediction, and the two files that a model is stored as. Does not: training
(`lightgbm_trainer`), registries. Nothing is pickled: `model.txt` is LightGBM's text format and
`encoding.json` holds columns, category maps, classes and the text's checksum.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.encoding import Encoding, Label

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

    from retrain_assets.spec.model import Task

__all__ = ["ENCODING_FILE", "FORMAT_VERSION", "MODEL_FILE", "TabularModel"]

MODEL_FILE = "model.txt"
ENCODING_FILE = "encoding.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class TabularModel:
    """A model that scores tables of raw feature columns.

    Attributes:
        booster: the LightGBM model, with neutral feature names (LightGBM refuses some characters).
        encoding: columns and category maps.
        task: what it predicts.
        target: the column it was trained on.
        classes: labels of a classification, sorted; binary: the last is the positive one.
        n_rows: training rows.
        n_dropped: rows that were left out because they had no target.
    """

    booster: "lightgbm.Booster"
    encoding: Encoding
    task: "Task"
    target: str
    classes: tuple[Label, ...] | None
    n_rows: int
    n_dropped: int

    def predict(self, frame: "pd.DataFrame") -> NDArray[np.float64]:
        """Scores of the rows, in their order.

        Columns may come in any order; absent ones count as missing, unknown ones are ignored,
        categories that training did not see count as missing.

        Returns:
            binary: probability of the last class, shape (n,); multiclass: probabilities in the
            order of `classes`, shape (n, k); regression: the target's unit, (n,); ranking: scores
            that only compare within a group, (n,).

        Raises:
            TrainingError: no feature column is there, or values of another kind than in training.
        """
        return self.score(self.encoding.matrix(frame))

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of rows that are encoded already, as those of `predict`.

        Args:
            matrix: as from `encoding.matrix`, shape (n, features).
        """
        if not len(matrix):
            k = len(self.classes) if self.task == "multiclass" and self.classes else 0
            return np.empty((0, k) if k else (0,))
        return np.asarray(self.booster.predict(matrix), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write `model.txt` and `encoding.json` into `folder`, which is made where needed."""
        folder.mkdir(parents=True, exist_ok=True)
        text = self.booster.model_to_string(num_iteration=-1).encode()
        document = {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "target": self.target,
            "classes": None if self.classes is None else list(self.classes),
            "columns": self.encoding.to_json(),
            "n_rows": self.n_rows,
            "n_dropped": self.n_dropped,
            "model_sha256": hashlib.sha256(text).hexdigest(),
        }
        (folder / MODEL_FILE).write_bytes(text)
        # Last, because it vouches for the model file: without it nothing is loaded.
        (folder / ENCODING_FILE).write_text(
            json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False), encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> "TabularModel":
        """The model that `save` wrote; its predictions are bitwise the same.

        Raises:
            TrainingError: a file is absent or damaged, or of a format that this code does not read.
        """
        document = _read_document(folder / ENCODING_FILE)
        path = folder / MODEL_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise TrainingError(f"model file '{path}' cannot be read: {error}") from error
        digest = hashlib.sha256(text).hexdigest()
        if digest != document["model_sha256"]:
            raise TrainingError(
                f"model file '{path}' is damaged: its checksum must be "
                f"{document['model_sha256'][:12]}..., got {digest[:12]}...; fetch or train it again"
            )
        classes = document["classes"]
        return cls(
            booster=booster_from_text(text.decode()),
            encoding=Encoding.from_json(document["columns"]),
            task=cast("Task", document["task"]),
            target=document["target"],
            classes=None if classes is None else tuple(classes),
            n_rows=document["n_rows"],
            n_dropped=document["n_dropped"],
        )


def booster_from_text(text: str) -> "lightgbm.Booster":
    """LightGBM's model from its text format.

    Raises:
        TrainingError: LightGBM cannot read it.
    """
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise TrainingError(f"LightGBM cannot read the model text: {error}") from error


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"model file '{path}' cannot be read: {error}") from error
    except ValueError as error:
        raise TrainingError(f"model file '{path}' is damaged: {error}") from error
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise TrainingError(
            f"model file '{path}' must have format_version {FORMAT_VERSION}, got {version}; "
            "install the release of retrain-assets that wrote it, or train again"
        )
    return document
