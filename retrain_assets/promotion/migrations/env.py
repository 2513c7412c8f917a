"""What Alembic runs for every command: the connection and the version table of this package."""

from alembic import context

from retrain_assets.promotion.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
