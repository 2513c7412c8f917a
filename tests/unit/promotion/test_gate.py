"""The gate's criteria, one by one, and its verdict."""

import json
import math
from typing import Any

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.promotion.gate import (
    CRITERIA,
    GateReport,
    evaluate_gate,
    gate_markdown,
    gate_sentence,
)
from retrain_assets.spec.model import Gate

N = 400
Y = np.random.default_rng(0).integers(0, 2, N)


def scored(noise: float, seed: int, y: np.ndarray[Any, Any] = Y) -> np.ndarray[Any, Any]:
    """Scores that follow the truth the better the smaller the noise."""
    return np.asarray(y + np.random.default_rng(seed).normal(0, noise, len(y)))


def judge(scores: dict[str, Any], **changes: Any) -> GateReport:
    gate = Gate(resamples=400, **changes.pop("gate", {}))
    arguments: dict[str, Any] = {
        "y_true": Y,
        "scores": scores,
        "groups": None,
        "gate": gate,
        "metric": "roc_auc",
        "seed": 1,
        "champion_seen_holdout": False,
    }
    return evaluate_gate(**{**arguments, **changes})


GOOD, BAD = scored(0.5, 1), scored(3.0, 2)


def test_every_report_has_all_criteria_in_order() -> None:
    for report in (
        judge({"candidate": GOOD}),
        judge({"candidate": GOOD * np.nan}),
        judge({"candidate": GOOD, "champion": BAD, "majority": np.zeros(N)}),
        judge({"candidate": GOOD}, gate={"min_rows": 1000}),
    ):
        assert tuple(criterion.name for criterion in report.criteria) == CRITERIA
        assert [report.criterion(name).name for name in CRITERIA] == list(CRITERIA)


def test_a_clearly_better_candidate_is_promoted() -> None:
    report = judge({"candidate": GOOD, "champion": BAD, "majority": np.zeros(N)})
    assert report.decision == "promote"
    assert report.reasons == ()
    assert all(criterion.passed for criterion in report.criteria)
    assert (report.metric, report.direction, report.n) == ("roc_auc", "maximize", N)
    assert report.champion is not None
    assert report.gain == pytest.approx(report.candidate - report.champion)
    assert report.gain_low is not None
    assert report.gain_high is not None
    assert 0 < report.gain_low < report.gain < report.gain_high


def test_a_clearly_worse_candidate_is_rejected_with_the_numbers() -> None:
    report = judge({"candidate": BAD, "champion": GOOD})
    assert report.decision == "reject"
    assert report.criterion("beats_champion").passed is False
    assert report.gain is not None
    assert report.gain < 0
    (reason,) = report.reasons
    assert reason.startswith("roc_auc 0.")
    assert " against champion 0." in reason
    assert "95% lower bound -0." in reason
    assert reason.endswith("< 0")


def test_the_champion_is_not_replaced_by_its_equal() -> None:
    report = judge({"candidate": GOOD, "champion": GOOD.copy()})
    assert (report.gain, report.gain_low, report.gain_high) == (0, 0, 0)
    assert report.decision == "reject"
    assert report.reasons[0].endswith("95% lower bound +0 = 0, must be above")
    assert judge({"candidate": GOOD, "champion": GOOD}, gate={"min_gain": -0.01}).decision == (
        "promote"
    )


def test_a_negative_min_gain_lets_a_slightly_worse_candidate_pass() -> None:
    worse = GOOD + np.random.default_rng(5).normal(0, 0.05, N)
    scores = {"candidate": worse, "champion": GOOD}
    assert judge(scores).decision == "reject"
    assert judge(scores, gate={"min_gain": -0.02}).decision == "promote"


def test_for_a_metric_to_minimize_smaller_is_better() -> None:
    y = np.random.default_rng(0).normal(size=N)
    close, far = y + 0.1, y + np.random.default_rng(1).normal(0, 1, N)
    report = judge({"candidate": close, "champion": far}, y_true=y, metric="rmse")
    assert (report.decision, report.direction) == ("promote", "minimize")
    assert report.candidate == pytest.approx(0.1)
    assert report.gain is not None
    assert report.gain > 0


def test_the_same_seed_gives_the_same_report_and_another_seed_another_bound() -> None:
    scores = {"candidate": GOOD, "champion": BAD}
    assert judge(scores) == judge(scores)
    assert judge(scores).gain_low == judge(scores, seed=2).gain_low  # DeLong draws nothing
    one, other = (judge(scores, metric="average_precision", seed=seed) for seed in (1, 2))
    assert one.gain_low != other.gain_low
    assert one.gain == other.gain


