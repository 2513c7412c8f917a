"""What `build_definitions` makes of specs: the graph of a model, the quarantine, what is loaded."""

import importlib.util
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from retrain_assets.errors import SettingsError, SpecError
from retrain_assets.orchestration import executors
from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.executors import PRELOAD, executor_of
from retrain_assets.orchestration.factory import model_assets
from retrain_assets.orchestration.fleet_status import FLEET_STATUS
from retrain_assets.orchestration.keys import REPLAY, STAGES, asset_key, checks_of
from retrain_assets.orchestration.partitions import dagster_partitions
from retrain_assets.orchestration.quarantine import quarantine_assets
from retrain_assets.orchestration.schedules import build_schedules
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import load_specs
from retrain_assets.spec.model import ModelSpec

ROOT = Path(__file__).parents[2]
BASE = {
    "name": "churn",
    "description": "Who leaves?",
    "owner": "team:ops",
    "tags": {"tier": "gold"},
    "partitions": {"every": "day", "start": "2024-01-01", "end": "2024-12-31"},
    "source": {"files": "/data/{partition}.parquet"},
    "features": {"sql": "SELECT * FROM raw", "lookback": 7},
    "target": "label",
    "task": "binary",
    "train": {"window": 60, "holdout": 7, "label_delay": 2},
    "drift": {"window": 3},
    "freshness": {"raw_data": {"warn": "26h", "fail": "48h"}, "promoted_model": {"fail": "45d"}},
}


def _spec(**changes):
    return ModelSpec.model_validate(BASE | changes)


def _build(folder, *documents):
    """Definitions of the given spec documents, and of files given as text."""
    folder.mkdir(exist_ok=True)
    for number, document in enumerate(documents):
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
    return build_definitions(folder, Settings.load(home=folder / "home"))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("graph") / "specs", BASE).resolve_asset_graph()


# ------------------------------------------------------------------------------ one model's graph


