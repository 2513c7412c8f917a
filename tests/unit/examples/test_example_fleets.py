"""The two fleets that ship: distinct data per row, drift on its day, and arrivals one after another."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from retrain_assets.examples import flights, recommenders
from retrain_assets.spec.loading import load_specs

SPECS = Path(__file__).parents[3] / "model_specs"


@pytest.fixture(scope="module")
def markets():
    return load_specs(SPECS / "recommenders.yaml").models


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_HOME", str(tmp_path))


def _day(spec, key):
    return recommenders.load(spec.scheme.window(key), **spec.source.options)


def _explained(table):
    """How much of the relevance the known affinity tells."""
    return np.corrcoef(table["affinity"], table["relevance"])[0, 1]


def test_each_market_has_its_own_rows_schedule_and_drift_day(markets):
    specs = [loaded.spec for loaded in markets.values()]
    assert len({spec.retrain.schedule for spec in specs}) == 50
    assert len({spec.source.options["drift_day"] for spec in specs}) > 30
    assert sum(spec.resources["candidate_model"].gpu for spec in specs if spec.resources) == 17
    first = {
        spec.name: _day(spec, "2024-01-05")["affinity"].to_numpy()[:5].tobytes() for spec in specs
    }
    assert len(set(first.values())) == 50


def test_a_partition_is_the_same_rows_whenever_it_is_read(markets):
    spec = markets["rec_berlin"].spec
    assert _day(spec, "2024-02-03").equals(_day(spec, "2024-02-03"))
    assert not _day(spec, "2024-02-03").equals(_day(spec, "2024-02-04"))


def test_from_its_drift_day_on_old_knowledge_is_worth_less_and_prices_are_higher(markets):
    spec = markets["rec_amsterdam"].spec
    assert spec.source.options["drift_day"] == 24  # counted from 0: the 25th of January
    before, after = _day(spec, "2024-01-24"), _day(spec, "2024-01-25")
    assert _explained(before) > 0.5
    assert _explained(after) < _explained(before) - 0.2
    assert np.mean(after["price"]) > 1.3 * np.mean(before["price"])


def test_markets_open_one_after_another_unless_the_calendar_says_that_they_have(markets):
    def opened():
        return sum(bool(recommenders.available(**m.spec.source.options)) for m in markets.values())

    assert opened() == 5
    recommenders.pin(date(2024, 1, 23))
    assert opened() == 50
    assert recommenders.available(**markets["rec_rome"].spec.source.options)[-1] == "2024-01-23"


def test_the_rows_of_route_delays_are_the_routes_with_enough_flights():
    fleet = load_specs(SPECS / "route_delays.yaml").models
    routes = {
        (m.spec.source.options["origin"], m.spec.source.options["carrier"]) for m in fleet.values()
    }
    assert routes == {(origin, carrier) for origin, carrier, _ in flights.routes(3000)}


def test_a_route_has_its_own_flights_only_and_begins_on_its_day():
    spec = load_specs(SPECS / "route_delays.yaml").models["delay_lga_fl"].spec
    table = flights.load_route(spec.scheme.window("2013-03-04"), **spec.source.options)
    assert set(table["carrier"].to_pylist()) == {"FL"}
    assert set(table["origin"].to_pylist()) == {"LGA"}
    assert flights.available_weeks(**spec.source.options) == []
    flights.pin(date(2013, 8, 1))
    assert flights.available_weeks(**spec.source.options)[-1] == "2013-07-22"
