"""Why a model was retrained or not, what came of it, and which data is bad (`retrain why`)."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("decided_at", sa.String(40), nullable=False),
        sa.Column("data_time", sa.String(40), nullable=False),
        sa.Column("partition", sa.String(64)),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(32)),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("model", "state", name="decisions_model_state"),
    )
    op.create_table(
        "judgements",
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
    op.create_table(
        "data_states",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("partition", sa.String(64), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.String(40), nullable=False),
    )
    op.create_index("ix_data_states_model", "data_states", ["model"])
