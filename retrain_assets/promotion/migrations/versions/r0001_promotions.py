"""The promotions. Adopts the table that releases before migrations have made."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from retrain_assets.errors import LedgerError

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, or check that the one that is there is ours."""
    columns: list[sa.Column[Any]] = [
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
    ]
    inspector = sa.inspect(op.get_bind())
    if inspector.has_table("promotions"):
        present = {column["name"] for column in inspector.get_columns("promotions")}
        missing = sorted({column.name for column in columns} - present)
        if missing:
            raise LedgerError(
                "the promotion ledger's database has a table 'promotions' of somebody else (without "
                f"{', '.join(missing)}); give the ledger a database of its own (RETRAIN_LEDGER_URL)"
            )
        return
    op.create_table(
        "promotions",
        *columns,
        sa.UniqueConstraint("model", "sequence", name="promotions_model_sequence"),
    )
