"""Two columns without sorting them give what sorting them gives: scipy and `statistics` are the judges."""

import numpy as np
import pytest
from scipy import stats

from retrain_assets.drift import statistics
from retrain_assets.drift.columns import ArrowSource, numeric_pieces
from retrain_assets.drift.exact import compare_numbers
from retrain_assets.drift.grid import Grid, choose_grid
from retrain_assets.drift.kernels import Values

pytestmark = pytest.mark.usefixtures("each_kernel")

RNG = np.random.default_rng(1)
COLUMNS = {
    "normal": lambda n: RNG.standard_normal(n),
    "heavy tail": lambda n: RNG.standard_cauchy(n),
    "many zeros": lambda n: np.where(RNG.random(n) < 0.4, 0, RNG.exponential(size=n)),
    "prices": lambda n: np.round(RNG.lognormal(size=n), 2),
    "few values": lambda n: RNG.integers(0, 5, n).astype(float),
    "huge offset": lambda n: RNG.standard_normal(n) + 1.7e9,
    "denormals": lambda n: RNG.standard_normal(n) * 1e-310,
    "sorted": lambda n: np.sort(RNG.standard_normal(n)),
    "a late frequent value": lambda n: np.append(np.sort(RNG.random(n - n // 3)), [2.0] * (n // 3)),
    "float32": lambda n: RNG.standard_normal(n).astype(np.float32),
    "int32": lambda n: RNG.integers(-50, 50, n).astype(np.int32),
    "beyond 2**53": lambda n: RNG.integers(0, 1000, n) + 2**60,
    "all of int64": lambda n: RNG.integers(-(2**63), 2**63 - 1, n),
    "constant": lambda n: np.full(n, 3.25),
}


def _pieces(*parts):
    return lambda: [Values(np.ascontiguousarray(part)) for part in parts]


def _sorted_pairs(counts):
    return sorted(zip(*(side.tolist() for side in counts), strict=True))


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 40), (700, 900), (20_000, 15_000)])
def test_every_statistic_is_that_of_a_full_sort(name, n, m):
    reference, current = COLUMNS[name](n), COLUMNS[name](m)
    found = compare_numbers(_pieces(reference), _pieces(current))
    exact = statistics.kolmogorov_smirnov(*_ranked(reference, current)).statistic
    assert found.ks == (pytest.approx(exact, abs=1e-12),) * 2
    assert _sorted_pairs(found.bins) == _sorted_pairs(
        statistics.decile_counts(*_ranked(reference, current))
    )
    outside = (current < reference.min()) | (current > reference.max())
    assert found.outside == pytest.approx(outside.mean())
    assert (found.n, found.m) == (n, m)
    if name in ("all of int64", "beyond 2**53"):
        return  # scipy rounds these to float64 first
    unit = 1e300 if name == "denormals" else 1.0  # or numpy's own squares vanish
    a, b = (side.astype(float) * unit for side in (reference, current))
    a, b = a - a.mean(), b - a.mean()
    distance = stats.wasserstein_distance(a, b)
    spread = np.ptp(np.concatenate([a, b]))
    assert found.wasserstein[0] * unit == pytest.approx(distance, rel=1e-9, abs=1e-12 * spread)
    assert found.deviation * unit == pytest.approx(a.std(), rel=1e-9, abs=1e-12 * spread)


def _ranked(reference, current):
    """Ranks, which float64 holds whatever the values are."""
    ranks = np.unique(np.concatenate([reference, current]), return_inverse=True)[1].reshape(-1)
    return ranks[: reference.size].astype(float), ranks[reference.size :].astype(float)


def test_integers_beyond_the_precision_of_floats_have_an_exact_distance():
    reference = np.arange(1000) + 2**60
    found = compare_numbers(_pieces(reference), _pieces(reference + 1))
    assert found.wasserstein[0] == pytest.approx(1, abs=1e-12)
    assert found.ks[0] == pytest.approx(0.001, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.03, 1.0])
