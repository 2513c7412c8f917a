"""What a decision rests on: `Evidence` of the present, `History` of what was done.

Belongs here: plain data, the same for the live system and for replay. Does not: gathering it, rules.

`None` is "unknown" everywhere: it never fires a trigger and never engages a guard, and a decision says
that it is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from retrain_assets.performance.measured import Performance

__all__ = ["Evidence", "History", "PastRun"]


@dataclass(frozen=True)
class Evidence:
    """What is known about a model at one moment.

    Attributes:
        has_champion: whether any version was ever promoted.
        partitions: how many feature partitions exist; at least 1 for an unpartitioned table.
        needed: fewest partitions from which a candidate can be trained.
        drift_alarm: whether the newest drift report raised the alarm.
        drift_score: its score, weighed by the champion's importances, in [0, 1].
        prediction_drift: whether the distribution of the champion's predictions has drifted.
        performance: of the present champion, one per feature partition, oldest first and without
            gaps, the last for the newest partition: realised where its labels have come, estimated
            where they have not, undecided where neither can be told.
        expected: the champion's performance on its holdout, the level that it is held to.
        bad_data: what is wrong with the newest partition's data, in words, "" where nothing is.
        champion_age: newest data's end minus the end of the data the champion was trained for.
        new_partitions: feature partitions since the last retraining, promoted or not.
        promoted_by: the trigger of the last retraining where that one gave the present champion; None
            where it did not.
        changed: whether code or spec changed since the last retraining.
        asked: what asks for a retraining from outside: a cron tick or a person.
    """

    has_champion: bool
    partitions: int
    needed: int
    drift_alarm: bool | None = None
    drift_score: float | None = None
    prediction_drift: bool | None = None
    performance: Sequence[Performance] = ()
    expected: Performance | None = None
    bad_data: str | None = None
    champion_age: timedelta | None = None
    new_partitions: int | None = None
    promoted_by: str | None = None
    changed: bool | None = None
    asked: Literal["schedule", "on_demand"] | None = None


@dataclass(frozen=True)
class PastRun:
    """A retraining that was started.

    Attributes:
        ago: how long ago; on the wall clock in the live system, in data time in replay.
        compute_seconds: how long it ran; 0 where it never started.
    """

    ago: timedelta
    compute_seconds: float


@dataclass(frozen=True)
class History:
    """What was done before.

    Attributes:
        in_flight: a retraining of this model is queued or running.
        last_retraining: end of the data of the latest finished candidate, promoted or not.
        rejections: candidates since the last promotion.
        runs: retrainings of at least the last 7 days, in any order; None where nobody has looked.
        suspect_data: why the drift is more likely one of the data than of the world, since many
            models drifted together; "" where nothing says so.
    """

    in_flight: bool = False
    last_retraining: datetime | None = None
    rejections: int | None = None
    runs: Sequence[PastRun] | None = None
    suspect_data: str = ""
