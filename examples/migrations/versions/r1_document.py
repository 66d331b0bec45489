"""The table of documents."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector

revision, down_revision = "1", None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "document",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("content", sa.Text),
        sa.Column("embedding", Vector(1536)),
    )


def downgrade() -> None:
    op.drop_table("document")
