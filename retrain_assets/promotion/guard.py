"""The guard: is a promoted model as good as the one it replaced, on rows that came afterwards?

Belongs here: which promotion is guarded and on which partitions, letting both models score them, the
look at what has come so far, and what follows. Does not: the statistics (`gate.paired_gain`,
`spending`), the record (`ledger`), telling people (the asset).

The guard period of a promotion is the `gate.guard.partitions` partitions that follow both models'
holdouts: neither was trained or chosen on them. A partition is scored once, when its labels are there
(`train.label_delay` partitions later at the earliest), and its scores are kept. Partitions are the
clusters of the comparison; of a long period successive ones are joined to blocks, as the gate does
(`intervals.block_length`). After each completed block, from `MIN_CLUSTERS` blocks on, one look compares
all rows so far. The promoted model is `worse` where the upper bound of its gain is below -max_loss. The
level of each look comes from `spending.next_alpha`, so that a model that loses exactly `max_loss` is
called worse at any look of the period with chance 1 - confidence (bench/gate/guard.py measures it).

A rollback by the guard is final for its pair: the champion that is back has no guard, and the version
that was rolled back is refused by `promote` until a person puts it back.

Safe to kill anywhere: scores, then the outcome's row, then the ledger's row of the rollback, then the
aliases, then the message; each is found or done again by the next call.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain_assets.errors import ChampionChanged
from retrain_assets.promotion.gate import nested, paired_gain
from retrain_assets.promotion.intervals import MIN_CLUSTERS, block_length
from retrain_assets.promotion.ledger import GuardOutcome
from retrain_assets.promotion.rollback import roll_back
from retrain_assets.promotion.spending import next_alpha
from retrain_assets.spec.model import ModelSpec

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry
    from retrain_assets.training.evaluation import Evaluation

__all__ = ["ACTOR", "Guarded", "GuardedPair", "guard", "guarded_pair", "mark_told", "period"]

ACTOR = "guard"
"""Who rolls back, in the ledger."""

_TOLD = "guard_told"


@dataclass(frozen=True)
class GuardedPair:
    """A promotion in its guard period, and the version that it replaced.

    Attributes:
        promotion: the ledger's row that is guarded.
        predecessor: the row that last made the replaced version champion.
    """

    promotion: "Promotion"
    predecessor: "Promotion"

    @property
    def expected_gain(self) -> float | None:
        """The gain that the gate saw on the holdout."""
        gain = self.promotion.evidence.get("gate", {}).get("gain")
        return None if gain is None else float(gain)


@dataclass(frozen=True)
class Guarded:
    """What the guard found.

    Attributes:
        pair: what was compared.
        scored: partitions that both models have scored, oldest first.
        outcomes: all looks at this promotion, oldest first.
        waiting: why there is no new look; empty where there is one.
        rollback: the ledger's row where the promotion was rolled back.
        told: whether people have been told that it is worse (`mark_told`).
    """

    pair: GuardedPair
    scored: tuple[str, ...]
    outcomes: tuple[GuardOutcome, ...]
    waiting: str
    rollback: "Promotion | None"
    told: bool

    @property
    def worse(self) -> GuardOutcome | None:
        """The first look that called the promoted model worse."""
        return next((look for look in self.outcomes if look.verdict == "worse"), None)

    @property
    def title(self) -> str:
        """What is to be told of a worse model."""
        promoted, before = self.pair.promotion, self.pair.predecessor
        return f"{promoted.model}: v{promoted.version} is worse than v{before.version}"

    @property
    def remedy(self) -> str:
        """What was done about a worse model, or can be."""
        promoted, before = self.pair.promotion, self.pair.predecessor
        if self.rollback is not None:
            return f"v{before.version} is champion again."
        return (
            f"v{promoted.version} was not rolled back; `retrain rollback {promoted.model} "
            f"--to {before.version} --reason ...` puts the model before it back."
        )

    @property
    def sentence(self) -> str:
        """The state in one line."""
        pair = self.pair
        what = f"v{pair.promotion.version}, which replaced v{pair.predecessor.version}"
        look = self.worse or (self.outcomes[-1] if self.outcomes else None)
        if look is None:
            return f"{what}: {self.waiting}"
        verb = "is worse" if look.verdict == "worse" else "is not shown to be worse"
        text = (
            f"{what}, {verb} on {look.rows:,} rows of {look.partitions} partitions up to "
            f"{look.through_partition}: {look.metric} gain {look.gain:+.3g}, between "
            f"{look.gain_low:+.3g} and {look.gain_high:+.3g}"
        )
        return text if look.expected_gain is None else f"{text}; expected {look.expected_gain:+.3g}"


def guard(
    spec: ModelSpec,
    *,
    store: "TableStore",
    registry: "MlflowRegistry",
    ledger: "Ledger",
    existing: Collection[str],
) -> Guarded | None:
    """Score what has come, look if a look is due, roll back if the spec says so.

    Costs one query of the ledger where no promotion is in its guard period.

    Args:
        spec: the model; `gate.guard` is set.
        store: feature partitions, and the scores of earlier looks.
        registry: the two models; only used to score a new partition or to roll back.
        ledger: promotions and outcomes.
        existing: keys of all stored feature partitions.

    Returns:
        None where no promotion is guarded now.

    Raises:
        TableError, TrainingError: rows cannot be read or scored.
        RegistryError, LedgerError: the registry or the ledger cannot be used.
    """
    rules, scheme = spec.gate.guard, spec.scheme
    assert rules is not None
    assert scheme is not None
    history = ledger.history(spec.name)
    unfinished = _unfinished_rollback(history, store)
    if unfinished is not None:
        return _finished_rollback(spec, unfinished, history, store, registry, ledger)
    pair = guarded_pair(history)
    if pair is None or not existing:
        return None
    keys = period(spec, pair)
    labelled = scheme.shift(max(existing), -spec.train.label_delay)
    over = scheme.shift(keys[-1], rules.partitions)
    if labelled is None or labelled < keys[0] or (over is not None and labelled >= over):
        return None
    table = f"guard_{pair.promotion.sequence}"
    known = set(store.partitions(spec.name, table))
    due = [key for key in keys if key <= labelled and key in existing and key not in known]
    known |= set(_score(spec, pair, due, table, store, registry))
    scored = tuple(key for key in keys if key in known)
    looks = [o for o in ledger.outcomes(spec.name) if o.sequence == pair.promotion.sequence]
    waiting, outcome = _look(spec, pair, keys, labelled, existing, scored, looks, table, store)
    if outcome is not None:
        recorded = ledger.record_outcome(outcome)
        looks.append(recorded)
    told = store.json_exists(spec.name, _TOLD, str(pair.promotion.sequence))
    found = Guarded(pair, scored, tuple(looks), waiting, None, told)
    if found.worse is None or not rules.auto_rollback:
        return found
    rollback = _roll_back(spec, found, registry, ledger)
    return Guarded(pair, scored, tuple(looks), waiting, rollback, told)


def guarded_pair(history: "Sequence[Promotion]") -> GuardedPair | None:
    """The champion and what it replaced, where a promotion made it champion; else None.

    The first champion replaced nothing, and a champion that was rolled back to has been judged by
    whoever rolled back.

    Args:
        history: of one model, oldest first.
    """
    if not history or history[-1].kind != "promotion" or history[-1].partition is None:
        return None
    champion = history[-1]
    earlier = [row for row in history[:-1] if row.version == champion.expected_version]
    return GuardedPair(champion, earlier[-1]) if earlier else None


def period(spec: ModelSpec, pair: GuardedPair) -> list[str]:
    """The guard period: partitions that follow both models' holdouts."""
    rules, scheme = spec.gate.guard, spec.scheme
    assert rules is not None
    assert scheme is not None
    last = max(_holdout_until(row) for row in (pair.promotion, pair.predecessor))
    keys = [scheme.shift(last, n) for n in range(1, rules.partitions + 1)]
    return [key for key in keys if key is not None]


