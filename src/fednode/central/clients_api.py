"""What client nodes say of themselves: register, offer, leave. And what an operator may do about them."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import APIRouter, Query, Request

from fednode import __version__
from fednode.central.asked import MOST, Count
from fednode.central.client_facts import ClientQuery, client_row, client_rows, find_clients
from fednode.central.node import CentralNode, Client, Node, Operator
from fednode.central.offers import merged_offers
from fednode.central.presence import Member
from fednode.central.tokens import ASK_FOR_JOIN, hash_secret, new_secret
from fednode.core.ids import key_fingerprint, make_id
from fednode.core.json import finite
from fednode.core.metrics import check_metrics
from fednode.core.records import Offer
from fednode.errors import BadConfig, NotAuthorised
from fednode.run_config import check_offer
from fednode.store.client_history import ClientHistory
from fednode.store.records import ClientRecord
from fednode.wire.messages import (
    Farewell,
    Nonce,
    NonceRequest,
    OfferBody,
    Presence,
    Registered,
    Registration,
    registration_text,
)

Sort = Annotated[str, Query(pattern="^-?(name|status|seen|updates)$")]

router = APIRouter(prefix="/api/v1", tags=["clients"])


@router.post("/clients")
async def register(body: Registration, request: Request, node: Node) -> Registered:
    """Join, by a join token and a signature of the client's own key. The same key again gets a new secret."""
    if not body.nonce:
        node.doors.require_join(request)
    _require_proof(body)
    if body.nonce:
        await _require_known_key(body, node)
    secret = new_secret()
    record = await _enrol(body, hash_secret(secret), node)
    _refresh(node, record)
    node.presence.heard(record.name)
    return Registered(client_id=record.id, name=record.name, secret=secret)


@router.post("/nonces")
async def make_nonce(body: NonceRequest, node: Node) -> Nonce:
    """What a known client signs to get a new secret without a join token. Says nothing of who is known."""
    return Nonce(nonce=node.nonces.make(body.name))


@router.put("/clients/me")
async def say_presence(body: Presence, client: Client, node: Node) -> dict[str, Any]:
    """What this client offers from now on. Sent at every start."""
    offers = tuple(_offer(offer) for offer in body.offers)
    await node.store.set_presence(client.name, offers, body.versions)
    node.presence.enrol(Member(name=client.name, offers=offers))
    node.presence.heard(client.name)
    node.presence.wants_work(client.name)
    return {}


@router.post("/clients/me/leave")
async def leave(client: Client, node: Node, body: Farewell | None = None) -> dict[str, Any]:
    """A client that stops says so: it is gone at once, nobody waits for it. Where it ends what it holds first, then."""
    if body is not None and body.holding:
        node.presence.finish(client.name)
    else:
        node.presence.leave(client.name, body.reason if body is not None else "")
    return {}


@router.post("/clients/me/secret")
async def renew_secret(client: Client, node: Node) -> Registered:
    """A new secret for this client; the old one opens nothing any more."""
    secret = new_secret()
    await node.store.rotate_secret(client.name, hash_secret(secret))
    return Registered(client_id=client.id, name=client.name, secret=secret)


@router.get("/clients", dependencies=[Operator])
async def list_clients(
    node: Node, search: str = "", status: str = "", task: str = "", sort: Sort = "name",
    limit: Annotated[int | None, Query(ge=1, le=MOST)] = None, offset: Count = 0,
) -> list[dict[str, Any]]:
    """Everybody who ever joined, with what they offer and whether they are there; all of them, or those asked for.

    `search`: part of the name. `task`: offered now. `sort`: `name`, `status`, `seen`, `updates`; `-name`: backwards.
    """
    found = await find_clients(node, ClientQuery(search=search, status=status, task=task, sort=sort))
    return await client_rows(node, found.names[offset:][:limit])


@router.get("/clients/{name}", dependencies=[Operator])
async def show_client(name: str, node: Node) -> dict[str, Any]:
    """One client: what it is, what it offers, and its last assignments, newest first."""
    record, history = await node.store.client(name), ClientHistory(node.store)
    [row] = await client_rows(node, [record.name])
    works = await history.works(record.name)
    return {
        **row, "key_fingerprint": key_fingerprint(record.public_key),
        "offers": [offer.to_json() for offer in record.offers],
        "history": [finite(asdict(work)) for work in works],
    }


