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

Modules: `report` (the stored result; knows nothing of how it was computed); `statistics` and `tails`
(pure formulas with their sources); `columns` (files and tables read column by column); `grid`,
`kernels`, `findings`, `ranks`, `exact` (two columns, exactly); `categories`, `profile`, `intervals`
(stored summaries); `measure` (what moved in a column); `verdict` (the decision, the alarm);
`calibration` (thresholds from the reference's own partitions); `multivariate` and `correlation` (all
columns together); `outcomes` (scores and labels); `sections` (both, for a partition); `history`
(reports over time); `pictures`, `render` and `page` (SVG, Markdown, HTML); `stored` and `reference`
(profiles at rest, what a champion was trained on); `watch` (which partitions); `command`. Nothing
here knows Dagster or MLflow. What is exported here is imported when it is first used, because the
command line pays for every import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrain_assets.drift.calibration import Calibration, calibrate
    from retrain_assets.drift.columns import open_table
    from retrain_assets.drift.profile import TableProfile, build_profile
    from retrain_assets.drift.render import report_markdown
    from retrain_assets.drift.report import DriftReport, FeatureDrift, drift_score
    from retrain_assets.drift.verdict import alarm, compare

__all__ = [
    "Calibration",
    "DriftReport",
    "FeatureDrift",
    "TableProfile",
    "alarm",
    "build_profile",
    "calibrate",
    "compare",
    "drift_score",
    "open_table",
    "report_markdown",
]

_MODULES = {
    "Calibration": "calibration",
    "DriftReport": "report",
    "FeatureDrift": "report",
    "TableProfile": "profile",
    "alarm": "verdict",
    "build_profile": "profile",
    "calibrate": "calibration",
    "compare": "verdict",
    "drift_score": "report",
    "open_table": "columns",
    "report_markdown": "render",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # a function hides the module of its name
    return value
