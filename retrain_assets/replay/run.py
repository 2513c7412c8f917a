"""A replay from the stored partitions to the result.

Belongs here: the order of the parts, which models hindsight is offered. Does not: any of the parts.
"""

import os
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import ReplayError
from retrain_assets.replay.evidence import EvidenceOf
from retrain_assets.replay.history import History, snapshot
from retrain_assets.replay.memo import Memo
from retrain_assets.replay.oracle import oracle_frontier
from retrain_assets.replay.policies import Policy, chosen_policies, random_policies
from retrain_assets.replay.result import Result, recommend, served_values, summed
from retrain_assets.replay.scores import Scores, replayed_spec, value_on
from retrain_assets.replay.staleness import MATTERS, staleness_curve, suggested_age
from retrain_assets.replay.trainings import Trained, Trainings
from retrain_assets.replay.walk import Walk
from retrain_assets.training.baselines import baseline_predictions
from retrain_assets.training.encoding import has_target
from retrain_assets.training.evaluation import CANDIDATE

if TYPE_CHECKING:
    from retrain_assets.data.tables import TableStore
    from retrain_assets.replay.result import PolicyResult
    from retrain_assets.replay.staleness import Age
    from retrain_assets.spec.model import ModelSpec

__all__ = ["Replay", "Stage", "replay"]

_EVEN_MODELS = 12
"""Stretches of the time, of each of which a model is scored on all later partitions."""

_SPANS = 40
"""At most so many points of the staleness curve: old ages are known of few models."""

_STALE_SECONDS = 3600.0

Stage = Callable[[str, int, int], object]
FloatArray = NDArray[np.float64]


def _silent(stage: str, done: int, of: int) -> None:
    """No progress."""


@dataclass(frozen=True)
class Replay:
    """A result with the walks that it is from.

    Attributes:
        result: the figures.
        walks: of each policy, one or several draws.
    """

    result: Result
    walks: dict[str, list[Walk]]


def replay(
    spec: "ModelSpec",
    *,
    store: "TableStore",
    folder: Path,
    first: str | None = None,
    last: str | None = None,
    policies: Sequence[str] | None = None,
    workers: int | None = None,
    seed: int = 0,
    progress: Stage = _silent,
) -> Replay:
    """What each policy would have done on the model's stored feature partitions.

    Args:
        spec: the model.
        store: the deployment's store; only read.
        folder: this model's scratch folder; kept, so that the next replay computes only what is new.
        first, last: partitions between which to replay; by default all that are stored.
        policies: names, see `policies`; by default all that fit.
        workers: processes that train at the same time; by default as many as cores.
        seed: of the random policy.
        progress: called with a stage's name, how much is done, and of how much.

    Raises:
        ReplayError: a history that cannot be replayed, or no such policy.
        TableError, DriftError, TrainingError: partitions that cannot be read, compared or scored.
    """
    spec = replayed_spec(spec)
    chosen = chosen_policies(spec, policies)
    history = snapshot(spec, store, folder / "store", first=first, last=last)
    _remove_stale(folder / "trainings")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    with Memo(folder / "memo.sqlite") as memo:
        stage = _Stage(history, Trainings(history, folder / "trainings", workers), memo, progress)
        walks = {policy.name: [stage.walk(policy)] for policy in chosen}
        own = walks["combined"][0]
        served = stage.until_champion(own)
        stage.train(chosen, served)
        stage.run([walk for found in walks.values() for walk in found], own, served)
        if policies is None or "random" in policies:
            drawn = random_policies(served[:-1], len(own.later), seed)
            walks["random"] = [stage.walk(policy) for policy in drawn]
            stage.train(drawn, served)
            stage.run(walks["random"], own, served)
        return Replay(_result(stage, walks, served), walks)


