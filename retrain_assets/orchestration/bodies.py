"""What each asset does: take inputs, call one domain function, return values and metadata.

Every function here takes a spec and returns the function that Dagster calls.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.errors import (
    ChampionChanged,
    ContractError,
    Declined,
    FeatureError,
    LedgerError,
    RegistryError,
    RetrainError,
    RolledBack,
    SourceError,
)
from retrain_assets.orchestration import metadata
from retrain_assets.orchestration.alerting import alert, repair_message, send_logged
from retrain_assets.orchestration.inline import (
    decided_on_demand,
    goes_on,
    run_tags,
    state_of_run,
)
from retrain_assets.orchestration.io import StoredPartitions, TableWindow
from retrain_assets.orchestration.keys import checks_of, trigger_and_reason
from retrain_assets.orchestration.platform import Platform
from retrain_assets.spec.code import training_code
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.ingest import Ingested
    from retrain_assets.drift.report import DriftReport
    from retrain_assets.performance.scores import ChampionScores
    from retrain_assets.performance.served import Served
    from retrain_assets.promotion.candidate import Candidate
    from retrain_assets.promotion.ledger import Promotion
    from retrain_assets.promotion.promote import Outcome
    from retrain_assets.training.model import TabularModel

__all__ = [
    "candidate_model",
    "drift_report",
    "features",
    "guard_report",
    "policy_replay",
    "promoted_model",
    "raw_data",
]

_TRANSIENT = (SourceError, RegistryError, LedgerError)
_FINAL = (ChampionChanged, RolledBack, Declined)
_RETRY_SECONDS = (5, 20)


@contextmanager
def _readable_failures(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Errors of this package as Dagster failures: the message instead of a stack trace.

    An unreachable source, registry or ledger is asked again, after 5 and after 20 s more, before the
    step fails.
    """
    try:
        yield
    except RetrainError as error:
        transient = isinstance(error, _TRANSIENT) and not isinstance(error, _FINAL)
        if transient and context.retry_number < len(_RETRY_SECONDS):
            wait = _RETRY_SECONDS[context.retry_number]
            context.log.warning(f"asking again in {wait} s: {error}")
            raise dg.RetryRequested(len(_RETRY_SECONDS), seconds_to_wait=wait) from error
        raise dg.Failure(
            description=str(error),
            metadata={"error": dg.MetadataValue.md(f"```\n{error}\n```")},
            allow_retries=False,
        ) from error


def _partitions(context: dg.AssetExecutionContext) -> list[str | None]:
    return (
        list(context.partition_keys)
        if context.has_partition_key_range
        else ([context.partition_key] if context.has_partition_key else [None])
    )


def _describe(
    context: dg.AssetExecutionContext, partition: str | None, values: dict[str, Any]
) -> None:
    context.add_asset_metadata(values, asset_key=context.asset_key, partition_key=partition)


def _set_version(context: dg.AssetExecutionContext, fingerprints: list[str]) -> None:
    """Data version: the partition's fingerprint; of a range, the hash of all fingerprints."""
    version = fingerprints[0]
    if len(fingerprints) > 1:
        version = hashlib.sha256("".join(fingerprints).encode()).hexdigest()
    context.set_data_version(context.asset_key, dg.DataVersion(version[:32]))


def _record_good(context: dg.AssetExecutionContext, done: "Sequence[Ingested]") -> None:
    """Record the good partitions of a range whose step is about to fail for the others."""
    for item in done:
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key,
                partition=item.partition,
                metadata=metadata.table_metadata(item),
            )
        )


def _record_bad(
    context: dg.AssetExecutionContext, spec: ModelSpec, refused: dict[str | None, str]
) -> None:
    """Tell the decision ledger that data is bad: it is no drift, and nothing to train on.

    The step fails for the data in any case; that the ledger could not be told is said beside it.
    """
    platform: Platform = context.resources.platform
    first_lines = {key: text.strip().splitlines()[0] for key, text in refused.items()}
    try:
        platform.decisions.record_data(spec.name, first_lines)
    except LedgerError as error:
        context.log.error(f"a retraining will not be held back by the bad data: {error}")


def _follow_ledger(context: dg.AssetExecutionContext, spec: ModelSpec) -> None:
    """Before a run relies on the champion: make the registry follow the ledger, and say so."""
    from retrain_assets.promotion.reconcile import reconcile

    _take_over(context, spec)
    platform: Platform = context.resources.platform
    url = f"{platform.settings.dagster_url}/runs/{context.run.run_id}"
    for repair in reconcile([spec.name], registry=platform.registry, ledger=platform.ledger):
        context.log.warning(f"{spec.name}: {repair.text}")
        message = repair_message(repair, url)
        # What cannot be mended is told by the sensor, once.
        if message is not None and repair.kind not in ("no_previous", "unresolved"):
            send_logged(message, spec, context.log)