def test_a_model_is_five_assets_in_a_row_and_its_replay_beside_them(graph):
    keys = graph.get_all_asset_keys() - {FLEET_STATUS}
    assert keys == {asset_key("churn", stage) for stage in (*STAGES, REPLAY)}
    parents = {
        key.path[1]: {parent.path[1] for parent in graph.get(key).parent_keys} for key in keys
    }
    assert parents == {
        "raw_data": set(),
        "features": {"raw_data"},
        "drift_report": {"features"},
        "candidate_model": {"features"},
        "promoted_model": {"candidate_model"},
        "policy_replay": {"features"},
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_asset_carries_what_the_spec_says_about_its_model(graph, stage):
    node = graph.get(asset_key("churn", stage))
    assert node.group_name == "churn"
    assert list(node.owners) == ["team:ops"]
    assert node.tags["retrain/model"] == "churn"
    assert node.tags["tier"] == "gold"
    assert node.description.startswith("Who leaves?\n\n")
    assert node.partitions_def == dagster_partitions(_spec().scheme)


@pytest.mark.parametrize(
    ("stage", "kinds"),
    [
        ("raw_data", {"files", "parquet"}),
        ("features", {"sql", "parquet"}),
        ("drift_report", {"json"}),
        ("candidate_model", {"lightgbm", "mlflow"}),
        ("promoted_model", {"mlflow"}),
    ],
)
def test_kinds_say_what_an_asset_is_made_of(graph, stage, kinds):
    assert set(graph.get(asset_key("churn", stage)).kinds) == kinds


@pytest.mark.parametrize(
    ("changes", "stage", "kinds"),
    [
        ({"source": {"python": "json:loads"}}, "raw_data", {"python", "parquet"}),
        ({"source": {"sql": {"connection": "x", "query": "y"}}}, "raw_data", {"sql", "parquet"}),
        ({"features": {"python": "json:loads"}}, "features", {"python", "parquet"}),
        ({"features": {}}, "features", {"parquet"}),
    ],
)
def test_kinds_follow_the_source_and_the_transform(changes, stage, kinds):
    (asset,) = (a for a in model_assets(_spec(**changes)) if a.key == asset_key("churn", stage))
    spec = asset.get_asset_spec(asset.key)
    assert set(spec.kinds) == kinds


def test_every_asset_has_its_checks(graph):
    found = {
        key: {check.name for check in graph.get(key).check_keys}
        for key in graph.get_all_asset_keys() - {FLEET_STATUS}
    }
    stages = (*STAGES, REPLAY)
    assert found == {asset_key("churn", stage): set(checks_of(_spec(), stage)) for stage in stages}
    assert "beats_champion" in found[asset_key("churn", "promoted_model")]


def test_freshness_policies_are_those_of_the_spec(graph):
    raw = graph.get(asset_key("churn", "raw_data")).freshness_policy
    assert (raw.warn_window.to_timedelta(), raw.fail_window.to_timedelta()) == (
        timedelta(hours=26), timedelta(hours=48),
    )  # fmt: skip
    promoted = graph.get(asset_key("churn", "promoted_model")).freshness_policy
    assert promoted.fail_window.to_timedelta() == timedelta(days=45)
    assert promoted.warn_window is None
    for stage in ("features", "drift_report", "candidate_model"):
        assert graph.get(asset_key("churn", stage)).freshness_policy is None


@pytest.mark.parametrize(
    ("stage", "upstream", "expected"),
    [
        ("features", "raw_data", (-7, 0)),  # the look-back
        ("drift_report", "features", (-2, 0)),  # the drift window
        ("candidate_model", "features", (-61, -2)),  # the training window, less the label delay
    ],
)
def test_an_asset_reads_the_partitions_that_the_spec_says(graph, stage, upstream, expected):
    mapping = graph.get(asset_key("churn", stage)).partition_mappings[asset_key("churn", upstream)]
    assert (mapping.start_offset, mapping.end_offset) == expected
    assert mapping.allow_nonexistent_upstream_partitions


def test_an_asset_that_reads_its_own_partition_has_the_plain_mapping(tmp_path):
    changes = {"features": {}, "drift": {}}
    plain = _build(tmp_path / "specs", BASE | changes).resolve_asset_graph()
    for stage in ("features", "drift_report", "promoted_model"):
        assert plain.get(asset_key("churn", stage)).partition_mappings == {}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"source": {"files": "/other/{partition}.parquet"}}, {"raw_data"}),
        ({"contract": {"min_rows": 5}}, {"raw_data"}),
        ({"features": {"sql": "SELECT 1", "lookback": 7}}, {"features"}),
        ({"drift": {"window": 4}}, {"drift_report"}),
        ({"train": {"window": 61, "holdout": 7}}, {"candidate_model"}),
        ({"gate": {"min_gain": 0.1}}, {"promoted_model"}),
        ({"target": "other"}, {"features", "candidate_model"}),
        ({"owner": "team:other", "alerts": ["ops"], "description": "x"}, set()),
    ],
)
def test_the_code_version_of_an_asset_changes_with_its_sections_only(changes, stages):
    def versions(spec):
        return {asset.key.path[1]: asset.code_versions_by_key[asset.key]
                for asset in model_assets(spec)}  # fmt: skip

    before, after = versions(_spec()), versions(_spec(**changes))
    assert None not in before.values()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == stages


