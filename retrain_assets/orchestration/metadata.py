"""Domain results as Dagster metadata: numbers that plot over time, tables and pictures to look at.

https://docs.dagster.io/guides/build/assets/metadata-and-tags
"""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.orchestration.keys import EVIDENCE
from retrain_assets.performance.measured import compact

if TYPE_CHECKING:
    from retrain_assets.data.ingest import Ingested
    from retrain_assets.drift.history import DriftHistory
    from retrain_assets.drift.report import DriftReport
    from retrain_assets.drift.watch import Watched
    from retrain_assets.performance.measured import Performance
    from retrain_assets.performance.served import Served
    from retrain_assets.policy.record import Entry
    from retrain_assets.promotion.candidate import Candidate
    from retrain_assets.promotion.gate import GateReport
    from retrain_assets.promotion.guard import Guarded
    from retrain_assets.promotion.reviews import Review
    from retrain_assets.replay.result import Result
    from retrain_assets.spec.model import ModelSpec

__all__ = [
    "approval_text",
    "candidate_metadata",
    "decision_metadata",
    "drift_metadata",
    "gate_metadata",
    "guard_metadata",
    "performance_metadata",
    "picture",
    "replay_metadata",
    "rounded",
    "table_metadata",
]


_TREND = 20
"""Drift scores that a report carries along, so that the status of all models is one batched read."""


def picture(png: bytes) -> str:
    """A PNG as an inline Markdown image."""
    return f"![]({'data:image/png;base64,'}{base64.b64encode(png).decode('ascii')})"


def rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers for people: six significant digits."""
    return {
        name: value if isinstance(value, int) else float(f"{value:.6g}")
        for name, value in numbers.items()
    }


def table_metadata(item: "Ingested") -> dict[str, Any]:
    """Metadata of one stored partition."""
    numbers = rounded(item.numbers)
    return {
        "dagster/row_count": int(numbers.pop("rows")),
        "columns": int(numbers.pop("columns")),
        **numbers,
        "size_bytes": item.stored.size_bytes,
        "fingerprint": item.stored.sha256,
        "path": dg.MetadataValue.path(item.stored.path),
    }


def drift_metadata(item: "Watched", history: "DriftHistory | None" = None) -> dict[str, Any]:
    """Metadata of one drift report, with the heat map of `history` where it is given.

    Numbers plot over time: the score, and severities of the same few features in every partition.
    Distributions are drawn where there is something to see, drift or the newest partition (the one
    with the history), since every event is kept for ever.
    """
    from retrain_assets.drift.history import CEILING, followed_features
    from retrain_assets.drift.render import history_markdown, report_markdown

    report = item.report
    shown = history is not None or item.partition is None or report.verdict == "drifted"
    values: dict[str, Any] = {
        "verdict": report.verdict,
        "alarm": item.alarm,
        **rounded({"drift_score": report.score, "share_drifted": report.share_drifted}),
        "rows_current": report.n_current,
        "rows_reference": report.n_reference,
        "reference": report.reference,
        "report": dg.MetadataValue.md(report_markdown(report, item.pictures if shown else None)),
    }
    if history is not None and history.features:
        values["heat_map"] = dg.MetadataValue.md(history_markdown(history))
    if history is not None:
        scores = history.scores[-_TREND:]
        values["trend"] = dg.MetadataValue.json(
            [None if score is None else round(score, 3) for score in scores]
        )
    if report.features:
        values |= rounded({"severity_max": min(report.features[0].severity, CEILING)})
    values |= rounded(_beside(report))
    if report.prediction:
        values["prediction_drifted"] = any(row.drifted for row in report.prediction)
    followed = followed_features(report)
    return values | rounded({f"severity/{x.feature}": min(x.severity, CEILING) for x in followed})


def _beside(report: "DriftReport") -> dict[str, float]:
    """What stands beside the features, as numbers that plot: severities, of several classes the worst.

    A label without values has no number, rather than 0.
    """
    from retrain_assets.drift.history import CEILING

    found: dict[str, float] = {}
    if report.prediction:
        worst = max(row.severity for row in report.prediction)
        found["prediction_drift"] = min(worst, CEILING)
    if report.label is not None and report.label.n_current:
        found["label_drift"] = min(report.label.severity, CEILING)
    joint = report.multivariate
    if joint is not None and joint.auc is not None:
        found |= {"auc": joint.auc, "auc_threshold": joint.threshold}
    return found


def performance_metadata(
    spec: "ModelSpec", served: "Served | None", partition: str | None, *, whole: bool
) -> dict[str, Any]:
    """The champion's performance as numbers that plot, and as evidence for decisions.

    Of partition P its own number, realised where its labels are there and else estimated; and, where
    labels come later, the realised number of the newest partition up to P that has them. The newest
    of a run (`whole`) carries what the policy looks back on.
    """
    if served is None:
        return {}
    until = [one for one in served.partitions if (one.partition or "") <= (partition or "")]
    values: dict[str, Any] = {}
    if until and until[-1].partition == partition:
        values |= _plotted(until[-1])
    known = next((one for one in reversed(until) if one.kind == "realised"), None)
    if known is not None and known is not until[-1]:
        values |= {**_plotted(known), "realised_on": known.partition}
    if whole:
        kept = _looked_back_on(spec, served.partitions)
        values[EVIDENCE] = dg.MetadataValue.json(
            {"champion": served.version, "performance": compact([served.expected, *kept])}
        )
    return values


def _looked_back_on(
    spec: "ModelSpec", partitions: "Sequence[Performance]"
) -> "Sequence[Performance]":
    """What the policy may look at, and no more: every event is kept for ever."""
    rule = spec.retrain.on_performance
    if spec.retrain.cost is not None:
        return partitions
    if rule is None:
        return partitions[-1:]
    realised = [n for n, one in enumerate(partitions) if one.kind == "realised" and one.decided]
    return partitions[realised[-rule.of_last] :] if len(realised) > rule.of_last else partitions


def _plotted(one: "Performance") -> dict[str, float]:
    numbers = {"": one.value, "_low": one.low, "_high": one.high}
    return rounded(
        {f"{one.kind}/{one.metric}{end}": x for end, x in numbers.items() if x is not None}
    )


def decision_metadata(entry: "Entry") -> dict[str, Any]:
    """The last decision about the model before this report, in words."""
    lines = "\n".join(f"- {reason}" for reason in entry.reasons)
    about = f"{entry.action} at {entry.decided_at:%Y-%m-%d %H:%M} UTC"
    about += f", data up to {entry.partition}" if entry.partition else ""
    return {"last_decision": dg.MetadataValue.md(f"{about}\n\n{lines}")}


def candidate_metadata(candidate: "Candidate", pictures: Mapping[str, bytes]) -> dict[str, Any]:
    """Metadata of one candidate: what it is, how it scores, beside the champion and baselines."""
    metric = candidate.metric
    scores = {f"{who}/{metric}": value for who, value in candidate.scores.items()}
    rows = "\n".join(f"| {who} | {value:.4f} |" for who, value in candidate.scores.items())
    text = f"| on {candidate.holdout} | {metric} |\n|---|---|\n{rows}"
    for name, png in pictures.items():
        text += f"\n\n**{name}**\n\n{picture(png)}"
    return {
        "model_version": candidate.version,
        "model_uri": candidate.model_uri,
        "mlflow_run_id": candidate.run_id,
        "fingerprint": candidate.fingerprint,
        "trained_on": candidate.trained_on,
        "holdout": candidate.holdout,
        "rows_train": candidate.rows_train,
        "rows_holdout": candidate.rows_holdout,
        "reused": candidate.reused,
        **rounded(scores),
        "comparison": dg.MetadataValue.md(text),
    }


def gate_metadata(report: "GateReport") -> dict[str, Any]:
    """Metadata of a judged candidate."""
    from retrain_assets.promotion.gate import gate_markdown

    numbers = {
        "candidate": report.candidate,
        "champion": report.champion,
        "gain": report.gain,
        "gain_low": report.gain_low,
        "gain_high": report.gain_high,
    }
    return {
        "decision": report.decision,
        "metric": report.metric,
        **rounded({name: value for name, value in numbers.items() if value is not None}),
        "gate": dg.MetadataValue.md(gate_markdown(report)),
    }


def guard_metadata(found: "Guarded") -> dict[str, Any]:
    """Metadata of a guarded promotion: the realised gain beside the expected one, look by look."""
    lines = ["| through | partitions | rows | gain | at least | at most | |", "|" + "---|" * 7]
    lines += [
        f"| {look.through_partition} | {look.partitions} | {look.rows:,} | {look.gain:+.3g} "
        f"| {look.gain_low:+.3g} | {look.gain_high:+.3g} | {look.verdict} |"
        for look in found.outcomes
    ]
    numbers: dict[str, float | None] = {"expected_gain": found.pair.expected_gain}
    if found.outcomes:
        look = found.outcomes[-1]
        numbers |= {
            "realised_gain": look.gain,
            "gain_low": look.gain_low,
            "gain_high": look.gain_high,
            "rows": look.rows,
        }
    return {
        "verdict": "worse" if found.worse else "holds" if found.outcomes else "waiting",
        "model_version": found.pair.promotion.version,
        "predecessor": found.pair.predecessor.version,
        "partitions_scored": len(found.scored),
        **rounded({name: value for name, value in numbers.items() if value is not None}),
        **({"waiting": found.waiting} if found.waiting else {}),
        **({"rolled_back_to": found.rollback.version} if found.rollback else {}),
        "guard": dg.MetadataValue.md("\n".join([found.sentence, "", *lines])),
    }


def replay_metadata(result: "Result") -> dict[str, Any]:
    """Metadata of a replay: the table with the lines to paste, and the frontier."""
    from retrain_assets.replay.render import frontier_picture, markdown

    combined = result.policy("combined")
    return {
        "metric": result.metric,
        "served": f"{result.first} to {result.last}",
        "partitions": result.partitions,
        "models_trained": result.trainings,
        **rounded({"combined": combined.value, "combined_gain_over_never": combined.gain}),
        **({"recommended": result.recommendation.policy} if result.recommendation else {}),
        "policies": dg.MetadataValue.md(
            f"{markdown(result)}\n\n{picture(frontier_picture(result))}"
        ),
    }


def approval_text(review: "Review") -> str:
    """How a person decides about what waits, as Markdown; `change_champion` is the job for it."""
    return (
        f'`retrain promote {review.model} {review.version} --reason "..."` or '
        f'`retrain reject {review.model} {review.version} --reason "..."`; in the Dagster UI, the '
        "job `change_champion`"
    )
