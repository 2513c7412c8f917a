"""Reports from stored profiles: what features and trainings leave behind, and what reads it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.data.ingest import make_features
from retrain_assets.data.tables import TableStore
from retrain_assets.drift import build_profile
from retrain_assets.drift.columns import ArrowSource
from retrain_assets.drift.profile import NumericProfile, TableProfile
from retrain_assets.drift.reference import (
    SAMPLE_ROWS,
    SCORE,
    ChampionReference,
    load_reference,
    load_sample,
    sample_rows,
    store_reference,
    with_scores,
)
from retrain_assets.drift.stored import load_profiles, merge_profiles, store_profile
from retrain_assets.drift.watch import Watched, watch
from retrain_assets.errors import DriftError, TableError
from retrain_assets.spec.model import ModelSpec

RNG = np.random.default_rng
CHAMPION = ChampionReference("3", "f1")


def spec_with(**drift: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "churn",
            "partitions": {"every": "day", "start": "2024-01-01"},
            "source": {"files": "data/{partition}.parquet"},
            "target": "y",
            "task": "binary",
            "train": {"window": 60, "holdout": 14, "min_window": 21},
            "drift": drift,
        }
    )


class CountingStore(TableStore):
    """Remembers which tables' rows were read."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.rows_read: list[tuple[str, str | None]] = []

    def _contents(self, model: str, table: str, partitions: Any) -> Any:
        self.rows_read += [(table, partition) for partition in partitions]
        return super()._contents(model, table, partitions)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> CountingStore:
    base = str(tmp_path) if request.param == "local" else f"memory://drift{tmp_path}"
    return CountingStore(base)


def days(first: int, last: int) -> list[str]:
    return [f"2024-{1 + (n - 1) // 28:02d}-{1 + (n - 1) % 28:02d}" for n in range(first, last + 1)]


def table(seed: int, n: int = 300, level: float = 0.0) -> pa.Table:
    rng = RNG(seed)
    return pa.table(
        {
            "x": rng.normal(level, 1, n),
            "amount": np.where(rng.random(n) < 0.3, 0, rng.gamma(2, 9, n)),
            "count": rng.poisson(3, n),
            "kind": rng.choice(["a", "b", "c"], n),
            "y": rng.random(n) < 0.2,
        }
    )


def write(store: TableStore, tables: dict[str, pa.Table], *, profiled: bool = True) -> None:
    for key, rows in tables.items():
        store.write("churn", "features", key, rows)
        if profiled:
            store_profile(store, "churn", key, rows)


def assert_same(mine: TableProfile, rows: pa.Table) -> None:
    """The profile is that of the rows, on its own grids."""
    theirs = build_profile(ArrowSource(rows), like=mine)
    assert (mine.rows, set(mine.columns)) == (theirs.rows, set(theirs.columns))
    for name, column in mine.columns.items():
        other = theirs.columns[name]
        assert (column.n, column.nulls) == (other.n, other.nulls), name
        if isinstance(column, NumericProfile):
            assert isinstance(other, NumericProfile)
            assert column.grid == other.grid
            assert np.array_equal(column.counts, other.counts), name
            assert (column.low, column.high) == (other.low, other.high)
        elif column.n:
            assert column.counted.counts == other.counted.counts  # type: ignore[union-attr]


# -- profiles beside the partitions -----------------------------------------------------------------


def test_profiles_of_partitions_merge_to_the_profile_of_their_rows(store: CountingStore) -> None:
    tables = {key: table(n, level=n) for n, key in enumerate(days(1, 5))}
    write(store, tables)
    store.rows_read.clear()
    merged = merge_profiles(load_profiles(store, "churn", days(1, 5)))
    assert store.rows_read == []
    assert_same(merged, pa.concat_tables(tables.values()))


def test_partitions_of_an_earlier_release_get_their_profiles_when_they_are_needed(
    store: CountingStore,
) -> None:
    tables = {key: table(n) for n, key in enumerate(days(1, 20))}
    write(store, tables, profiled=False)
    merged = merge_profiles(load_profiles(store, "churn", days(1, 20)))
    assert_same(merged, pa.concat_tables(tables.values()))
    store.rows_read.clear()
    load_profiles(store, "churn", days(1, 20))
    assert store.rows_read == []


