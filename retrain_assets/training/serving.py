"""How a registry loads a stored model back: MLflow's `loader_module` protocol.

Belongs here: the one function that MLflow calls, and the object it expects. Does not: mlflow
itself, which is not needed. A module of the installed package, because code stored beside a model
is shared between models that one process loads.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingError
from retrain_assets.training.model import TabularModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ServedModel"]


class ServedModel:
    """A loaded model as a registry wants it; `model` is the model itself."""

    def __init__(self, model: TabularModel) -> None:
        self.model = model

    def predict(
        self, frame: "pd.DataFrame", params: dict[str, Any] | None = None
    ) -> NDArray[np.float64]:
        """Scores as `TabularModel.predict` gives them.

        Raises:
            TrainingError: `params` are given, which this model does not have, or bad columns.
        """
        if params:
            raise TrainingError(f"predict takes no params, got {', '.join(sorted(params))}")
        return self.model.predict(frame)


def _load_pyfunc(data_path: str) -> ServedModel:
    """Called by MLflow with the folder that `TabularModel.save` wrote."""
    return ServedModel(TabularModel.load(Path(data_path)))
