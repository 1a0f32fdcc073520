"""What a client did, found by its name: for its page, and for the list of clients."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("assignment_of_client", "assignment", ["client", "run_id", "number"])
    op.create_index("update_of_client", "update", ["client"])