def test_the_code_version_follows_the_python_source_that_the_spec_names(tmp_path, monkeypatch):
    module = tmp_path / "definitions_source.py"
    module.write_text("def load(window): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = _spec(source={"python": "definitions_source:load"})

    def version():
        (raw, *_) = model_assets(spec)
        return raw.code_versions_by_key[raw.key]

    before = version()
    assert version() == before
    module.write_text("def load(window): return 1\n")
    assert version() != before
    assert "definitions_source" not in sys.modules


def test_a_backfill_of_data_is_one_run_and_one_of_models_is_not(graph):
    policies = {stage: graph.get(asset_key("churn", stage)).backfill_policy for stage in STAGES}
    single = dg.BackfillPolicy.single_run()
    assert [policies[stage] for stage in STAGES[:3]] == [single] * 3
    assert all(policies[stage] != single for stage in STAGES[3:])


def test_without_partitions_no_asset_has_any(tmp_path):
    document = {key: BASE[key] for key in ("name", "target", "task")} | {
        "partitions": "none", "source": {"files": "/data/all.csv"},
    }  # fmt: skip
    graph = _build(tmp_path / "specs", document).resolve_asset_graph()
    for stage in STAGES:
        node = graph.get(asset_key("churn", stage))
        assert node.partitions_def is None
        assert node.partition_mappings == {}


def test_a_group_of_its_own_replaces_the_model_s_name():
    assert {a.group_names_by_key[a.key] for a in model_assets(_spec(group="fleet"))} == {"fleet"}


def test_only_a_person_replays_and_only_a_model_with_partitions(graph, tmp_path):
    assert not graph.get(asset_key("churn", REPLAY)).is_partitioned
    defs = _build(tmp_path / "specs", BASE)
    for sensor in defs.get_repository_def().sensor_defs:
        assert REPLAY not in str(sensor.asset_selection), sensor.name
    one = _spec(
        partitions="none",
        source={"files": "/data/all.parquet"},
        features={},
        train={"holdout": 0.2},
        drift={},
    )
    assert {asset.key.path[1] for asset in model_assets(one)} == set(STAGES)


def test_many_models_share_sensors_and_schedules(tmp_path):
    schedules = ["0 6 * * 1", "0  6 * * 1", "0 7 * * *", None]
    defs = _build(
        tmp_path / "specs",
        *(BASE | {"name": f"model_{n}", "retrain": {"schedule": schedule}}
          for n, schedule in enumerate(schedules)),
    )  # fmt: skip
    repository = defs.get_repository_def()
    assert len(repository.sensor_defs) == 8
    assert len(repository.schedule_defs) == 2
    assert sorted(job.name for job in repository.get_all_jobs()) == [
        "__ASSET_JOB",
        "change_champion",
        "retrain_now",
    ]
    assert len(defs.resolve_asset_graph().get_all_asset_keys()) == 25


def _models_of(defs):
    return {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()}


def test_a_run_process_that_is_told_its_models_builds_no_others(tmp_path):
    for name in ("churn", "sales", "prices"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(BASE | {"name": name}))
    scoped = Settings.load(home=tmp_path / "home", models="sales, gone")
    defs = build_definitions(tmp_path, scoped)
    assert _models_of(defs) == {"sales"}
    repository = defs.get_repository_def()
    assert not repository.sensor_defs
    assert not repository.schedule_defs
    everything = build_definitions(tmp_path, Settings.load(home=tmp_path / "home"))
    key = asset_key("sales", "candidate_model")
    alone, among_all = (d.resolve_asset_graph().get(key) for d in (defs, everything))
    assert alone.code_version == among_all.code_version
    assert alone.parent_keys == among_all.parent_keys
    assert alone.check_keys == among_all.check_keys


def test_code_locations_share_a_folder_of_specs_by_group(tmp_path):
    for name, group in (("churn", "east"), ("sales", "west"), ("prices", None)):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump(BASE | {"name": name, "group": group})
        )
    (tmp_path / "broken.yaml").write_text("name: broken")
    settings = Settings.load(home=tmp_path / "home")
    first = build_definitions(tmp_path, settings, groups=["east"])
    second = build_definitions(tmp_path, settings, groups=["west", "prices"])
    assert _models_of(first) == {"churn", "quarantine", "fleet_status"}
    assert _models_of(second) == {"sales", "prices", "quarantine"}


def test_automation_off_means_off_until_somebody_turns_it_on(tmp_path):
    (tmp_path / "churn.yaml").write_text(
        yaml.safe_dump(BASE | {"retrain": {"schedule": "0 6 * * 1"}})
    )
    for automation, name in ((True, "RUNNING"), (False, "STOPPED")):
        repository = build_definitions(
            tmp_path, Settings.load(home=tmp_path / "home", automation=automation)
        ).get_repository_def()
        found = [*repository.sensor_defs, *repository.schedule_defs]
        assert {definition.default_status.name for definition in found} == {name}


def test_definitions_without_any_spec_load(tmp_path):
    repository = _build(tmp_path / "specs").get_repository_def()
    assert repository.sensor_defs == []
    assert repository.schedule_defs == []


def test_a_folder_that_does_not_exist_is_an_error_and_no_empty_location(tmp_path):
    with pytest.raises(SpecError, match="no such file or folder"):
        build_definitions(tmp_path / "nowhere", Settings.load(home=tmp_path))