def test_candidate_and_champion_are_drawn_together() -> None:
    """Two models with the same errors but for a shift have a gain that hardly varies."""
    y = np.random.default_rng(0).normal(size=N)
    errors = np.random.default_rng(1).normal(0, 5, N)
    report = judge(
        {"candidate": y + errors, "champion": y + errors + np.sign(errors) * 0.01},
        y_true=y,
        metric="mae",
    )
    assert report.decision == "promote"
    assert report.gain_low == pytest.approx(0.01)
    assert report.gain_high == pytest.approx(0.01)


def test_too_few_rows_are_undecided_however_good_the_candidate() -> None:
    report = judge(
        {"candidate": GOOD, "champion": BAD, "majority": np.zeros(N)},
        gate={"min_rows": N + 1, "floor": 0.5},
    )
    assert report.decision == "undecided"
    assert report.reasons == ("400 holdout rows are fewer than min_rows 401",)
    assert {c.name: c.passed for c in report.criteria} == {
        "finite_scores": True,
        "enough_rows": None,
        "floor": None,
        "beats_baselines": None,
        "unseen_holdout": True,
        "beats_champion": None,
        "power": True,
        "slices": True,
        "group_gaps": True,
        "calibration": True,
        "size": True,
        "latency": True,
        "churn": True,
        "infra_validation": True,
    }
    assert report.gain is not None
    assert report.gain_low is None
    assert judge({"candidate": GOOD}, gate={"min_rows": N}).decision == "promote"


def test_a_holdout_without_a_value_of_the_metric_is_undecided() -> None:
    report = judge({"candidate": GOOD, "champion": BAD}, y_true=np.ones(N, dtype=int))
    assert report.decision == "undecided"
    assert report.reasons == ("roc_auc has no value here: y_true holds one class only",)
    assert math.isnan(report.candidate)
    assert report.champion is None
    assert report.gain is None


def test_a_metric_that_is_undefined_in_many_resamples_is_undecided() -> None:
    y = np.zeros(N, dtype=int)
    y[:2] = 1  # a resample misses both with probability 0.13
    metric = "average_precision"
    scores = {"candidate": scored(0.1, 1, y), "champion": scored(3, 2, y)}
    report = judge(scores, y_true=y, metric=metric)
    assert report.decision == "undecided"
    (reason,) = report.reasons
    assert "of 400 resamples, more than 5%, so the gain has no bound" in reason
    assert report.criterion("beats_champion").numbers["undefined_resamples"] > 20
    y[:8] = 1  # with probability 0.0003
    scores = {"candidate": scored(0.1, 1, y), "champion": scored(3, 2, y)}
    assert judge(scores, y_true=y, metric=metric).decision == "promote"


def test_roc_auc_with_few_rows_of_a_class_is_undecided() -> None:
    for positives, decision in ((4, "undecided"), (8, "promote")):
        y = np.zeros(N, dtype=int)
        y[:positives] = 1
        report = judge({"candidate": scored(0.1, 1, y), "champion": scored(3, 2, y)}, y_true=y)
        assert report.decision == decision
        if positives == 4:
            assert report.reasons[0].endswith("4 rows of class 1 are fewer than 5")


@pytest.mark.parametrize(
    ("metric", "floor", "passed", "summary"),
    [
        ("roc_auc", 0.5, True, ">= floor 0.5"),
        ("roc_auc", 0.99, False, "< floor 0.99"),
        ("brier", 0.2, True, "<= floor 0.2"),
        ("brier", 0.001, False, "> floor 0.001"),
    ],
)
def test_the_floor_is_the_worst_value_in_the_metrics_direction(
    metric: str, floor: float, passed: bool, summary: str
) -> None:
    report = judge({"candidate": np.clip(GOOD, 0, 1)}, metric=metric, gate={"floor": floor})
    criterion = report.criterion("floor")
    assert criterion.required
    assert criterion.passed is passed
    assert criterion.summary.endswith(summary)
    assert report.decision == ("promote" if passed else "reject")


def test_a_value_exactly_at_the_floor_passes() -> None:
    value = judge({"candidate": GOOD}).candidate
    assert judge({"candidate": GOOD}, gate={"floor": value}).decision == "promote"


