"""What Prometheus reads: names, types and numbers of one snapshot; what Grafana asks for exists."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retrain_assets.fleet.metrics import exposition, registry_of
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import STATES, StatusRow

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
ROWS = (
    StatusRow(
        'odd"name\\', "drifting", group="g", champion="7", metric="ndcg@10", value=0.5, live=0.4,
        live_kind="realised", bound=0.3, meets=True, drift_score=0.625, freshness="warn",
        promoted_at=(NOW - timedelta(hours=2)).isoformat(), week_seconds=12.5, promotions=3,
        rejections=2, week_runs={"monitor success": 7, "retrain failure": 1},
    ),
    StatusRow("new", "waiting"),
)  # fmt: skip
GRAFANA = Path(__file__).parents[3] / "k8s" / "grafana" / "retrain-assets.json"


@pytest.fixture
def families():
    registry = registry_of(lambda: Snapshot(NOW, "", NOW, ROWS))
    body, content_type = exposition(registry, "text/plain")
    assert content_type.startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def _values(family, **wanted):
    return [
        sample.value
        for sample in family.samples
        if all(sample.labels.get(name) == value for name, value in wanted.items())
    ]


def test_the_numbers_are_those_of_the_rows(families):
    model = {"model": 'odd"name\\'}
    assert _values(families["retrain_champion_age_seconds"], **model) == [7200]
    assert _values(families["retrain_drift_score"], **model) == [0.625]
    assert _values(families["retrain_metric_value"], **model, kind="holdout") == [0.5]
    assert _values(families["retrain_metric_value"], metric="ndcg@10", kind="realised") == [0.4]
    assert _values(families["retrain_metric_bound"], **model) == [0.3]
    assert _values(families["retrain_compute_seconds_last_week"], **model) == [12.5]
    assert _values(families["retrain_runs_last_week"], kind="retrain", status="failure") == [1]
    assert _values(families["retrain_freshness"], **model) == [1]
    assert _values(families["retrain_promotions"], **model) == [3]
    assert _values(families["retrain_rejections"], **model) == [2]
    assert families["retrain_snapshot_timestamp_seconds"].samples[0].value == NOW.timestamp()


def test_every_model_is_in_exactly_one_state(families):
    state = families["retrain_state"]
    for model, expected in (('odd"name\\', "drifting"), ("new", "waiting")):
        assert {s.labels["state"] for s in state.samples if s.labels["model"] == model} == set(
            STATES
        )
        assert _values(state, model=model, state=expected) == [1]
        assert sum(_values(state, model=model)) == 1


def test_what_is_not_known_is_left_out_and_not_zero(families):
    for name in (
        "champion_age_seconds",
        "drift_score",
        "metric_value",
        "metric_bound",
        "freshness",
    ):
        assert _values(families[f"retrain_{name}"], model="new") == []


def test_only_what_never_goes_down_is_a_counter_and_all_have_a_help_text(families):
    counters = {name for name, family in families.items() if family.type == "counter"}
    assert counters == {"retrain_promotions", "retrain_rejections"}
    assert all(family.documentation for family in families.values())
    assert {f.type for n, f in families.items() if n not in counters} == {"gauge"}


def test_every_metric_and_label_that_grafana_asks_for_exists(families):
    board = json.loads(GRAFANA.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    queries += [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(queries) > 8
    samples = {sample.name for family in families.values() for sample in family.samples}
    labels = {label for f in families.values() for s in f.samples for label in s.labels}
    for query in queries:
        assert set(re.findall(r"retrain_\w+", query)) <= samples, query
        selected = {name for part in re.findall(r"\{([^}]*)\}", query)
                    for name in re.findall(r"(\w+)\s*(?:=~|!~|=|!=)", part)}  # fmt: skip
        assert selected <= labels, query
    assert any("retrain_" in query for query in queries)
