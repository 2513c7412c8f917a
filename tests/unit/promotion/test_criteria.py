"""The criteria beside the metric: each fails on what it is for, and on nothing else."""

import json
from typing import Any

import numpy as np
import pytest

from retrain_assets.errors import TrainingError
from retrain_assets.promotion.criteria import calibration_error
from retrain_assets.promotion.gate import CRITERIA, GateReport, evaluate_gate, spent_alpha
from retrain_assets.spec.model import Gate

N = 3000
RNG = np.random.default_rng(0)
CHANCE = RNG.uniform(0.02, 0.98, N)
Y = (RNG.random(N) < CHANCE).astype(int)
CARRIER = RNG.choice(["AA", "DL", "UA"], N)
CARRIER[:20] = "YV"
CHAMPION = np.clip(CHANCE + RNG.normal(0, 0.2, N), 0, 1)


def judge(candidate: Any = CHANCE, champion: Any = CHAMPION, **changes: Any) -> GateReport:
    gate = Gate(resamples=400, **changes.pop("gate", {}))
    scores = {"candidate": candidate}
    if champion is not None:
        scores["champion"] = champion
    arguments: dict[str, Any] = {
        "y_true": Y, "scores": scores, "groups": None, "gate": gate, "metric": "brier", "seed": 1,
        "champion_seen_holdout": False, "columns": {"carrier": CARRIER},
    }  # fmt: skip
    return evaluate_gate(**{**arguments, **changes})


def test_nothing_further_is_asked_by_default() -> None:
    report = judge()
    assert report.decision == "promote"
    for name in ("power", "slices", "group_gaps", "calibration", "size", "latency", "churn"):
        criterion = report.criterion(name)
        assert criterion.passed is True
        assert not criterion.required
        assert criterion.summary.startswith("not asked")


# Slices.

SLICES = {"slices": {"columns": ["carrier"], "max_loss": 0.01}}


def test_a_slice_that_gets_worse_is_named_though_the_whole_gets_better() -> None:
    worse = np.where(CARRIER == "UA", np.clip(1 - CHANCE, 0, 1), CHANCE)
    report = judge(worse, np.full(N, 0.3), gate=SLICES)
    criterion = report.criterion("slices")
    assert criterion.passed is False
    assert "1 of 3 slices are worse than -0.01, worst carrier=UA" in criterion.summary
    assert "1 slices are too small to judge" in criterion.summary
    assert criterion.numbers["carrier=UA_gain_high"] < -0.01
    assert criterion.numbers["carrier=UA_rows"] == (CARRIER == "UA").sum()
    assert report.decision == "reject"
    assert judge(CHANCE, np.full(N, 0.3), gate=SLICES).decision == "promote"


def test_slices_of_equal_models_fail_no_more_often_than_the_confidence_says() -> None:
    """20 slices, 300 trials: at most 5% (standard error 1.3%) fail by chance."""
    failed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=1000)
        report = judge(
            y + rng.normal(size=1000),
            y + rng.normal(size=1000),
            y_true=y,
            metric="mae",
            columns={"carrier": np.arange(1000) % 20},
            gate={"slices": {"columns": ["carrier"], "min_rows": 30}},
        )
        failed += report.criterion("slices").passed is False
    assert failed <= 0.09 * 300


