"""What holds for every gate: monotone, antisymmetric, and rarely fooled."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.promotion.gate import GateReport, evaluate_gate
from retrain_assets.spec.model import Gate

METRICS = (
    "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1",
    "mae", "rmse", "mape", "r2", "pinball@0.9",
)  # fmt: skip
REGRESSION = ("mae", "rmse", "mape", "r2", "pinball@0.9")
ORDER = {"reject": 0, "undecided": 1, "promote": 2}


def sample(metric: str, seed: int, n: int = 60) -> tuple[Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    if metric in REGRESSION:
        y = rng.normal(size=n)
        return y, {who: y + rng.normal(0, rng.uniform(0.5, 2), n) for who in ("a", "b")}
    y = np.append(rng.integers(0, 2, n - 2), [0, 1])
    return y, {
        who: 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, rng.uniform(0.5, 3), n))))
        for who in ("a", "b")
    }


def judge(metric: str, y: Any, candidate: Any, champion: Any, seed: int, **gate: Any) -> GateReport:
    return evaluate_gate(
        y_true=y,
        scores={"candidate": candidate, "champion": champion},
        groups=None,
        gate=Gate(**{"min_rows": 10, "resamples": 200, **gate}),
        metric=metric,
        seed=seed,
        champion_seen_holdout=False,
    )


metrics = st.sampled_from(METRICS)
seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(metrics, seeds, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_asking_for_more_gain_never_helps(metric: str, seed: int, m1: float, m2: float) -> None:
    y, scores = sample(metric, seed)
    low, high = (
        judge(metric, y, scores["a"], scores["b"], seed, min_gain=m) for m in sorted((m1, m2))
    )
    assert ORDER[high.decision] <= ORDER[low.decision]
    assert high.gain_low == low.gain_low


@settings(max_examples=40, deadline=None)
@given(metrics, seeds, st.floats(0.51, 0.99), st.floats(0.51, 0.99))
def test_asking_for_more_confidence_never_helps(
    metric: str, seed: int, c1: float, c2: float
) -> None:
    y, scores = sample(metric, seed)
    low, high = (
        judge(metric, y, scores["a"], scores["b"], seed, confidence=c) for c in sorted((c1, c2))
    )
    assert ORDER[high.decision] <= ORDER[low.decision]
    assert high.gain_low is not None
    assert low.gain_low is not None
    assert high.gain_low <= low.gain_low


@settings(max_examples=40, deadline=None)
@given(metrics, seeds, st.floats(0.51, 0.99))
def test_swapping_candidate_and_champion_flips_the_sign(
    metric: str, seed: int, confidence: float
) -> None:
    y, scores = sample(metric, seed)
    one = judge(metric, y, scores["a"], scores["b"], seed, confidence=confidence)
    other = judge(metric, y, scores["b"], scores["a"], seed, confidence=confidence)
    assert one.gain is not None
    assert one.gain_low is not None
    assert one.gain_high is not None
    assert (other.gain, other.gain_low, other.gain_high) == (
        -one.gain,
        -one.gain_high,
        -one.gain_low,
    )
    assert not (one.decision == other.decision == "promote")


@settings(max_examples=40, deadline=None)
@given(metrics, seeds)
def test_a_model_never_beats_itself(metric: str, seed: int) -> None:
    y, scores = sample(metric, seed)
    report = judge(metric, y, scores["a"], scores["a"], seed)
    assert (report.gain, report.gain_low, report.gain_high) == (0, 0, 0)
    assert report.decision == "reject"


@settings(max_examples=40, deadline=None)
@given(metrics, seeds)
def test_a_report_survives_json(metric: str, seed: int) -> None:
    y, scores = sample(metric, seed)
    report = judge(metric, y, scores["a"], scores["b"], seed)
    assert GateReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(("metric", "seed"), [("roc_auc", 0), ("mae", 1), ("rmse", 2)])
def test_of_equally_good_models_about_one_in_twenty_is_promoted(metric: str, seed: int) -> None:
    """300 trials at confidence 0.95: 5% expected, standard error 1.3%."""
    rng = np.random.default_rng(seed)
    promoted = 0
    for trial in range(300):
        if metric == "roc_auc":
            y = rng.integers(0, 2, 120)
            scores = [y + rng.normal(0, 1.5, 120) for _ in range(2)]
        else:
            y = rng.normal(size=120)
            scores = [y + rng.normal(0, 1, 120) for _ in range(2)]
        promoted += judge(metric, y, *scores, seed=trial, resamples=400).decision == "promote"
    assert 0.02 * 300 <= promoted <= 0.09 * 300
