"""When to retrain, as a pure function of evidence and history. Knows no orchestrator, no I/O."""

from retrain_assets.policy.decide import Decision, Evidence, History, Trigger, decide

__all__ = ["Decision", "Evidence", "History", "Trigger", "decide"]
