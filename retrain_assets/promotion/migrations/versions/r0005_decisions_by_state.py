"""Which decisions are on record already, without reading through all that ever were."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_decisions_state", "decisions", ["state"])