# ----------------------------------------------------------------------------------- quarantine

BROKEN = "name: torn\ntask: binry\nzzz: 1\n"


def test_a_broken_spec_is_in_quarantine_and_the_others_load(tmp_path):
    defs = _build(tmp_path / "specs", BASE, BROKEN, BASE | {"name": "sales"})
    graph = defs.resolve_asset_graph()
    assert graph.get_all_asset_keys() == {
        FLEET_STATUS,
        dg.AssetKey(["quarantine", "torn"]),
        *(asset_key(model, stage) for model in ("churn", "sales") for stage in (*STAGES, REPLAY)),
    }
    node = graph.get(dg.AssetKey(["quarantine", "torn"]))
    assert node.group_name == "quarantine"
    assert set(node.kinds) == {"yaml"}
    assert f"{tmp_path / 'specs' / '1.yaml'}: 5 problems\n" in node.description
    assert "line 2  task: 'binry' is not one of binary, multiclass" in node.description
    assert "line 3  zzz: unknown field" in node.description
    dg.Definitions.validate_loadable(defs)


def test_materializing_it_fails_with_the_report_until_the_file_is_mended(tmp_path):
    (tmp_path / "specs").mkdir()
    file = tmp_path / "specs" / "torn.yaml"
    file.write_text(BROKEN)
    (asset,) = quarantine_assets(load_specs(file).broken)

    def materialize():
        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize([asset], instance=instance, raise_on_error=False)

    failed = materialize()
    assert not failed.success
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description == str(
        SpecError(load_specs(file).problems)
    )

    file.write_text("- not a mapping\n")
    failed = materialize()
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    assert "must be a mapping of fields" in failure.step_failure_data.user_failure_data.description

    file.write_text(yaml.safe_dump(BASE))
    mended = materialize()
    assert mended.success
    (check,) = mended.get_asset_check_evaluations()
    assert check.passed
    assert check.description == "the file is valid now: reload the definitions"

    file.unlink()
    assert not materialize().success


def test_a_name_given_twice_stays_in_quarantine_until_one_of_them_changes(tmp_path):
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for file in (a, b):
        file.write_text(yaml.safe_dump(BASE))
    first, second = quarantine_assets(load_specs(tmp_path).broken)
    assert {first.key, second.key} == {
        dg.AssetKey(["quarantine", "churn"]), dg.AssetKey(["quarantine", "churn_"]),
    }  # fmt: skip

    def succeeds(asset):
        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize([asset], instance=instance, raise_on_error=False).success

    assert not succeeds(first)
    assert not succeeds(second)
    b.write_text(yaml.safe_dump(BASE | {"name": "sales"}))
    assert succeeds(first)
    a.unlink()
    assert not succeeds(first)
    assert succeeds(second)


@pytest.mark.parametrize("name", ["Ünï", "a b/c", "0", "quarantine", "---", "class", "x" * 300])
def test_any_name_in_a_broken_file_makes_an_asset_that_loads(tmp_path, name):
    defs = _build(tmp_path / "specs", BASE, yaml.safe_dump({"name": name, "zzz": 1}))
    dg.Definitions.validate_loadable(defs)
    assert len(defs.resolve_asset_graph().get_all_asset_keys()) == 8


# ---------------------------------------- what a spec may say, Dagster must take: or all models fall

