"""The rows of client nodes: who joined, what they offer, when they were heard of. Inside one transaction each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from fednode.core.records import Offer
from fednode.errors import Conflict, NameTaken, NotAuthorised, NotFound
from fednode.store import rows, schema
from fednode.store.events import Story
from fednode.store.records import ClientRecord


def add_client(c: Connection, new: ClientRecord, wall_s: float) -> ClientRecord:
    """Enroll a client; the same name with the same key again only renews its secret.

    Raises NameTaken for another key, NotAuthorised where the client was revoked.
    """
    old = find(c, schema.client.c.name == new.name)
    if old is None:
        c.execute(insert(schema.client).values(_values(new)))
        rows.write_event(c, Story(what="client joined", run_id="", fields={"client": new.name}), wall_s)
        return new
    if old.public_key != new.public_key:
        raise NameTaken(f"another client node is called {new.name!r}", fix="choose another --name")
    if old.is_revoked:
        raise NotAuthorised(f"the client node {new.name!r} was revoked", fix="ask the operator for another name")
    rotate_secret(c, new.name, new.secret_sha256)
    return replace(old, secret_sha256=new.secret_sha256)


def get_client(c: Connection, name: str) -> ClientRecord:
    """Raises NotFound."""
    found = find(c, schema.client.c.name == name)
    if found is None:
        raise NotFound(f"there is no client node {name!r}", fix="`fednode clients` lists them")
    return found


def find(c: Connection, condition: Any) -> ClientRecord | None:
    row = c.execute(select(schema.client).where(condition)).first()
    return None if row is None else client_from(row)


def find_by_secret(c: Connection, secret_sha256: str) -> ClientRecord | None:
    """Who has it, without what it offers: that may be long."""
    row = c.execute(select(schema.client).where(schema.client.c.secret_sha256 == secret_sha256)).first()
    return None if row is None else replace(client_from(row), offers=(), versions={})


def all_clients(c: Connection) -> list[ClientRecord]:
    """In name order."""
    found = (client_from(row) for row in c.execute(select(schema.client)))
    return sorted(found, key=lambda record: record.name.encode())


def set_presence(
    c: Connection, name: str, offers: Sequence[Offer], versions: Mapping[str, str], wall_s: float
) -> ClientRecord:
    """What a client node says of itself at its start. Raises NotFound."""
    text = rows.to_text([offer.to_json() for offer in offers])
    _set(c, name, {"offers": text, "versions": rows.to_text(dict(versions)), "last_seen_s": wall_s})
    return get_client(c, name)


def touch(c: Connection, seen: Mapping[str, float]) -> None:
    """Wall seconds at which clients were last heard of, by name."""
    table = schema.client
    if seen:
        listed = [{"who": name, "seen_s": wall_s} for name, wall_s in seen.items()]
        c.execute(update(table).where(table.c.name == bindparam("who")).values(last_seen_s=bindparam("seen_s")), listed)


def rotate_secret(c: Connection, name: str, secret_sha256: str) -> None:
    """From now on only the new secret opens. Raises NotFound."""
    _set(c, name, {"secret_sha256": secret_sha256})


def expire_secret(c: Connection, name: str, nobodys_sha256: str, wall_s: float) -> None:
    """From now on no secret opens, until the client gets a new one by its key. Raises NotFound, Conflict."""
    if get_client(c, name).is_revoked:
        raise Conflict(f"the client node {name!r} was revoked: no secret opens for it", fix="nothing is left to renew")
    rotate_secret(c, name, nobodys_sha256)
    rows.write_event(c, Story(what="client rotated", run_id="", fields={"client": name}), wall_s)


def revoke_client(c: Connection, name: str, wall_s: float) -> None:
    """Shut the client out for good. Raises NotFound."""
    _set(c, name, {"is_revoked": True})
    rows.write_event(c, Story(what="client revoked", run_id="", fields={"client": name}), wall_s)


def _set(c: Connection, name: str, values: Mapping[str, object]) -> None:
    get_client(c, name)
    c.execute(update(schema.client).where(schema.client.c.name == name).values(dict(values)))


def client_from(row: Any) -> ClientRecord:
    return ClientRecord(
        id=row.id, name=row.name, public_key=row.public_key, secret_sha256=row.secret_sha256,
        is_revoked=row.is_revoked, offers=tuple(Offer.from_json(offer) for offer in json.loads(row.offers)),
        versions=json.loads(row.versions), last_seen_s=row.last_seen_s, joined_s=row.joined_s,
    )


def _values(record: ClientRecord) -> dict[str, object]:
    return {
        "id": record.id, "name": record.name, "public_key": record.public_key, "secret_sha256": record.secret_sha256,
        "is_revoked": record.is_revoked, "offers": rows.to_text([offer.to_json() for offer in record.offers]),
        "versions": rows.to_text(dict(record.versions)), "last_seen_s": record.last_seen_s, "joined_s": record.joined_s,
    }
