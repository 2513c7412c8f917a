"""Share of partitions without drift that a tool calls drifted, on the six streams.

    python bench/drift/calibration/false_alarms.py retrain   --draws 100 --json WORK/alarms_retrain.json
    EVIDENTLY_PYTHON bench/drift/calibration/false_alarms.py evidently --draws 15 --json …

Belongs here: asking each tool in the way that its documentation shows first. Does not: tables
(`tables`). Runs in the environment of the tool that it asks.
"""

import argparse
import json
import time
import warnings
from importlib.metadata import version

import pyarrow as pa
import streams


class Retrain:
    """`retrain drift` ("any change") and a model spec's default ("spec"), each also calibrated."""

    def __init__(self):
        from retrain_assets.drift.command import _SMALL, _Rules
        from retrain_assets.spec.model import Drift

        self.version = version("retrain-assets")
        self.rules = {"any change": _Rules(thresholds=_SMALL), "spec": Drift()}

    def judge(self, reference, currents):
        """Per current partition and rule: whether it is called drifted, and the columns."""
        from retrain_assets.drift import build_profile, calibrate, compare
        from retrain_assets.drift.columns import ArrowSource

        whole = build_profile(ArrowSource(pa.concat_tables(reference)))
        profiles = [build_profile(ArrowSource(part), like=whole) for part in reference]
        columns = reference[0].column_names
        answers = [{} for _ in currents]
        for name, rules in self.rules.items():
            known = calibrate(profiles, rules, columns)
            for answer, current in zip(answers, currents, strict=True):
                for label, calibration in ((name, None), (f"{name}, calibrated", known)):
                    report = compare(
                        whole, current, rules, columns=columns, reference_name="reference",
                        current_name="current", calibration=calibration,
                    )  # fmt: skip
                    flagged = [row.feature for row in report.features if row.drifted]
                    answer[label] = (report.verdict == "drifted", flagged)
        return answers


class Evidently:
    """DataDriftPreset with its defaults; a column, or the dataset (half of the columns)."""

    def __init__(self):
        import evidently

        self.version = evidently.__version__

    def judge(self, reference, currents):
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        whole = Dataset.from_pandas(pa.concat_tables(reference).to_pandas())
        answers = []
        for current in currents:
            now = Dataset.from_pandas(current.to_pandas())
            found = Report([DataDriftPreset()]).run(now, whole).dict()["metrics"]
            flagged = [m["config"]["column"] for m in found[1:] if self._drifted(m)]
            count, share = found[0]["value"]["count"], found[0]["value"]["share"]
            assert count == len(flagged), (count, flagged)
            dataset = share >= found[0]["config"]["drift_share"]
            answers.append({"any column": (bool(flagged), flagged), "dataset": (dataset, flagged)})
        return answers

    @staticmethod
    def _drifted(metric):
        value, threshold = float(metric["value"]), metric["config"]["threshold"]
        # The threshold of a test is a level, that of a distance a size.
        return value < threshold if "p_value" in metric["config"]["method"] else value >= threshold


class NannyML:
    """UnivariateDriftCalculator with its defaults, a chunk being a partition."""

    def __init__(self):
        import nannyml

        self.version = nannyml.__version__

    def judge(self, reference, currents):
        import nannyml

        columns = reference[0].column_names
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=columns, chunk_size=reference[0].num_rows
        )
        calculator.fit(pa.concat_tables(reference).to_pandas())
        result = calculator.calculate(pa.concat_tables(currents).to_pandas())
        frame = result.filter(period="analysis").to_df()
        methods = {name: frame[name].columns.get_level_values(0)[0] for name in columns}
        answers = []
        for k in range(len(currents)):
            flagged = [c for c in columns if bool(frame[c][methods[c]]["alert"].iloc[k])]
            answers.append({"any column": (bool(flagged), flagged)})
        return answers


TOOLS = {"retrain": Retrain, "evidently": Evidently, "nannyml": NannyML}


def measured(tool, stream, draws):
    """Per rule and draw, the partitions and the columns that were called drifted."""
    alarms, flags, seconds = {}, {}, 0.0
    columns = 0
    for number in range(draws):
        reference, currents = streams.draw(stream, number)
        columns = reference[0].num_columns
        start = time.process_time()
        answers = tool.judge(reference, currents)
        seconds += time.process_time() - start
        for rule in answers[0]:
            alarms.setdefault(rule, []).append(sum(answer[rule][0] for answer in answers))
            flags.setdefault(rule, []).append(sum(len(answer[rule][1]) for answer in answers))
    return {
        "draws": draws, "partitions": draws * streams.CURRENTS, "columns": columns,
        "alarms": alarms, "flags": flags, "cpu_seconds": round(seconds, 1),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--json", required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own, hundreds of lines
    tool = TOOLS[arguments.tool]()
    found = {
        "tool": arguments.tool, "version": tool.version, "fingerprint": streams.fingerprint(),
        "streams": {},
    }  # fmt: skip
    for stream in streams.STREAMS:
        found["streams"][stream] = measured(tool, stream, arguments.draws)
        print(arguments.tool, stream, found["streams"][stream]["cpu_seconds"], "CPU s", flush=True)
    with open(arguments.json, "w") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