def test_slices_follow_the_clusters() -> None:
    report = judge(gate=SLICES, units=np.arange(N) // 100)
    assert report.criterion("slices").numbers["judged"] == 3
    few = np.where(CARRIER == "UA", 0, 1 + np.arange(N) // 100)  # UA is one cluster
    assert judge(gate=SLICES, units=few).criterion("slices").numbers["judged"] == 2


def test_slices_that_are_all_too_small_leave_the_gate_undecided() -> None:
    report = judge(gate={"slices": {"columns": ["carrier"], "min_rows": 2000}})
    assert report.criterion("slices").passed is None
    assert report.decision == "undecided"
    assert report.reasons == ("none of 4 slices has 2000 rows on which it can be judged",)


def test_slices_need_a_champion_and_stored_columns() -> None:
    assert judge(champion=None, gate=SLICES).criterion("slices").summary == "no champion yet"
    with pytest.raises(TrainingError, match=r"'carrier' is not among .* \(none\); materialize"):
        judge(gate=SLICES, columns={})
    with pytest.raises(TrainingError, match="'carrier' needs 3000 labels"):
        judge(gate=SLICES, columns={"carrier": ["AA"]})


def test_missing_labels_are_a_slice() -> None:
    labels = np.where(CARRIER == "DL", None, CARRIER)
    numbers = judge(gate=SLICES, columns={"carrier": labels}).criterion("slices").numbers
    assert numbers["carrier=missing_rows"] == (CARRIER == "DL").sum()


def test_only_the_worst_of_many_slices_are_listed() -> None:
    report = judge(
        gate={"slices": {"columns": ["x"], "min_rows": 30}}, columns={"x": np.arange(N) % 50}
    )
    numbers = report.criterion("slices").numbers
    assert numbers["judged"] == 50
    assert sum(name.endswith("_gain_high") for name in numbers) == 20


def test_slices_of_rankings() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 5)
    relevance = rng.integers(0, 3, 1500)
    report = judge(
        relevance + rng.normal(0, 1, 1500),
        rng.normal(size=1500),
        y_true=relevance,
        groups=groups,
        metric="ndcg@5",
        gate={**SLICES, "max_churn": 0.1},
        columns={"carrier": np.where(groups < 150, "old", "new")},
    )
    assert report.criterion("slices").passed is True
    assert report.criterion("slices").numbers["judged"] == 2
    assert report.criterion("churn").passed is False


# Group gaps.


def gaps(**rules: float) -> dict[str, Any]:
    return {"group_gaps": {"columns": ["carrier"], **rules}}


def test_a_group_that_is_predicted_positive_more_often_is_found() -> None:
    favoured = np.where(CARRIER == "AA", np.clip(CHANCE + 0.3, 0, 1), CHANCE)
    criterion = judge(favoured, gate=gaps(demographic_parity=0.1)).criterion("group_gaps")
    assert criterion.passed is False
    assert criterion.summary.startswith("demographic_parity by carrier: gap 0.3")
    assert "(AA over " in criterion.summary
    assert criterion.numbers["demographic_parity_carrier_gap_low"] > 0.1
    criterion = judge(favoured, gate=gaps(demographic_parity=0.5)).criterion("group_gaps")
    assert criterion.passed is True
    assert judge(gate=gaps(demographic_parity=0.1)).criterion("group_gaps").passed is True


def test_equal_opportunity_looks_at_true_positives_only() -> None:
    missed = np.where((CARRIER == "AA") & (Y == 1), CHANCE * 0.4, CHANCE)
    rules = gaps(equal_opportunity=0.2, demographic_parity=0.45)
    criterion = judge(missed, gate=rules).criterion("group_gaps")
    assert criterion.passed is False
    assert criterion.summary.startswith("equal_opportunity by carrier: gap ")
    assert "demographic_parity by" not in criterion.summary


def test_groups_that_are_too_small_leave_it_undecided() -> None:
    rules = {"group_gaps": {"columns": ["carrier"], "demographic_parity": 0.1, "min_rows": 2000}}
    report = judge(gate=rules)
    assert report.decision == "undecided"
    assert report.reasons == (
        "demographic_parity by carrier: fewer than two groups with 2000 rows",
    )


def test_gaps_of_equal_groups_rarely_fail() -> None:
    failed = 0
    for seed in range(300):
        labels = np.random.default_rng(seed).choice(list("abcd"), N)
        report = judge(gate=gaps(demographic_parity=1e-6), columns={"carrier": labels})
        failed += report.criterion("group_gaps").passed is False
    assert failed <= 0.09 * 300


# Calibration.


def test_a_calibrated_model_shows_about_its_noise_and_an_overconfident_one_fails() -> None:
    error, noise = calibration_error(Y, CHANCE)
    assert error < 2 * noise
    sharp = np.where(CHANCE > 0.5, 0.99, 0.01)
    report = judge(sharp, np.full(N, 0.5), gate={"max_calibration_error": 0.05})
    criterion = report.criterion("calibration")
    assert criterion.passed is False
    assert criterion.numbers["calibration_error"] == pytest.approx(0.25, abs=0.03)
    assert judge(gate={"max_calibration_error": 0.05}).criterion("calibration").passed is True


def test_the_noise_is_what_calibrated_models_show_on_average() -> None:
    rng = np.random.default_rng(1)
    found = [calibration_error(rng.random(N) < CHANCE, CHANCE) for _ in range(200)]
    errors, noise = np.array(found).T
    assert errors.mean() == pytest.approx(noise.mean(), rel=0.05)


def test_a_holdout_too_small_for_the_bound_is_undecided() -> None:
    rows = slice(0, 200)
    report = judge(
        CHANCE[rows], CHAMPION[rows], y_true=Y[rows], gate={"max_calibration_error": 0.001}
    )
    assert report.criterion("calibration").passed is None
    assert "a perfectly calibrated model would show 0.0" in report.criterion("calibration").summary


def test_calibration_of_multiclass_is_that_of_the_most_probable_class() -> None:
    y = np.array([0, 1, 2, 0])
    scores = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    assert calibration_error(y, scores, bins=1)[0] == pytest.approx(0.05)


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    with pytest.raises(TrainingError, match=r"needs probabilities in \[0, 1\], got -"):
        judge(Y - 0.5, metric="roc_auc", gate={"max_calibration_error": 0.1})


# Size, latency, churn.


@pytest.mark.parametrize(
    ("budgets", "measured", "verdicts"),
    [
        ({"size_bytes": 1000}, {"size_bytes": 999}, (True, True)),
        ({"size_bytes": 1000}, {"size_bytes": 1001}, (False, True)),
        ({"size_bytes": 1000}, {}, (None, True)),
        ({"row_ms": 2}, {"row_ms": 1.5, "batch_ms": 9}, (True, True)),
        ({"row_ms": 2, "batch_ms": 8}, {"row_ms": 1.5, "batch_ms": 9}, (True, False)),
        ({"row_ms": 2, "batch_ms": 8}, {"row_ms": 2.5}, (True, False)),
        ({"row_ms": 2, "batch_ms": 8}, {"row_ms": 1.5}, (True, None)),
    ],
)
def test_budgets(budgets: Any, measured: Any, verdicts: tuple[bool | None, ...]) -> None:
    report = judge(gate={"budgets": budgets}, measured=measured)
    assert (report.criterion("size").passed, report.criterion("latency").passed) == verdicts
    asked = {f.partition("_")[0] for f in budgets}
    assert report.criterion("size").required is ("size" in asked)
    assert report.criterion("latency").required is ("row" in asked)


def test_measurements_are_reported_when_nothing_is_asked() -> None:
    report = judge(measured={"size_bytes": 10, "row_ms": 1.0, "batch_ms": 3.0})
    assert report.criterion("size").numbers == {"size_bytes": 10}
    assert report.criterion("latency").numbers == {"row_ms": 1.0, "batch_ms": 3.0}


def test_churn_is_the_share_of_changed_labels() -> None:
    flipped = CHANCE.copy()
    flipped[:300] = 1 - flipped[:300]
    criterion = judge(CHANCE, flipped, gate={"max_churn": 0.05}).criterion("churn")
    assert criterion.passed is False
    assert criterion.numbers["churn"] == pytest.approx(0.1)
    assert judge(CHANCE, flipped, gate={"max_churn": 0.1}).criterion("churn").passed is True
    assert judge(champion=None, gate={"max_churn": 0.1}).criterion("churn").required is False


def test_churn_of_a_regression_is_in_standard_deviations() -> None:
    y = np.random.default_rng(0).normal(size=N)
    champion = y * 2
    report = judge(champion + 1, champion, y_true=y, metric="mae")
    assert report.criterion("churn").numbers["churn"] == pytest.approx(0.5, abs=0.05)
    assert judge(y, y, y_true=y, metric="mae").criterion("churn").numbers["churn"] == 0


# Power and reuse.


def test_a_holdout_that_could_not_show_the_gain_is_undecided_not_rejected() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=300)
    equal = [y + rng.normal(size=300) for _ in range(2)]
    plain = judge(*equal, y_true=y, metric="mae")
    assert plain.decision == "reject"
    assert plain.detectable is not None
    asked = judge(*equal, y_true=y, metric="mae", gate={"detectable": plain.detectable / 2})
    assert asked.decision == "undecided"
    assert asked.criterion("power").passed is None
    assert "is asked for; take a longer holdout" in asked.criterion("power").summary
    able = judge(*equal, y_true=y, metric="mae", gate={"detectable": plain.detectable * 1.01})
    assert able.decision == "reject"
    assert able.criterion("power").passed is True
    worse = judge(y + 5, equal[1], y_true=y, metric="mae", gate={"detectable": 1e-3})
    assert worse.decision == "reject"
    better = judge(y, equal[1], y_true=y, metric="mae", gate={"detectable": 1e-3})
    assert better.decision == "promote"