_CRON_FIELDS = [
    ["0", "*/5", "1-5", "1,2", "00", "59-0", "?", "5/10", "*/100", "0-59/7", "R", "*/0", "60"],
    ["6", "*/25", "0-23/2", "24", "5-3", "*/23"],
    ["1", "31", "L", "LW", "15W", "30", "?", "L-3", "1,L", "1-31", "*/32", "0"],
    ["2", "JAN", "jan-mar", "1-12/3", "DEC-JAN", "Feb,Mar", "JUL", "*/13", "13"],
    ["1", "MON", "7", "0-7", "5#2", "L5", "5L", "MON#1", "6-1", "1#1,2", "2,1#1", "fri#L", "*/8",
     "MON-FRI", "sun-tue", "1#6", "8"],
]  # fmt: skip
_text = st.text(st.characters(codec="utf-8"), max_size=70)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    owner=st.sampled_from(["team:a", "team:ü", "a@b.co", "a@b.museum", "a+b@c-d.e_f", "a@b.org1"])
    | st.from_regex(r"[a-z.'+%_-]{1,5}@[a-z.-]{1,5}\.[a-z]{1,9}", fullmatch=True),
    tags=st.dictionaries(_text | st.sampled_from(["a/b", "dagster/kind/x", "a/b/c", "ok"]), _text,
                         max_size=2),
    fail=st.sampled_from(["1s", "59s", "60s", "1m", "1h", "36500d"]),
    group=st.sampled_from(["a", "A_1", "é", "a/b", "", "default"]),
    partitions=st.sampled_from(["hour", "day", "week", "month"]).flatmap(
        lambda every: st.fixed_dictionaries(
            {"every": st.just(every), "start": st.dates(), "end": st.none() | st.dates()})
    ),
    train=st.fixed_dictionaries({"window": st.integers(2, 200_000), "holdout": st.just(1),
                                 "label_delay": st.integers(0, 20_000)}),
)  # fmt: skip
def test_what_the_spec_accepts_dagster_accepts(owner, tags, fail, group, partitions, train):
    # Field by field, so that a refusal of one does not hide the others.
    for changes in (
        {"owner": owner, "tags": tags},
        {"group": group},
        {"freshness": {"raw_data": {"warn": fail, "fail": "36500d"}}},
        {"freshness": {"raw_data": {"fail": fail}}},
        {"partitions": partitions, "train": train},
    ):
        try:
            spec = _spec(**changes)
        except ValidationError:
            continue
        # Partitions shape the mappings between assets; the rest is the same on each of them.
        assets = model_assets(spec)[: None if "partitions" in changes else 1]
        resources = {
            "platform": dg.ResourceDefinition.none_resource(), "tables": dg.mem_io_manager,
        }  # fmt: skip
        dg.Definitions(assets=assets, resources=resources).get_repository_def()


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("rest", ["* * * * *", "0 6 1 2 *"])
def test_a_cron_expression_that_the_spec_accepts_dagster_accepts_without_a_warning(position, rest):
    accepted = 0
    for special in _CRON_FIELDS[position]:
        fields = rest.split()
        fields[position] = special
        try:
            spec = _spec(retrain={"schedule": " ".join(fields)})
        except ValidationError:
            continue
        (schedule,) = build_schedules({"churn": spec}, Settings.load())
        assert schedule.cron_schedule == spec.retrain.schedule
        accepted += 1
    assert accepted >= 3


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Paris", "Etc/GMT+5", "Factory", "EST", "GB"])
def test_a_time_zone_that_the_spec_accepts_dagster_accepts(timezone):
    spec = _spec(retrain={"schedule": "0 6 * * 1", "timezone": timezone})
    (schedule,) = build_schedules({"churn": spec}, Settings.load())
    assert schedule.execution_timezone == timezone


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"schedule": "0 6 * * 1-5"}, {"schedule": "0 6 * * 1,5"}),
        ({"schedule": "0 6 * * 1", "timezone": "Etc/GMT+1"},
         {"schedule": "0 6 * * 1", "timezone": "Etc/GMT-1"}),
    ],
)  # fmt: skip
def test_schedules_that_differ_have_names_that_differ(first, second):
    specs = {"a": _spec(name="aa", retrain=first), "b": _spec(name="bb", retrain=second)}
    names = [schedule.name for schedule in build_schedules(specs, Settings.load())]
    assert len(set(names)) == len(names) == 2


# ------------------------------------------------------------------------------------ executors


def test_steps_run_in_the_run_s_process_by_default(tmp_path):
    assert executor_of(Settings.load(home=tmp_path)) is dg.in_process_executor


def test_multiprocess_forks_from_a_server_that_has_loaded_the_libraries():
    executor = executor_of(Settings.load(executor="multiprocess"))
    assert executor.name == "multiprocess"
    config = executor.apply_config_mapping({"config": {}}).value["config"]
    assert config["start_method"] == {"forkserver": {"preload_modules": PRELOAD}}


