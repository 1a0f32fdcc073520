"""A client of the wire's words only, over http.client and bare sockets: it sends what a real one never would.

Each request is a connection of its own. An answer is its status and its JSON; 0 and "" where the line was cut.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xxhash
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fednode.core.params import Params
from fednode.wire.codec import encode
from fednode.wire.messages import registration_text

PATIENCE_S = 60.0
FEW_PARAMS = 4                  # of a task that does not say how many

Work: TypeAlias = dict[str, Any]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """What was answered."""

    status: int
    json: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.json.get("code", "")) if isinstance(self.json, dict) else ""


def body_of(values: Any, name: str = "w") -> bytes:
    """Params of one tensor, as they travel."""
    return encode(Params({name: np.asarray(values, np.float32)}))


def floats_of(body: bytes) -> Floats:
    """The params of a body that has one tensor."""
    start = 8 + int.from_bytes(body[:8], "little")
    return np.frombuffer(body[start:], np.float32)


class RawClient:
    """One client that has joined, and offers what another one offers."""

    def __init__(self, port: int, name: str, *, host: str = "127.0.0.1") -> None:
        self.host, self.port, self.name = host, port, name
        self.secret = ""
        self.others = list[socket.socket]()         # connections that are left open, until `close`

    # --- the order of things ------------------------------------------------------------------------

    def join(self, join_token: str, offers: list[dict[str, Any]]) -> None:
        key = Ed25519PrivateKey.generate()
        body = {
            "name": self.name, "public_key": key.public_key().public_bytes_raw().hex(),
            "proof": key.sign(registration_text(self.name)).hex(),
        }
        said = self.call("POST", "/api/v1/clients", body, token=join_token)
        assert said.status == 200, said
        self.secret = said.json["secret"]
        self.is_there(offers)

    def is_there(self, offers: list[dict[str, Any]]) -> None:
        said = self.call("PUT", "/api/v1/clients/me", {"offers": offers})
        assert said.status == 200, said

    def poll(self, holding: str = "", wait_s: float = 25) -> Said:
        return self.call("GET", f"/api/v1/clients/me/work?wait={wait_s}&holding={holding}")

    def work(self) -> Work:
        """The next assignment."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            said = self.poll()
            assert said.status == 200, said
            if said.json["assignment"] is not None:
                found: Work = said.json["assignment"]
                return found
        raise AssertionError(f"{self.name} waited {PATIENCE_S:g} s in vain for work")

    def measure(self, work: Work, values: Any = None, counts: Any = None) -> Said:
        values = {"accuracy": 0.5, "confusion": {"sum": [[1, 1], [1, 1]]}} if values is None else values
        return self.tell(work, "metrics", {"evaluation": {"values": values, "num_examples": counts or {"test": 4}}})

    def trained(self, work: Work, step: float = 1.0) -> bytes:
        """The body of an honest update: what came, and `step` more."""
        return body_of(floats_of(self.fetch(work)) + np.float32(step))

    def fetch(self, work: Work) -> bytes:
        connection = self._connection()
        connection.request("GET", f"/api/v1/models/{work['base_model']}/params", headers=self._headers())
        return connection.getresponse().read()

    def announce(self, work: Work, body: bytes, **changes: Any) -> Said:
        told = {"num_bytes": len(body), "digest": xxhash.xxh3_128_hexdigest(body), "num_examples": 1, **changes}
        return self.tell(work, "update", told)

    def put(self, work: Work, body: bytes, offset: int = 0) -> Said:
        return self.call("PUT", f"{update_path(work)}?offset={offset}", raw=body[offset:])

    def bring(self, work: Work, body: bytes) -> Said:
        """Announce and send."""
        said = self.announce(work, body)
        return said if said.status != 200 or said.json["is_complete"] else self.put(work, body)

    def do(self, work: Work, step: float = 1.0) -> None:
        """What an honest client does."""
        if work["kind"] == "init":
            assert self.bring(work, body_of(np.zeros(work["config"].get("num_params", FEW_PARAMS)))).status == 200
            return
        assert self.measure(work).status == 200
        if work["kind"] == "train":
            said = self.bring(work, self.trained(work, step))
            assert said.status == 200, said

    # --- what they are made of ------------------------------------------------------------------------

    def tell(self, work: Work, what: str, body: Any) -> Said:
        return self.call("POST", f"/api/v1/assignments/{work['id']}/{what}", body)

    def call(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, token: str | None = None
    ) -> Said:
        connection = self._connection()
        headers = self._headers(token)
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=raw, headers=headers)
            return _read(connection.getresponse())
        except (OSError, http.client.HTTPException):
            return Said(0, "", {})
        finally:
            connection.close()

    def begin_put(self, work: Work, length: int, first: bytes, offset: int = 0) -> socket.socket:
        """A PUT of `length` bytes, of which `first` is sent. The connection stays open."""
        head = (
            f"PUT {update_path(work)}?offset={offset} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: Bearer {self.secret}\r\nContent-Length: {length}\r\n\r\n"
        )
        return self.open(head.encode() + first)

    def open(self, sent: bytes) -> socket.socket:
        """A connection over which these bytes went."""
        line = socket.create_connection((self.host, self.port), timeout=PATIENCE_S)
        self.others.append(line)
        line.sendall(sent)
        return line

    def close(self) -> None:
        for line in self.others:
            line.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)

    def _headers(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret if token is None else token}"}


class HonestClient(threading.Thread):
    """A raw client that does what it is asked, until `stop`."""

    def __init__(self, raw: RawClient) -> None:
        super().__init__(name=raw.name, daemon=True)
        self.raw = raw
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            said = self.raw.poll(wait_s=1)
            if said.status == 200 and said.json["assignment"] is not None:
                self.raw.do(said.json["assignment"])

    def stop(self) -> None:
        self._is_over.set()
        self.join(PATIENCE_S)


def answer_of(line: socket.socket) -> Said:
    """What came over a connection of `open`; status 0 where it was cut."""
    try:
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return _read(answer)
    except (OSError, http.client.HTTPException):
        return Said(0, "", {})


def update_path(work: Work) -> str:
    return f"/api/v1/assignments/{work['id']}/update"


def _read(answer: http.client.HTTPResponse) -> Said:
    content = answer.read()
    try:
        found = json.loads(content)
    except ValueError:
        found = content.decode(errors="replace")
    return Said(answer.status, found, {name.lower(): value for name, value in answer.getheaders()})
