"""One client's part in a round: its assignment, and what the store has of its update. For who answers that client."""

from __future__ import annotations

from sqlalchemy import Connection, select

from fednode.core.records import Assignment, Round
from fednode.store import rows, schema
from fednode.store.reports import Placed


def part_of(c: Connection, run_id: str, number: int, attempt: int, client: str) -> tuple[Round, Assignment]:
    """The round, and what of it is this client's. Raises NotFound."""
    round_ = rows.get_round(c, run_id, number, attempt)
    return round_, rows.standing(c, round_, client).assignment


def received_update(c: Connection, round_: Round, client: str) -> Placed | None:
    """The client's update in this round; None where it brought none (yet)."""
    table = schema.update
    row = c.execute(select(table).where(rows.key_of(table, round_), table.c.client == client)).first()
    return None if row is None else Placed(path=row.path, digest=row.digest, num_bytes=row.num_bytes)
