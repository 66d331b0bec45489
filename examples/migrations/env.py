"""Alembic's environment: it migrates on the one connection that migrate.py opens."""

import logging

from alembic import context
from migrate import open_connection

logging.basicConfig(format="%(message)s")
logging.getLogger("alembic").setLevel(logging.INFO)  # names each version before it runs


def run_migrations() -> None:
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    run_migrations()
else:
    with open_connection() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        run_migrations()