def mark_told(store: "TableStore", found: Guarded) -> None:
    """Remember that people were told; called when the message is out, so that a kill repeats it."""
    promotion = found.pair.promotion
    store.write_json(promotion.model, _TOLD, str(promotion.sequence), {"sentence": found.sentence})


def _holdout_until(row: "Promotion") -> str:
    """End of a version's holdout; releases that did not keep it never held out what is later than
    the partition that they trained for."""
    until = row.evidence.get("candidate", {}).get("holdout_until")
    return str(until or row.partition)


def _score(
    spec: ModelSpec,
    pair: GuardedPair,
    keys: Sequence[str],
    table: str,
    store: "TableStore",
    registry: "MlflowRegistry",
) -> list[str]:
    """Let both models score those of the partitions whose labels are there; returns which."""
    from retrain_assets.data.tables import PARTITION_COLUMN
    from retrain_assets.training.encoding import has_target
    from retrain_assets.training.evaluation import score_labelled

    if not keys:
        return []
    rows = store.read_with_partition(spec.name, "features", list(keys))
    labelled = rows.filter(has_target(rows, spec.target))
    arrived = sorted(set(labelled[PARTITION_COLUMN].to_pylist()))
    if not arrived:
        return []
    found = score_labelled(
        registry.load(spec.name, pair.promotion.version),
        registry.load(spec.name, pair.predecessor.version),
        labelled.drop_columns([PARTITION_COLUMN]),
        group=spec.train.group,
        row_partitions=labelled[PARTITION_COLUMN].to_pylist(),
    )
    assert found is not None
    scores = found.to_table()
    for key in arrived:
        store.write(spec.name, table, key, scores.filter(found.row_partitions == key))
    return arrived


