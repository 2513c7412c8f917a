"""Databases of earlier releases, two processes at once, and models that equal the migrations."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from integration.postgres import PostgresServer

from retrain_assets.errors import LedgerError
from retrain_assets.promotion.database import Database
from retrain_assets.promotion.ledger import Candidate, Ledger
from retrain_assets.promotion.migrations import configuration
from retrain_assets.promotion.tables import REVISIONS, VERSION_TABLE, metadata, promotions


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'led%ger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database("migrations")


def row(sequence: int) -> dict[str, object]:
    return {
        "model": "churn", "sequence": sequence, "version": str(sequence), "run_id": "r",
        "fingerprint": "f", "partition": None, "metric": "roc_auc", "value": 0.7,
        "expected_version": None, "kind": "promotion", "actor": "anna", "reason": "better",
        "evidence": {"gate": {}}, "promoted_at": "2024-01-01T00:00:00.000000+00:00",
    }  # fmt: skip


def old_database(url: str) -> None:
    """As the releases before migrations left it: `create_all` of the one table, with rows."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    promotions().create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(promotions()), [row(1), row(2)])


def revision(url: str) -> str:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar())


def test_the_migrations_make_exactly_the_tables_of_this_release(url: str) -> None:
    database = Database(url)
    with database.transaction():
        pass
    with database.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata()) == []
        script = ScriptDirectory.from_config(configuration(connection))
    found = [one.revision for one in script.walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_a_database_of_a_release_before_migrations_keeps_its_rows(url: str) -> None:
    old_database(url)
    assert [p.version for p in Ledger(url).history("churn")] == ["1", "2"]
    assert revision(url) == REVISIONS[-1]


def test_a_table_of_somebody_else_is_refused_and_left_alone(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE promotions (id INTEGER, discount INTEGER)")
    with pytest.raises(
        LedgerError, match=r"table 'promotions' of somebody else .*RETRAIN_LEDGER_U"
    ):
        Ledger(url).champions()
    assert sa.inspect(engine).get_table_names() == ["promotions"]


def upgraded_by_a_newer_release(url: str, to: str) -> None:
    Ledger(url).champions()
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '{to}'")
        connection.exec_driver_sql("ALTER TABLE promotions ADD COLUMN cost FLOAT")


def test_what_a_newer_release_has_added_is_no_hindrance(url: str) -> None:
    """Taken back to the old image, a deployment goes on."""
    upgraded_by_a_newer_release(url, "0999")
    candidate = Candidate("churn", "1", "run", "data", "2024-01-01", "roc_auc", 0.7)
    Ledger(url).promote(
        candidate, expected_champion=None, actor="test", reason="better", evidence={}
    )
    assert Ledger(url).champions()["churn"].version == "1"
    assert revision(url) == "0999"


@pytest.mark.parametrize("found", ["1001", "0000", "another"])
def test_a_revision_that_does_more_than_add_is_refused(url: str, found: str) -> None:
    upgraded_by_a_newer_release(url, found)
    with pytest.raises(
        LedgerError, match=f"has revision {found}, which this release does not know"
    ):
        Ledger(url).champions()


def test_the_version_table_of_another_application_in_the_database_is_left_alone(url: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('mlflow')")
    Ledger(url).champions()
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM alembic_version").scalar() == "mlflow"


_UPGRADER = """
import sys
import alembic.command, sqlalchemy
from retrain_assets.promotion.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
print(len(Ledger(sys.argv[1]).history("churn")))
"""


def test_of_processes_that_upgrade_at_once_one_does_it_and_all_go_on(url: str) -> None:
    old_database(url)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _UPGRADER, url], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in ends] == ["2\n"] * 3, ends
    assert revision(url) == REVISIONS[-1]


def test_a_current_database_costs_one_query_and_no_import_of_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).champions()
    code = (
        "import sys\n"
        "import sqlalchemy as sa\n"
        "from retrain_assets.promotion.ledger import Ledger\n"
        "ledger, seen = Ledger(sys.argv[1]), []\n"
        "sa.event.listen(ledger.database.engine(), 'before_cursor_execute',\n"
        "                lambda c, cu, statement, *rest: seen.append(statement.split()[0]))\n"
        "ledger.champion('churn')\n"
        "print(seen.count('SELECT'), 'alembic' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "2 False\n", result.stderr
