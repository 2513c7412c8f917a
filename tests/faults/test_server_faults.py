"""Servers that are killed in the middle of a promotion, and started again."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import sqlalchemy as sa
from contracts.test_ledger_contract import candidate
from faults.servers import MlflowServer, Postgres
from faults.tracer import Tracer
from integration.candidates import Trained, train_small_model

from retrain_assets.errors import ChampionChanged, LedgerError, RegistryError
from retrain_assets.promotion.ledger import Ledger
from retrain_assets.promotion.registry import MlflowRegistry

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small_model(tmp_path_factory.mktemp("trained") / "model")


class KilledBefore:
    """Calls `kill` once, before the n-th statement or commit that writes promotions."""

    def __init__(self, step: int, kill: Callable[[], None]) -> None:
        self.left, self._kill = step, kill

    def __enter__(self) -> "KilledBefore":
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", self._statement)
        sa.event.listen(sa.engine.Engine, "commit", self._commit)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", self._statement)
        sa.event.remove(sa.engine.Engine, "commit", self._commit)

    def _statement(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "SELECT")):
            self._reached()

    def _commit(self, connection: Any) -> None:
        self._reached()

    def _reached(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._kill()


def promote(ledger: Ledger, version: int) -> None:
    ledger.promote(
        candidate(str(version)),
        expected_champion=str(version - 1) if version > 1 else None,
        actor="a test",
        reason="a test",
        evidence={},
    )


def test_what_postgresql_has_confirmed_survives_its_kill_and_the_rest_can_be_repeated(
    postgres: Postgres,
) -> None:
    ledger = Ledger(postgres.server.create_database("killed_server"))
    ledger.champions()
    interrupted = 0
    for version in range(1, 9):
        with KilledBefore((version - 1) % 4 + 1, postgres.kill) as killing:
            try:
                promote(ledger, version)
                confirmed = True
            except LedgerError:
                confirmed = False
                interrupted += 1
        if killing.left > 0:
            postgres.kill()  # the promotion took fewer steps: killed right after it
        postgres.start()
        champion = ledger.champion("churn")
        stands = champion is not None and champion.version == str(version)
        assert stands or not confirmed, "a confirmed promotion is gone"
        if not stands:
            promote(ledger, version)
        history = ledger.history("churn")
        assert [row.sequence for row in history] == list(range(1, version + 1))
        assert [row.version for row in history] == [str(v) for v in range(1, version + 1)]
    assert interrupted >= 4


BEFORE_INSERT, BEFORE_COMMIT, AFTER_COMMIT = 1, 2, 3


def test_eight_racing_promotions_of_which_seven_are_killed_leave_one_winner_and_no_gap(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.server.create_database("racers")
    Ledger(url).champions()
    chance = random.Random(7)
    kills, expected = 0, None
    for turn in range(10):
        kill_at = [chance.choice((BEFORE_INSERT, BEFORE_COMMIT)) for _ in range(6)]
        racers = [*kill_at, AFTER_COMMIT, None]
        start, go = os.pipe()
        children = []
        for racer, kill in enumerate(racers):
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(start, 1)  # until all are there
                os._exit(_race(url, tmp_path, f"{turn}-{racer}", expected, kill))
            children.append(child)
        os.close(start)
        os.close(go)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        kills += codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, 3, -signal.SIGKILL}, codes
        history = Ledger(url).history("churn")
        assert [row.sequence for row in history] == list(range(1, turn + 2)), "no winner, or two"
        assert history[-1].expected_version == expected
        won = int(history[-1].version.split("-")[1])
        assert won in (6, 7), "a promotion that was killed before its commit stands"
        assert codes[won] == (-signal.SIGKILL if won == 6 else 0)
        expected = history[-1].version
    assert kills >= 20, kills


def _race(url: str, folder: Path, version: str, expected: str | None, kill_at: int | None) -> int:
    """0: promoted; 3: somebody else was first; 1: anything else."""
    Tracer(folder, kill_at).install()
    try:
        Ledger(url).promote(
            candidate(version),
            expected_champion=expected,
            actor=version,
            reason="race",
            evidence={},
        )
    except ChampionChanged:
        return 3
    except LedgerError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    if kill_at == AFTER_COMMIT:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.timeout(420)
@pytest.mark.parametrize("victim", ["mlflow", "postgresql"])
def test_a_candidate_whose_server_is_killed_while_it_is_logged_is_completed_afterwards(
    postgres: Postgres,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    victim: str,
) -> None:
    server = MlflowServer(tmp_path, postgres.server.create_database(f"mlflow_{victim}"))
    killed = server if victim == "mlflow" else postgres
    registry = MlflowRegistry(server.url)
    registry.all_aliases()
    send = requests.Session.send
    left = 0

    def counted(self: requests.Session, request: requests.PreparedRequest, **how: Any) -> Any:
        nonlocal left
        if request.method in ("POST", "PUT", "PATCH", "DELETE"):
            left -= 1
            if left == 0:
                killed.kill()
        return send(self, request, **how)

    monkeypatch.setattr(requests.Session, "send", counted)
    try:
        for step in (2, 9, 16, 22):
            left, model = step, f"churn_{step}"
            with pytest.raises(RegistryError, match="model registry"):
                registry.log_candidate(model, "f1", **trained.arguments())
            killed.start()
            left = 0
            version = registry.log_candidate(model, "f1", **trained.arguments())
            assert version.version == "1"
            assert registry.find(model, "f1") == version
            assert registry.aliases(model) == {"candidate": "1"}
            predicted = registry.load(version).predict(trained.frame)
            assert np.array_equal(predicted, trained.predictions)
    finally:
        server.kill()


def test_a_disk_that_runs_full_is_named_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=12m tmpfs "$1" && exec "$2" -W ignore -m faults.full_disk "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
         str(small), sys.executable],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