def test_each_reuse_of_a_holdout_asks_for_more() -> None:
    reports = [judge(earlier_uses=uses) for uses in range(5)]
    lows = [report.gain_low for report in reports]
    assert lows == sorted(lows, reverse=True)
    assert len(set(lows)) == 5
    assert [report.confidence for report in reports] == pytest.approx(
        [0.95, 0.975, 1 - 0.05 / 6, 1 - 0.05 / 12, 1 - 0.05 / 20]
    )
    assert reports[1].criterion("beats_champion").summary.endswith("(comparison 2 on this holdout)")
    assert "99.17% lower bound" in reports[2].criterion("beats_champion").summary
    ignored = judge(earlier_uses=5, gate={"holdout_reuse": "ignore"})
    assert ignored.gain_low == reports[0].gain_low
    assert ignored.criterion("beats_champion").numbers["earlier_uses"] == 5


def test_all_reuses_together_spend_twice_alpha() -> None:
    spent = sum(spent_alpha(Gate(), uses) for uses in range(10_000))
    assert 0.0999 < spent < 0.1


@pytest.mark.parametrize(("rule", "least", "most"), [("spend", 0, 0.1), ("ignore", 0.2, 1)])
def test_ten_equal_candidates_on_one_holdout(rule: str, least: float, most: float) -> None:
    """300 holdouts; the share on which any of ten is promoted: below 2 alpha, or far above it."""
    promoted = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=100)
        champion = y + rng.normal(size=100)
        promoted += any(
            judge(
                y + rng.normal(size=100), champion, y_true=y, metric="mae", earlier_uses=uses,
                gate={"holdout_reuse": rule, "min_rows": 50},
            ).decision == "promote"
            for uses in range(10)
        )  # fmt: skip
    assert least <= promoted / 300 <= most


