"""How certain is the difference of a metric between two models that scored the same rows?

Belongs here: one-sided confidence bounds of a paired gain, one function per method, each pure.
Does not: the definition of the metrics, margins, verdicts (`gate`).

Which method a metric gets (`method_of`), and why:

    roc_auc                           DeLong          closed form, no resampling noise
    accuracy                          McNemar         exact in the discordant rows, few as they are
    log_loss, brier, mae, mape,       paired t        they are means over rows, or (ranking) groups
      pinball, ndcg, map
    rmse                              delta method    a smooth function of two means
    average_precision, f1, f1_macro,  bootstrap       ratios and curves: skewed on small samples
      r2

Where rows are alike within clusters (a day, a customer), clusters and not rows are the sample: the
closed forms become cluster-robust with Student's t on clusters - 1 degrees of freedom, and the
bootstrap draws clusters. Below `FEW_CLUSTERS` every metric takes the jackknife that leaves out one
cluster at a time. `time_blocks` makes clusters of partitions.

All others rest on the influence of each unit on the gain (`Metric.influence` of the candidate less
that of the champion), so that what makes a row hard for both models cancels out before anything is
squared.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.promotion.quantiles import (
    binomial_mid_p,
    normal_cdf,
    normal_quantile,
    t_quantile,
)
from retrain_assets.roc import delong_variance

__all__ = [
    "FEW_CLUSTERS",
    "MAX_UNDEFINED_SHARE",
    "MIN_CLASS",
    "MIN_CLUSTERS",
    "MIN_UNITS",
    "POWER",
    "GainInterval",
    "Method",
    "block_length",
    "bootstrap",
    "delong",
    "detectable",
    "jackknife",
    "linear",
    "mcnemar",
    "method_of",
    "time_blocks",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Method = Literal["delong", "mcnemar", "paired t", "delta method", "bootstrap"]

MIN_UNITS = 30
"""Fewest rows (ranking: groups) for a bound: below, the normal limit is a guess."""

MIN_CLUSTERS = 4
"""Fewest clusters for a bound: with three, Student's t of 2 degrees of freedom has hardly any power."""

FEW_CLUSTERS = 10
"""Below this many clusters the sandwich variance is biased down where clusters differ in size or the
metric is no mean, and a bootstrap of clusters has too few distinct draws (Cameron & Miller, "A
practitioner's guide to cluster-robust inference", 2015, section VI); `jackknife` is not."""

MIN_CLASS = 5
"""Fewest rows of each class for a bound of ROC AUC."""

MAX_UNDEFINED_SHARE = 0.05
"""Largest share of resamples in which the metric may be undefined (one class only, say)."""

POWER = 0.8
"""Chance with which the smallest detectable gain is found."""

_METHODS: dict[str, Method] = {
    "roc_auc": "delong",
    "accuracy": "mcnemar",
    "rmse": "delta method",
    **dict.fromkeys(("average_precision", "f1", "f1_macro", "r2"), "bootstrap"),
}


def method_of(metric: str) -> Method:
    """The method for a metric's gain (see the module)."""
    return _METHODS.get(metric, "paired t")


@dataclass(frozen=True)
class GainInterval:
    """A gain with its one-sided bounds.

    Attributes:
        gain: how much better the candidate is, in the metric's unit.
        low, high: lower and upper bound, each alone at the confidence asked for; None where the
            sample does not bear one, and then `problem` says why.
        se: standard error of the gain; nan likewise.
        dof: degrees of freedom of Student's t; infinite for a normal.
        method: how the bounds were made.
        drawn: independent units: rows, groups or clusters.
        resamples, undefined: bootstrap only: how many, and in how many the gain had no value.
    """

    gain: float
    low: float | None
    high: float | None
    se: float
    dof: float
    method: str
    drawn: int
    problem: str = ""
    resamples: int = 0
    undefined: int = 0