@dataclass
class _Stage:
    """What all walks of one replay share."""

    history: History
    trainings: Trainings
    memo: Memo
    progress: Stage
    first: Trained = field(init=False)

    def __post_init__(self) -> None:
        self.scores = Scores(self.history, self.memo)
        self.evidence = EvidenceOf(self.history, self.scores, self.memo)

    @property
    def keys(self) -> tuple[str, ...]:
        """The partitions from which on there is enough to train on."""
        spec = self.history.spec
        return self.history.keys[spec.min_window + spec.train.label_delay - 1 :]

    def walk(self, policy: Policy) -> Walk:
        return Walk(policy, self.history, self.trainings, self.scores, self.evidence)

    def until_champion(self, walk: Walk) -> list[str]:
        """Walk the spec's own policy until it has a champion; returns the partitions after that.

        All policies begin with this champion: what comes before is no matter of when to retrain.

        Raises:
            ReplayError: it never has one, or only with the last partition.
        """
        self.trainings.prepare(self.keys[:1])
        for place, key in enumerate(self.keys):
            walk.step(key)
            if walk.champion is not None:
                self.first, after = walk.champion, list(self.keys[place + 1 :])
                if after:
                    return after
        said = "; ".join(
            f"{one.partition} {one.outcome} {one.problem}".strip() for one in walk.retrainings[-3:]
        )
        raise ReplayError(
            f"{self.history.spec.name}: there is no champion to serve with in {self.keys[0]} to "
            f"{self.keys[-1]} ({said or 'nothing was trained'}); replay more partitions, or loosen "
            "the gate"
        )

    def train(self, policies: Iterable[Policy], served: Sequence[str]) -> None:
        """Train ahead, on all cores, what is known to be asked for."""
        wanted: set[str] = set()
        for policy in policies:
            every = policy.retrain.on_new_partitions if policy.name.startswith("every_") else None
            wanted |= set(served[every - 1 :: every]) if every else set(policy.asked_at)
        self.trainings.prepare(sorted(wanted), lambda done, of: self.progress("training", done, of))

    def run(self, walks: Sequence[Walk], own: Walk, served: Sequence[str]) -> None:
        """All walks side by side, so that a partition is read and scored once for all of them."""
        (begin,) = [one for one in own.retrainings if one.fingerprint == self.first.fingerprint]
        for walk in walks:
            if walk is not own:
                walk.begin_with(self.first, begin)
        for done, key in enumerate(served):
            for walk in walks:
                walk.step(key)
            self.progress("walking", done + 1, len(served))
        self.memo.save()


def _result(stage: _Stage, walks: dict[str, list[Walk]], keys: Sequence[str]) -> Result:
    spec, history = stage.history.spec, stage.history
    sign = 1.0 if stage.scores.metric.direction == "maximize" else -1.0
    rows = {one.partition: one.rows for one in walks["never"][0].served}
    weights = np.array([float(rows[key]) for key in keys])
    if not weights.any():
        raise ReplayError(f"{spec.name}: no partition from {keys[0]} to {keys[-1]} has labels")
    never = walks["never"][0]
    level = served_values(never, keys, sign)
    if not np.isfinite(level).any():
        raise ReplayError(
            f"{spec.name}: {spec.metric} has no value on any partition from {keys[0]} to {keys[-1]}: "
            f"{stage.scores.metric.undefined_when}"
        )
    figures: list[PolicyResult] = []
    values: dict[str, FloatArray] = {}
    for name, found in walks.items():
        one, values[name] = summed(name, found, level, weights, keys, sign, spec.retrain.cost)
        figures.append(one)
    even = _even(stage, [one for found in walks.values() for one in found])
    known = sign * stage.scores.values(even, keys)
    stage.progress("hindsight", len(even), len(even))
    # A partition on which a model has no value has none for any policy: it counts for nobody.
    counted = np.where(np.isfinite(level), weights, 0.0)
    most = int(max(one.retrainings for one in figures))
    offered = _offered(even, known, [one for found in walks.values() for one in found], keys, sign)
    frontier = oracle_frontier(offered.values, counted, offered.starts, offered.ends, most)
    curve, age, matters = _staleness(offered.values, counted, offered.starts, sign * level)
    trained = stage.trainings.known
    return Result(
        model=spec.name,
        metric=spec.metric,
        direction=stage.scores.metric.direction,
        first=keys[0],
        last=keys[-1],
        partitions=len(keys),
        rows=int(weights.sum()),
        policies=tuple(figures),
        oracle=tuple((one.retrainings, sign * one.total / counted.sum()) for one in frontier),
        baseline=_baseline(stage, stage.first, keys, counted),
        staleness=tuple(curve),
        max_age=age,
        matters=matters,
        recommendation=recommend(figures, values, weights, keys, matters),
        trainings=len(trained),
        training_seconds=sum(one.seconds for one in trained),
        notes=_notes(history),
    )


def _notes(history: History) -> tuple[str, ...]:
    spec = history.spec
    notes = [
        "the features are those that are stored now: what a source corrected later, replay knows",
        "retraining takes no time here; latency budgets and manual approval are left out",
    ]
    if spec.retrain.on_change:
        notes.append("on_change never fires: code and spec are today's throughout")
    return tuple(notes)