def test_a_candidate_that_a_baseline_matches_is_rejected_and_the_baseline_named() -> None:
    report = judge({"candidate": GOOD, "majority": np.zeros(N), "last_value": scored(0.2, 9)})
    assert report.decision == "reject"
    criterion = report.criterion("beats_baselines")
    assert criterion.passed is False
    assert "against last_value 0." in criterion.summary
    assert criterion.numbers["majority_gain_low"] > 0
    assert criterion.numbers["last_value_gain_low"] < 0
    assert judge({"candidate": GOOD, "majority": np.zeros(N)}).decision == "promote"


def test_the_min_gain_is_not_asked_over_baselines() -> None:
    scores = {"candidate": GOOD, "champion": BAD, "majority": np.zeros(N)}
    report = judge(scores, gate={"min_gain": 0.6})
    assert report.criterion("beats_baselines").passed is True
    assert report.criterion("beats_champion").passed is False


def test_without_champion_nothing_is_compared_with_one() -> None:
    report = judge({"candidate": GOOD}, champion_seen_holdout=True)
    assert report.decision == "promote"
    for name in ("unseen_holdout", "beats_champion"):
        assert report.criterion(name).passed is True
        assert report.criterion(name).required is False
        assert report.criterion(name).summary == "no champion yet"
    assert (report.champion, report.gain, report.gain_low, report.gain_high) == (None,) * 4


def test_a_holdout_that_the_champion_was_trained_on_is_refused() -> None:
    report = judge({"candidate": GOOD, "champion": BAD}, champion_seen_holdout=True)
    assert report.decision == "reject"
    assert report.criterion("unseen_holdout").passed is False
    assert "the champion was trained on rows of this holdout" in report.reasons[0]


@pytest.mark.parametrize("who", ["candidate", "champion", "majority"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_rejected_and_counted(who: str, value: float) -> None:
    scores = {"candidate": GOOD.copy(), "champion": BAD.copy(), "majority": np.zeros(N)}
    scores[who][3:5] = value
    report = judge(scores)
    assert report.decision == "reject"
    assert report.reasons == (
        f"scores are nan or infinite ({who}: 2 of 400 rows), so nothing can be compared",
    )
    assert report.gain is None


def test_ranking_draws_groups_and_counts_them() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 5)
    relevance = rng.integers(0, 3, 1500)
    scores = {"candidate": relevance + rng.normal(0, 1, 1500), "champion": rng.normal(size=1500)}
    report = judge(scores, y_true=relevance, groups=groups, metric="ndcg@5")
    assert (report.decision, report.n) == ("promote", 300)
    report = judge(scores, y_true=relevance, groups=groups, metric="ndcg@5", gate={"min_rows": 301})
    assert report.reasons == ("300 holdout groups are fewer than min_rows 301",)


def test_multiclass_probabilities_are_compared() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    sharp = np.full((N, 3), 0.1)
    sharp[np.arange(N), y] = 0.8
    flat = np.full((N, 3), 1 / 3)
    report = judge({"candidate": sharp, "majority": flat}, y_true=y, metric="log_loss")
    assert report.decision == "promote"
    sharp = sharp.copy()
    sharp[0, 1] = np.nan
    report = judge({"candidate": sharp, "majority": flat}, y_true=y, metric="log_loss")
    assert "candidate: 1 of 400 rows" in report.reasons[0]


def test_rows_of_one_unit_are_drawn_together_which_widens_the_bounds() -> None:
    rng = np.random.default_rng(0)
    days = np.repeat(np.arange(20), 20)
    y = rng.normal(size=N)
    gain_of_day = np.repeat(rng.normal(0.1, 0.5, 20), 20)
    scores = {"candidate": y + 1, "champion": y + 1 + gain_of_day}
    alone = judge(scores, y_true=y, metric="mae")
    together = judge(scores, y_true=y, metric="mae", units=days)
    assert alone.gain == together.gain
    assert together.gain_low is not None
    assert alone.gain_low is not None
    assert together.gain_low < alone.gain_low
    assert together.criterion("enough_rows").numbers["drawn"] == 20


def test_groups_of_one_unit_are_one_cluster() -> None:
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(300), 5))
    relevance = rng.integers(0, 3, 1500)
    scores = {"candidate": relevance + rng.normal(0, 1, 1500), "champion": rng.normal(size=1500)}
    report = judge(scores, y_true=relevance, groups=groups, metric="ndcg@5", units=groups // 20)
    assert (report.n, report.criterion("enough_rows").numbers["drawn"]) == (300, 15)
    assert (report.decision, report.method) == ("promote", "cluster-robust t")
    gate = {"slices": {"columns": ["x"]}}
    columns = {"x": np.where(groups % 2, "odd", "even")}
    arguments: dict[str, Any] = {"groups": groups, "metric": "ndcg@5", "units": groups // 20}
    report = judge(scores, y_true=relevance, gate=gate, columns=columns, **arguments)
    assert report.criterion("slices").numbers["judged"] == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scores": {"champion": GOOD}}, "scores need 'candidate', got champion"),
        ({"scores": {"candidate": GOOD[:9]}}, r"each of the 400 true values, got candidate \(9,\)"),
        ({"metric": "auc"}, "'auc' is not a metric"),
        ({"units": np.arange(3)}, r"units need one label per row \(400\), got 3"),
        (
            {"metric": "ndcg@5", "units": Y, "groups": np.arange(N) // 5},
            "groups lie in several units",
        ),
        ({"metric": "ndcg@5"}, "ndcg@5: needs the group of each row"),
        (
            {"metric": "f1", "gate": {"confidence": 0.999}},
            "400 are too few .* 0.999; take at least 1100",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_training_errors(
    changes: dict[str, Any], problem: str
) -> None:
    default = {"candidate": np.clip(GOOD, 0, 1), "champion": np.clip(BAD, 0, 1)}
    scores = changes.pop("scores", default)
    with pytest.raises(TrainingError, match=problem):
        judge(scores, **changes)


REPORTS = {
    "promote": judge({"candidate": GOOD, "champion": BAD, "majority": np.zeros(N)}),
    "reject": judge({"candidate": BAD, "champion": GOOD}, gate={"floor": 0.99}),
    "undecided": judge({"candidate": GOOD, "champion": BAD}, gate={"min_rows": 1000}),
    "first": judge({"candidate": GOOD}),
    "nan": judge({"candidate": GOOD * np.nan}),
    "no value": judge({"candidate": GOOD}, y_true=np.ones(N, dtype=int)),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_survives_json(name: str) -> None:
    report = REPORTS[name]
    text = report.to_json()
    again = GateReport.from_json(text)
    assert repr(again) == repr(report)
    assert again.to_json() == text
    assert json.dumps(json.loads(text), allow_nan=False) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        REPORTS["first"].to_json()[:-1] + ', "x": 1}',
    ],
)
def test_json_that_is_no_report_of_this_format_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match=r"gate report cannot be read: .*; evaluate the gate"):
        GateReport.from_json(text)


def test_the_markdown_is_a_table_with_a_row_for_every_criterion() -> None:
    table = gate_markdown(REPORTS["reject"])
    lines = table.split("\n")
    assert lines[0] == "**reject** on roc_auc, n = 400"
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:]] == list(CRITERIA)
    assert "| floor | **failed** | roc_auc 0.6" in table
    assert "| beats_baselines | not asked | no baselines given |" in table
    assert "| enough_rows | undecided | " in gate_markdown(REPORTS["undecided"])