@router.post("/clients/{name}/revoke", dependencies=[Operator])
async def revoke(name: str, node: Node) -> dict[str, Any]:
    """Its secret opens nothing any more, and it takes part in nothing."""
    await node.store.revoke_client(name)
    node.presence.strike(name)
    node.leases.client_bell(name).ring()
    return client_row(node, await node.store.client(name))


@router.post("/clients/{name}/rotate", dependencies=[Operator])
async def rotate(name: str, node: Node) -> dict[str, Any]:
    """Its secret opens nothing any more; a client that runs gets a new one by its key, and goes on."""
    await node.store.expire_secret(name, hash_secret(new_secret()))
    node.leases.client_bell(name).ring()
    return client_row(node, await node.store.client(name))


@router.get("/tasks", dependencies=[Operator])
async def list_tasks(node: Node) -> list[dict[str, Any]]:
    """What the enrolled clients offer: one entry a version of a task, with the schema of its settings."""
    return [
        {**merged.offer.to_json(), "clients": list(merged.clients)}
        for merged in merged_offers(node.presence.members())
    ]


@router.get("/tokens/join", dependencies=[Operator])
async def join_token(request: Request, node: Node) -> dict[str, Any]:
    """What a new client needs: the join token, until when it is good (wall seconds; null: for ever), the address."""
    tokens = node.doors.tokens
    return {
        "join_token": tokens.join_token, "expires_s": tokens.join_expires_s, "url": node.base_url(request)
    }


@router.post("/tokens/join", dependencies=[Operator])
async def new_join_token(request: Request, node: Node) -> dict[str, Any]:
    """A new join token; the old one admits nobody any more."""
    node.doors.tokens.renew_join_token()
    return await join_token(request, node)


@router.get("/whoami")
async def whoami(request: Request, node: Node, name: str = "", public_key: str = "") -> dict[str, Any]:
    """What the bearer that came opens here; and whether a client of this name and key is known. Changes nothing."""
    kind, client = await node.doors.identify(request)
    known = await node.store.find_client(client.name if client else name)
    return {
        "kind": kind, "version": __version__, "name": known.name if known else name,
        "name_is": _standing(known, client.public_key if client else public_key),
    }


def _standing(known: ClientRecord | None, public_key: str) -> str:
    """What the name is to whoever has that key: free, yours, revoked or taken."""
    if known is None:
        return "free"
    if known.public_key != public_key:
        return "taken"
    return "revoked" if known.is_revoked else "yours"


def _require_proof(body: Registration) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(body.public_key))
        key.verify(bytes.fromhex(body.proof), registration_text(body.name, body.nonce))
    except (InvalidSignature, ValueError):
        raise NotAuthorised(
            f"the proof for {body.name!r} was not made by the key that came with it",
            fix="sign it with the client's own key",
        ) from None


async def _require_known_key(body: Registration, node: CentralNode) -> None:
    """Raises NotAuthorised unless the name is this key's, and the nonce is fresh."""
    known = await node.store.find_client(body.name)
    if known is None or known.public_key != body.public_key:
        raise NotAuthorised(f"no client {body.name!r} with this key is known here", fix=ASK_FOR_JOIN)
    node.nonces.use_up(body.name, body.nonce)


async def _enrol(body: Registration, secret_sha256: str, node: CentralNode) -> ClientRecord:
    """The client's row: a new one, or the known one with a new secret. Raises NameTaken, NotAuthorised."""
    now_s = node.clock.wall_s()
    return await node.store.add_client(ClientRecord(
        id=make_id("cli", int(now_s * 1000), secrets.token_bytes(10)), name=body.name, public_key=body.public_key,
        secret_sha256=secret_sha256, last_seen_s=now_s, joined_s=now_s,
    ))


def _refresh(node: CentralNode, record: ClientRecord) -> None:
    node.presence.enrol(Member(name=record.name, offers=record.offers, last_seen_s=record.last_seen_s))


def _offer(body: OfferBody) -> Offer:
    """Raises BadConfig where the offer makes no sense."""
    try:
        offer = Offer.from_json(body.model_dump(mode="json", by_alias=True))
        check_metrics(offer.metrics)
    except TypeError as error:
        told = f"the offer of {body.task!r} declares a metric badly: {error}"
        raise BadConfig(told, fix="send it as `Metric.to_json` writes it") from None
    check_offer(offer)
    return offer
