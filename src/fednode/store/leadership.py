"""Who may write: the process of the latest epoch. Checked in every transaction, whoever holds which lock."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, func, insert, select

from fednode.errors import StoreLocked
from fednode.store.schema import leadership

_LATEST = select(func.max(leadership.c.epoch))      # made once: asked in every transaction


def lead(engine: Engine, holder: str, wall_s: float) -> int:
    """Begin an epoch; earlier ones can write nothing any more."""
    with engine.begin() as connection:
        epoch = _latest(connection) + 1
        connection.execute(insert(leadership).values(epoch=epoch, holder=holder, wall_s=wall_s))
    return epoch


def require_leader(connection: Connection, *, epoch: int) -> None:
    """Raises StoreLocked where a later epoch has begun."""
    latest = _latest(connection)
    if latest > epoch:
        holder = connection.execute(select(leadership.c.holder).where(leadership.c.epoch == latest)).scalar()
        raise StoreLocked(
            f"this store belongs to {holder} now (epoch {latest}, ours is {epoch})", fix="end this central node"
        )


def _latest(connection: Connection) -> int:
    return connection.execute(_LATEST).scalar() or 0
