"""One policy on its way through history: evidence, `decide`, training, the gate, serving.

Belongs here: what follows what when a partition comes, as the sensors and runs of the live system do
it. Does not: any of the steps.

When partition P has come, its drift report is made against the champion of then; `decide` is asked with
data time (the end of P) as now; where it says so, P's candidate is judged against that champion on its
holdout, and serves from P + 1 on if it is promoted. Cron ticks count between the end of P and the end of
P + 1, unless P was retrained already: its data would give the same model again. A retraining takes no
time, and compute seconds of the budget are those of training.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from retrain_assets.drift.watch import raises_alarm
from retrain_assets.errors import TrainingError
from retrain_assets.policy import Decision, Evidence, PastRun, decide
from retrain_assets.policy import History as Past
from retrain_assets.policy.guards import WEEK

if TYPE_CHECKING:
    from retrain_assets.performance.measured import Performance
    from retrain_assets.replay.evidence import EvidenceOf
    from retrain_assets.replay.history import History
    from retrain_assets.replay.policies import Policy
    from retrain_assets.replay.scores import Scores
    from retrain_assets.replay.trainings import Trained, Trainings
    from retrain_assets.spec.model import ModelSpec

__all__ = ["JUDGED_PARTITIONS", "Retraining", "Served", "Walk"]

JUDGED_PARTITIONS = 28
"""That a promotion is judged by: on as many, what it replaced is scored, too."""


@dataclass(frozen=True)
class Retraining:
    """A retraining that a policy asked for.

    Attributes:
        partition: whose coming started it.
        trigger: what fired.
        outcome: `promoted`, `rejected`, `undecided`, or `failed` where nothing could be trained or
            compared.
        fingerprint: of the candidate, empty where there is none.
        gain: of the candidate over the champion on the holdout, None without one.
        seconds: CPU seconds of training.
        problem: why it failed.
    """

    partition: str
    trigger: str
    outcome: str
    fingerprint: str = ""
    gain: float | None = None
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Served:
    """A partition, scored by the model that was active when it came.

    Attributes:
        partition: its key.
        fingerprint: of the model.
        value: the metric; None where it has none there.
        rows: how many rows (ranking: groups) it is from.
        before: the same of the model that the active one replaced; None where it was the first, and
            later than `JUDGED_PARTITIONS` after the promotion.
    """

    partition: str
    fingerprint: str
    value: float | None
    rows: int
    before: float | None


@dataclass
class Walk:
    """One policy's state, partition by partition; see the module."""

    policy: "Policy"
    history: "History"
    trainings: "Trainings"
    scores: "Scores"
    evidence: "EvidenceOf"
    champion: "Trained | None" = None
    previous: "Trained | None" = None
    decisions: list[tuple[str, Decision]] = field(default_factory=list)
    retrainings: list[Retraining] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    _verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    _last: str | None = None
    _rejections: int = 0

    @property
    def later(self) -> list[Retraining]:
        """The retrainings after the one that gave the first champion."""
        for place, one in enumerate(self.retrainings):
            if one.outcome == "promoted":
                return self.retrainings[place + 1 :]
        return []

    def begin_with(self, champion: "Trained", retraining: Retraining) -> None:
        """Begin with a champion, at the partition that it was promoted for."""
        self.champion, self._last = champion, champion.partition
        self.retrainings = [retraining]

    def step(self, key: str) -> None:
        """A partition comes: serve it, then decide.

        Raises:
            TrainingError, DriftError, TableError: rows that cannot be scored, compared or read.
        """
        self._serve(key)
        # Once for drift and the other conditions, once for the schedule: the live system has a
        # sensor for either, and the first of them that retrains leaves no new data to the other.
        asked_for = self.retrainings[-1:]
        self._decide(key, self._seen(key, scheduled=False))
        retrained = self.retrainings[-1:] != asked_for
        if not retrained and (key in self.policy.asked_at or self._tick(key)):
            self._decide(key, self._seen(key, scheduled=True))

    def _serve(self, key: str) -> None:
        if self.champion is None:
            return
        value, rows = self.scores.value(self.champion, key)
        before = None
        if self.previous is not None and self._age(key) <= JUDGED_PARTITIONS:
            before, _ = self.scores.value(self.previous, key)
        self.served.append(Served(key, self.champion.fingerprint, value, rows, before))

    def _age(self, key: str) -> int:
        """Partitions since that of the champion."""
        assert self.champion is not None
        return self.history.index[key] - self.history.index[self.champion.partition]

    # -- what is known ----------------------------------------------------------------------------

    @property
    def _spec(self) -> "ModelSpec":
        return self.history.spec

    def _end(self, key: str) -> datetime:
        return self.history.ends[key]

    def _seen(self, key: str, *, scheduled: bool) -> Evidence:
        spec, champion = self._spec, self.champion
        alarm, score, predictions = self._drift(key)
        age = None
        if champion is not None:
            age = max(self._end(key) - self._end(champion.partition), timedelta(0))
        return Evidence(
            has_champion=champion is not None,
            partitions=self.history.index[key] + 1,
            needed=spec.min_window + spec.train.label_delay,
            drift_alarm=alarm,
            drift_score=score,
            prediction_drift=predictions,
            performance=self._performance(key),
            expected=None if champion is None or not self._judges_performance
            else self.evidence.expected(champion),
            champion_age=age,
            new_partitions=None if self._last is None
            else self.history.index[key] - self.history.index[self._last],
            promoted_by=self._promoted_by,
            changed=False if self.policy.retrain.on_change else None,
            asked="schedule" if scheduled else None,
        )  # fmt: skip

    @property
    def _promoted_by(self) -> str | None:
        """What asked for the champion where no retraining has come after it."""
        if self.champion is None or self.champion.partition != self._last:
            return None
        return next(one.trigger for one in reversed(self.retrainings) if one.outcome == "promoted")

    @property
    def _judges_performance(self) -> bool:
        return (
            self.policy.retrain.on_performance is not None or self.policy.retrain.cost is not None
        )

    def _drift(self, key: str) -> tuple[bool | None, float | None, bool | None]:
        """Alarm, score and drift of predictions, where the policy asks for drift."""
        if self.champion is None or not self.policy.retrain.on_drift:
            return None, None, None
        name = self.evidence.reference_name(self.champion)
        report = self.evidence.drift(self.champion, key)
        earlier = {
            one: verdict for one, (against, verdict) in self._verdicts.items() if against == name
        }
        raised, _ = raises_alarm(self._spec, key, report["verdict"], earlier)
        self._verdicts[key] = (name, report["verdict"])
        return raised, report["score"], report["prediction_drift"]

    def _performance(self, key: str) -> "tuple[Performance, ...]":
        rule, cost = self.policy.retrain.on_performance, self.policy.retrain.cost
        if self.champion is None or not self._judges_performance:
            return ()
        estimate = rule is not None and rule.estimate
        last = None if cost is not None or rule is None else rule.of_last
        return self.evidence.performance(self.champion, key, estimate=estimate, last=last)

    def _past(self, key: str) -> Past:
        now, runs = self._end(key), None
        if self.policy.retrain.budget is not None:
            runs = tuple(
                PastRun(now - self._end(one.partition), one.seconds)
                for one in self.retrainings
                if now - self._end(one.partition) < WEEK
            )
        last = None if self._last is None else self._end(self._last)
        return Past(last_retraining=last, rejections=self._rejections, runs=runs)

    def _tick(self, key: str) -> bool:
        """Whether the schedule ticks before the next partition comes."""
        retrain = self.policy.retrain
        if retrain.schedule is None:
            return False
        from zoneinfo import ZoneInfo

        from cronsim import CronSim

        end = self._end(key)
        # The partition after the last one of a calendar that ends is as long as the last.
        following = end + (end - self.history.scheme.window(key).start)
        start = (end - timedelta(minutes=1)).astimezone(ZoneInfo(retrain.timezone))
        tick: datetime = next(CronSim(" ".join(retrain.schedule.split()), start))
        return tick < following

    # -- what is done -----------------------------------------------------------------------------

    def _decide(self, key: str, evidence: Evidence) -> None:
        decision = decide(self.policy.retrain, evidence, self._past(key), self._end(key))
        self.decisions.append((key, decision))
        if decision.action == "retrain":
            self.retrainings.append(self._retrain(key, str(decision.trigger)))

    def _retrain(self, key: str, trigger: str) -> Retraining:
        try:
            candidate = self.trainings.get(key)
            verdict = self.scores.verdict(candidate, self.champion)
        except TrainingError as error:
            # A run that fails: there is no candidate, and the next partition asks again.
            return Retraining(key, trigger, "failed", problem=str(error))
        self._last = key
        if verdict["decision"] == "promote":
            self._rejections = 0
            self.previous, self.champion = self.champion, candidate
            outcome = "promoted"
        else:
            self._rejections += 1
            outcome = "rejected" if verdict["decision"] == "reject" else "undecided"
        return Retraining(
            key, trigger, outcome, candidate.fingerprint, verdict["gain"], candidate.seconds
        )
