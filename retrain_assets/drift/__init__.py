"""Drift: how far the world has moved from the data a model was trained on.

    report = compare(reference, current, spec.drift, columns=features,
                     reference_name="champion v7", current_name="2013-03-01")
    report.verdict          # "stable", "drifted", or "undecided" when there is too little data
    report.reasons          # in plain words, the most important first
    report.score            # one number in [0, 1] to plot over time
    report_markdown(report) # a table for the Dagster UI

A feature drifts when an effect size (Kolmogorov-Smirnov, Wasserstein, PSI, Cramér's V, null rate,
new categories) reaches its threshold in the spec *and* its test is significant after correction
over all features. Effects are corrected for what sampling alone produces, so that the thresholds
mean the same for a hundred rows and for a hundred million. `compare` documents the rule.

Modules: `report` (the stored result; knows nothing of how it was computed), `statistics` (pure
formulas with their sources), `compare` (from two Arrow tables to a report; the alarm over several
reports), `render` (Markdown and pictures). Nothing here knows Dagster or MLflow.
"""

from retrain_assets.drift.compare import alarm, compare
from retrain_assets.drift.render import drift_picture, report_markdown
from retrain_assets.drift.report import DriftReport, FeatureDrift, drift_score

__all__ = [
    "DriftReport",
    "FeatureDrift",
    "alarm",
    "compare",
    "drift_picture",
    "drift_score",
    "report_markdown",
]