def linear(
    gain: float,
    influence: FloatArray,
    alpha: float,
    *,
    codes: IntArray | None = None,
    method: str = "paired t",
) -> GainInterval:
    """Student's t around a gain that is, to first order, a mean of influence values.

        gain -+ t(1 - alpha; d) se,   se^2 = G / (G - 1) sum over clusters (sum in it of u / n)^2

    For a mean loss this is the paired t interval; for a smooth function of means (RMSE, any ratio)
    the delta method; with clusters the cluster-robust variance CR1 with G - 1 degrees of freedom
    (Liang & Zeger, "Longitudinal data analysis using generalized linear models", 1986; the t is
    Donald & Lang 2007's); for ROC AUC with clusters Obuchowski, "Nonparametric analysis of
    clustered ROC curve data", Biometrics 1997. That ranking metrics are best compared by a t test
    over queries: Urbano, Lima & Hanjalic, "Statistical significance testing in information
    retrieval", SIGIR 2019.

    Args:
        gain: the gain on the whole sample.
        influence: of the gain, shape (n,), sum 0.
        alpha: 1 - confidence of each bound.
        codes: cluster of each unit, 0 to G - 1, shape (n,); None: each is its own.
        method: name for the report.

    Minimum: `MIN_UNITS` units, or `MIN_CLUSTERS` clusters. Equal models give gain 0 and bounds 0.

    >>> u = np.tile([-1.0, 1.0], 50)
    >>> found = linear(0.3, u, 0.05)
    >>> round(found.se, 4), round(found.low, 4), found.dof
    (0.1005, 0.1331, 99)
    """
    sums = influence if codes is None else np.bincount(codes, influence)
    drawn = len(sums)
    problem = _too_few(drawn, clustered=codes is not None)
    if problem or not math.isfinite(gain):
        return _none(gain, method, drawn, problem or "the gain has no value")
    se = math.sqrt(drawn / (drawn - 1) * float(sums @ sums)) / len(influence)
    return _around(gain, se, drawn - 1, alpha, method, drawn)


def delong(gain: float, influence: FloatArray, truth: IntArray, alpha: float) -> GainInterval:
    """DeLong's interval of a difference of two ROC AUCs on the same rows.

    The influence of a row is its placement among the rows of the other class, candidate less
    champion; variance, degrees of freedom and sources: `roc.delong_variance`. Student's t instead
    of the normal, which is too short with few positives.

    Args:
        gain: AUC of the candidate less that of the champion.
        influence: of the gain, shape (n,).
        truth: 0 or 1, shape (n,).
        alpha: 1 - confidence of each bound.

    Minimum: `MIN_CLASS` rows of each class.
    """
    for label in (1, 0):
        rows = int(np.count_nonzero(truth == label))
        if rows < MIN_CLASS:
            problem = f"{rows} rows of class {label} are fewer than {MIN_CLASS}"
            return _none(gain, "delong", len(truth), problem)
    variance, dof = delong_variance(influence, truth)
    return _around(gain, math.sqrt(variance), dof, alpha, "delong", len(truth))


def mcnemar(better: int, worse: int, n: int, alpha: float) -> GainInterval:
    """Bounds of a difference of two accuracies on the same n rows, from the discordant ones.

    Tango's score bound (Tango, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 1998), which at difference 0 is
    McNemar's test; and it may exclude 0 only where McNemar's mid-p test does as well, which is exact
    in the discordant rows (Fagerland, Lydersen & Laake, "The McNemar test for binary matched-pairs
    data: mid-p and asymptotic are better than exact conditional", BMC Medical Research Methodology
    2013).

    Args:
        better: rows on which only the candidate is right.
        worse: rows on which only the champion is right.
        n: all rows.
        alpha: 1 - confidence of each bound.

    Minimum: `MIN_UNITS` rows. Without any discordant row the bounds are 0.

    >>> found = mcnemar(30, 15, 400, 0.05)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0102, 0.0662)
    """
    gain = (better - worse) / n
    problem = _too_few(n, clustered=False)
    if problem:
        return _none(gain, "mcnemar", n, problem)
    se = math.sqrt(max(better + worse - (better - worse) ** 2 / n, 0.0)) / n
    if not better + worse:
        return GainInterval(gain, 0.0, 0.0, 0.0, math.inf, "mcnemar", n)
    low = _mcnemar_low(better, worse, n, alpha)
    high = -_mcnemar_low(worse, better, n, alpha)
    return GainInterval(gain, low, high, se, math.inf, "mcnemar", n)


def _mcnemar_low(better: int, worse: int, n: int, alpha: float) -> float:
    low = _tango_low(better, worse, n, normal_quantile(1 - alpha))
    if low > 0 and binomial_mid_p(better, better + worse) > alpha:
        return 0.0
    return low


