"""What the store knows of an update that came in whole: for a client that asks whether it did, and by which bytes."""

from __future__ import annotations

from sqlalchemy import Connection, select

from fednode.core.records import Round
from fednode.store import rows, schema
from fednode.store.reports import Placed


def received_update(c: Connection, round_: Round, client: str) -> Placed | None:
    """The client's update in this round; None where it brought none (yet)."""
    table = schema.update
    row = c.execute(select(table).where(rows.key_of(table, round_), table.c.client == client)).first()
    return None if row is None else Placed(path=row.path, digest=row.digest, num_bytes=row.num_bytes)
