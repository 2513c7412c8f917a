"""What all tests share: one PostgreSQL server per test process, and what MLflow servers must not start."""

import os

from integration.postgres import postgres_server

__all__ = ["postgres_server"]

# Otherwise each server keeps half a dozen job runners busy, for features of MLflow that nobody here uses.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
