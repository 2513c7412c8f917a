"""Drift statistics: one pure function each, with its definition, range and source.

Belongs here: effect sizes (how far), the size that sampling alone gives them (noise), and p-values
(could it be chance), over plain arrays and counts. Does not: tables, Arrow types, thresholds and
verdicts (`verdict`).

Samples are 1-D float64 arrays without NaN, in any order; infinities count as extreme values where a
function says so. Counts are 1-D arrays, one entry per category or bin, the same entries on both
sides. Every function raises DriftError for an empty sample, NaN, or counts that do not match.

Two-sample noise. Even without drift, two samples of n and m rows differ: every distance here has a
positive expected value of order 1/n + 1/m (squared distances, PSI) or its square root. The
`*_noise` functions give that value, so that a caller can subtract it; otherwise thresholds that fit
large samples raise false alarms in small ones (PSI at n = m = 100 on deciles is 0.18 on average
without any drift).
"""

from math import pi, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from retrain_assets.drift.tails import chi_square_tail, fisher_two_sided, smirnov_p_value
from retrain_assets.errors import DriftError

__all__ = [
    "ChiSquare",
    "KolmogorovSmirnov",
    "benjamini_hochberg",
    "chi_square",
    "cramers_v",
    "cramers_v_noise",
    "decile_counts",
    "excess",
    "expected_unseen",
    "group_rare",
    "hellinger",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "ks_noise",
    "psi",
    "psi_noise",
    "two_proportions",
    "unseen_p_value",
    "unseen_share",
    "wasserstein",
    "wasserstein_noise",
    "wasserstein_scale",
]

Sample: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]


class KolmogorovSmirnov(NamedTuple):
    """Distance in [0, 1] and two-sided p-value."""

    statistic: float
    p_value: float


class ChiSquare(NamedTuple):
    """Pearson's statistic (>= 0), degrees of freedom and p-value."""

    statistic: float
    dof: int
    p_value: float


