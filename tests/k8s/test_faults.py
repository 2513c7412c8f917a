"""What clusters do to runs, done to them: after each fault the work is finished, once, and nothing is left.

Faults that hit one run each go on at the same time, behind one another's waiting; those that hit
every run come after all of them, one after another. A run waits for its source while a fault is done to it,
so that no test depends on how fast the machine is.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
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

ALONE = {"resources": {"raw_data": {"memory": "1Gi"}, "candidate_model": {"memory": "1Gi"}}}
"""Shares neither a monitor run nor a retraining with another model."""
FIRST = {
    "resources": {stage: {"memory": "1Gi", "cpu": 0.2} for stage in ("raw_data", "candidate_model")}
}
"""The same, before the others where they all want the processor: what is done to it takes longest."""
FULL_DISK = {
    "source": {"python": "k8s.fault_source:load"},
    "resources": {"raw_data": {"ephemeral_storage": "64Mi"}},
}
GROWING = {"memory": "200Mi", "memory_retry": {"factor": 4, "limit": "2Gi"}}
MODELS: dict[str, dict[str, Any]] = {
    "deleted": FIRST,
    "early": {"resources": {"raw_data": {"node_selector": {"retrain-test/early": "true"}}}},
    "evicted": ALONE,
    "drained": ALONE,
    "out_of_disk": FULL_DISK,
    "hungry": {"resources": {"candidate_model": {"memory": "200Mi"}}},
    "cut_off": ALONE,
    "node_agent": ALONE,
    "restarted_database": ALONE,
    "no_registry": ALONE,
    "nowhere": {"resources": {"raw_data": {"node_selector": {"disk": "none"}}}},
    "gpu_a": {"resources": {"candidate_model": {"gpu": 1}}},
    "gpu_b": {"resources": {"candidate_model": {"gpu": 1}}},
    "growing": {"resources": {"candidate_model": GROWING}},
    "growing_apart": {"resources": {"candidate_model": GROWING | {"isolate": True, "cpu": 0.2}}},
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
"""Models to which nothing has to be done at a moment."""

HELD = ("cut_off", "node_agent", "restarted_database", "no_registry")
"""Models whose first runs wait for the faults that hit every run."""

NOW = ("--grace-period=0", "--force")
"""How a pod is deleted whose node has died: its process has no time for a word."""


class Faults:
    """What is done to single runs of a platform while others go on.

    Attributes:
        platform: whose runs they are.
    """

    def __init__(self, platform: HostPlatform) -> None:
        self.platform = platform
        self._pool = ThreadPoolExecutor()
        self._going_on: dict[str, Future[None]] = {}

    def begin(self, fault: Callable[[Model], None], name: str) -> None:
        """Do it to the model of this name, in a thread."""
        self._going_on[name] = self._pool.submit(fault, self.platform[name])

    def done(self, name: str) -> Model:
        """The model, once the fault has been done to it; fails where the fault could not be done."""
        self._going_on[name].result(1200)
        return self.platform[name]

    def end(self) -> None:
        """No more of it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(scope="module")
def running(
    bare_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HostPlatform]:
    folder = tmp_path_factory.mktemp("faults")
    database = folder / "empty.db"
    MlflowRegistry(f"sqlite:///{database}").all_aliases()
    platform = HostPlatform(bare_cluster, folder, database, MODELS)
    try:
        platform.start()
        yield platform
    finally:
        platform.remove()


@pytest.fixture(scope="module")
def faults(running: HostPlatform) -> Iterator[Faults]:
    """Those of single runs, begun."""
    found = Faults(running)
    for name in BY_THEMSELVES:
        running[name].arrive()
    found.begin(is_deleted_in_every_phase, "deleted")
    found.begin(is_deleted_before_it_has_begun, "early")
    found.begin(is_evicted, "evicted")
    found.begin(is_drained, "drained")
    found.begin(fills_its_disk, "out_of_disk")
    running.launch("retrain_now", IMAGELESS, ask_for("deleted"))
    yield found
    found.end()


