"""Who this client node is to its central node: its key, its name, and the token that opens the door.

Asks, and registers nothing.
"""

from __future__ import annotations

from typing import Any

from fednode.client.identity import Identity, Secrets, find_identity
from fednode.client.talk import ClientSettings
from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import FednodeError, NameTaken, NotAuthorised, StoreDamaged
from fednode.wire.http import Http

ASK = "ask the operator for what `fednode clients join-command` prints"
NO_ENTRY = NotAuthorised.exit_code


def key(settings: ClientSettings) -> Finding:
    try:
        found = find_identity(settings.state_dir)
    except StoreDamaged as error:
        return of_error("key", error)
    if found is None:
        return good("key", f"none yet in {settings.state_dir}: made at the first start")
    return good("key", f"{found.fingerprint} in {settings.state_dir}")


async def membership(settings: ClientSettings) -> list[Finding]:
    """Asked with what this client would show; `settings.token` is the join token, wherever it comes from."""
    try:
        identity = find_identity(settings.state_dir)
    except StoreDamaged:
        return []                   # `key` tells
    secret = Secrets(settings.state_dir).find(settings.central, settings.name)
    async with Http(settings.central, ca=settings.ca, pin=settings.pin) as http:
        if secret and (found := await _by_secret(http, secret)):
            return found
        return await _by_token(http, settings, identity)


async def _by_secret(http: Http, secret: str) -> list[Finding]:
    """Nothing where this secret is not known (any more): then it is the key or the token that counts."""
    try:
        facts = await _whoami(http, secret)
    except NotAuthorised as error:
        return [of_error("name", error)] if "revoked" in error.message else []
    except FednodeError as error:
        return [of_error("token", error)]
    registered = good("name", f"{facts['name']} is registered")
    return [registered, good("token", "none needed: this client has its own secret")]


async def _by_token(http: Http, settings: ClientSettings, identity: Identity | None) -> list[Finding]:
    if not settings.token:
        told = "none is known here, and the central node asks for one"
        return [bad("token", told, f"{ASK}: --token join_...", NO_ENTRY)]
    if not settings.token.startswith("join_"):
        return [bad("token", "a client joins by a join token (join_...), and this is none", ASK, NO_ENTRY)]
    try:
        facts = await _whoami(http, settings.token, settings.name, identity.public_key if identity else "")
    except FednodeError as error:
        return [of_error("token", error)]
    return [good("token", f"a join token of this central node (fednode {facts['version']})"), _name(facts)]


def _name(facts: dict[str, Any]) -> Finding:
    name = facts["name"]
    match facts["name_is"]:
        case "free":
            return good("name", f"{name} is free: registered at the first start")
        case "yours":
            told = f"{name} is this key's, but its secret opens nothing"
            return doubtful("name", told, "start the client: it gets a new one by its key")
        case "revoked":
            return bad("name", f"{name} was revoked", "ask the operator; join by another --name", NO_ENTRY)
    return bad("name", f"another client node is called {name}", "choose another --name", NameTaken.exit_code)


async def _whoami(http: Http, token: str, name: str = "", public_key: str = "") -> dict[str, Any]:
    params = {"name": name, "public_key": public_key}
    return dict(await http.request("GET", "/api/v1/whoami", params=params, token=token))