def _look(
    spec: ModelSpec,
    pair: GuardedPair,
    keys: Sequence[str],
    labelled: str,
    existing: Collection[str],
    scored: Sequence[str],
    looks: Sequence[GuardOutcome],
    table: str,
    store: "TableStore",
) -> tuple[str, GuardOutcome | None]:
    """The look that is due, or why there is none."""
    rules = spec.gate.guard
    assert rules is not None
    length = block_length(len(keys))
    blocks = len(keys) // length
    of_key = {key: min(at // length, blocks - 1) for at, key in enumerate(keys)}
    complete = _complete_blocks(of_key, labelled, existing, scored)
    used = [key for key in scored if of_key[key] < complete]
    present = len({of_key[key] for key in used})
    unit = "partitions" if length == 1 else f"blocks of {length} partitions"
    if present < MIN_CLUSTERS:
        return f"labels of {present} {unit} are there, {MIN_CLUSTERS} are needed for a look", None
    through = max(key for key in keys if of_key[key] == complete - 1)
    fraction = complete / blocks
    if any(look.through_partition >= through for look in looks):
        return f"looked at up to {through}; the next look needs more labels", None
    confidence = rules.confidence or spec.gate.confidence
    alpha = next_alpha([(o.fraction, o.alpha) for o in looks], fraction, 1 - confidence)
    if alpha <= 0:
        return "gate.guard was changed: earlier looks have used up what may be spent by now", None
    rows = _stored_scores(store, spec.name, table, used)
    interval = _interval(spec, rows, [of_key[key] for key in rows.row_partitions], alpha)
    if interval.low is None or interval.high is None:
        return f"the rows so far cannot be judged: {interval.problem}", None
    return "", GuardOutcome(
        model=spec.name,
        sequence=pair.promotion.sequence,
        through_partition=through,
        version=pair.promotion.version,
        predecessor=pair.predecessor.version,
        partitions=len(used),
        rows=rows.n_rows,
        metric=spec.metric,
        expected_gain=pair.expected_gain,
        gain=interval.gain,
        gain_low=interval.low,
        gain_high=interval.high,
        fraction=fraction,
        alpha=alpha,
        verdict="worse" if interval.high < -rules.max_loss else "holds",
        recorded_at=datetime.now(UTC),
    )


def _complete_blocks(
    of_key: Mapping[str, int], labelled: str, existing: Collection[str], scored: Sequence[str]
) -> int:
    """Blocks from the first on whose labels are complete.

    That is: the label delay of the whole block has passed, and its last existing partition, or a
    later one, has been scored; labels come in order, and a partition may be missing for good.
    """
    latest = max(scored, default="")
    complete = 0
    for block in sorted(set(of_key.values())):
        members = [key for key, number in of_key.items() if number == block]
        there = [key for key in members if key in existing]
        if members[-1] > labelled or (there and latest < there[-1]):
            break
        complete = block + 1
    return complete


def _stored_scores(
    store: "TableStore", model: str, table: str, keys: Sequence[str]
) -> "Evaluation":
    from retrain_assets.training.evaluation import CANDIDATE, CHAMPION, Evaluation, score_array

    rows = store.read(model, table, list(keys))
    return Evaluation(
        task="",
        y_true=rows["y_true"].to_numpy(),
        scores={name: score_array(rows[f"score.{name}"]) for name in (CANDIDATE, CHAMPION)},
        row_partitions=rows["partition"].to_numpy(),
        groups=rows["group"].to_numpy() if "group" in rows.column_names else None,
    )


def _interval(spec: ModelSpec, rows: "Evaluation", blocks: Sequence[int], alpha: float) -> Any:
    """Bounds of the gain; groups of a ranking that span blocks are drawn alone, as in the gate."""
    units = np.asarray(blocks)
    if rows.groups is not None and not nested(rows.groups, units):
        units = np.asarray(rows.groups)
    return paired_gain(
        y_true=rows.y_true,
        scores=rows.scores,
        groups=rows.groups,
        units=units,
        gate=spec.gate,
        metric=spec.metric,
        seed=spec.train.seed,
        alpha=alpha,
    )


def _roll_back(
    spec: ModelSpec, found: Guarded, registry: "MlflowRegistry", ledger: "Ledger"
) -> "Promotion | None":
    """Back to the predecessor; None where somebody else has changed the champion meanwhile."""
    pair, look = found.pair, found.worse
    assert look is not None
    try:
        _, now = roll_back(
            spec.name,
            to_version=pair.predecessor.version,
            registry=registry,
            ledger=ledger,
            actor=ACTOR,
            reason=found.sentence,
            expected_champion=pair.promotion.version,
            because={**asdict(look), "recorded_at": look.recorded_at.isoformat()},
        )
    except ChampionChanged:
        return None  # the promotion is no longer in force, which is what the guard wanted
    return now


def _unfinished_rollback(history: "Sequence[Promotion]", store: "TableStore") -> GuardedPair | None:
    """The pair of a rollback by the guard that nobody has been told of yet."""
    if len(history) < 2 or history[-1].kind != "rollback" or history[-1].actor != ACTOR:
        return None
    promotion = history[-2]
    if store.json_exists(promotion.model, _TOLD, str(promotion.sequence)):
        return None
    return guarded_pair(history[:-1])


def _finished_rollback(
    spec: ModelSpec,
    pair: GuardedPair,
    history: "Sequence[Promotion]",
    store: "TableStore",
    registry: "MlflowRegistry",
    ledger: "Ledger",
) -> Guarded:
    """What a kill after the ledger's row left undone: the aliases, and the message."""
    looks = [o for o in ledger.outcomes(spec.name) if o.sequence == pair.promotion.sequence]
    scored = store.partitions(spec.name, f"guard_{pair.promotion.sequence}")
    roll_back(
        spec.name,
        to_version=history[-1].version,
        registry=registry,
        ledger=ledger,
        actor=ACTOR,
        reason=history[-1].reason,
    )
    return Guarded(pair, tuple(scored), tuple(looks), "", history[-1], told=False)
