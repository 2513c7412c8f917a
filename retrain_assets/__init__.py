"""Automated model retraining on Dagster: one YAML file per model."""

__version__ = "0.1.0"
