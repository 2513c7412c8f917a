"""NannyML's estimates for the files that compare.py wrote; runs in an environment of its own.

    python nannyml_estimates.py FOLDER STREAM binary|regression

Prints one JSON object: "origin|chunk|metric" to the estimate; CPU seconds go to standard error.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import nannyml
import pandas as pd

warnings.simplefilter("ignore")


def estimates(frame: pd.DataFrame, task: str) -> dict[str, float]:
    for name in frame.select_dtypes(exclude="number"):
        # As numbers, which it would make of them as well: it cannot encode Arrow strings.
        frame[name] = frame[name].astype("category").cat.codes
    frame["at"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["__chunk"], unit="D")
    reference, analysis = frame[frame["__chunk"] < 100], frame[frame["__chunk"] >= 100]
    common = {"y_pred": "__pred", "y_true": "__y", "timestamp_column_name": "at",
              "chunk_period": "D"}  # fmt: skip
    frame["__pred"] = frame["__score"]
    if task == "binary":
        metrics = ["roc_auc", "average_precision", "accuracy", "f1"]
        reference = reference.assign(__pred=(reference["__score"] >= 0.5).astype(int))
        analysis = analysis.assign(__pred=(analysis["__score"] >= 0.5).astype(int))
        estimator = nannyml.CBPE(
            **common, y_pred_proba="__score", metrics=metrics,
            problem_type="classification_binary",
        )  # fmt: skip
    else:
        metrics = ["mae", "rmse"]
        features = [
            c for c in frame.columns if c not in ("__y", "__score", "__chunk", "at", "__pred")
        ]
        reference, analysis = (
            part.assign(__pred=part["__score"]) for part in (reference, analysis)
        )
        estimator = nannyml.DLE(**common, feature_column_names=features, metrics=metrics)
    estimator.fit(reference)
    found = estimator.estimate(analysis).filter(period="analysis").to_df()
    first = pd.Timestamp("2020-01-01")
    result = {}
    for _, row in found.iterrows():
        chunk = (row[("chunk", "start_date")].normalize() - first).days
        for metric in metrics:
            result[f"{chunk}|{metric}"] = float(row[(metric, "value")])
    return result


def main() -> None:
    folder, stream, task = sys.argv[1:]
    began, result = time.process_time(), {}
    for file in sorted(Path(folder).glob(f"{stream}-*.parquet")):
        origin = file.stem.rpartition("-")[2]
        for key, value in estimates(pd.read_parquet(file), task).items():
            result[f"{origin}|{key}"] = value
    print(
        f"nannyml {nannyml.__version__}: {time.process_time() - began:.1f} CPU s", file=sys.stderr
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