def _take_over(context: dg.AssetExecutionContext, spec: ModelSpec) -> None:
    """Before a run asks for the champion of a model that was renamed: give it that of its former name."""
    if spec.renamed_from is None:
        return
    from retrain_assets.promotion.rename import adopt

    platform: Platform = context.resources.platform
    if adopt(
        spec.name,
        spec.renamed_from,
        registry=platform.registry,
        ledger=platform.ledger,
        store=platform.store,
    ):
        context.log.info(f"{spec.name}: has the champion and the history of {spec.renamed_from}")


def raw_data(spec: ModelSpec) -> Callable[..., Any]:
    """Ingest each partition; bad ones are named together after the good ones are stored."""

    def raw_data(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from retrain_assets.data.ingest import ingest

        platform: Platform = context.resources.platform
        done: list[Ingested] = []
        refused: dict[str | None, str] = {}
        with _readable_failures(context):
            for partition in _partitions(context):
                try:
                    done.append(ingest(spec, partition, platform.store))
                except ContractError as error:
                    refused[partition] = str(error)
        if refused:
            _record_good(context, done)
            _record_bad(context, spec, refused)
            text = "\n\n".join(refused.values())
            yield dg.AssetCheckResult(
                passed=False,
                check_name="contract",
                metadata={"breaches": dg.MetadataValue.md(f"```\n{text}\n```")},
            )
            raise dg.Failure(description=text, allow_retries=False)
        for item in done:
            _describe(context, item.partition, metadata.table_metadata(item))
        _set_version(context, [item.stored.sha256 for item in done])
        rows = sum(item.stored.rows for item in done)
        # The table first: a check result is filed under the latest materialization.
        yield dg.Output(StoredPartitions({item.partition: item.stored for item in done}))
        yield dg.AssetCheckResult(passed=True, check_name="contract", metadata={"rows": rows})

    return raw_data


def features(spec: ModelSpec) -> Callable[..., Any]:
    """Transform each raw partition."""

    def features(context: dg.AssetExecutionContext, raw_data: TableWindow) -> Iterator[Any]:
        from retrain_assets.data.ingest import make_features

        done: list[Ingested] = []
        refused: dict[str | None, str] = {}
        with _readable_failures(context):
            existing = raw_data.existing() if spec.features.lookback else ()
            for partition in _partitions(context):
                try:
                    done.append(make_features(spec, partition, raw_data.store, existing))
                except FeatureError as error:
                    refused[partition] = f"{partition or 'table'}: {error}"
        if refused:
            _record_good(context, done)
            _record_bad(context, spec, refused)
            raise dg.Failure(description="\n\n".join(refused.values()), allow_retries=False)
        for item in done:
            _describe(context, item.partition, metadata.table_metadata(item))
        _set_version(context, [item.stored.sha256 for item in done])
        yield dg.Output(StoredPartitions({item.partition: item.stored for item in done}))

    return features


def drift_report(spec: ModelSpec) -> Callable[..., Any]:
    """Compare each partition with what the champion was trained on; alert when the alarm starts."""

    def drift_report(context: dg.AssetExecutionContext, features: TableWindow) -> Iterator[Any]:
        from retrain_assets.drift.history import read_history
        from retrain_assets.drift.watch import ChampionReference, watch

        platform: Platform = context.resources.platform
        keys = _partitions(context)
        partitions = None if keys == [None] else [key for key in keys if key is not None]
        with _readable_failures(context):
            _take_over(context, spec)
            champion = platform.ledger.champion(spec.name)
            existing = features.existing()
            reference, scores = None, None
            if champion is not None:
                trained_on = champion.evidence.get("candidate", {}).get("trained_on", "")
                reference = ChampionReference(champion.version, champion.fingerprint, trained_on)
                scores = _champion_scores(platform, spec, champion, keys)
            last, began = None, None
            predict = None if scores is None else scores.window
            served = _served(spec, features, champion, scores, keys)
            for item in watch(spec, partitions, features.store, reference, existing, predict):
                last = item
                began = item if item.alarm_is_new else began
                newest = item.partition is not None and item.partition == keys[-1]
                history = (
                    read_history(spec, item.partition, features.store)
                    if newest and item.partition is not None
                    else None
                )
                values = metadata.drift_metadata(item, history)
                values |= metadata.performance_metadata(spec, served, item.partition, whole=newest)
                _describe(context, item.partition, values)
            platform.decisions.record_data(spec.name, dict.fromkeys(keys, ""))
            decided = platform.decisions.newest([spec.name]).get(spec.name)
        if decided is not None:
            _describe(context, keys[-1], metadata.decision_metadata(decided))
        assert last is not None
        if began is not None and last.alarm:
            alert(context, spec, "drift", f"{spec.name}: drift since {began.report.current}",
                  "\n".join(last.report.reasons))  # fmt: skip
        yield dg.MaterializeResult(check_results=[_drift_check(last.report)])

    return drift_report


def _drift_check(report: "DriftReport") -> dg.AssetCheckResult:
    numbers = {"drift_score": report.score, "share_drifted": report.share_drifted}
    return dg.AssetCheckResult(
        passed=report.verdict != "drifted",
        check_name="no_drift",
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(report.reasons[:3]),
        metadata={"verdict": report.verdict, **metadata.rounded(numbers)},
    )


def _champion_scores(
    platform: Platform, spec: ModelSpec, champion: "Promotion", renewed: list[str | None]
) -> "ChampionScores":
    """The champion's scores by partition; its files are loaded when something has to be scored."""
    from retrain_assets.performance.scores import ChampionScores

    def load() -> "TabularModel":
        from retrain_assets.promotion.model_files import load_model

        found = load_model(platform.store, spec.name, champion.fingerprint)
        return found or platform.registry.load(spec.name, champion.version)

    return ChampionScores(spec, platform.store, champion.fingerprint, load, renewed)


def _served(
    spec: ModelSpec,
    features: TableWindow,
    champion: "Promotion | None",
    scores: "ChampionScores | None",
    keys: list[str | None],
) -> "Served | None":
    """The champion's performance so far; None without one, and without partitions."""
    from retrain_assets.performance.served import measure_served

    if champion is None or scores is None or spec.scheme is None:
        return None
    return measure_served(
        spec,
        features.store,
        champion,
        scores,
        renewed={key for key in keys if key is not None},
        existing=features.existing(),
    )


def guard_report(spec: ModelSpec) -> Callable[..., Any]:
    """Compare a promoted model with the one it replaced, while labels of the first partitions come."""

    def guard_report(context: dg.AssetExecutionContext, features: TableWindow) -> Iterator[Any]:
        from retrain_assets.promotion.guard import guard, mark_told

        platform: Platform = context.resources.platform
        with _readable_failures(context):
            found = guard(
                spec,
                store=features.store,
                registry=platform.registry,
                ledger=platform.ledger,
                existing=features.existing(),
            )
            if found is None:  # no report, but Dagster wants a result of every check
                text = "no promotion is in its guard period"
                yield dg.AssetCheckResult(passed=True, check_name="no_loss", description=text)
                return
            if found.worse is not None and not found.told:
                alert(context, spec, "guard", found.title, f"{found.sentence}\n\n{found.remedy}")
                mark_told(features.store, found)
        _describe(context, _partitions(context)[-1], metadata.guard_metadata(found))
        yield dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    passed=found.worse is None, check_name="no_loss", description=found.sentence
                )
            ]
        )

    return guard_report


