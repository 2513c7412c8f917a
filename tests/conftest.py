"""What all tests share: one PostgreSQL server and one object store per process, and what MLflow must not start."""

import os

from integration.object_store import object_store, object_store_environment
from integration.postgres import postgres_server

__all__ = ["object_store", "object_store_environment", "postgres_server"]

# Otherwise each server keeps half a dozen job runners busy, for features of MLflow that nobody here uses.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
