"""The tables of the ledger's database, and the revisions that lead to them.

Belongs here: every table that this package keeps in SQL, as this release wants it. Does not: how an
older database gets there (`migrations`), connections (`database`), what is read and written
(`ledger`).

A change of a table is two edits: the table here, and a revision in `migrations/versions` whose
number is added to `REVISIONS`; a test holds the two equal on sqlite and PostgreSQL.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

__all__ = [
    "REVISIONS",
    "VERSION_TABLE",
    "data_states",
    "decisions",
    "judgements",
    "metadata",
    "outcomes",
    "promotions",
    "reviews",
    "status_snapshots",
]

VERSION_TABLE = "retrain_schema"
"""Where the revision of the database stands. Not `alembic_version`: MLflow and Dagster use that name,
and a team may give all three one database."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""All revisions, oldest first; the last is the one of this release. Written out, since asking Alembic
would cost every process its import."""


@cache
def metadata() -> "MetaData":
    """All tables of this release."""
    import sqlalchemy as sa

    found = sa.MetaData()
    sa.Table(
        "promotions",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(200), nullable=False),
        sa.Column("partition", sa.String(64)),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("expected_version", sa.String(64)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("promoted_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("model", "sequence", name="promotions_model_sequence"),
    )
    sa.Table(
        "reviews",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(200), nullable=False),
        sa.Column("partition", sa.String(64)),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("expected_version", sa.String(64)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("reviewed_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("model", "sequence", name="reviews_model_sequence"),
    )
    sa.Table(
        "outcomes",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("through_partition", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("predecessor", sa.String(64), nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("expected_gain", sa.Float),
        sa.Column("gain", sa.Float, nullable=False),
        sa.Column("gain_low", sa.Float, nullable=False),
        sa.Column("gain_high", sa.Float, nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("alpha", sa.Float, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("recorded_at", sa.String(40), nullable=False),
        sa.UniqueConstraint(
            "model", "sequence", "through_partition", name="outcomes_model_sequence_through"
        ),
    )
    sa.Table(
        "decisions",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("state", sa.String(64), nullable=False, index=True),
        sa.Column("decided_at", sa.String(40), nullable=False),
        sa.Column("data_time", sa.String(40), nullable=False),
        sa.Column("partition", sa.String(64)),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(32)),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("model", "state", name="decisions_model_state"),
    )
    sa.Table(
        "judgements",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("partition", sa.String(64)),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("training_code", sa.String(200), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("expected_gain", sa.Float),
        sa.Column("compute_seconds", sa.Float),
        sa.Column("judged_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("model", "run_id", name="judgements_model_run"),
    )
    sa.Table(
        "data_states",
        found,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False, index=True),
        sa.Column("partition", sa.String(64), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.String(40), nullable=False),
    )
    sa.Table(
        "status_snapshots",
        found,
        sa.Column("specs", sa.String(32), primary_key=True),
        sa.Column("as_of", sa.String(40), nullable=False),
        sa.Column("confirmed_at", sa.String(40)),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    return found


def promotions() -> "Table":
    """One row per change of a champion; append-only."""
    return metadata().tables["promotions"]


def reviews() -> "Table":
    """One row per event of a manual approval: asked for, approved, rejected; append-only."""
    return metadata().tables["reviews"]


def outcomes() -> "Table":
    """One row per look of the guard at a promotion: the gain that was realised so far; append-only."""
    return metadata().tables["outcomes"]


def decisions() -> "Table":
    """One row per state of affairs that was decided about; append-only."""
    return metadata().tables["decisions"]


def judgements() -> "Table":
    """One row per run that judged a candidate: what came of a decision; append-only."""
    return metadata().tables["judgements"]


def data_states() -> "Table":
    """One row per partition whose data turned out bad, and one when it was mended; append-only."""
    return metadata().tables["data_states"]


def status_snapshots() -> "Table":
    """One row per state of the spec files: the fleet's status as last read, compressed; replaced."""
    return metadata().tables["status_snapshots"]