def kolmogorov_smirnov(reference: npt.ArrayLike, current: npt.ArrayLike) -> KolmogorovSmirnov:
    """Largest distance between two empirical distribution functions, sup_x |F_ref(x) - F_cur(x)|.

    Args:
        reference: shape (n,), n >= 1; infinities are ordinary extreme values.
        current: shape (m,), m >= 1.

    Returns:
        Statistic without a unit in [0, 1]: 0 for equal distributions, 1 for disjoint samples.
        Symmetric, and unchanged by any increasing transform. The p-value is exact where it is
        below 0.5 and n * m <= tails.EXACT_PRODUCT, else of the limit law; with ties it is
        conservative. Below n = m = 5 no difference is significant at 1%.

    Source: Hodges, "The significance probability of the Smirnov two-sample test", 1958;
    scipy.stats.ks_2samp.

    >>> found = kolmogorov_smirnov([1, 2, 3, 4], [2, 7, 8, 9, 9])
    >>> round(found.statistic, 6), round(found.p_value, 6)
    (0.8, 0.079365)
    """
    ref, cur = (
        np.sort(_sample(reference, "reference")),
        np.sort(_sample(current, "current")),
    )
    values = np.concatenate([ref, cur])
    shares = [np.searchsorted(side, values, side="right") / side.size for side in (ref, cur)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    return KolmogorovSmirnov(distance, smirnov_p_value(distance, ref.size, cur.size))


def ks_noise(n: int, m: int) -> float:
    """Root mean square of the Kolmogorov-Smirnov distance of two samples without drift.

    sqrt(pi^2 / 12 * (1/n + 1/m)), from the second moment of the Kolmogorov distribution. For a
    column with few distinct values the true figure is smaller. Range (0, inf), n, m >= 1.

    Source: the limit law of Smirnov, 1939; its second moment is pi^2 / 12.

    >>> round(ks_noise(100, 100), 3)
    0.128
    """
    return sqrt(pi * pi / 12 * _inverse_sizes(n, m))


def wasserstein(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """First Wasserstein (earth mover's) distance, the integral of |F_ref(x) - F_cur(x)| dx.

    Args:
        reference: shape (n,), n >= 1, finite, magnitudes below 1e150.
        current: shape (m,), m >= 1, likewise.

    Returns:
        Distance in the unit of the data, >= 0; 0 for equal distributions, |c| for a shift by c.
        Symmetric. One far outlier can rule it: read it beside a rank statistic.

    Source: Ramdas, Garcia and Cuturi, "On Wasserstein two-sample testing", 2017;
    scipy.stats.wasserstein_distance.

    >>> wasserstein([1, 2, 3], [2.5, 9])
    3.75
    """
    ref, cur = (
        np.sort(_finite(reference, "reference")),
        np.sort(_finite(current, "current")),
    )
    values = np.sort(np.concatenate([ref, cur]), kind="stable")
    shares = [np.searchsorted(side, values[:-1], side="right") / side.size for side in (ref, cur)]
    return float(np.sum(np.abs(shares[0] - shares[1]) * np.diff(values)))


def wasserstein_noise(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Expected Wasserstein distance of two such samples if they came from one distribution.

    sqrt(2/pi) * sqrt(1/n + 1/m) * integral of sqrt(F (1 - F)) dx with the distribution function F
    of both samples together: the mean of the limit law, the integral of |B(F(x))| over a Brownian
    bridge. In the unit of the data, >= 0; shapes and limits as in `wasserstein`.

    Source: del Barrio, Gine and Matran, "Central limit theorems for the Wasserstein distance
    between the empirical and the true distributions", 1999.

    >>> round(wasserstein_noise([0, 1], [0, 1]), 3)
    0.399
    """
    ref, cur = _finite(reference, "reference"), _finite(current, "current")
    pooled = np.sort(np.concatenate([ref, cur]))
    below = np.arange(1, pooled.size) / pooled.size
    spread = float(np.sum(np.diff(pooled) * np.sqrt(below * (1 - below))))
    return wasserstein_scale(ref.size, cur.size) * spread


def wasserstein_scale(n: int, m: int) -> float:
    """What the integral of sqrt(F (1 - F)) is multiplied by in `wasserstein_noise`.

    sqrt(2/pi * (1/n + 1/m)), n, m >= 1. Source: see there.

    >>> round(wasserstein_scale(2, 2), 3)
    0.798
    """
    return sqrt(2 / pi * _inverse_sizes(n, m))


def decile_counts(
    reference: npt.ArrayLike, current: npt.ArrayLike, n_bins: int = 10
) -> tuple[Counts, Counts]:
    """Counts of both samples in bins that hold about equal shares of the reference.

    A value that alone holds at least 1/n_bins of the reference (an atom, such as zero in a column
    of amounts) is a bin of its own. The other values are cut at the reference's own order
    statistics into the bins that remain, at least one and open to both sides, so that a constant
    reference still sees a current value that differs. Bins empty on both sides are left out.

    Args:
        reference: shape (n,), n >= 1; infinities are ordinary extreme values.
        current: shape (m,), m >= 1.
        n_bins: bins for a reference without ties, >= 2.

    Returns:
        Two arrays of the same length, sums n and m.

    Source: the usual decile PSI (Siddiqi, "Credit Risk Scorecards", 2006); atoms ours.

    >>> decile_counts([5, 5, 5, 5], [5, 5, 7])
    (array([4, 0]), array([2, 1]))
    """
    ref, cur = _sample(reference, "reference"), _sample(current, "current")
    if n_bins < 2:
        raise DriftError(f"n_bins: must be >= 2, got {n_bins}")
    values, counts = np.unique(ref, return_counts=True)
    is_atom = counts >= max(2.0, ref.size / n_bins)
    atoms = values[is_atom]
    rest = np.repeat(values[~is_atom], counts[~is_atom])
    n_rest_bins = max(1, round(n_bins * rest.size / ref.size))
    # Order statistics, not interpolated quantiles: infinities and huge offsets stay exact.
    cuts = np.ceil(rest.size * np.arange(1, n_rest_bins) / n_rest_bins).astype(np.int64) - 1
    edges = np.unique(rest[cuts[cuts >= 0]])
    in_ref = _count_bins(ref, atoms, edges)
    in_cur = _count_bins(cur, atoms, edges)
    used = (in_ref + in_cur) > 0
    return in_ref[used], in_cur[used]


def _count_bins(sample: Sample, atoms: Sample, edges: Sample) -> Counts:
    """Counts of the atoms, then of the bins (-inf, e1], (e1, e2], ..., (ek, inf)."""
    at_atom = np.isin(sample, atoms)
    in_atoms = np.bincount(np.searchsorted(atoms, sample[at_atom]), minlength=atoms.size)
    in_bins = np.bincount(np.searchsorted(edges, sample[~at_atom]), minlength=edges.size + 1)
    return np.concatenate([in_atoms, in_bins]).astype(np.int64)


def psi(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Population stability index, sum of (p - q) ln(p / q) over bins or categories.

    p and q are the shares of reference and current after half a row is added to every entry, so
    that an empty bin weighs as what it is, an estimate from few rows, and not as a tiny epsilon.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Returns:
        A number without a unit, >= 0, no upper bound (about 2 ln(2n) for disjoint samples of n);
        0 for proportional counts of equal size. Biased upwards in small samples: `psi_noise`.

    Source: Kullback and Leibler, "On information and sufficiency", 1951 (their divergence J);
    half-count smoothing: Jeffreys' prior.

    >>> round(psi([50, 50], [80, 20]), 3)
    0.406
    """
    ref, cur = _counts(reference_counts, current_counts)
    p = (ref + 0.5) / (ref.sum() + 0.5 * ref.size)
    q = (cur + 0.5) / (cur.sum() + 0.5 * cur.size)
    return float(np.sum((p - q) * np.log(p / q)))


def psi_noise(k: int, n: int, m: int) -> float:
    """Expected PSI of samples of n and m rows over k bins without drift: (k - 1) (1/n + 1/m).

    Source: Yurdakul, "Statistical properties of population stability index", Western Michigan
    University, 2018: n m / (n + m) * PSI tends to a chi-square with k - 1 degrees of freedom.

    >>> round(psi_noise(10, 100, 100), 3)
    0.18
    """
    return (k - 1) * _inverse_sizes(n, m)


def jensen_shannon(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Jensen-Shannon distance, base 2: root of the mean divergence from the mixture of both.

    sqrt((KL(p, (p+q)/2) + KL(q, (p+q)/2)) / 2) over bins or categories, without any smoothing:
    an empty bin adds what it must, never infinity.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Returns:
        A number without a unit in [0, 1]: 0 for equal shares, 1 for disjoint ones. Symmetric, a
        metric. Biased upwards in small samples, about sqrt((k - 1) (1/n + 1/m) / (8 ln 2)).

    Source: Endres and Schindelin, "A new metric for probability distributions", 2003.

    >>> jensen_shannon([1, 0], [0, 1])
    1.0
    """
    ref, cur = _counts(reference_counts, current_counts)
    p, q = ref / ref.sum(), cur / cur.sum()
    middle = (p + q) / 2
    parts = [side[side > 0] * np.log2(side[side > 0] / middle[side > 0]) for side in (p, q)]
    return sqrt(min(1.0, max(0.0, float(parts[0].sum() + parts[1].sum()) / 2)))


def hellinger(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Hellinger distance, sqrt(1 - sum sqrt(p q)) over bins or categories, without smoothing.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Returns:
        A number without a unit in [0, 1]: 0 for equal shares, 1 for disjoint ones. Symmetric.
        Biased upwards in small samples, about sqrt((k - 1) (1/n + 1/m) / 8).

    Source: Hellinger 1909; Le Cam and Yang, "Asymptotics in statistics", 2000.

    >>> round(hellinger([1, 1], [1, 0]), 4)
    0.5412
    """
    ref, cur = _counts(reference_counts, current_counts)
    roots = np.sqrt(ref / ref.sum()) - np.sqrt(cur / cur.sum())
    return sqrt(min(1.0, float(np.sum(roots**2)) / 2))


def chi_square(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> ChiSquare:
    """Pearson's chi-square of the 2 x k table of both samples, without Yates' correction.

    Both rows are treated as samples (not the reference as exact truth), so that one category that
    the reference lacks is no certainty. Entries that are 0 on both sides are left out.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Returns:
        Statistic in [0, n + m], k - 1 degrees of freedom, p-value (1 for k = 1). The p-value
        holds where every entry expects about 5 rows on the smaller side: see `group_rare`.
        Symmetric.

    Source: Pearson 1900; the rule of 5: Cochran, "Some methods for strengthening the common
    chi-square tests", 1954.

    >>> chi_square([10, 20], [20, 10]).statistic
    6.666666666666667
    """
    ref, cur = _counts(reference_counts, current_counts)
    used = (ref + cur) > 0
    table = np.stack([ref[used], cur[used]])
    dof = int(table.shape[1]) - 1
    if dof == 0:
        return ChiSquare(0.0, 0, 1.0)
    sizes, totals = table.sum(axis=1, keepdims=True), table.sum(axis=0, keepdims=True)
    expected = sizes * totals / totals.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return ChiSquare(statistic, dof, chi_square_tail(statistic, dof))


def cramers_v(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Cramer's V of the 2 x k table, both samples weighted equally: sqrt(sum (p-q)^2 / (p+q) / 2).

    For samples of equal size this is the usual sqrt(chi2 / (n + m)). The usual form shrinks with
    the imbalance of the sizes (a month against a day can never reach 0.1); an effect size
    should not depend on how many rows were looked at, so the shares are compared instead.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Returns:
        A number without a unit in [0, 1]: 0 for equal shares, 1 for disjoint categories.
        Symmetric. Biased upwards in small samples: `cramers_v_noise`.

    Source: Cramer, "Mathematical methods of statistics", 1946, chapter 21; the equal weights
    make it the root of half the triangular discrimination (Topsoe, 2000).

    >>> round(cramers_v([10, 20], [20, 10]), 4)
    0.3333
    """
    ref, cur = _counts(reference_counts, current_counts)
    p, q = ref / ref.sum(), cur / cur.sum()
    used = (p + q) > 0
    half = float(np.sum((p - q)[used] ** 2 / (p + q)[used])) / 2
    return sqrt(min(1.0, half))


def cramers_v_noise(k: int, n: int, m: int) -> float:
    """Root mean square of `cramers_v` over k categories without drift.

    sqrt((k - 1) / 4 * (1/n + 1/m)), without a unit.

    Source: for n = m the bias term of Bergsma, "A bias-correction for Cramer's V and Tschuprow's
    T", 2013; for other sizes the expectation of each (p - q)^2 is p (1 - p) (1/n + 1/m).

    >>> round(cramers_v_noise(21, 100, 100), 3)
    0.316
    """
    return sqrt((k - 1) / 4 * _inverse_sizes(n, m))


def excess(effect: float, noise: float) -> float:
    """The part of a distance beyond its noise, sqrt(effect^2 - noise^2), 0 where noise is larger.

    Source: the method of moments; squared distances are additive in truth and noise.

    >>> excess(0.5, 0.3)
    0.4
    """
    return sqrt(max(0.0, (effect - noise) * (effect + noise)))


def group_rare(totals: npt.ArrayLike, smaller_share: float, min_expected: float = 5.0) -> Counts:
    """Group consecutive rare categories until each group expects enough rows on either side.

    A category is rare where `total * smaller_share < min_expected`. Rare ones are joined in the
    given order, a shorter last group joins the one before it, or else the smallest common
    category. Only the totals of both samples are looked at, never their split, so a test on the
    groups keeps its level (as long as the order does not depend on the split either).

    Args:
        totals: shape (k,), rows of both samples per category, each >= 1.
        smaller_share: rows of the smaller sample over rows of both, in (0, 0.5].
        min_expected: rows that a group expects in the smaller sample.

    Returns:
        Shape (k,): number of the group of every category, 0-based and without gaps.

    Source: Cochran 1954 (join cells until the expectation is 5).

    >>> group_rare([40, 3, 4, 50, 9, 12], 0.5)
    array([1, 0, 0, 2, 0, 3])
    """
    sizes = np.asarray(totals, dtype=np.int64)
    need = min_expected / smaller_share
    rare = sizes < need
    groups = np.empty(sizes.size, dtype=np.int64)
    # Steps of twice the need: what one step's last member takes from the next is below the need.
    before = np.cumsum(sizes[rare]) - sizes[rare]
    groups[rare] = before // (2 * need)
    n_rare_groups = int(groups[rare].max()) + 1 if rare.any() else 0
    groups[~rare] = n_rare_groups + np.arange(np.count_nonzero(~rare))
    if n_rare_groups:
        last = groups == n_rare_groups - 1
        if sizes[last].sum() < need and n_rare_groups > 1:
            groups[last] = n_rare_groups - 2
        elif sizes[last].sum() < need and not rare.all():
            groups[last] = groups[np.argmin(np.where(rare, sizes.max() + 1, sizes))]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64).reshape(-1)


def two_proportions(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    """P-value of Fisher's exact test that two shares are equal, two-sided, in [0, 1].

    Args:
        successes_a: rows with the property (for example null) among `n_a` >= 1.
        n_a: rows of the first sample.
        successes_b: likewise among `n_b` >= 1.
        n_b: rows of the second sample.

    Valid at every size; conservative in small ones. Symmetric.

    Source: Fisher, "Statistical methods for research workers", 1934, section 21.02.

    >>> round(two_proportions(0, 100, 8, 100), 4)
    0.0068
    """
    _inverse_sizes(n_a, n_b)
    return fisher_two_sided(successes_a, n_a, successes_b, n_b)


def unseen_share(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Share of the current rows whose category the reference lacks, in [0, 1].

    >>> unseen_share([5, 5, 0], [4, 4, 2])
    0.2
    """
    ref, cur = _counts(reference_counts, current_counts)
    return float(cur[ref == 0].sum() / cur.sum())


def expected_unseen(reference_counts: npt.ArrayLike) -> float:
    """Share of new rows in unseen categories that the reference itself foretells, in [0, 1].

    Categories seen once over all rows. 1 for identifiers (every row new), 0 for a handful of
    frequent categories.

    Source: Good, "The population frequencies of species and the estimation of population
    parameters", 1953 (Good-Turing).

    >>> expected_unseen([1, 1, 8])
    0.2
    """
    ref, _ = _counts(reference_counts, reference_counts)
    return float(np.count_nonzero(ref == 1) / ref.sum())


def unseen_p_value(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Upper bound of the p-value of the current rows in unseen categories, in (0, 1].

    Without drift every split of the pooled rows into n and m is equally likely, so that a category
    of t rows falls wholly into current with probability m (m-1) ... / (N (N-1) ...), t factors.
    Chernoff's bound over the sum of such rows holds at every size (the indicators are negatively
    associated), where a normal approximation fails for a single small category. Conservative.

    Args:
        reference_counts: shape (k,), k >= 1, not all 0.
        current_counts: shape (k,), likewise.

    Source: Chernoff 1952; Joag-Dev and Proschan, "Negative association of random variables", 1983.

    >>> round(unseen_p_value([10, 0], [7, 3]), 3)
    0.105
    """
    ref, cur = _counts(reference_counts, current_counts)
    observed = float(cur[ref == 0].sum())
    if observed == 0:
        return 1.0
    n, m = ref.sum(), cur.sum()
    totals, weights = np.unique((ref + cur)[ref + cur > 0], return_counts=True)
    weights, totals = weights[totals <= m], totals[totals <= m].astype(np.int64)
    factors = np.arange(int(totals.max()), dtype=np.float64)
    log_inside = np.cumsum(np.log((m - factors) / (n + m - factors)))[totals - 1]
    theta = np.geomspace(1e-6, 50, 300)[:, None]  # any value gives a valid bound
    outside = np.log1p(-np.exp(log_inside))
    log_moments = np.logaddexp(outside, log_inside + theta * totals)
    log_bound = log_moments @ weights - theta[:, 0] * observed
    return float(np.exp(min(0.0, float(log_bound.min()))))


def benjamini_hochberg(p_values: npt.ArrayLike) -> Sample:
    """P-values adjusted so that `adjusted < alpha` holds the false-discovery rate at alpha.

    adjusted_(i) = min over j >= i of p_(j) * k / j, at most 1, in the order given.

    Args:
        p_values: shape (k,), k >= 0, each in [0, 1].

    Returns:
        Shape (k,), each in [0, 1] and at least its p-value; keeps the order of the p-values.

    Raises:
        DriftError: a value is NaN or outside [0, 1].

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", 1995; valid for
    independent and positively dependent tests.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise DriftError(f"p_values: each must be in [0, 1], got {p[~((p >= 0) & (p <= 1))][0]}")
    order = np.argsort(p)[::-1]
    ranks = np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    # From p * (k / k) down; a quotient of whole numbers first, so that rounding never goes below p.
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * (p.size / ranks)))
    return adjusted


def _inverse_sizes(n: int, m: int) -> float:
    if n < 1 or m < 1:
        raise DriftError(f"sample sizes: each must be >= 1, got {n} and {m}")
    return 1 / n + 1 / m


def _sample(values: npt.ArrayLike, name: str) -> Sample:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise DriftError(f"{name}: must be a 1-D sample of at least 1 value, got {sample.shape}")
    if np.isnan(sample).any():
        raise DriftError(f"{name}: must not contain NaN; drop nulls first and compare their rates")
    return sample


def _finite(values: npt.ArrayLike, name: str) -> Sample:
    sample = _sample(values, name)
    if not np.isfinite(sample).all():
        raise DriftError(f"{name}: must be finite, got an infinity; drop infinities first")
    return sample


def _counts(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[Sample, Sample]:
    ref, cur = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if ref.ndim != 1 or ref.shape != cur.shape:
        raise DriftError(f"counts: must be 1-D and equally long, got {ref.shape} and {cur.shape}")
    if not (np.all(ref >= 0) and np.all(cur >= 0)):
        raise DriftError("counts: each must be >= 0")
    if not (ref.sum() > 0 and cur.sum() > 0):
        raise DriftError("counts: each side needs at least one row, got 0")
    return ref, cur
