"""CPU seconds of `retrain status` for generated fleets on sqlite.

    python bench/fleet/status.py            # 50 and 1,000 models
    python bench/fleet/status.py 200

Makes specs, a ledger and a Dagster instance (drift reports with 30 kB of Markdown each, as real ones
have, and the runs of a week), then runs the command in processes of its own: reading everything
(`--max-age 0`), and showing a snapshot as the sensor `fleet_status` leaves it. The least of three.
"""

import os
import resource
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import yaml

from retrain_assets.fleet.shared_snapshot import SharedSnapshot
from retrain_assets.fleet.snapshot import forget, read_snapshot, specs_digest
from retrain_assets.orchestration.keys import asset_key, monitor_keys
from retrain_assets.policy.record import Entry
from retrain_assets.promotion.decisions import Decisions, Judgement
from retrain_assets.promotion.ledger import Candidate, Ledger

REPEATS = 3
REPORT = "| feature | severity |\n" * 1300
TREND = [0.2] * 20
NEWEST = "2024-06-01"


def make_specs(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        document = {
            "name": name, "group": "fleet", "owner": "team:fleet",
            "partitions": {"every": "day", "start": date(2024, 1, 1)},
            "source": {"files": "/data/{partition}.parquet"},
            "target": "y", "task": "binary", "train": {"window": 30, "holdout": 7},
            "gate": {"floor": 0.6}, "freshness": {"raw_data": {"fail": "48h"}},
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def make_ledger(url: str, names: list[str]) -> None:
    ledger, now = Ledger(url), datetime.now(UTC)
    decisions = Decisions(ledger)
    decisions.record(
        [Entry(name, f"{name} {i}", now, now, NEWEST, "wait", None, ("nothing is new",), {"x": "y" * 800})
         for name in names for i in range(5)]
    )  # fmt: skip
    gate = {"gate": {"criteria": [{"name": str(i), "summary": "z" * 60} for i in range(14)]}}
    for name in names:
        ledger.promote(
            Candidate(name, "1", "run", "data", NEWEST, "roc_auc", 0.8),
            expected_champion=None, actor="bench", reason="bench", evidence=gate,
        )  # fmt: skip
        decisions.record_judgement(
            Judgement(
                name, str(uuid.uuid4()), "", NEWEST, "1", "", "promote", "fine", None, 1.0, now
            )
        )


def make_instance(home: Path, names: list[str]) -> None:
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    metadata = {
        "drift_report": {
            "verdict": "stable", "drift_score": 0.2, "alarm": False, "reference": "champion v1",
            "report": dg.MetadataValue.md(REPORT), "trend": dg.MetadataValue.json(TREND),
        }
    }  # fmt: skip
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for name in names:
            for stage in ("raw_data", "features", "drift_report", "promoted_model"):
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        asset_key(name, stage), partition=NEWEST, metadata=metadata.get(stage, {})
                    )
                )
        for _ in range(7):
            for start in range(0, len(names), 10):
                keys = [k for name in names[start : start + 10] for k in monitor_keys(name)]
                instance.add_run(
                    dg.DagsterRun(
                        job_name="__ASSET_JOB", run_id=str(uuid.uuid4()),
                        asset_selection=frozenset(keys), status=dg.DagsterRunStatus.SUCCESS,
                        tags={"retrain/kind": "monitor"},
                    )
                )  # fmt: skip


def share(folder: Path, url: str) -> None:
    """Put what the command has left in its file where the sensor would."""
    found = read_snapshot(folder / "home", specs_digest([folder / "model_specs"]))
    assert found is not None
    SharedSnapshot(Ledger(url)).leave(found)
    forget(folder / "home")


def measure(folder: Path, *arguments: str) -> tuple[float, int]:
    """CPU seconds, and the largest resident size so far, in MB."""
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RETRAIN_", "DAGSTER_"))},
        "RETRAIN_HOME": str(folder / "home"),
    }
    times: list[float] = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "retrain_assets.cli", "status", *arguments],
            cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def main() -> None:
    print(f"{'models':>7} {'read now, CPU s':>16} {'snapshot, CPU s':>16} {'most MB':>8}")
    for count in [int(text) for text in sys.argv[1:]] or [50, 1000]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            names = [f"model_{i:04}" for i in range(count)]
            make_specs(folder / "model_specs", names)
            (folder / "home").mkdir()
            url = f"sqlite:///{folder / 'home' / 'ledger.db'}"
            make_ledger(url, names)
            make_instance(folder / "home" / "dagster", names)
            live, size = measure(folder, "--max-age", "0")
            share(folder, url)
            young, _ = measure(folder, "--max-age", "3600")
            print(f"{count:>7} {live:>16.2f} {young:>16.2f} {size:>8}", flush=True)


if __name__ == "__main__":
    main()