def test_what_the_fork_server_preloads_exists_and_starts_no_thread_pools():
    assert all(importlib.util.find_spec(module) for module in PRELOAD)
    code = f"import {', '.join(PRELOAD)}, sys, threading; print(threading.active_count())"
    code += "\nprint(sorted({'mlflow', 'lightgbm', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["1", "[]"]


@pytest.mark.parametrize(
    ("stages", "in_the_run"), [(STAGES[:3], True), (STAGES[3:], False)], ids=["monitor", "retrain"]
)
def test_on_kubernetes_a_run_has_pods_for_its_steps_only_where_one_asks(
    tmp_path, monkeypatch, stages, in_the_run
):
    from retrain_assets.orchestration import step_pods

    chosen = []
    monkeypatch.setattr(step_pods, "StepPods", lambda _: chosen.append("pods"))
    in_run = dg.in_process_executor
    monkeypatch.setattr(in_run, "_executor_creation_fn", lambda _: chosen.append("run"))
    asked = {"resources": {"candidate_model": {"memory": "8Gi"}}}
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(BASE | asked))
    settings_ = Settings.load(home=tmp_path / "home", executor="k8s")
    job = build_definitions(tmp_path, settings_).resolve_implicit_global_asset_job_def()
    run = job.get_subset(asset_selection={asset_key("churn", stage) for stage in stages})
    context = SimpleNamespace(job=SimpleNamespace(get_definition=lambda: run))
    job.executor_def.executor_creation_fn(context)
    assert chosen == ["run" if in_the_run else "pods"]


def test_kubernetes_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    with pytest.raises(SettingsError) as caught:
        executors.executor_of(Settings.load(executor="k8s"))
    assert str(caught.value) == (
        "RETRAIN_EXECUTOR=k8s needs the package dagster-k8s: pip install 'retrain-assets[k8s]'"
    )


@pytest.mark.parametrize("executor", ["in_process", "multiprocess", "k8s"])
def test_every_run_of_the_code_location_has_the_executor(tmp_path, executor):
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(BASE))
    chosen = Settings.load(home=tmp_path / "home", executor=executor)
    job = build_definitions(tmp_path, chosen).resolve_implicit_global_asset_job_def()
    assert job.executor_def.name == executor_of(chosen).name


def test_an_unusable_setting_names_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_EXECUTOR", "threads")
    with pytest.raises(SettingsError, match=r"RETRAIN_EXECUTOR: .*, got 'threads'"):
        build_definitions(tmp_path)


# ------------------------------------------------------------------------------ the load of a process


def test_loading_the_definitions_imports_no_heavy_library_and_touches_no_disk(tmp_path):
    heavy = ["mlflow", "lightgbm", "scipy", "pandas", "duckdb", "sqlalchemy.orm", "matplotlib",
             "apprise", "pyarrow.parquet", "pyarrow.dataset", "dagster_k8s", "dagster_mlflow",
             "sklearn"]  # fmt: skip
    code = (
        "import json, sys, dagster\n"
        "before = set(sys.modules)\n"
        "import definitions\n"
        "defs = definitions.defs\n"
        "defs.get_repository_def()\n"
        f"print(json.dumps(sorted(set({heavy}) & (set(sys.modules) - before))))\n"
        f"print(json.dumps(sorted({{'mlflow', 'lightgbm', 'pandas', 'scipy', 'matplotlib', 'duckdb'}}"
        " & set(sys.modules))))\n"
        "print(len(defs.resolve_asset_graph().get_all_asset_keys()))\n"
    )
    home = tmp_path / "home"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "RETRAIN_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    by_us, at_all, assets = map(json.loads, result.stdout.splitlines()[-3:])
    assert by_us == []
    assert at_all == []
    assert assets == 451  # six of each of 75 models, and the fleet's status
    assert not home.exists()


def test_the_shipped_definitions_load(monkeypatch, tmp_path):
    defs = build_definitions(ROOT / "model_specs", Settings.load(home=tmp_path / "home"))
    dg.Definitions.validate_loadable(defs)
    groups = {node.group_name for node in defs.resolve_asset_graph().asset_nodes}
    fleets = {"recommenders", "route_delays"}
    assert groups == {"flight_delay", "daily_departures", "fleet", *fleets}
