"""What is computed once for several verdicts on the same holdout."""

import numpy as np
import pytest

from retrain_assets.promotion.gate import GateReport, evaluate_gate
from retrain_assets.promotion.standing import Standings
from retrain_assets.spec.model import Gate
from retrain_assets.training import metrics
from retrain_assets.training.metrics import get_metric

N = 600
RNG = np.random.default_rng(3)
Y = RNG.integers(0, 2, N)
CANDIDATE, BASELINE, OLD, OLDER = (
    1 / (1 + np.exp(0.5 - Y - RNG.normal(0, noise, N))) for noise in (1.0, 4.0, 1.5, 2.0)
)
DAYS = np.repeat(np.arange(30), N // 30)


def judged(champion: np.ndarray, standings: Standings | None, metric: str) -> GateReport:
    scores = {"candidate": CANDIDATE, "champion": champion, "prior": BASELINE}
    return evaluate_gate(
        y_true=Y, scores=scores, groups=None, gate=Gate(resamples=200), metric=metric, seed=1,
        champion_seen_holdout=False, units=DAYS, standings=standings,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "accuracy"])
def test_verdicts_that_share_what_they_know_are_the_same(metric: str) -> None:
    shared = Standings()
    for champion in (OLD, OLDER, OLD):
        assert judged(champion, shared, metric) == judged(champion, None, metric)


def test_a_candidate_that_meets_two_champions_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[np.ndarray] = []
    influence = metrics.Metric.influence

    def counted(metric: metrics.Metric, y_true: np.ndarray, y_score: np.ndarray, **more: None):  # type: ignore[no-untyped-def]
        measured.append(y_score)
        return influence(metric, y_true, y_score, **more)

    monkeypatch.setattr(metrics.Metric, "influence", counted)
    shared = Standings()
    for champion in (OLD, OLDER):
        judged(champion, shared, "roc_auc")
    assert [sum(one is score for score in measured) for one in (CANDIDATE, BASELINE)] == [1, 1]
    assert sum(one is score for score in measured for one in (OLD, OLDER)) == 2


def test_other_arrays_are_other_standings_and_the_oldest_are_forgotten() -> None:
    metric, standings = get_metric("roc_auc"), Standings()
    first = standings.of(metric, Y, CANDIDATE, None)
    assert standings.of(metric, Y, CANDIDATE, None) is first
    assert standings.of(metric, Y, CANDIDATE.copy(), None) is not first
    assert standings.of(metric, Y.copy(), CANDIDATE, None) is not first
    assert standings.of(get_metric("accuracy"), Y, CANDIDATE, None) is not first
    for _ in range(20):
        standings.of(metric, Y, CANDIDATE.copy(), None)
    assert standings.of(metric, Y, CANDIDATE, None) is not first