def test_a_column_that_is_read_in_pieces_gives_the_same(shift):
    reference, current = RNG.standard_normal(9000), RNG.standard_normal(7000) + shift
    whole = compare_numbers(_pieces(reference), _pieces(current))
    pieces = compare_numbers(
        _pieces(*np.array_split(reference, 7)), _pieces(*np.array_split(current, 5)),
        choose_grid(reference),
    )  # fmt: skip
    assert pieces.ks == pytest.approx(whole.ks, abs=1e-12)
    assert pieces.wasserstein == pytest.approx(whole.wasserstein, rel=1e-9)
    assert _sorted_pairs(pieces.bins) == _sorted_pairs(whole.bins)


@pytest.mark.parametrize(
    "grid", [Grid(1e6, 2.0**-20), Grid(0.0, 2.0**40), Grid(-3.0, 1.0, (0.0, 0.5))]
)
def test_any_grid_gives_the_exact_result(grid):
    reference = np.where(RNG.random(4000) < 0.2, 0.5, RNG.standard_normal(4000))
    current = np.where(RNG.random(3000) < 0.3, 0.5, RNG.standard_normal(3000) * 1.1)
    found = compare_numbers(_pieces(reference), _pieces(current), grid)
    assert found.ks[0] == pytest.approx(stats.ks_2samp(reference, current).statistic, abs=1e-12)
    distance = stats.wasserstein_distance(reference, current)
    assert found.wasserstein[0] == pytest.approx(distance, rel=1e-7)


def test_what_is_too_much_to_sort_is_a_narrow_certified_interval(monkeypatch):
    from retrain_assets.drift import exact

    reference, current = RNG.standard_normal(50_000), RNG.standard_normal(50_000)
    whole = compare_numbers(_pieces(reference), _pieces(current))
    monkeypatch.setattr(exact, "MAX_SORTED", 100)
    found = compare_numbers(_pieces(reference), _pieces(current))
    assert found.gathered < whole.gathered / 2
    assert (whole.exact, found.exact) == (True, False)
    assert found.ks == whole.ks
    low, high = found.wasserstein
    assert low <= whole.wasserstein[0] <= high
    assert high - low < 2e-4


def test_a_grid_for_many_rows_is_finer_and_as_exact():
    reference, current = RNG.standard_cauchy(50_000), RNG.standard_cauchy(50_000)
    whole = compare_numbers(_pieces(reference), _pieces(current))
    fine = compare_numbers(_pieces(reference), _pieces(current), rows=10**7)
    assert fine.gathered < whole.gathered
    assert fine.ks == pytest.approx(whole.ks, abs=1e-12)
    assert fine.wasserstein == pytest.approx(whole.wasserstein, rel=1e-9)


def test_few_values_are_sorted():
    reference, current = RNG.standard_normal(200_000), RNG.standard_normal(200_000) + 0.1
    assert compare_numbers(_pieces(reference), _pieces(current)).gathered < 0.05 * 400_000


def test_infinities_count_in_ranks_and_not_in_sums():
    reference = np.array([-np.inf, 0.0, 1.0, 2.0])
    found = compare_numbers(_pieces(reference), _pieces(np.array([0.0, 1.0, 2.0, np.inf])))
    assert found.ks == (0.25, 0.25)
    assert found.wasserstein == (0, 0)
    assert found.outside == 0.25


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], []), ([], []), ([np.nan], [1.0])])
def test_a_side_without_values_has_no_statistics(sides):
    found = compare_numbers(*(_pieces(np.array(side)) for side in sides))
    assert found.bins is None
    assert found.wasserstein is None


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 9])
def test_nulls_are_left_out_wherever_a_slice_begins(offset):
    import pyarrow as pa

    values = RNG.standard_normal(3000)
    mask = RNG.random(3000) < 0.3
    table = pa.table({"x": pa.array(values, mask=mask)[offset:]})
    plain = pa.table({"x": values[offset:][~mask[offset:]]})
    sides = [ArrowSource(side) for side in (table, plain)]
    found = compare_numbers(*(lambda s=side: numeric_pieces(s, "x") for side in sides))
    assert found.n == found.m == plain.num_rows
    assert (found.ks, found.wasserstein) == ((0, 0), (0, 0))