def _tango_low(better: int, worse: int, n: int, z: float) -> float:
    """The difference d at which (better - worse - n d) / sqrt(n (2 q + d (1 - d))) = z.

    q is the likeliest chance of `worse` given d (Tango 1998, equation 14); by bisection, since the
    left side falls in d.
    """
    below, above = -1.0, (better - worse) / n
    for _ in range(60):
        d = (below + above) / 2
        linear_term = -better - worse + (2 * n - better + worse) * d
        constant = -worse * d * (1 - d)
        root = math.sqrt(max(linear_term**2 - 8 * n * constant, 0.0))
        q = max((root - linear_term) / (4 * n), 0.0)
        variance = n * max(2 * q + d * (1 - d), 0.0)
        if better - worse - n * d > z * math.sqrt(variance):
            below = d
        else:
            above = d
    return (below + above) / 2


def bootstrap(
    gain: float,
    gains: FloatArray,
    influence: FloatArray,
    alpha: float,
    *,
    codes: IntArray | None = None,
) -> GainInterval:
    """Percentile bootstrap bounds, expanded for the number of units that were drawn.

    With B defined gains in ascending order the lower bound is the floor(p (B + 1))-th, where

        p = Phi(-sqrt(G / (G - 1)) t(1 - alpha; G - 1))

    and G units (clusters) are drawn: on few of them the plain percentiles are too narrow by the
    factor sqrt((G - 1) / G) and for taking the normal's tails instead of Student's (Hesterberg, "What
    teachers should know about the bootstrap", The American Statistician 2015, section 4.2). BCa
    and the studentised bootstrap, better in theory, promoted more equal models on clusters
    (bench/gate/methods.py has the comparison). Where p (B + 1) is below 1: the wider of the most
    extreme resample and `linear`'s bound.

    Args:
        gain: the gain on the whole sample.
        gains: the gain in each resample, nan where it has no value, shape (B,); drawn by unit, or
            by cluster.
        influence: of the gain, shape (n,), for its standard error.
        alpha: 1 - confidence of each bound.
        codes: cluster of each unit, as in `linear`.

    Minimum: as `linear`, and at most `MAX_UNDEFINED_SHARE` of the resamples undefined.
    """
    method = "bootstrap"
    defined = np.sort(gains[np.isfinite(gains)])
    total, undefined = len(gains), len(gains) - len(defined)
    plain = linear(gain, influence, alpha, codes=codes, method=method)
    counts: dict[str, Any] = {"resamples": total, "undefined": undefined}
    if undefined > MAX_UNDEFINED_SHARE * total:
        problem = (
            f"undefined in {undefined} of {total} resamples, more than {MAX_UNDEFINED_SHARE:.0%}, "
            "so the gain has no bound"
        )
        return _none(gain, method, plain.drawn, problem, **counts)
    if plain.low is None or plain.high is None:
        return _none(gain, method, plain.drawn, plain.problem, **counts)
    expanded = math.sqrt(plain.drawn / (plain.drawn - 1)) * t_quantile(1 - alpha, plain.dof)
    rank = math.floor(normal_cdf(-expanded) * (len(defined) + 1))
    if rank < 1:
        low, high = min(float(defined[0]), plain.low), max(float(defined[-1]), plain.high)
    else:
        low, high = float(defined[rank - 1]), float(defined[-rank])
    return GainInterval(gain, low, high, plain.se, plain.dof, method, plain.drawn, **counts)