def test_an_unreadable_profile_is_made_anew_and_a_missing_partition_is_an_error(
    store: CountingStore,
) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 3))})
    store.write_profile("churn", "features", days(1, 3)[1], b"RDP1 cut off")
    assert_same(load_profiles(store, "churn", days(2, 2))[0], table(1))
    with pytest.raises(TableError, match="missing partition: 2024-01-04"):
        load_profiles(store, "churn", days(3, 4))


@pytest.mark.parametrize("first", [5.0, 1e6, 0.0])
def test_a_column_that_begins_constant_gets_a_finer_grid_as_soon_as_it_varies(
    store: CountingStore, first: float
) -> None:
    rng = RNG(1)
    tables = {days(1, 1)[0]: pa.table({"x": np.full(200, first)})}
    tables |= {day: pa.table({"x": rng.normal(first, 1e-3, 200)}) for day in days(2, 4)}
    write(store, tables)
    merged = merge_profiles(load_profiles(store, "churn", days(1, 4)))
    assert_same(merged, pa.concat_tables(tables.values()))
    column = merged.columns["x"]
    assert isinstance(column, NumericProfile)
    assert column.cells.size > 100


def test_values_far_outside_the_first_partition_are_told_apart(store: CountingStore) -> None:
    rng = RNG(1)
    tables = {
        day: pa.table({"x": rng.normal(10.0**n, 10.0 ** (n - 2), 300)})
        for n, day in enumerate(days(1, 7))
    }
    write(store, tables)
    profiles = load_profiles(store, "churn", days(1, 7))
    assert_same(merge_profiles(profiles), pa.concat_tables(tables.values()))
    last = profiles[-1].columns["x"]
    assert isinstance(last, NumericProfile)
    assert last.cells.size > 50


def test_columns_that_begin_later_or_are_empty_at_first_merge(store: CountingStore) -> None:
    tables = {
        "2024-01-01": pa.table({"x": pa.nulls(100), "y": pa.nulls(100, pa.float64())}),
        "2024-01-02": pa.table({"x": RNG(1).normal(size=100), "y": RNG(2).normal(size=100)}),
        "2024-01-03": pa.table({"x": [1.5] * 100, "z": pa.array([2] * 100, pa.int32())}),
    }
    write(store, tables)
    merged = merge_profiles(load_profiles(store, "churn", list(tables)))
    rows = store.read("churn", "features", list(tables))
    assert_same(merged, rows.select(["x", "y", "z"]))


def test_two_first_partitions_at_the_same_time_end_on_one_grid(store: CountingStore) -> None:
    one, two = days(1, 2)
    write(store, {one: table(1)})
    other = TableStore(f"{store.base}-other")
    write(other, {two: table(2, level=9.0)})
    store.write("churn", "features", two, table(2, level=9.0))
    (late,) = other.read_profiles("churn", "features", [two])
    assert late is not None
    store.write_profile("churn", "features", two, late)
    merged = merge_profiles(load_profiles(store, "churn", [one, two]))
    assert_same(merged, pa.concat_tables([table(1), table(2, level=9.0)]))


class DyingStore(TableStore):
    """Killed when the rows are written, before their profile is."""

    def write_profile(self, *arguments: Any) -> None:
        raise KeyboardInterrupt


def test_features_killed_before_their_profile_leave_none_rather_than_a_wrong_one(
    store: CountingStore,
) -> None:
    spec, day = spec_with(), days(1, 1)[0]
    for seed in (1, 2):
        store.write("churn", "raw_data", day, table(seed))
        if seed == 2:
            with pytest.raises(KeyboardInterrupt):
                make_features(spec, day, DyingStore(store.base))
            assert store.read("churn", "features", [day]).equals(table(2))
        else:
            make_features(spec, day, store)
            assert store.profile_exists("churn", "features", day)
        assert_same(load_profiles(store, "churn", [day])[0], table(seed))


def test_types_that_cannot_be_joined_are_named() -> None:
    number = build_profile(ArrowSource(pa.table({"x": [1.0, 2.0]})))
    time = build_profile(ArrowSource(pa.table({"x": pa.array([1, 2], pa.timestamp("s"))})))
    with pytest.raises(DriftError, match="'x': is number in one profile and timestamp in the oth"):
        merge_profiles([number, time])


# -- what a training leaves behind ------------------------------------------------------------------


