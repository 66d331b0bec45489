"""The table of the orders."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "1"
down_revision = None


def upgrade() -> None:
    op.create_table("made_by_alembic", Column("id", Integer, primary_key=True), Column("item", Text))


def downgrade() -> None:
    op.drop_table("made_by_alembic")
