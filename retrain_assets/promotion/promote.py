"""From stored evidence to a promotion or a rejection.

Belongs here: reading what was stored, asking the gate, writing the ledger, letting the registry
follow. It trusts no earlier check: a candidate that was materialized alone is judged all the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from retrain_assets.errors import ChampionChanged, Declined, RolledBack
from retrain_assets.promotion.candidate import Candidate, load_evidence
from retrain_assets.promotion.gate import GateReport, evaluate_gate, gate_sentence, nested
from retrain_assets.promotion.intervals import time_blocks
from retrain_assets.promotion.ledger import Candidate as LedgerCandidate
from retrain_assets.promotion.ledger import taken_down
from retrain_assets.promotion.reviews import Review, Reviews
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry
    from retrain_assets.promotion.standing import Standings
    from retrain_assets.promotion.validation import Validation
    from retrain_assets.training.evaluation import Evaluation

__all__ = ["Outcome", "judge", "judge_and_promote", "judge_evaluation", "project_champion"]


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        report: the gate's verdict with its numbers.
        sentence: the verdict in one line.
        promotion: the ledger's row, None where the candidate was not promoted.
        review: what waits for a person instead, where `gate.approval` is manual.
    """

    candidate: Candidate
    report: GateReport
    sentence: str
    promotion: "Promotion | None"
    review: "Review | None" = None


def judge_and_promote(
    spec: ModelSpec,
    partition: str | None,
    *,
    store: "TableStore",
    registry: "MlflowRegistry",
    ledger: "Ledger",
    actor: str,
) -> Outcome:
    """Judge the stored candidate of `partition`; promote it if every criterion passed.

    Where `gate.approval` is manual, it waits for a person instead (`promotion.approve`). Repeating it
    after a kill finishes the work: a promotion that is in the ledger is found there, and the
    registry's aliases are set again.

    Raises:
        TableError: there is no candidate for the partition.
        ChampionChanged: somebody promoted since the comparison; build the candidate again.
        RolledBack, Declined: a person has rolled back or rejected what this data gives.
        LedgerError, RegistryError: the ledger or the registry cannot be used.
    """
    candidate = Candidate.stored(store, spec.name, partition)
    champion = ledger.champion(spec.name)
    already = champion is not None and champion.version == candidate.version
    if not already and (champion.version if champion else None) != candidate.champion_version:
        raise ChampionChanged(
            f"{spec.name}: candidate v{candidate.version} was compared with champion "
            f"v{candidate.champion_version or '-'}, but the champion is v"
            f"{champion.version if champion else '-'} now; materialize candidate_model"
            f"{f' {partition}' if partition else ''} again"
        )
    if not already:
        _refuse_what_people_refused(candidate, ledger)
    promotion: Promotion | None = None
    review: Review | None = None
    if already and champion is not None:  # a run before this one was killed after the ledger's row
        report = GateReport.from_json(json.dumps(champion.evidence["gate"]))
        sentence, promotion = champion.reason, champion
    else:
        _, report, sentence = judge(spec, partition, store=store)
    if promotion is None and report.decision == "promote":
        entry = LedgerCandidate(
            model=spec.name,
            version=candidate.version,
            run_id=candidate.run_id,
            fingerprint=candidate.fingerprint,
            partition=partition,
            metric=spec.metric,
            value=report.candidate,
        )
        record: dict[str, Any] = {
            "expected_champion": candidate.champion_version,
            "actor": actor,
            "reason": sentence,
            "evidence": {"gate": json.loads(report.to_json()), "candidate": asdict(candidate)},
        }
        if spec.gate.approval == "manual":
            review = Reviews(ledger).ask(entry, **record)
        else:
            promotion = ledger.promote(entry, **record)
    project_champion(spec.name, registry=registry, ledger=ledger)
    return Outcome(candidate, report, sentence, promotion, review)


def _refuse_what_people_refused(candidate: Candidate, ledger: "Ledger") -> None:
    """The same data gives the same model: what a person took down must not return by itself."""
    row = taken_down(ledger.history(candidate.model)[::-1]).get(candidate.fingerprint)
    if row is not None:
        raise RolledBack(
            f"{candidate.model}: v{candidate.version} was rolled back by {row.actor} on "
            f"{row.promoted_at:%Y-%m-%d %H:%M} ({row.reason}); it is not promoted again by "
            f"itself. `retrain rollback {candidate.model} --to {candidate.version}` puts it back"
        )
    about = [r for r in Reviews(ledger).history(candidate.model)
             if r.fingerprint == candidate.fingerprint]  # fmt: skip
    if about and about[-1].kind == "rejected":
        raise Declined(
            f"{candidate.model}: v{candidate.version} was {about[-1].signed}; the same data does not "
            "propose it again by itself. Retrain on newer data, or with other settings"
        )


def judge(
    spec: ModelSpec, partition: str | None, *, store: "TableStore"
) -> tuple[Candidate, GateReport, str]:
    """The gate's verdict on the stored candidate, from its stored evidence alone.

    Args:
        spec: the model.
        partition: the candidate's.
        store: where its evidence is.

    Returns:
        The candidate, the report, and the verdict in one line.

    Raises:
        TableError: there is no candidate for the partition, or no evidence.
    """
    candidate = Candidate.stored(store, spec.name, partition)
    report = judge_evaluation(
        spec,
        load_evidence(store, candidate),
        champion_saw_holdout=candidate.champion_saw_holdout,
        measured=candidate.measured,
        earlier_uses=candidate.earlier_uses,
        validation=candidate.validation,
    )
    sentence = gate_sentence(
        report,
        candidate_version=candidate.version,
        champion_version=candidate.champion_version,
    )
    return candidate, report, sentence


def judge_evaluation(
    spec: ModelSpec,
    evaluation: "Evaluation",
    *,
    champion_saw_holdout: bool,
    measured: Mapping[str, float],
    earlier_uses: int = 0,
    validation: "Validation | Literal['not asked'] | None" = "not asked",
    standings: "Standings | None" = None,
) -> GateReport:
    """The gate's verdict on truth and scores; for a stored candidate and for replay.

    Rows of one partition are one cluster where there are enough of them (`time_blocks`), and, for
    ranking, where no group lies in several of them.

    Args:
        spec: the model.
        evaluation: of the holdout.
        champion_saw_holdout, measured, earlier_uses, validation, standings: as in
            `gate.evaluate_gate`.

    Raises:
        TrainingError: as `gate.evaluate_gate`.
    """
    units = time_blocks(evaluation.row_partitions)
    if units is not None and evaluation.groups is not None and not nested(evaluation.groups, units):
        units = None
    return evaluate_gate(
        y_true=evaluation.y_true,
        scores=evaluation.scores,
        groups=evaluation.groups,
        gate=spec.gate,
        metric=spec.metric,
        seed=spec.train.seed,
        champion_seen_holdout=champion_saw_holdout,
        units=units,
        columns=evaluation.columns,
        measured=measured,
        earlier_uses=earlier_uses,
        validation=validation,
        standings=standings,
    )


def project_champion(model: str, *, registry: "MlflowRegistry", ledger: "Ledger") -> list[str]:
    """Make the registry's aliases say what the ledger says; returns what was changed.

    Whoever sets aliases looks at the ledger again afterwards, so that of two who do it at the same
    time, one with an older row, the last one always has the newest.
    """
    changes: list[str] = []
    row = ledger.newest_of(model)
    while row is not None:
        champion = None if row.is_vacancy else row.version
        changes += registry.project(model, champion, row.previous_version)
        done, row = row, ledger.newest_of(model)
        if row is None or row.sequence == done.sequence:
            break
    return changes
