"""Names that must be the same in two places."""

from retrain_assets.orchestration.keys import GATE_CHECKS
from retrain_assets.promotion.gate import CRITERIA


def test_the_checks_of_promoted_model_are_the_criteria_of_the_gate() -> None:
    assert tuple(GATE_CHECKS) == CRITERIA
