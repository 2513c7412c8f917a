"""What a watched partition's report holds beside its features, from a real store of partitions."""

import numpy as np
import pyarrow as pa
import pytest
from integration.candidates import train_small_model

from retrain_assets.data.tables import TableStore
from retrain_assets.drift.reference import store_reference, with_scores
from retrain_assets.drift.watch import ChampionReference, watch
from retrain_assets.errors import TableError, TrainingError
from retrain_assets.promotion.model_files import load_model, store_model
from retrain_assets.spec.model import ModelSpec

DAYS = [f"2024-01-{day:02}" for day in range(1, 31)]
TRAINED, CHAMPION = DAYS[:20], ChampionReference("3", "abc")


def _spec(**drift):
    return ModelSpec(
        name="flights", description="d", owner="team:a", target="late", task="binary",
        partitions={"every": "day", "start": "2024-01-01", "end": "2024-01-30"},
        source={"python": "a:b", "lag": "1h"}, train={"window": 20, "holdout": 5},
        drift={"min_rows": 100, **drift},
    )  # fmt: skip


def _day(day, shift=0.0, rate=0.3):
    rng = np.random.default_rng(day)
    x, y = rng.normal(shift, 1, 250), rng.normal(size=250)
    return pa.table({"x": x, "y": y, "late": rng.random(250) < rate})


def _scores(table):
    return 1 / (1 + np.exp(-table["x"].to_numpy()))


@pytest.fixture
def store(tmp_path):
    """Thirty days of which the first twenty trained the champion; on the last five x has moved."""
    store = TableStore(str(tmp_path))
    for place, day in enumerate(DAYS):
        store.write("flights", "features", day, _day(place, shift=1.5 if place >= 25 else 0.0))
    return store


def _store_champion(store, spec):
    rows = store.read("flights", "features", TRAINED)
    store_reference(
        spec, store, CHAMPION.fingerprint, rows=rows, partitions=TRAINED,
        sample=with_scores(rows, _scores(rows)), importance={"x": 0.9, "y": 0.1},
    )  # fmt: skip


def _watched(store, spec, day, predict=_scores, champion=CHAMPION):
    def of_partitions(keys):
        return predict(store.read("flights", "features", keys))

    (item,) = watch(spec, [day], store, champion, DAYS, of_partitions)
    return item.report


def test_an_ordinary_day_has_quiet_sections(store):
    spec = _spec(multivariate={})
    _store_champion(store, spec)
    report = _watched(store, spec, DAYS[22])
    assert report.verdict == "stable"
    assert report.multivariate.calibrated_on == 8
    assert not report.prediction[0].drifted
    assert not report.label.drifted
    assert len(report.reasons) == 2


def test_a_moved_day_is_seen_in_every_section(store):
    spec = _spec(multivariate={})
    _store_champion(store, spec)
    store.write("flights", "features", DAYS[27], _day(27, shift=1.5, rate=0.8))
    report = _watched(store, spec, DAYS[27])
    assert report.multivariate.verdict == "drifted"
    assert next(iter(report.multivariate.shares)) == "x"
    assert (
        report.prediction[0].reasons[0].startswith("the champion's score moved: mean 0.498 → 0.778")
    )
    assert report.label.reasons[0].startswith("the target `late` moved: ")
    assert store.read_json("flights", "drift_report", DAYS[27])["version"] == 3


def test_what_is_usual_is_measured_once_for_a_reference(store, monkeypatch):
    from retrain_assets.drift import multivariate

    spec = _spec(multivariate={"rows": 1000})
    _store_champion(store, spec)
    first = _watched(store, spec, DAYS[22]).multivariate
    assert len(store.json_partitions("flights", "usual_separability")) == 1
    monkeypatch.setattr(multivariate, "usual_separability", pytest.fail)
    assert _watched(store, spec, DAYS[22]).multivariate == first
    monkeypatch.undo()
    _watched(store, _spec(multivariate={"rows": 1000}, window=2), DAYS[22])
    assert len(store.json_partitions("flights", "usual_separability")) == 2


def test_without_calibration_the_threshold_of_the_spec_stands_alone(store):
    spec = _spec(multivariate={"auc": 0.7}, calibrate=False)
    _store_champion(store, spec)
    found = _watched(store, spec, DAYS[22]).multivariate
    assert (found.threshold, found.calibrated_on) == (0.7, 0)


def test_labels_that_are_still_to_come_are_said(store):
    spec = _spec()
    _store_champion(store, spec)
    unlabelled = _day(22).set_column(2, "late", pa.nulls(250, pa.bool_()))
    store.write("flights", "features", DAYS[22], unlabelled)
    report = _watched(store, spec, DAYS[22])
    assert report.reasons[-1] == "labels of `late` are not there yet"
    assert report.label.n_current == 0


def test_a_champion_that_cannot_score_the_rows_does_not_stop_the_report(store):
    def refuse(table):
        raise TrainingError("feature 'x' was trained as number, got text")

    spec = _spec()
    _store_champion(store, spec)
    report = _watched(store, spec, DAYS[22], refuse)
    assert "the champion cannot score the 250 current rows" in report.reasons[-1]


def test_the_first_window_has_labels_and_all_columns_together_but_no_scores(store):
    spec = _spec(multivariate={}, against="first_window")
    report = _watched(store, spec, DAYS[27], predict=pytest.fail)
    assert report.reference.startswith("first window")
    assert report.multivariate.verdict == "drifted"
    assert report.prediction == ()
    assert report.label is not None


def test_without_a_reference_there_are_no_sections(store):
    report = _watched(store, _spec(multivariate={}), DAYS[3], champion=None)
    assert report.reference == "no reference yet"
    assert (report.multivariate, report.prediction, report.label) == (None, (), None)


def test_a_champion_without_stored_scores_is_not_asked(store):
    spec = _spec()
    rows = store.read("flights", "features", TRAINED)
    store_reference(
        spec, store, CHAMPION.fingerprint, rows=rows, partitions=TRAINED, sample=rows,
        importance={"x": 0.9, "y": 0.1},
    )  # fmt: skip
    assert _watched(store, spec, DAYS[22], predict=pytest.fail).prediction == ()


def test_a_spec_can_do_without_scores(store):
    spec = _spec(prediction=False)
    _store_champion(store, spec)
    assert _watched(store, spec, DAYS[27], predict=pytest.fail).prediction == ()


def test_a_model_is_read_back_from_the_store_with_the_same_scores(tmp_path):
    trained = train_small_model(tmp_path / "model")
    store = TableStore(str(tmp_path / "store"))
    assert load_model(store, "flights", "abc") is None
    for _ in range(2):
        store_model(store, "flights", "abc", trained.model)
    found = load_model(store, "flights", "abc")
    assert np.array_equal(found.predict(trained.frame), trained.predictions)
    store.write_bytes("models/flights/abc/model.txt", b"torn")
    with pytest.raises(TableError, match=r"model abc cannot be loaded: model file .* is damaged"):
        load_model(store, "flights", "abc")