def jackknife(gain: float, left_out: FloatArray, alpha: float) -> GainInterval:
    """Student's t around a gain on few clusters, its variance from leaving out one at a time.

        gain -+ t(1 - alpha; G - 1) se,   se^2 = (G - 1) / G sum over g of (gain without g - mean)^2

    The CV3 estimator of cluster-robust variance (Bell & McCaffrey, "Bias reduction in standard errors
    for linear regression with multi-stage samples", Survey Methodology 2002; MacKinnon, Nielsen &
    Webb, "Leverage, influence, and the jackknife in clustered regression models", Stata Journal 2023):
    it does not underestimate where clusters differ in size or the metric is a curve or a ratio, and
    needs no approximation of the metric. For a mean over clusters of equal size it is `linear`.
    On 4 and 7 days of uneven size, equal models and nominal 5%, it promotes 3.1% to 5.5%, whatever the
    metric (docs/gate.md); the sandwich promoted up to 7.4% (average_precision).

    Args:
        gain: the gain on the whole sample.
        left_out: the gain without each cluster, shape (G,).
        alpha: 1 - confidence of each bound.

    Minimum: `MIN_CLUSTERS` clusters, the gain defined without any one of them.

    >>> found = jackknife(0.25, np.array([0.2, 0.25, 0.25, 0.3]), 0.05)
    >>> round(found.se, 4), round(found.low, 4), found.dof
    (0.0612, 0.1059, 3)
    """
    drawn = len(left_out)
    problem = _too_few(drawn, clustered=True)
    if not problem and not (math.isfinite(gain) and np.isfinite(left_out).all()):
        problem = "the gain has no value without one of the clusters"
    if problem:
        return _none(gain, "jackknife", drawn, problem)
    away = left_out - left_out.mean()
    se = math.sqrt((drawn - 1) / drawn * float(away @ away))
    return _around(gain, se, drawn - 1, alpha, "jackknife", drawn)


def detectable(interval: GainInterval, alpha: float, power: float = POWER) -> float | None:
    """The smallest true gain that this sample shows with chance `power`, over a margin of 0.

        (t(1 - alpha; d) + t(power; d)) se

    (Bloom, "Minimum detectable effects", Evaluation Review 1995). To be shown above `min_gain`, a
    gain must be larger by as much. None where there is no standard error.

    >>> interval = linear(0.0, np.tile([-1.0, 1.0], 500), 0.05)
    >>> round(detectable(interval, 0.05), 4)
    0.0787
    """
    if not math.isfinite(interval.se):
        return None
    quantiles = t_quantile(1 - alpha, interval.dof) + t_quantile(power, interval.dof)
    return quantiles * interval.se


def block_length(partitions: int) -> int:
    """Successive partitions that are one cluster, of `partitions` in all (see `time_blocks`)."""
    # 1e-9: the cube root of 64 must count as 4.
    return max(1, min(math.floor(3 * math.pow(partitions, 1 / 3) + 1e-9), partitions // 12))


def time_blocks(partitions: ArrayLike) -> IntArray | None:
    """Cluster of each row from its partition, in time order; None with too few partitions.

    Rows of one partition (a day's flights) go together. Of G partitions, m = min(3 G^(1/3), G / 12)
    successive ones go together, rounded down and at least 1, so that what lasts over several hours
    or days stays within a block: non-overlapping blocks (Carlstein, Annals of Statistics 1986) of
    the order G^(1/3) that is optimal for a variance (Hall, Horowitz & Jing, "On blocking rules for
    the bootstrap with dependent data", Biometrika 1995), but at least 12 of them. Below
    `MIN_CLUSTERS` partitions: None.

    Args:
        partitions: key of each row, shape (n,); keys sort in time order.

    >>> time_blocks(np.repeat(np.arange(3), 5)) is None
    True
    >>> int(time_blocks(np.repeat(np.arange(14), 3)).max()) + 1
    14
    >>> int(time_blocks(np.arange(168)).max()) + 1
    12
    """
    import pandas as pd

    codes, keys = pd.factorize(np.asarray(partitions), sort=True)
    count = len(keys)
    if count < MIN_CLUSTERS:
        return None
    length = block_length(count)
    blocks = -(-count // length)
    if count % length and blocks > 1:  # a short last block joins the one before
        blocks -= 1
    return np.asarray(np.minimum(codes // length, blocks - 1), dtype=np.int64)


def _too_few(drawn: int, *, clustered: bool) -> str:
    least = MIN_CLUSTERS if clustered else MIN_UNITS
    if drawn >= least:
        return ""
    what = "clusters of rows" if clustered else "units"
    return f"{drawn} {what} are fewer than the {least} that a bound needs"


def _around(
    gain: float, se: float, dof: float, alpha: float, method: str, drawn: int
) -> GainInterval:
    reach = t_quantile(1 - alpha, dof) * se
    return GainInterval(gain, gain - reach, gain + reach, se, dof, method, drawn)


def _none(gain: float, method: str, drawn: int, problem: str, **counts: int) -> GainInterval:
    return GainInterval(gain, None, None, math.nan, math.nan, method, drawn, problem, **counts)
