"""The index of documents, made while they are read and written."""

from alembic import op

revision, down_revision = "2", "1"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that a failed build has left is invalid: PostgreSQL keeps it, and does not use it.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS document_embedding")
        op.execute(
            "CREATE INDEX CONCURRENTLY document_embedding ON document "
            "USING hnsw (embedding vector_l2_ops)"
        )


def downgrade() -> None:
    op.drop_index("document_embedding")