def train(store: TableStore, spec: ModelSpec, keys: list[str], **importance: float) -> None:
    rows = store.read("churn", "features", keys)
    sample = sample_rows(rows)
    store_reference(
        spec,
        store,
        CHAMPION.fingerprint,
        rows=rows,
        partitions=keys,
        sample=with_scores(sample, np.linspace(0, 1, sample.num_rows)),
        importance=importance or {"x": 0.5, "amount": 0.2, "count": 0.2, "kind": 0.1},
    )


def test_a_sample_is_bounded_even_over_time_and_always_the_same() -> None:
    rows = pa.table({"n": np.arange(90_001)})
    taken = sample_rows(rows)
    assert taken.equals(sample_rows(rows))
    places = taken["n"].to_numpy()
    assert taken.num_rows == SAMPLE_ROWS == np.unique(places).size
    assert np.abs(np.histogram(places, 60)[0] - SAMPLE_ROWS / 60).max() <= 2
    assert sample_rows(rows.slice(0, 50)).num_rows == 50


def test_scores_are_one_column_and_of_several_classes_one_each() -> None:
    rows = pa.table({"n": [1, 2]})
    assert with_scores(rows, np.array([0.25, 0.5]))[SCORE].to_pylist() == [0.25, 0.5]
    several = with_scores(rows, np.array([[0.1, 0.9], [0.8, 0.2]]), ("no", 1))
    assert several.column_names == ["n", "__score__no", "__score__1"]
    assert several["__score__no"].to_pylist() == [0.1, 0.8]


def test_what_a_training_stored_is_read_back_without_any_row(store: CountingStore) -> None:
    spec = spec_with()
    write(store, {day: table(n) for n, day in enumerate(days(1, 12))})
    train(store, spec, days(1, 12), x=0.75, kind=0.25)
    store.rows_read.clear()
    reference = load_reference(spec, store, CHAMPION, days(1, 12))
    assert store.rows_read == []
    assert_same(reference.profile, store.read("churn", "features", days(1, 12)))
    assert reference.name == "champion v3"
    assert reference.importance == {"x": 0.75, "kind": 0.25}
    assert reference.calibration is not None
    assert reference.calibration.partitions == 12
    sample = load_sample(store, "churn", CHAMPION.fingerprint)
    assert (sample.num_rows, sample.column_names[-1]) == (12 * 300, SCORE)


def test_the_same_training_stores_the_same_bytes(store: CountingStore) -> None:
    spec = spec_with()
    write(store, {day: table(n) for n, day in enumerate(days(1, 9))})

    def stored() -> tuple[Any, ...]:
        train(store, spec, days(1, 9))
        return (
            store.fingerprints("churn", "reference", ["f1"]),
            store.read_profiles("churn", "reference", ["f1"]),
            store.read_json("churn", "reference", "f1"),
        )

    assert stored() == stored()


def test_other_settings_calibrate_again_once_and_none_turns_it_off(store: CountingStore) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 20))})
    train(store, spec_with(), days(1, 20))
    wider = spec_with(window=2)
    found = load_reference(wider, store, CHAMPION, days(1, 20)).calibration
    assert found is not None
    assert found.partitions == 10
    assert store.read_json("churn", "reference", "f1")["calibration"]["window"] == 2
    week = load_reference(spec_with(window=7), store, CHAMPION, days(1, 20)).calibration
    assert week is not None
    assert week.partitions == 10, "weeks would be too few: blocks of two days"
    assert (
        load_reference(spec_with(calibrate=False), store, CHAMPION, days(1, 20)).calibration is None
    )
    gone = load_reference(spec_with(window=3), store, CHAMPION, days(5, 20))
    assert gone.calibration is None


@pytest.mark.parametrize("trained_on", ["", "2024-01-01 to 2024-01-10"])
def test_a_champion_of_an_earlier_release_is_profiled_from_its_rows_once(
    store: CountingStore, trained_on: str
) -> None:
    champion = ChampionReference("3", "f1", trained_on)
    write(store, {day: table(n) for n, day in enumerate(days(1, 10))}, profiled=False)
    rows = store.read("churn", "features", days(1, 10))
    store.write("churn", "reference", "f1", rows)
    reference = load_reference(spec_with(), store, champion, days(1, 10))
    assert_same(reference.profile, rows)
    assert reference.importance is None
    assert (reference.calibration is not None) == bool(trained_on)
    store.rows_read.clear()
    load_reference(spec_with(), store, champion, days(1, 10))
    assert store.rows_read == []