def test_the_sentence_says_who_did_not_beat_whom_and_by_how_much() -> None:
    report = judge({"candidate": BAD, "champion": GOOD})
    assert report.champion is not None
    assert report.gain is not None
    assert report.gain_low is not None
    assert gate_sentence(report, candidate_version="12", champion_version="9") == (
        f"candidate v12 (roc_auc {report.candidate:.4g}) does not beat champion v9 "
        f"({report.champion:.4g}): gain {report.gain:+.3g}, 95% lower bound "
        f"{report.gain_low:+.3g} < 0"
    )


@pytest.mark.parametrize(
    ("name", "beginning", "end"),
    [
        ("promote", "candidate (roc_auc 0.9", "> 0"),
        ("reject", "candidate (roc_auc 0.6", "< 0"),
        (
            "undecided",
            "candidate (roc_auc 0.9",
            "cannot be judged: 400 holdout rows are fewer than min_rows 1000",
        ),
        ("first", "candidate (roc_auc 0.9", "becomes the first champion"),
        ("nan", "candidate is not promoted: scores are nan", "nothing can be compared"),
        ("no value", "candidate cannot be judged: roc_auc has no", "one class only"),
    ],
)
def test_the_sentence_fits_every_verdict(name: str, beginning: str, end: str) -> None:
    sentence = gate_sentence(REPORTS[name])
    assert sentence.startswith(beginning)
    assert sentence.endswith(end)
    assert "\n" not in sentence


def test_a_rejection_for_several_reasons_names_them_all() -> None:
    sentence = gate_sentence(REPORTS["reject"])
    assert "is not promoted: roc_auc 0." in sentence
    assert "< floor 0.99; roc_auc 0." in sentence
