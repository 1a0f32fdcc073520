"""A client node that only registers and offers: whatever a test wants, without a process or data."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation_scene import Federation
from fednode.wire.messages import registration_text

TOY = {
    "type": "object", "additionalProperties": False,
    "properties": {
        "epochs": {"type": "integer", "minimum": 1, "default": 1},
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "default": 0.5},
    },
}


def ask(fed: Federation, method: str, path: str, body: Any = None, token: str = "") -> Any:
    """What the API answers."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{fed.url}/api/v1/{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read() or b"null")


class Stranger:
    """It is there for as long as a client may be silent: a minute from its last word."""

    def __init__(self, fed: Federation, name: str) -> None:
        self.fed = fed
        key = Ed25519PrivateKey.generate()
        registration = {
            "name": name, "public_key": key.public_key().public_bytes_raw().hex(),
            "proof": key.sign(registration_text(name)).hex(),
        }
        rendezvous = json.loads((fed.folder / "state" / "centrals" / f"{fed.port}.json").read_text())
        self.secret = ask(fed, "POST", "clients", registration, rendezvous["join_token"])["secret"]

    def offers(self, task: str, schema: Any = None, *, fingerprint: str = "", **more: Any) -> None:
        offer = {"task": task, "fingerprint": fingerprint or f"{task}@1", "schema": schema or TOY, "metrics": []}
        ask(self.fed, "PUT", "clients/me", {"offers": [offer | more]}, self.secret)

    def leaves(self) -> None:
        ask(self.fed, "POST", "clients/me/leave", {}, self.secret)