def test_a_bootstrapped_bound_survives_many_reuses() -> None:
    report = judge(metric="average_precision", earlier_uses=200)
    assert report.gain_low is not None
    assert report.gain_low < judge(metric="average_precision").gain_low


def test_a_report_with_everything_survives_json_and_reads_format_1() -> None:
    gate = {
        **SLICES,
        **gaps(demographic_parity=0.1),
        "max_calibration_error": 0.05,
        "max_churn": 0.5,
        "detectable": 0.1,
        "budgets": {"size_bytes": 100},
    }
    report = judge(gate=gate, measured={"size_bytes": 50})
    assert report.decision == "promote"
    asked = set(CRITERIA) - {"floor", "beats_baselines", "latency", "infra_validation"}
    assert {c.name for c in report.criteria if c.required} == asked
    assert GateReport.from_json(report.to_json()) == report
    old = json.loads(report.to_json())
    old["format"] = 1
    old["criteria"] = old["criteria"][:6]
    for name in ("method", "confidence", "detectable"):
        del old[name]
    read = GateReport.from_json(json.dumps(old))
    assert tuple(c.name for c in read.criteria) == CRITERIA
    assert read.criterion("slices").summary == "not asked when this report was written"
    assert read.gain_low == report.gain_low
    with pytest.raises(TrainingError, match="criteria must be finite_scores"):
        GateReport.from_json(json.dumps({**old, "format": 3}))


def test_scores_that_are_not_finite_leave_what_was_asked_unjudged() -> None:
    report = judge(CHANCE * np.nan, gate=SLICES)
    assert report.decision == "reject"
    assert report.criterion("slices").passed is None
    assert not report.criterion("churn").required
