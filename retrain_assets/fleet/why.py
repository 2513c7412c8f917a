"""Why a model was retrained or not, in plain words: a decision beside what came of it.

Belongs here: the row and its lines. Does not: gathering (the orchestration's), deciding (`policy`).
"""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Explained"]

_ENDED = ("success", "failure", "canceled")
_ACTIONS = {"retrain": "retrained", "wait": "waited", "hold": "held"}


@dataclass(frozen=True)
class Explained:
    """One decision and what came of it.

    Attributes:
        decided_at: wall clock, ISO 8601 UTC.
        partition: the newest data then; None without partitions.
        action: `retrain`, `wait` or `hold`.
        trigger: what fired first, None where nothing did.
        reasons: what fired, with its numbers; what holds it back and until when.
        run_id: of the run that it led to.
        run_status: of a run whose candidate was not judged.
        verdict: `promote`, `reject`, `undecided`, `awaiting` or `refused`.
        outcome: the verdict in one line.
        version: of the candidate.
        expected_gain: that the gate saw on the holdout.
        realised_gain: that the guard has seen since; None where none was measured.
        compute_seconds: that the run's steps took.
    """

    decided_at: str
    partition: str | None
    action: str
    trigger: str | None
    reasons: tuple[str, ...]
    run_id: str | None = None
    run_status: str | None = None
    verdict: str | None = None
    outcome: str | None = None
    version: str | None = None
    expected_gain: float | None = None
    realised_gain: float | None = None
    compute_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @property
    def done(self) -> str:
        """What was done, and what fired."""
        why = f" ({self.trigger})" if self.trigger else ""
        return f"{_ACTIONS.get(self.action, self.action)}{why}"

    @property
    def summary(self) -> str:
        """The decision in one line, without when."""
        return f"{self.done}: {'; '.join(self.reasons)}"

    def _run_told(self) -> str:
        """What is known of a retraining whose candidate was not judged."""
        if self.run_id is None:
            return "no run of it is known"
        if self.run_status in _ENDED:
            return f"run {self.run_id} ended ({self.run_status}) before a candidate was judged"
        return f"run {self.run_id} is on its way ({self.run_status})"

    def lines(self) -> list[str]:
        """What a person reads: when and what, each reason, what came of it."""
        where = f"  data up to {self.partition}" if self.partition else ""
        found = [f"{self.decided_at[:19].replace('T', ' ')}{where}  {self.done}"]
        found += [f"    {reason}" for reason in self.reasons]
        if self.outcome:
            found.append(f"    -> {self.outcome}")
        elif self.action == "retrain":
            found.append(f"    -> {self._run_told()}")
        numbers = [
            f"{name} {value:{form}}"
            for name, value, form in (
                ("expected gain", self.expected_gain, "+.3g"),
                ("realised gain", self.realised_gain, "+.3g"),
                ("compute seconds", self.compute_seconds, ".0f"),
            )
            if value is not None
        ]
        return [*found, f"       {', '.join(numbers)}"] if numbers else found
