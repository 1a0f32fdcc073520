"""How a client node gets its secret: by a join token the first time, by its own key ever after.

Two calls, each made once; `link` repeats them while the central node is away, and keeps what they bring.
"""

from __future__ import annotations

from typing import Any

from fednode.client.identity import Identity
from fednode.errors import NotAuthorised
from fednode.wire.http import Http
from fednode.wire.messages import NonceRequest, Registration


async def join(http: Http, name: str, identity: Identity, token: str) -> Any:
    """Register as `name`. Raises NotAuthorised, NameTaken."""
    if not token:
        raise NotAuthorised(
            f"{http.base_url} admits client nodes by a join token, and none is known here",
            fix="give the one that it printed at its start: --token join_..., or FEDNODE_TOKEN",
        )
    return await http.request("POST", "/api/v1/clients", body=_registration(name, identity), token=token)


async def renew(http: Http, name: str, identity: Identity) -> Any:
    """A new secret for a client that is known there. Raises NotAuthorised; NotFound from an older central node.

    The old secret goes along: it opens nothing, and says that no browser sent this.
    """
    answer = await http.request("POST", "/api/v1/nonces", body=NonceRequest(name=name))
    return await http.request("POST", "/api/v1/clients", body=_registration(name, identity, str(answer["nonce"])))


def _registration(name: str, identity: Identity, nonce: str = "") -> Registration:
    return Registration(name=name, public_key=identity.public_key, proof=identity.proof(name, nonce), nonce=nonce)
