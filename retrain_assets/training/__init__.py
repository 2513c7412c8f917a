"""Training and judging one candidate: split, trainer, baselines, metrics, evaluation, pictures.

Belongs here: everything between a feature table and the arrays on which the gate decides. Does not:
reading tables, registries, the gate's statistics, the orchestrator. Nothing is imported here, so
that a process pays only for the module that it uses.
"""
