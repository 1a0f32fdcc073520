"""The scene of the attacks: one real central process, a client of it, and bare sockets that say whatever they like."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation_scene import Federation, wait_until
from fednode.wire.messages import registration_text

PATIENCE_S = 60.0  # generous: nothing here is a claim about speed
CLOSED = 0  # the connection ended without an answer
OFFER = {
    "task": "toy",
    "fingerprint": "toy@1",
    "schema": {"type": "object", "properties": {}, "additionalProperties": False},
    "metrics": [],
    "default_rounds": 2,
}


@dataclass(frozen=True)
class Heard:
    """An answer, or that there was none."""

    status: int = CLOSED
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
        yield line


def ask(port: int, request: bytes) -> Heard:
    """Send these bytes, whatever they are, and hear the first answer."""
    with connected(port) as line:
        with suppress(OSError):  # who refuses may hang up before we have said it all
            line.sendall(request)
        return hear(line)


def hear(line: socket.socket) -> Heard:
    answer = http.client.HTTPResponse(line)
    try:
        answer.begin()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        body = b"" if headers.get("content-type", "").startswith("text/event-stream") else answer.read()
        return Heard(answer.status, headers, body)
    except TimeoutError:
        raise AssertionError("neither an answer nor an end of the connection") from None
    except (OSError, http.client.HTTPException):
        return Heard()


def request(
    method: str, target: str, *headers: str, body: bytes | None = None, kind: str = "application/json"
) -> bytes:
    """One request as bytes; `headers` as lines. What is Host here is up to them, or localhost."""
    lines = list(headers)
    if not any(line.lower().startswith("host:") for line in lines):
        lines.insert(0, "Host: localhost")
    if body is not None:
        lines += [f"Content-Length: {len(body)}"]
        if not any(line.lower().startswith("content-type:") for line in lines):
            lines += [f"Content-Type: {kind}"]
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode("latin-1") + (body or b"")


class Door:
    """A central process under attack, with a client that has joined and holds an assignment."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.federation = Federation(folder)
        self.port = self.federation.port
        self.federation.start_central()
        self.join_token = self.call("GET", "/api/v1/tokens/join")["join_token"]
        [note] = (folder / "state").rglob("centrals/*.json")
        self.operator_token = json.loads(note.read_text())["operator_token"]
        self.secret = self.join("mallory")
        run = self.call("POST", "/api/v1/runs", {"task": "toy", "clients": ["mallory"]})
        self.run_id = run["run_id"]
        self.assignment = wait_until(lambda: self.poll()["assignment"], "work for mallory")["id"]

    def join(self, name: str) -> str:
        key = Ed25519PrivateKey.generate()
        proof = key.sign(registration_text(name)).hex()
        body = {"name": name, "public_key": key.public_key().public_bytes_raw().hex(), "proof": proof}
        secret = str(self.call("POST", "/api/v1/clients", body, token=self.join_token)["secret"])
        self.call("PUT", "/api/v1/clients/me", {"offers": [OFFER]}, token=secret)
        return secret

    def call(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """What an honest caller hears, who must be answered well."""
        bearer = [f"Authorization: Bearer {token}"] if token else []
        content = None if body is None else json.dumps(body).encode()
        heard = ask(self.port, request(method, path, *bearer, "Connection: close", body=content))
        assert heard.status in (200, 201), heard
        return heard.json()

    def poll(self) -> Any:
        return self.call("GET", "/api/v1/clients/me/work", token=self.secret)

    def holds(self) -> Any:
        return self.call("GET", f"/api/v1/clients/me/work?holding={self.assignment}", token=self.secret)

    def filled(self, raw: bytes) -> bytes:
        """`raw` with what only this scene knows put in: @secret, @operator, @join, @assignment, @run."""
        for name, value in (
            (b"@secret", self.secret),
            (b"@operator", self.operator_token),
            (b"@join", self.join_token),
            (b"@assignment", self.assignment),
            (b"@run", self.run_id),
            (b"@port", str(self.port)),
        ):
            raw = raw.replace(name, value.encode())
        return raw

    def log(self) -> str:
        """All that the central process has said."""
        return (self.federation.folder / "central.log").read_text(errors="replace")

    def close(self) -> None:
        self.federation.stop_all()


def require_well_told(heard: Heard) -> None:
    """Every error says what, why and what to do; none says anything of our insides."""
    text = heard.body.decode()
    assert not re.search(r"Traceback|site-packages|line \d+, in ", text), text
    if heard.status < 400 or not heard.body:
        return
    if heard.headers["content-type"].startswith("text/html"):
        assert "<h1" in text, text
        return
    assert heard.headers["content-type"] == "application/json", heard
    told = heard.json()
    assert set(told) - {"fields"} == {"code", "message", "fix"}, told
    assert all(isinstance(told[name], str) and told[name] for name in ("code", "message", "fix")), told
    assert len(text) < 20_000, text
