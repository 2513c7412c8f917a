"""The environment as one object: where tables, models, the ledger live, and which executor runs.

Every setting is an environment variable `RETRAIN_<NAME>`. Nothing else in the package reads the
environment, except connection fields of specs (`${NAME}`) and alert targets (`RETRAIN_ALERT_<NAME>`).
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from retrain_assets.errors import SettingsError
from retrain_assets.spec.types import Duration

__all__ = ["Settings"]


def _names(value: Any) -> Any:
    """Names between commas."""
    if isinstance(value, str):
        return tuple(name for part in value.split(",") if (name := part.strip()))
    return value


class Settings(BaseSettings):
    """Settings of this process, read when it is made.

    Attributes:
        home: folder of everything that has no address of its own.
        storage: URI of tables, reports and evidence (any fsspec protocol).
        mlflow_uri: MLflow tracking and registry URI.
        mlflow_artifacts: URI where MLflow stores model files; a server has its own.
        ledger_url: SQLAlchemy URL of the promotion ledger.
        executor: how the steps of a run are executed.
        sensor_interval_seconds: least time between two evaluations of a sensor; Dagster's daemon
            looks every 5 s, so a smaller number means at every look.
        automation: whether sensors and schedules are on when they are first seen.
        models: only these models are loaded, comma-separated; for a process that executes one run of
            theirs, which need not build the definitions of all others.
        dagster_url: address of the Dagster UI, for links.
        mlflow_url: address of the MLflow UI, for links; by default `mlflow_uri` where that is a server,
            else there are none.
        parallel_runs: over how many runs the retrainings of one tick are spread; what the instance
            lets run at once (`concurrency.runs.max_concurrent_runs`).
        batch_size: most models that one run retrains; those with a section `resources` go alone.
        suspect_models, suspect_share, suspect_window, suspect_hold: so many models of a group, and
            so large a part of those that reported within the window, raising the drift alarm anew
            within it: the data is suspected, and their drift retrainings are held so long at most.
        dagster_url: address of the Dagster UI, for links in alerts.
    """

    # Addresses may hold passwords, so they are left out of repr(), which logs and tracebacks show.

    model_config = SettingsConfigDict(
        env_prefix="RETRAIN_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Path(".retrain")
    storage: str = Field("", repr=False)
    mlflow_uri: str = Field("", repr=False)
    mlflow_artifacts: str = Field("", repr=False)
    ledger_url: str = Field("", repr=False)
    executor: Literal["in_process", "multiprocess", "k8s"] = "in_process"
    sensor_interval_seconds: int = Field(1, ge=1)
    parallel_runs: int = Field(4, ge=1)
    batch_size: int = Field(10, ge=1)
    suspect_models: int = Field(10, ge=2)
    suspect_share: float = Field(0.5, gt=0, le=1)
    suspect_window: Duration = timedelta(hours=1)
    suspect_hold: Duration = timedelta(hours=24)
    automation: bool = True
    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    dagster_url: str = "http://127.0.0.1:3000"
    mlflow_url: str = Field("", repr=False)

    def model_post_init(self, context: Any) -> None:
        """Fill in what follows from `home`; frozen, so through object.__setattr__."""
        home = self.home.expanduser().absolute()
        derived = {
            "home": home,
            "storage": self.storage or str(home / "storage"),
            "mlflow_artifacts": self.mlflow_artifacts
            or ("" if self.mlflow_uri.startswith("http") else str(home / "mlartifacts")),
            "mlflow_uri": self.mlflow_uri or f"sqlite:///{home / 'mlflow.db'}",
            "mlflow_url": self.mlflow_url or _shown(self.mlflow_uri),
            "ledger_url": self.ledger_url or f"sqlite:///{home / 'ledger.db'}",
        }
        self.__dict__.update(derived)

    @classmethod
    def load(cls, **overrides: Any) -> "Settings":
        """Settings from the environment and `overrides`.

        Raises:
            SettingsError: naming every unusable variable, its rule and its value.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            lines = [
                f"RETRAIN_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}, got {e['input']!r}"
                for e in error.errors(include_url=False)
            ]
            raise SettingsError("unusable settings:\n  " + "\n  ".join(lines)) from None

    @property
    def dagster_home(self) -> Path:
        """Folder of the local Dagster instance."""
        return self.home / "dagster"


def _shown(uri: str) -> str:
    """The address of a server as people may see it, without user and password; "" of a database."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
