"""Specs: one YAML file per model, validated with lines and remedies. Knows nothing of Dagster."""