@pytest.fixture(scope="module")
def held(running: HostPlatform) -> None:
    """The runs that wait for the faults that hit every run, all asked for at once."""
    for name in HELD:
        running[name].arrive(hold=[name])


@pytest.fixture
def platform(faults: Faults) -> HostPlatform:
    """The platform, on which everything has begun."""
    return faults.platform


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


def failures(model: Model, kind: str) -> int:
    """How many of its runs have failed; the others have succeeded, whoever has started them again.

    Dagster loses a retry where it looks between the event of a failure and the state that follows;
    `retry_sensor` sees to that one, unless another of our sensors is first.
    """
    found = Counter(run.status for run in model.runs(kind))
    assert set(found) <= {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    return found[dg.DagsterRunStatus.FAILURE]


# -- faults of single runs -------------------------------------------------------------------------


def is_deleted_in_every_phase(model: Model) -> None:
    """While it reads, while it trains, while it promotes."""
    platform = model.platform
    model.arrive(hold=[model.name])
    platform.delete_pod(model.held(), *NOW)
    model.held()
    with platform.mlflow.frozen():  # the training waits for it
        model.go_on()
        training = model.started("candidate_model")
        platform.delete_pod(training, *NOW)
        platform.failed(training)
    with platform.nothing_is_promoted():
        promoting = model.started("promoted_model")
        assert promoting.run_id != training.run_id
        platform.delete_pod(promoting, *NOW)
        platform.failed(promoting)


def is_deleted_before_it_has_begun(model: Model) -> None:
    """First while no node takes it, then while its process is starting, or just has."""
    platform = model.platform
    model.arrive(hold=[model.name])
    platform.delete_pod(model.in_pod("Pending"))
    platform.cluster.kubectl("label", "node", "--all", "retrain-test/early=true")
    try:
        platform.delete_pod(model.in_pod("Running"), *NOW)
        model.go_on()
        model.started("drift_report")
    finally:
        platform.cluster.kubectl("label", "node", "--all", "retrain-test/early-")


def is_evicted(model: Model) -> None:
    """By the eviction API, which asks no budget here; its process has time to say goodbye."""
    model.arrive(hold=[model.name])
    run = model.held()
    model.platform.evict(run)  # until the process is gone, which may be deaf for its grace period
    model.platform.failed(run)
    model.go_on()


def is_drained(model: Model) -> None:
    """As before an upgrade of the node, with a budget for this run like that of k8s/base for all."""
    platform = model.platform
    model.arrive(hold=[model.name])
    run = model.held()
    selector = f"dagster/run-id={run.run_id}"
    platform.protect(run)
    with platform.cluster.draining(selector, platform.folder / "drain.log") as drain:
        wait_until("the drain waits", 120, lambda: "disruption budget" in drain.said())
        platform.cluster.uncordon()  # other runs go on
        assert drain.goes_on()
        model.go_on()
        wait_until("the node is drained", 600, lambda: not drain.goes_on())
        assert drain.succeeded(), drain.said()
    assert platform.run(run.run_id).status == dg.DagsterRunStatus.SUCCESS


def fills_its_disk(model: Model) -> None:
    """With more than the spec asks for, by code that hears no signal, as compiled code does not."""
    model.arrive(fills_bytes=128 * 2**20)
    wait_until("its disk is full", 600, (model.folder / "filled").exists)
    model.say(fills_bytes=0)  # which the next attempt reads


def test_a_deleted_pod_is_a_failed_run_that_is_started_again(faults: Faults) -> None:
    model = faults.done("deleted")
    promoted_once(model)
    assert failures(model, "monitor") == 1
    assert failures(model, "retrain") == 2


def test_a_pod_that_is_deleted_before_its_run_has_begun_costs_no_more_than_another_pod(
    faults: Faults,
) -> None:
    model = faults.done("early")
    promoted_once(model)
    assert len(model.runs("monitor")) <= 2


def test_an_evicted_run_is_started_again(faults: Faults) -> None:
    model = faults.done("evicted")
    promoted_once(model)
    assert failures(model, "monitor") == 1


def test_a_drain_waits_for_the_end_of_a_run(faults: Faults) -> None:
    model = faults.done("drained")
    promoted_once(model)
    assert len(model.runs("monitor")) == 1


def test_a_run_that_its_node_evicts_says_what_to_change_and_is_started_again(
    faults: Faults,
) -> None:
    """By the kubelet: no budget is asked, the pod is Failed with the reason Evicted."""
    model = faults.done("out_of_disk")
    promoted_once(model)
    assert failures(model, "monitor") == 1
    text = model.platform.failure(model.runs("monitor")[0])
    assert "out_of_disk/raw_data: evicted for using more local disk than its pod may" in text
    assert "raise resources.raw_data.ephemeral_storage" in text


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
        return next((run for run in model.runs() if run.is_finished), None)

    run = wait_until("its first attempt has timed out", 800, failed)
    text = platform.failure(run)
    assert f"longer than {START_SECONDS} seconds to start" in text
    assert "No node had room for what resources.raw_data of the spec asks for" in text
    attempts = Counter(run.root_run_id or run.run_id for run in model.runs())
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


# -- faults that hit every run ---------------------------------------------------------------------


@pytest.mark.usefixtures("held")
def test_an_api_server_that_is_away_for_a_minute_and_a_restarted_kubelet_fail_no_healthy_run(
    platform: HostPlatform,
) -> None:
    models = [platform["cut_off"], platform["node_agent"]]
    for model in models:
        model.held()
    with ExitStack() as others:
        others.enter_context(platform.cluster.undisturbed())
        with platform.link.cut():
            back = time.monotonic() + 60
            if platform.cluster.shared:  # another's kubelet is not ours to stop
                platform.cluster.restart_kubelet(away_seconds=10)
            others.close()
            time.sleep(max(0.0, back - time.monotonic()))
    for model in models:
        model.go_on()
    for model in models:
        promoted_once(model)
        assert len(model.runs("monitor")) == 1, "a second run was started beside a healthy one"


@pytest.fixture(scope="module")
def without_registry(running: HostPlatform, held: None) -> Model:
    """A model whose retraining began while the registry was away."""
    model = running["no_registry"]
    model.held()
    running.mlflow.stop()
    try:
        model.go_on()
        model.started("candidate_model")
        assert model.runs("monitor")[0].status == dg.DagsterRunStatus.SUCCESS
        time.sleep(8)
    finally:
        running.mlflow.start()
    return model


@pytest.fixture(scope="module")
def without_database(running: HostPlatform, held: None, without_registry: Model) -> Model:
    """A model in both of whose runs the database was away; another waits for the registry meanwhile."""
    model = running["restarted_database"]
    model.held()
    running.restart_database(away_seconds=3)
    model.go_on()
    model.started("candidate_model")
    running.restart_database(away_seconds=3)
    return model


@pytest.mark.usefixtures("faults", "without_database")
def test_a_registry_that_is_away_holds_up_the_candidate_only(without_registry: Model) -> None:
    promoted_once(without_registry)


@pytest.mark.usefixtures("faults")
def test_a_restarted_database_costs_at_most_a_run(without_database: Model) -> None:
    promoted_once(without_database)


def test_nothing_is_left_in_the_cluster(platform: HostPlatform) -> None:
    platform.daemon.stop()

    def empty() -> bool:
        found = platform.cluster.get("-n", platform.namespace, "jobs,pods")
        return all(one["metadata"]["labels"].get("dagster/run-id") in waiting for one in found)

    waiting = {
        run.run_id for run in platform.instance.get_runs() if not run.is_finished
    }  # fmt: skip
    wait_until("finished Jobs and their pods are gone", 400, empty)
