"""What clusters do to runs, done to them: after each fault the work is finished, once, and nothing is left."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from k8s.cluster import Cluster, wait_until
from k8s.host_platform import START_SECONDS, HostPlatform, Model

from retrain_assets.orchestration.keys import Tag
from retrain_assets.promotion.registry import MlflowRegistry

pytestmark = [
    pytest.mark.k8s,
    pytest.mark.timeout(2400),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]

SLOW = {"source": {"python": "k8s.fault_source:load"}}  # raw_data takes as long as a test needs
GROWING = {"memory": "200Mi", "memory_retry": {"factor": 4, "limit": "2Gi"}}
MODELS: dict[str, dict[str, Any]] = {
    "deleted": SLOW,
    "hungry": {"resources": {"candidate_model": {"memory": "200Mi"}}},
    "cut_off": SLOW,
    "restarted_database": SLOW,
    "no_registry": {},
    "early": {},
    "evicted": SLOW,
    "node_agent": SLOW,
    "nowhere": {"resources": {"candidate_model": {"node_selector": {"disk": "none"}}}},
    "gpu_a": {"resources": {"candidate_model": {"gpu": 1}}},
    "gpu_b": {"resources": {"candidate_model": {"gpu": 1}}},
    "growing": {"resources": {"candidate_model": GROWING}},
    "growing_apart": {"resources": {"candidate_model": GROWING | {"isolate": True}}},
    "apart": {"resources": {"candidate_model": {"isolate": True, "memory": "1Gi"}}},
}

MISSING = "retrain.local/retrain:no-such-tag"
IMAGELESS = {
    "dagster-k8s/config": json.dumps(
        {"container_config": {"image": MISSING, "image_pull_policy": "IfNotPresent"}}
    ),
    "dagster/max_retries": "0",
}
"""Tags of a run as a person starts it with a wrong tag of the image."""

BY_THEMSELVES = ("nowhere", "hungry", "gpu_a", "gpu_b", "apart", "growing", "growing_apart")
"""Models to which nothing has to be done at a moment: they run behind the other tests."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostPlatform]:
    if why := Cluster.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("faults")
    database = folder / "empty.db"
    MlflowRegistry(f"sqlite:///{database}").all_aliases()
    with Cluster.running() as cluster:
        running = HostPlatform(cluster, folder, database, MODELS)
        try:
            running.start()
            running.launch("retrain_now", IMAGELESS, ask_for("deleted"))
            for name in BY_THEMSELVES:
                running[name].arrive(
                    until=7
                )  # other days than the others': a monitor run of their own
            yield running
        finally:
            running.remove()


def ask_for(model: str) -> dict[str, Any]:
    """Config of the job `retrain_now`."""
    return {"ops": {"ask": {"config": {"models": [model]}}}}


def promoted_once(model: Model) -> None:
    """The invariants of a promotion, whatever came in between."""
    champion = model.champion()
    history = model.platform.ledger.history(model.name)
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert champion.version == history[-1].version
    assert model.platform.registry.aliases(model.name)["champion"] == champion.version
    assert len(history) == 1, "promoted more than once"
    assert model.runs()[-1].status == dg.DagsterRunStatus.SUCCESS
    on_record = {entry.state for entry in model.platform.decisions.last(model.name, 100)}
    asked = {run.tags[Tag.decision(model.name)] for run in model.runs("retrain")}
    assert asked <= on_record, "a decision is lost"


def test_a_deleted_pod_is_a_failed_run_that_is_started_again(platform: HostPlatform) -> None:
    model = platform["deleted"]
    model.say(seconds=4)
    model.arrive()
    for stage, attempt in (("raw_data", 1), ("candidate_model", 1), ("promoted_model", 1)):
        platform.delete_pod(model.started(stage, attempt), "--grace-period=0", "--force")
    promoted_once(model)
    assert len(model.runs("monitor")) == 2
    assert len(model.runs("retrain")) == 3


def test_a_pod_that_is_deleted_before_its_run_has_begun_costs_no_more_than_another_pod(
    platform: HostPlatform,
) -> None:
    """First while no node has taken it, then while its process is starting."""
    model = platform["early"]
    with platform.cluster.cordoned():
        model.arrive()
        run = model.in_pod("Pending")
        platform.delete_pod(run)
    model.in_pod("Running")
    assert model.runs()[0].status == dg.DagsterRunStatus.STARTING
    platform.delete_pod(run, "--grace-period=0", "--force")
    promoted_once(model)
    assert len(model.runs("monitor")) <= 2


def test_an_evicted_run_is_started_again(platform: HostPlatform) -> None:
    """By the eviction API, as a drained node does; its process has time to say goodbye."""
    model = platform["evicted"]
    model.say(seconds=12)
    model.arrive()
    platform.evict(model.started("raw_data"))
    promoted_once(model)
    first, second = model.runs("monitor")
    assert first.status == dg.DagsterRunStatus.FAILURE
    assert second.status == dg.DagsterRunStatus.SUCCESS


def test_a_restarted_kubelet_leaves_runs_alone(platform: HostPlatform) -> None:
    if not platform.cluster.shared:
        pytest.skip("only the kubelet of ../shared/kube is ours to stop")
    model = platform["node_agent"]
    model.say(seconds=15)
    model.arrive()
    model.started("raw_data")
    platform.cluster.restart_kubelet(away_seconds=10)
    promoted_once(model)
    assert len(model.runs("monitor")) == 1, "a second run was started beside a healthy one"


