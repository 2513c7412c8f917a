"""Data of a model: where raw rows come from, what they must look like, features, tables at rest."""