def candidate_model(spec: ModelSpec) -> Callable[..., Any]:
    """Train, evaluate beside the champion, register."""

    def candidate_model(context: dg.AssetExecutionContext, features: TableWindow) -> Iterator[Any]:
        from retrain_assets.orchestration.mlflow_run import parent_run
        from retrain_assets.promotion.candidate import build_candidate

        platform: Platform = context.resources.platform
        partition = context.partition_key if context.has_partition_key else None
        with _readable_failures(context):
            if not goes_on(context, spec):
                return
            decided_on_demand(context, spec)
            _follow_ledger(context, spec)
        with _readable_failures(context), parent_run(context, platform, spec.name) as parent_run_id:
            candidate, pictures = build_candidate(
                spec,
                partition,
                store=features.store,
                registry=platform.registry,
                ledger=platform.ledger,
                parent_run_id=parent_run_id,
                log=context.log.info,
            )
        context.set_data_version(context.asset_key, dg.DataVersion(candidate.fingerprint[:32]))
        values = metadata.candidate_metadata(candidate, pictures)
        yield dg.MaterializeResult(metadata=values)

    return candidate_model


def promoted_model(spec: ModelSpec) -> Callable[..., Any]:
    """Judge the candidate from its stored evidence; promote a winner or ask, else alert and fail."""

    def promoted_model(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from retrain_assets.promotion.candidate import Candidate
        from retrain_assets.promotion.promote import judge_and_promote

        platform: Platform = context.resources.platform
        partition = context.partition_key if context.has_partition_key else None
        with _readable_failures(context):
            decided_on_demand(context, spec)
            _follow_ledger(context, spec)
            try:
                outcome = judge_and_promote(
                    spec,
                    partition,
                    store=platform.store,
                    registry=platform.registry,
                    ledger=platform.ledger,
                    actor=f"dagster run {context.run.run_id}",
                )
            except (RolledBack, Declined) as error:
                candidate = Candidate.stored(platform.store, spec.name, partition)
                _record_judgement(context, spec, candidate, "refused", str(error), None)
                raise
            _record_outcome(context, spec, outcome)
        values = metadata.gate_metadata(outcome.report) | trigger_and_reason(
            run_tags(context), spec.name
        )
        asked = checks_of(spec, "promoted_model")
        for criterion in (c for c in outcome.report.criteria if c.name in asked):
            yield dg.AssetCheckResult(
                passed=criterion.passed is True,
                check_name=criterion.name,
                description=criterion.summary,
                metadata=metadata.rounded(criterion.numbers),
            )
        if outcome.promotion is not None:
            _set_version(context, [outcome.promotion.fingerprint])
            yield dg.MaterializeResult(
                metadata={"model_version": outcome.promotion.version, **values}
            )
            return
        if outcome.review is not None:
            waits = metadata.approval_text(outcome.review)
            context.log.info(f"{outcome.sentence}; waits for approval:\n{waits}")
            alert(context, spec, "approval", f"{spec.name}: v{outcome.review.version} awaits approval",
                  f"{outcome.sentence}\n\n{values['gate'].value}\n\n{waits}")  # fmt: skip
            return
        decision = outcome.report.decision
        verdict = "rejected" if decision == "reject" else "could not be judged"
        alert(context, spec, "rejected", f"{spec.name}: candidate {verdict}",
              f"{outcome.sentence}\n\n{values['gate'].value}")  # fmt: skip
        if spec.gate.fails_run(decision):
            raise dg.Failure(description=outcome.sentence, metadata={"retrain/rejected": True, **values},
                             allow_retries=False)  # fmt: skip
        context.log.warning(
            f"{outcome.sentence}; the champion stays (gate.on_reject, on_undecided: keep)"
        )

    return promoted_model


def _record_outcome(context: dg.AssetExecutionContext, spec: ModelSpec, outcome: "Outcome") -> None:
    """Put on record what came of the decision that this run belongs to."""
    verdict = "awaiting" if outcome.review is not None else str(outcome.report.decision)
    if outcome.promotion is not None:
        verdict = "promote"
    gain = outcome.report.gain
    _record_judgement(context, spec, outcome.candidate, verdict, outcome.sentence, gain)


def _record_judgement(
    context: dg.AssetExecutionContext,
    spec: ModelSpec,
    candidate: "Candidate",
    verdict: str,
    sentence: str,
    gain: float | None,
) -> None:
    from retrain_assets.promotion.decisions import Judgement

    platform: Platform = context.resources.platform
    platform.decisions.record_judgement(
        Judgement(
            model=spec.name,
            run_id=context.run.run_id,
            state=state_of_run(context, spec.name),
            partition=candidate.partition,
            version=candidate.version,
            training_code=training_code(spec),
            verdict=verdict,
            sentence=sentence,
            expected_gain=gain,
            compute_seconds=_step_seconds(context),
            judged_at=datetime.now(UTC),
        )
    )


def _step_seconds(context: dg.AssetExecutionContext) -> float:
    """Seconds that the run's steps have taken so far; of this one up to now."""
    now = datetime.now(UTC).timestamp()
    steps = context.instance.get_run_step_stats(context.run.run_id)
    return float(
        sum(
            max((step.end_time or now) - step.start_time, 0.0)
            for step in steps
            if step.start_time is not None
        )
    )


def policy_replay(spec: ModelSpec) -> Callable[..., Any]:
    """Replay retraining policies on the stored partitions; nothing live changes."""

    def policy_replay(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from retrain_assets.replay.run import replay

        platform: Platform = context.resources.platform
        with _readable_failures(context):
            found = replay(
                spec,
                store=platform.store,
                folder=platform.settings.home / "replay" / spec.name,
            )
        return dg.MaterializeResult(metadata=metadata.replay_metadata(found.result))

    return policy_replay
