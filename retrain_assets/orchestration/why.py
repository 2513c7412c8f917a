"""The last decisions about a model, with what came of them, in a fixed number of reads.

Belongs here: joining decisions with judgements, the guard's outcomes and Dagster's runs. Does not: the
words (`fleet.why`).
"""

from collections.abc import Mapping, Sequence

from retrain_assets.fleet.why import Explained
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy.record import Entry
from retrain_assets.promotion.decisions import Judgement
from retrain_assets.settings import Settings

__all__ = ["explain", "explained"]

_RECENT_RUNS = 200


def explain(platform: Platform, model: str, last: int) -> list[Explained]:
    """The last decisions, newest first.

    Dagster is asked only where a retraining has no judgement yet.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    entries = platform.decisions.last(model, last)
    judgements = {one.state: one for one in platform.decisions.judgements(model)}
    gains = {look.version: look.gain for look in platform.ledger.outcomes(model)}
    runs: Mapping[str, tuple[str, str]] = {}
    if any(one.action == "retrain" and one.state not in judgements for one in entries):
        runs = _runs(platform.settings, model, [one.state for one in entries])
    return [explained(one, judgements.get(one.state), gains, runs) for one in entries]


def explained(
    entry: Entry,
    judgement: Judgement | None,
    gains: Mapping[str, float],
    runs: Mapping[str, tuple[str, str]],
) -> Explained:
    """One decision with what came of it.

    Args:
        entry: the decision.
        judgement: of its run, if there was one.
        gains: realised gain by version.
        runs: (run id, status) by decision.
    """
    known = (entry.decided_at.isoformat(), entry.partition, entry.action, entry.trigger)
    if judgement is None:
        run_id, status = runs.get(entry.state, (None, None))
        return Explained(*known, entry.reasons, run_id=run_id, run_status=status)
    return Explained(
        *known,
        entry.reasons,
        run_id=judgement.run_id,
        verdict=judgement.verdict,
        outcome=judgement.sentence,
        version=judgement.version,
        expected_gain=judgement.expected_gain,
        realised_gain=gains.get(judgement.version) if judgement.verdict == "promote" else None,
        compute_seconds=judgement.compute_seconds,
    )


def _runs(settings: Settings, model: str, states: list[str]) -> dict[str, tuple[str, str]]:
    """The newest run of each decision."""
    import dagster as dg

    from retrain_assets.orchestration.status import local_instance

    tag = Tag.decision(model)
    with local_instance(settings) as instance:
        records: Sequence[dg.RunRecord] = instance.get_run_records(
            filters=dg.RunsFilter(tags={tag: states}), limit=_RECENT_RUNS
        )
    found: dict[str, tuple[str, str]] = {}
    for record in records:  # newest first
        run = record.dagster_run
        found.setdefault(run.tags[tag], (run.run_id, run.status.value.lower()))
    return found