def _even(stage: _Stage, walks: Iterable[Walk]) -> list[Trained]:
    """The first champion, and a model of each stretch of the time after it.

    Of a stretch's models it is the one that some walk served longest: that much of it is known.
    """
    scored: dict[str, set[str]] = {}
    for walk in walks:
        for one in walk.served:
            scored.setdefault(one.fingerprint, set()).add(one.partition)
    later = [one for one in stage.trainings.known if one.partition > stage.first.partition]
    step = max(-(-len(later) // _EVEN_MODELS), 1)
    stretches = [later[start : start + step] for start in range(0, len(later), step)]
    return [
        stage.first,
        *(max(few, key=lambda one: len(scored.get(one.fingerprint, ()))) for few in stretches),
    ]


@dataclass(frozen=True)
class _Offered:
    """What hindsight chooses from; see `oracle_frontier`."""

    values: FloatArray
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def _offered(
    even: Sequence[Trained],
    known: FloatArray,
    walks: Iterable[Walk],
    keys: Sequence[str],
    sign: float,
) -> _Offered:
    """Every model that served in any walk, as long as it did, beside those known on all partitions.

    A model serves from the partition after its own, so that what several walks know of it begins at
    the same place.
    """
    place = {key: at for at, key in enumerate(keys)}
    whole = {one.partition for one in even}
    rows: dict[str, FloatArray] = {
        one.partition: values for one, values in zip(even, known, strict=True)
    }
    ends = dict.fromkeys(rows, len(keys))
    for walk in walks:
        of = {one.fingerprint: one.partition for one in walk.retrainings}
        for one in walk.served:
            model, at = of[one.fingerprint], place.get(one.partition)
            if at is None or model in whole:
                continue
            row = rows.setdefault(model, np.full(len(keys), np.nan))
            row[at] = np.nan if one.value is None else sign * one.value
            ends[model] = max(ends.get(model, 0), at + 1)
    models = sorted(rows)
    return _Offered(
        np.array([rows[model] for model in models]),
        _starts(models, keys),
        np.array([ends[model] for model in models], dtype=np.int64),
    )


def _starts(trained_for: Sequence[str], keys: Sequence[str]) -> NDArray[np.int64]:
    """The first of `keys` that models trained for these partitions can serve."""
    return np.array([bisect_right(keys, one) for one in trained_for], dtype=np.int64)


def _staleness(
    table: FloatArray, weights: FloatArray, starts: NDArray[np.int64], level: FloatArray
) -> "tuple[list[Age], int | None, float]":
    """The curve over spans as long as the models are apart, `_SPANS` of them at most."""
    gaps, partitions = np.diff(starts), table.shape[1]
    span = max(int(np.median(gaps)), partitions // _SPANS, 1) if len(gaps) else max(partitions, 1)
    curve = staleness_curve(table, weights, starts, span)
    matters = MATTERS * float(np.nanmean(np.abs(level)))
    return curve, suggested_age(curve, matters), matters


def _baseline(
    stage: _Stage, first: Trained, keys: Sequence[str], weights: FloatArray
) -> float | None:
    """The metric of "nothing changes": what the last labelled partition says, for each partition."""
    scores, history = stage.scores, stage.history
    spec, total, counted = history.spec, 0.0, 0.0
    for place, key in enumerate(keys):
        at = history.index[key] - 1 - spec.train.label_delay
        if at < 0 or not weights[place]:
            continue
        before = history.keys[at]

        def compute(key: str = key, before: str = before) -> float | None:
            return _unchanged(scores, first, key, before)

        made_from = [history.fingerprints[key], history.fingerprints[before], first.fingerprint]
        value = stage.memo.get("last value", [*made_from, spec.metric], compute)
        if value is not None:
            total, counted = total + weights[place] * value, counted + weights[place]
    return total / counted if counted else None


def _unchanged(scores: Scores, first: Trained, key: str, before: str) -> float | None:
    evaluation = scores.evaluation(first, key)
    if evaluation is None:
        return None
    model, spec = scores.model(first), scores.spec
    known = scores.table(before)
    if not has_target(known, spec.target).to_numpy().any():
        return None
    rows = scores.table(key)
    rows = rows.filter(has_target(rows, spec.target))
    found = baseline_predictions(
        known, rows, target=spec.target, task=spec.task, entity=spec.train.entity, last=known,
        classes=model.classes,
    )  # fmt: skip
    value, _ = value_on(scores.metric, replace(evaluation, scores={CANDIDATE: found["last_value"]}))
    return value


def _remove_stale(folder: Path) -> None:
    """What killed trainings left half-written."""
    if not folder.exists():
        return
    limit = time.time() - _STALE_SECONDS
    for path in folder.glob(".*"):
        if path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
