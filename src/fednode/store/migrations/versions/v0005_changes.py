"""How far, and which way, each update led. Of rounds that were made before, nobody knows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("update", sa.Column("norm", sa.Float(), nullable=True))
    op.add_column("update", sa.Column("cosine", sa.Float(), nullable=True))
