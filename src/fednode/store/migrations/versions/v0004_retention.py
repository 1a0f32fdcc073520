"""Which models still have their params, and which runs were deleted. Every older model has its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("model", sa.Column("freed_s", sa.Float(), nullable=True))
    op.create_table(
        "deleted_run",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("deleted_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