def test_a_champion_without_rows_is_profiled_from_its_feature_partitions(
    store: CountingStore,
) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 10))})
    champion = ChampionReference("3", "f1", "2024-01-02 to 2024-01-09")
    reference = load_reference(spec_with(), store, champion, days(1, 10))
    assert reference.profile.rows == 8 * 300


def test_a_champion_of_which_nothing_is_left_is_named(store: CountingStore) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 3))})
    champion = ChampionReference("3", "f1", "2023-12-01 to 2024-01-03")
    with pytest.raises(
        TableError, match=r"champion v3 was trained on .*no profile, no rows, not all"
    ):
        load_reference(spec_with(), store, champion, days(1, 3))


# -- reports ----------------------------------------------------------------------------------------


def reports(
    store: TableStore, spec: ModelSpec, keys: list[str], champion: ChampionReference | None
) -> list[Watched]:
    return list(watch(spec, keys, store, champion, store.partitions("churn", "features")))


def weekly(n: int, shift: float = 0.0) -> pa.Table:
    """One of two columns has a weekly season of 0.6 standard deviations."""
    rng, season = RNG(n), 0.6 * np.sin(2 * np.pi * n / 7)
    columns = {f"x{i}": rng.normal(season * i + shift, 1, 300) for i in range(2)}
    return pa.table({**columns, "y": rng.random(300) < 0.5})


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize(("against", "blocks"), [("champion", 30), ("first_window", 21)])
def test_a_weekly_season_is_no_drift_and_a_shift_is(
    store: CountingStore, against: str, blocks: int
) -> None:
    spec = spec_with(against=against, alert={"of_last": 2, "at_least": 1})
    plain = spec_with(against=against, calibrate=False)
    write(store, {day: weekly(n) for n, day in enumerate(days(1, 77), 1)})
    write(store, {day: weekly(n, shift=2.5) for n, day in enumerate(days(78, 79), 78)})
    if against == "champion":
        train(store, spec, days(1, 46), x0=0.5, x1=0.5)
    store.rows_read.clear()
    seasons = reports(store, spec, days(47, 77), CHAMPION)
    assert store.rows_read == []
    assert {item.report.verdict for item in seasons} == {"stable"}
    assert not any(item.alarm for item in seasons)
    assert {item.report.calibrated_on for item in seasons} == {blocks}
    shifted = reports(store, spec, days(78, 79), CHAMPION)
    assert [(item.report.verdict, item.alarm) for item in shifted] == [("drifted", True)] * 2
    assert [item.alarm_is_new for item in shifted] == [True, False]
    assert set(shifted[0].pictures) == {"x0", "x1"}
    uncalibrated = reports(store, plain, days(64, 77), CHAMPION)
    assert sum(item.report.verdict == "drifted" for item in uncalibrated) >= 6


def test_features_count_by_the_champions_importance(store: CountingStore) -> None:
    write(store, {day: table(n, level=0 if n < 10 else 3) for n, day in enumerate(days(1, 11))})
    for weight, verdict in ((0.9, "drifted"), (0.1, "stable")):
        train(store, spec_with(), days(1, 10), x=weight, kind=1 - weight)
        (item,) = reports(store, spec_with(), days(11, 11), CHAMPION)
        assert item.report.drifted_features == ("x",)
        assert (item.report.verdict, item.report.share_drifted) == (verdict, pytest.approx(weight))


def test_a_window_is_the_merge_of_its_partitions(store: CountingStore) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 20))})
    train(store, spec_with(), days(1, 10))
    (item,) = reports(store, spec_with(window=5), days(20, 20), CHAMPION)
    assert (item.report.n_current, item.report.n_reference) == (5 * 300, 10 * 300)


def test_without_a_champion_and_a_window_there_is_no_reference_yet(store: CountingStore) -> None:
    write(store, {day: table(n) for n, day in enumerate(days(1, 3))})
    (item,) = reports(store, spec_with(), days(3, 3), None)
    assert (item.report.verdict, item.report.reference) == ("undecided", "no reference yet")
    assert {row.feature for row in item.report.features} == {"x", "amount", "count", "kind"}
    assert "only in" not in " ".join(item.report.reasons)