def test_being_killed_for_memory_says_what_to_change_and_is_not_repeated_for_ever(
    platform: HostPlatform,
) -> None:
    model = platform["hungry"]

    def failed() -> list[dg.DagsterRun]:
        runs = model.runs("retrain")
        over = len(runs) == 3 and all(run.is_finished for run in runs)
        return runs if over else []

    runs = wait_until("three attempts have failed", 800, failed)
    assert {run.status for run in runs} == {dg.DagsterRunStatus.FAILURE}
    text = platform.failure(runs[0])
    assert "hungry/candidate_model: killed for using more memory than the limit of 200Mi" in text
    assert "raise resources.candidate_model.memory" in text
    assert platform.ledger.champion("hungry") is None


def test_a_run_that_was_killed_for_memory_is_tried_again_with_more(platform: HostPlatform) -> None:
    model = platform["growing"]
    promoted_once(model)
    killed = model.runs("retrain")[0]
    text = platform.failure(killed)
    assert "growing/candidate_model: killed for using more memory than the limit of 200Mi" in text
    assert "By its memory_retry the next attempt asks for 800Mi" in text
    assert json.loads(killed.tags[Tag.MEMORY]) == {"growing__candidate_model": "800Mi"}


def test_a_step_that_was_killed_for_memory_in_its_own_pod_says_so_and_is_tried_again_with_more(
    platform: HostPlatform,
) -> None:
    model = platform["growing_apart"]
    promoted_once(model)
    killed = model.runs("retrain")[0]
    said = [entry.user_message for entry in platform.instance.all_logs(killed.run_id)]
    (text,) = [line for line in said if "killed for using more memory" in line]
    assert text.startswith("growing_apart/candidate_model: killed")
    assert "the limit of 200Mi" in text
    assert "raise resources.candidate_model.memory" in text
    assert "By its memory_retry the next attempt asks for 800Mi" in text


def test_an_api_server_that_is_away_for_a_minute_fails_no_healthy_run(
    platform: HostPlatform,
) -> None:
    model = platform["cut_off"]
    model.say(seconds=12)
    model.arrive()
    model.started("raw_data")
    with platform.link.cut():
        time.sleep(60)
    promoted_once(model)
    assert len(model.runs("monitor")) == 1, "a second run was started beside a healthy one"


def test_a_restarted_database_costs_at_most_a_run(platform: HostPlatform) -> None:
    model = platform["restarted_database"]
    model.say(seconds=5)
    model.arrive()
    model.started("raw_data")
    platform.postgres.stop()
    time.sleep(3)
    platform.postgres.start()
    model.started("candidate_model")
    platform.postgres.stop()
    time.sleep(3)
    platform.postgres.start()
    promoted_once(model)


def test_a_registry_that_is_away_holds_up_the_candidate_only(platform: HostPlatform) -> None:
    model = platform["no_registry"]
    model.arrive()
    model.started("drift_report")
    platform.mlflow.stop()
    try:
        model.started("candidate_model")
        time.sleep(8)
    finally:
        platform.mlflow.start()
    promoted_once(model)


def test_gpus_are_shared_by_waiting_in_the_queue(platform: HostPlatform) -> None:
    spans = []
    for name in ("gpu_a", "gpu_b"):
        promoted_once(platform[name])
        for run in platform[name].runs("retrain"):  # one, or two where another test's fault hit it
            steps = platform.instance.get_run_step_stats(run.run_id, [f"{name}__candidate_model"])
            spans += [(step.start_time or 0, step.end_time or 0) for step in steps]
            config = json.loads(run.tags["dagster-k8s/config"])["container_config"]
            assert config["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    spans.sort()
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start, "the pool `gpu` has the limit 1"


def test_a_step_that_isolates_itself_gets_a_pod_of_its_own(platform: HostPlatform) -> None:
    promoted_once(platform["apart"])
    monitor, retrain = platform["apart"].runs()

    def pods(run: dg.DagsterRun) -> int:
        entries = platform.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTING
        )
        return len(entries)

    assert (pods(monitor), pods(retrain)) == (0, 2)


def test_a_pod_that_no_node_takes_waits_and_then_says_why(platform: HostPlatform) -> None:
    model = platform["nowhere"]

    def failed() -> dg.DagsterRun | None:
        return next((run for run in model.runs("retrain") if run.is_finished), None)

    run = wait_until("its first attempt has timed out", 800, failed)
    text = platform.failure(run)
    assert f"longer than {START_SECONDS} seconds to start" in text
    assert "No node had room for what resources.candidate_model of the spec asks for" in text
    attempts = Counter(run.root_run_id or run.run_id for run in model.runs("retrain"))
    assert max(attempts.values()) <= 3, "tried again without end"


def test_a_missing_image_ends_the_run_and_is_named(platform: HostPlatform) -> None:
    (run,) = platform.instance.get_runs(dg.RunsFilter(job_name="retrain_now"))

    def failed() -> bool:
        return platform.run(run.run_id).status == dg.DagsterRunStatus.FAILURE

    wait_until("the run without an image has timed out", 800, failed)
    text = platform.failure(run)
    assert f"longer than {START_SECONDS} seconds to start" in text
    assert f"The image {MISSING} of the run's pod cannot be pulled" in text
    assert not platform.cluster.get(
        "-n", platform.namespace, "jobs", "-l", f"dagster/run-id={run.run_id}"
    )


def test_nothing_is_left_in_the_cluster(platform: HostPlatform) -> None:
    platform.daemon.stop()

    def empty() -> bool:
        found = platform.cluster.get("-n", platform.namespace, "jobs,pods")
        return all(one["metadata"]["labels"].get("dagster/run-id") in waiting for one in found)

    waiting = {
        run.run_id for run in platform.instance.get_runs() if not run.is_finished
    }  # fmt: skip
    wait_until("finished Jobs and their pods are gone", 400, empty)
