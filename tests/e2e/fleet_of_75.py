"""75 made-up models in every state, for looking at the page and for its tests. Seeded."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import State, StatusRow

GROUPS = ("recommenders", "route_delays", "pricing", "risk")
NOW = datetime.now(UTC)
_UNUSUAL: dict[int, State] = {
    0: "broken", 3: "failing", 17: "failing", 30: "rejected", 8: "approval", 41: "approval",
    5: "drifting", 12: "drifting", 26: "drifting", 60: "drifting", 50: "waiting", 51: "waiting",
    22: "retraining", 74: "retired",
}  # fmt: skip
_NOTES = {
    "broken": "model_specs/x.yaml: line 14 gate.metric: 'aucc' is not one of roc_auc, log_loss "
    "(did you mean 'roc_auc'?) <script>alert(1)</script>",
    "failing": "the last run failed; see the Dagster UI",
    "rejected": "v9 was not promoted: roc_auc 0.7412, gain -0.0031 [-0.0090, 0.0020], needs above 0",
    "drifting": "the drift alarm is raised",
    "waiting": "no champion yet",
    "retired": "no spec describes it any more; its history and its champion stay",
}


def _iso(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).isoformat()


def _trend(rng: random.Random, *, drifting: bool) -> tuple[float | None, ...]:
    level, found = rng.uniform(0.08, 0.3), list[float | None]()
    for i in range(20):
        level = min(
            0.95, max(0.03, level + rng.gauss(0, 0.04) + (0.08 if drifting and i > 11 else 0))
        )
        found.append(None if rng.random() < 0.03 else round(level, 3))
    return (*found[:-1], round(level, 3))


def _served(rng: random.Random, i: int, state: State) -> dict[str, Any]:
    trend = _trend(rng, drifting=state == "drifting")
    score = trend[-1] or 0.0
    value, stale = rng.uniform(0.68, 0.93), i in (3, 19)
    live = value - abs(rng.gauss(0, 0.02)) - (0.09 if i in (17, 44) else 0)
    return {
        "champion": str(rng.randint(1, 40)),
        "promoted_at": _iso(rng.expovariate(1 / 200)),
        "trained_for": "2026-11-15",
        "metric": ("ndcg@10", "roc_auc", "roc_auc", "average_precision")[i % 4],
        "value": value,
        "live": live,
        "live_kind": ("realised", "estimated")[i % 2],
        "live_on": "2026-11-21",
        "bound": value - 0.06,
        "meets": live >= value - 0.06,
        "newest": "2026-11-17" if stale else "2026-11-21",
        "verdict": "drifted" if score > 0.5 else "stable",
        "drift_score": score,
        "trend": trend,
        "freshness": "fail" if stale else "warn" if i == 33 else "ok",
        "stale": "raw_data was written 97h ago, fails after 48h" if stale else "",
        "action": "wait",
        "decided_at": _iso(rng.uniform(0.1, 20)),
        "decision": f"waited: the last {rng.randint(1, 3)} of 3 reports are stable; the champion is "
        f"{rng.randint(1, 28)} days old, at most 30",
        "promotions": rng.randint(1, 40),
        "rejections": rng.randint(0, 12),
        "week_seconds": rng.expovariate(1 / 400),
        "week_runs": {"monitor success": 7, "retrain success": rng.randint(0, 3)},
    }


def row(i: int) -> StatusRow:
    """The i-th model."""
    rng = random.Random(i)
    state: State = _UNUSUAL.get(i, "healthy")
    group = GROUPS[i % len(GROUPS)]
    name = f"{group.rstrip('s')}_{('shoes', 'jfk_ua', 'books', 'toys', 'lga_dl')[i % 5]}_{i:02}"
    known: dict[str, Any] = {"group": group, "owner": f"team:{group}"}
    if state not in ("broken", "waiting"):
        known |= _served(rng, i, state)
    if state not in ("broken", "retired"):
        run = {"failing": "FAILURE", "rejected": "FAILURE", "retraining": "STARTED"}
        known |= {
            "description": f"What {name} predicts, for people.",
            "last_run": run.get(state, "SUCCESS"), "last_run_id": f"run-{i}",
            "last_run_at": _iso(rng.uniform(0.02, 30)), "last_run_seconds": rng.uniform(8, 300),
            "links": {"asset": f"http://127.0.0.1:3000/assets/{name}/promoted_model",
                      "run": f"http://127.0.0.1:3000/runs/run-{i}",
                      "model": f"http://127.0.0.1:5000/#/models/{name}"},
        }  # fmt: skip
    note = _NOTES.get(state, "")
    if state == "approval":
        note, known["awaits"] = (
            f"v41 awaits approval since 2026-11-21 09:12 UTC: `retrain promote {name}`",
            "41",
        )
    return StatusRow(name, state, note=note, **known)


def fleet(n: int = 75) -> Snapshot:
    """A snapshot of `n` models."""
    rows = sorted((row(i) for i in range(n)), key=lambda one: one.rank)
    return Snapshot(datetime.now(UTC), "", NOW - timedelta(days=7), tuple(rows))


def history(name: str) -> dict[str, Any]:
    """What the server says about one model."""
    rng = random.Random(name)
    days = [(datetime(2026, 9, 1) + timedelta(days=d)).date().isoformat() for d in range(82)]
    trend = [*_trend(rng, drifting=False), *_trend(rng, drifting=True)] * 3
    drift = [
        {"partition": day, "score": score, "verdict": "drifted" if (score or 0) > 0.5 else "stable"}
        for day, score in zip(days, trend, strict=False)
        if score is not None
    ]
    metric = [
        {
            "partition": day,
            "value": 0.8 + rng.gauss(0, 0.012) - d / 2500,
            "kind": "holdout" if d % 27 == 0 else "realised",
        }
        for d, day in enumerate(days)
    ]
    decisions = [
        {"decided_at": _iso(24 * d), "partition": days[-1 - d], "action": "retrain" if d == 2 else "wait",
         "trigger": None, "said": "retrained (drift)" if d == 2 else "waited",
         "reasons": ["3 of the last 3 drift reports are drifted", "cool-down of 3d is over since 2d"] if d == 2
         else ["no condition holds: drift 0 of 3, age 12d of 30d"],
         "outcome": "promoted v12: roc_auc 0.8134, gain +0.0121 [0.0040, 0.0202]" if d == 2 else None}
        for d in range(6)
    ]  # fmt: skip
    promotions = [
        {"sequence": 3 - d, "kind": "rollback" if d == 1 else "promotion", "version": str(12 - d),
         "partition": days[-3 - 20 * d], "metric": "roc_auc", "value": 0.81 - d / 100,
         "actor": "anna@ops" if d == 1 else "dagster run 5b1f", "at": _iso(48 + 400 * d),
         "reason": "complaints since Tuesday" if d == 1 else "gain +0.0121 [0.0040, 0.0202]",
         "realised": None if d else "expected +0.012, realised +0.009 [0.004, 0.014] over 7 partitions"}
        for d in range(3)
    ]  # fmt: skip
    return {
        "model": name,
        "decisions": decisions,
        "promotions": promotions,
        "drift": drift,
        "metric": metric,
    }
