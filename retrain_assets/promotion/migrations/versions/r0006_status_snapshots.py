"""The fleet's status as its sensor last read it, for those who share no disk with the daemon."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "status_snapshots",
        sa.Column("specs", sa.String(32), primary_key=True),
        sa.Column("as_of", sa.String(40), nullable=False),
        sa.Column("confirmed_at", sa.String(40)),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
