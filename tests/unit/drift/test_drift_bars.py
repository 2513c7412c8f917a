"""The bars of the pictures: nothing is lost, and whole numbers draw no comb."""

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.profile import build_profile
from retrain_assets.drift.verdict import compare_with_pictures
from retrain_assets.spec.model import Drift


def _picture(values, shift=0, profiles=False):
    sides = [pa.table({"x": values}), pa.table({"x": values + shift})]
    if profiles:
        reference = build_profile(ArrowSource(sides[0]))
        sides = [reference, build_profile(ArrowSource(sides[1]), like=reference)]
    _, pictures = compare_with_pictures(
        *sides, Drift(), columns=["x"], reference_name="a", current_name="b"
    )
    return pictures["x"]


@pytest.mark.parametrize("profiles", [False, True])
@pytest.mark.parametrize(
    ("values", "n_bars", "step"),
    [
        (np.arange(2400) % 24, 24, 1.0),
        (np.arange(2400) % 24 + 1_700_000_000, 24, 1.0),
        (np.arange(2000) % 100 - 50, 34, 3.0),
        (np.full(500, 7), 1, 1.0),
    ],
)
def test_bars_of_whole_numbers_hold_equally_many_of_them(values, n_bars, step, profiles):
    picture = _picture(values, profiles=profiles)
    assert np.diff(picture.edges).tolist() == [step] * n_bars
    assert picture.edges[0] == values.min() - 0.5
    full = np.bincount(((values - values.min()) // step).astype(int))
    assert picture.reference == picture.current == full.tolist()


@pytest.mark.parametrize("profiles", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=3000),
        np.random.default_rng(0).standard_cauchy(size=3000),
        np.full(300, 2.5),
        np.r_[np.full(300, 1e305), -1e305],
        np.r_[np.arange(500.0), np.inf, -np.inf],
    ],
)
def test_every_finite_value_is_in_a_bar(values, profiles):
    picture = _picture(values, profiles=profiles)
    assert len(picture.edges) == 41
    assert sum(picture.reference) == np.isfinite(values).sum()
    assert sum(picture.current) == np.isfinite(values).sum()
