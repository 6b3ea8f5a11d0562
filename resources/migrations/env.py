"""Alembic environment: runs migrations on the connection that resources/postgres.py hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="schema_version",
    version_table_schema="genaiops",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
