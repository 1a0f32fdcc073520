"""When a client got its work and when its training was done: a round's timeline. Older rows have neither."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("assignment", sa.Column("leased_s", sa.Float(), nullable=True))
    op.add_column("update", sa.Column("sent_s", sa.Float(), nullable=True))
