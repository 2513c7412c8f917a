"""When to retrain, as a pure function of evidence and history. Knows no orchestrator, no I/O."""

from retrain_assets.policy.decide import Decision, Trigger, decide
from retrain_assets.policy.evidence import Evidence, History, PastRun
from retrain_assets.policy.suspect import Reported, SuspectRule, Suspicion, suspected

__all__ = [
    "Decision",
    "Evidence",
    "History",
    "PastRun",
    "Reported",
    "SuspectRule",
    "Suspicion",
    "Trigger",
    "decide",
    "suspected",
]
