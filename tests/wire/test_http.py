"""The HTTP client against a real peer on loopback that answers as it is told, and hangs up when it is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from certificates import make_certificate
from fednode.errors import (
    AlreadyReported,
    BadConfig,
    BadParamsFile,
    CannotConnect,
    Conflict,
    DataError,
    FednodeError,
    NotAuthorised,
    NotFound,
    NotTrusted,
    RoundClosed,
    StoreError,
    TimedOut,
    TooLarge,
    UsageError,
    VersionMismatch,
)
from fednode.wire.answers import AskedToWait, Reply, read_reply
from fednode.wire.backoff import Backoff
from fednode.wire.http import Http, fetch_file, with_retries
from fednode.wire.messages import OFFSET_HEADER, PROTOCOL, OfferBody

BLOB = bytes(range(256)) * 12_000               # 3 MB: more than the buffers of a socket pair hold
SHA256 = hashlib.sha256(BLOB).hexdigest()
PATIENCE_S = 20.0                               # for what is to happen at once


class Peer(ThreadingHTTPServer):
    """Keeps what was asked, answers from `routes` (method and path -> function of the request)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.routes: dict[str, Callable[[Request], None]] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what these tests are about."""


class Request(BaseHTTPRequestHandler):
    server: Peer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.place = urlsplit(self.path)
        self.server.asked.append((self.command, self.path))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.routes[f"{self.command} {self.place.path}"](self)

    do_GET = do_POST = do_PUT = do_HEAD = answer            # noqa: N815

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.bodies.append(content)
        return content

    def reply(self, status: int, content: object = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    def hang_up(self, *, is_reset: bool = False) -> None:
        self.close_connection = True
        if is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield from running(peer)


def running(peer: Peer) -> Iterator[Peer]:
    thread = threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        peer.closing.set()
        peer.shutdown()
        peer.server_close()
        thread.join()


def says(status: int, content: object = b"", **headers: str) -> Callable[[Request], None]:
    def answer(request: Request) -> None:
        request.body()
        request.reply(status, content, **headers)

    return answer


def serves(
    blob: bytes, *cuts: int, is_reset: bool = False, takes_ranges: bool = True, num_bytes: int | None = None
) -> Callable[[Request], None]:
    """A file; the n-th request is cut after `cuts[n]` bytes."""
    left = list(cuts)

    def answer(request: Request) -> None:
        asked = request.headers.get("range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and takes_ranges else 0
        if start >= len(blob):
            return request.reply(416, content_range=f"bytes */{len(blob)}")
        request.send_response(206 if start else 200)
        request.send_header("content-length", str((num_bytes or len(blob)) - start))
        if start:
            request.send_header("content-range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        request.end_headers()
        if left:
            request.wfile.write(blob[start : start + left.pop(0)])
            request.hang_up(is_reset=is_reset)
            return None
        request.wfile.write(blob[start:])
        return None

    return answer


class Inbox:
    """Takes an upload; the n-th PUT is cut after `cuts[n]` bytes."""

    def __init__(self, peer: Peer, *cuts: int) -> None:
        self.received = bytearray()
        self._cuts = list(cuts)
        peer.routes |= {"PUT /u": self.put, "HEAD /u": self.head}

    def head(self, request: Request) -> None:
        request.reply(200, **{OFFSET_HEADER: str(len(self.received))})

    def put(self, request: Request) -> None:
        offset = int(parse_qs(request.place.query)["offset"][0])
        if offset != len(self.received):
            body = {"code": "conflict", "message": f"offset {offset}, {len(self.received)} wanted", "fix": "ask HEAD"}
            request.body()
            return request.reply(409, body)
        size = int(request.headers["content-length"])
        self.received += request.rfile.read(min(size, self._cuts[0]) if self._cuts else size)
        if self._cuts:
            self._cuts.pop(0)
            return request.hang_up()
        return request.reply(200, {"is_complete": True})


# --- requests


async def test_a_request_carries_token_protocol_params_and_a_body_by_its_aliases(peer: Peer):
    peer.routes["POST /api"] = says(200, {"hello": 1}, fednode_protocol=str(PROTOCOL))
    offer = OfferBody(task="mnist", fingerprint="mnist@1", schema={"type": "object"}, metrics=[])
    async with Http(peer.url + "/", token="op_secret") as http:
        assert await http.request("POST", "/api", body=offer, params={"wait": "25"}) == {"hello": 1}
        await http.request("POST", "/api", token="join_other")
    assert peer.asked[0] == ("POST", "/api?wait=25")
    assert peer.headers[0]["authorization"] == "Bearer op_secret"
    assert peer.headers[0]["fednode-protocol"] == str(PROTOCOL)
    assert json.loads(peer.bodies[0])["schema"] == {"type": "object"}
    assert peer.headers[1]["authorization"] == "Bearer join_other"
    assert "content-type" not in peer.headers[1]


async def test_no_token_is_no_header_and_no_content_is_none(peer: Peer):
    peer.routes["GET /api"] = says(204)
    async with Http(peer.url) as http:
        assert await http.request("GET", "/api") is None
    assert "authorization" not in peer.headers[0]


async def test_a_base_address_may_have_a_path(peer: Peer, tmp_path: Path):
    peer.routes |= {"GET /fed/api": says(200, []), "GET /fed/m": serves(BLOB)}
    async with Http(f"{peer.url}/fed/") as http:
        assert await http.request("GET", "/api") == []
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "round_closed", RoundClosed),
        (409, "already_reported", AlreadyReported),
        (401, "not_authorised", NotAuthorised),
        (422, "bad_config", BadConfig),
        (500, "error", FednodeError),
        (426, "version_mismatch", VersionMismatch),
        (404, "a code of the future", NotFound),
        (409, "a code of the future", Conflict),
        (418, "a code of the future", UsageError),
        (500, "a code of the future", FednodeError),
    ],
)
async def test_an_error_body_becomes_the_error_of_its_code_else_of_its_status(peer, status, code, kind):
    peer.routes["GET /api"] = says(status, {"code": code, "message": "round 3 is closed", "fix": "drop it"})
    async with Http(peer.url) as http:
        with pytest.raises(kind) as caught:
            await http.request("GET", "/api")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.fix) == ("round 3 is closed", "drop it")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, NotAuthorised), (404, NotFound), (413, TooLarge), (502, CannotConnect), (504, CannotConnect),
     (500, FednodeError), (400, UsageError)],
)
async def test_an_error_without_our_body_becomes_one_by_its_status_and_quotes_it(peer, status, kind):
    peer.routes["GET /api"] = says(status, b"<html>nginx says\n no</html>")
    async with Http(peer.url) as http:
        with pytest.raises(kind, match=f"{peer.url} answers {status}.*nginx says no") as caught:
            await http.request("GET", "/api")
    assert type(caught.value) is kind
    assert caught.value.fix


async def test_what_is_no_central_node_is_told_apart(peer: Peer):
    peer.routes |= {
        "GET /page": says(200, b"<html>hello</html>"),
        "GET /moved": says(301, location="https://elsewhere.test/"),
    }
    async with Http(peer.url) as http:
        with pytest.raises(CannotConnect, match="not as a fednode central node: <html>hello"):
            await http.request("GET", "/page")
        with pytest.raises(CannotConnect, match=r"points to https://elsewhere\.test/"):
            await http.request("GET", "/moved")


async def test_where_nobody_listens_the_error_names_the_address_and_the_fix():
    with socket.socket() as taken:                          # bound, not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Http(url) as http:
            with pytest.raises(CannotConnect, match=f"{url}: Connection refused") as caught:
                await http.request("GET", "/api")
            with pytest.raises(CannotConnect, match=f"{url}: Connection refused"):
                await http.download("/m", Path("never"), expect_sha256=SHA256)
    assert "start the central node" in caught.value.fix
    assert caught.value.exit_code == 3


async def test_who_says_nothing_cannot_be_reached(peer: Peer):
    peer.routes["GET /api"] = lambda request: request.server.closing.wait(PATIENCE_S) and None
    async with Http(peer.url) as http:
        with pytest.raises(CannotConnect, match="no answer in time"):
            await http.request("GET", "/api", timeout_s=0.2)


async def test_who_hangs_up_without_an_answer_cannot_be_reached(peer: Peer):
    peer.routes["GET /api"] = lambda request: request.hang_up()
    async with Http(peer.url) as http:
        with pytest.raises(CannotConnect, match=peer.url):
            await http.request("GET", "/api")


@pytest.mark.parametrize("status", [200, 404])
def test_a_central_node_two_protocols_behind_is_to_be_upgraded_one_behind_is_taken(status: int):
    reply = Reply(url="http://central.test", status=status, headers={"fednode-protocol": "3"}, content=b"[1]")
    with pytest.raises(VersionMismatch, match="speaks protocol 3, this side 5") as caught:
        read_reply(reply, protocol=5)
    assert caught.value.fix == "upgrade fednode at the central node"
    assert read_reply(replace(reply, status=200), protocol=4) == [1]


async def test_a_central_node_that_does_not_take_us_says_upgrade_this_side(peer: Peer):
    peer.routes["GET /api"] = says(426, b"", fednode_protocol=str(PROTOCOL + 5))
    async with Http(peer.url) as http:
        with pytest.raises(VersionMismatch, match=f"speaks protocol {PROTOCOL + 5}, this side {PROTOCOL}") as caught:
            await http.request("GET", "/api")
    assert caught.value.fix == "upgrade fednode on this side"


async def test_a_newer_central_node_is_believed_when_it_answers(peer: Peer):
    peer.routes["GET /api"] = says(200, [1], fednode_protocol=str(PROTOCOL + 1))
    async with Http(peer.url) as http:
        assert await http.request("GET", "/api") == [1]


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://host", "http://", "http://host:port", "http://a:99999", ""])
def test_what_is_no_address_is_refused_with_the_right_form(url: str):
    with pytest.raises(BadConfig, match="no address") as caught:
        Http(url)
    assert "http://HOST:PORT" in caught.value.fix


# --- downloads


async def test_a_download_is_whole_and_leaves_nothing_beside_it(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB)
    async with Http(peer.url, token="secret") as http:
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256, num_bytes=len(BLOB))
    assert (tmp_path / "m").read_bytes() == BLOB
    assert files_in(tmp_path) == ["m"]
    assert peer.headers[0]["authorization"] == "Bearer secret"
    assert peer.headers[0]["fednode-protocol"] == str(PROTOCOL)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_download_cut_twice_goes_on_where_it_was(peer: Peer, tmp_path: Path, is_reset: bool):
    peer.routes["GET /m"] = serves(BLOB, 1_000_000, 1_500_000, is_reset=is_reset)
    async with Http(peer.url) as http:
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert (tmp_path / "m").read_bytes() == BLOB
    starts = [int(headers.get("range", "bytes=0-")[6:-1]) for headers in peer.headers]
    assert len(starts) == 3
    if not is_reset:                                        # a reset may cost what had not been read yet
        assert starts == [0, 1_000_000, 2_500_000]


async def test_a_download_that_ends_goes_on_in_the_next_call(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB, 1_000_000, 0)
    async with Http(peer.url) as http:
        with pytest.raises(CannotConnect, match=r"1,000,000 of 3,072,000"):
            await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
        assert not (tmp_path / "m").exists()
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert (tmp_path / "m").read_bytes() == BLOB
    assert [headers.get("range") for headers in peer.headers] == [None, "bytes=1000000-", "bytes=1000000-"]


async def test_where_ranges_are_ignored_a_download_begins_again(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB, 1_000_000, takes_ranges=False)
    async with Http(peer.url) as http:
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert (tmp_path / "m").read_bytes() == BLOB


async def test_another_hash_is_refused_and_leaves_nothing(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB[:-1] + b"?")
    async with Http(peer.url) as http:
        with pytest.raises(BadParamsFile, match=SHA256) as caught:
            await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert caught.value.fix
    assert files_in(tmp_path) == []
    assert len(peer.asked) == 1


@pytest.mark.parametrize("begun", [b"something else", BLOB + b"too long", b"?" * len(BLOB), BLOB])
@pytest.mark.parametrize("num_bytes", [None, len(BLOB)])
async def test_whatever_lies_in_the_begun_file_the_download_is_right(peer, tmp_path, begun, num_bytes):
    (tmp_path / "m.part").write_bytes(begun)
    peer.routes["GET /m"] = serves(BLOB)
    async with Http(peer.url) as http:
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256, num_bytes=num_bytes)
    assert (tmp_path / "m").read_bytes() == BLOB
    assert files_in(tmp_path) == ["m"]


async def test_another_size_is_refused_before_a_byte_is_read(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB)
    async with Http(peer.url) as http:
        with pytest.raises(BadParamsFile, match=r"3,072,000 bytes, not 5"):
            await http.download("/m", tmp_path / "m", expect_sha256=SHA256, num_bytes=5)
    assert files_in(tmp_path) == []


async def test_an_error_instead_of_a_file_is_that_error(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = says(404, {"code": "not_found", "message": "no model 12ab", "fix": "see fednode models"})
    async with Http(peer.url) as http:
        with pytest.raises(NotFound, match="no model 12ab"):
            await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert files_in(tmp_path) == []


async def test_a_folder_that_is_not_there_is_told_as_such(peer: Peer, tmp_path: Path):
    peer.routes["GET /m"] = serves(BLOB)
    async with Http(peer.url) as http:
        with pytest.raises(StoreError, match="nowhere"):
            await http.download("/m", tmp_path / "nowhere" / "m", expect_sha256=SHA256)


async def test_who_cancels_a_silent_download_is_free_at_once(peer: Peer, tmp_path: Path):
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("content-length", "100")
        request.end_headers()
        request.wfile.write(b"half")
        loop.call_soon_threadsafe(reached.set)
        request.server.closing.wait(3 * PATIENCE_S)

    peer.routes["GET /m"] = answer
    async with asyncio.timeout(PATIENCE_S), Http(peer.url) as http:
        download = asyncio.create_task(http.download("/m", tmp_path / "m", expect_sha256=SHA256))
        await reached.wait()
        download.cancel()
        with pytest.raises(asyncio.CancelledError):
            await download


# --- uploads


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "update"
    path.write_bytes(BLOB)
    return path


async def test_an_upload_arrives_whole_with_its_exact_length(peer: Peer, source: Path):
    inbox = Inbox(peer)
    async with Http(peer.url, token="secret") as http:
        assert await http.upload("/u", source, offset=0) == {"is_complete": True}
    assert inbox.received == BLOB
    assert peer.asked == [("PUT", "/u?offset=0")]
    assert peer.headers[0]["content-length"] == str(len(BLOB))
    assert peer.headers[0]["authorization"] == "Bearer secret"


async def test_an_upload_cut_twice_goes_on_from_where_the_peer_is(peer: Peer, source: Path):
    inbox = Inbox(peer, 1_000_000, 1_500_000)
    async with Http(peer.url) as http:
        assert await http.upload("/u", source, offset=0) == {"is_complete": True}
    assert inbox.received == BLOB
    assert peer.asked == [
        ("PUT", "/u?offset=0"),
        ("HEAD", "/u"), ("PUT", "/u?offset=1000000"),
        ("HEAD", "/u"), ("PUT", "/u?offset=2500000"),
    ]


async def test_a_cut_after_the_last_byte_is_mended_by_an_empty_put(peer: Peer, source: Path):
    inbox = Inbox(peer, len(BLOB))
    async with Http(peer.url) as http:
        assert await http.upload("/u", source, offset=0) == {"is_complete": True}
    assert inbox.received == BLOB
    assert peer.headers[-1]["content-length"] == "0"


async def test_an_upload_begins_where_it_is_told_to(peer: Peer, source: Path):
    inbox = Inbox(peer)
    inbox.received += BLOB[:70_000]
    async with Http(peer.url) as http:
        assert await http.upload_offset("/u") == 70_000
        await http.upload("/u", source, offset=70_000)
    assert inbox.received == BLOB


@pytest.mark.parametrize("offset", [0, 1_000_000])
async def test_a_wrong_offset_is_put_right(peer: Peer, source: Path, offset: int):
    inbox = Inbox(peer)
    inbox.received += BLOB[:500_000]
    async with Http(peer.url) as http:
        await http.upload("/u", source, offset=offset)
    assert inbox.received == BLOB


async def test_an_upload_that_gets_nowhere_ends(peer: Peer, source: Path):
    inbox = Inbox(peer, 0)
    async with Http(peer.url) as http:
        with pytest.raises(CannotConnect):
            await http.upload("/u", source, offset=0)
    assert inbox.received == b""


async def test_a_refused_upload_is_that_error(peer: Peer, source: Path):
    peer.routes["PUT /u"] = says(409, {"code": "round_closed", "message": "round 3 is closed", "fix": "drop it"})
    async with Http(peer.url) as http:
        with pytest.raises(RoundClosed):
            await http.upload("/u", source, offset=0)
    assert len(peer.asked) == 1


# --- certificates and proxies


@contextmanager
def with_tls(folder: Path, *names: str, **days: float) -> Iterator[tuple[Peer, Path]]:
    """A peer with TLS, and its certificate, which vouches for itself. Both bulk transfers are cut once."""
    certificate, key = make_certificate(folder, *names, **days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    peer = Peer()
    peer.socket = context.wrap_socket(peer.socket, server_side=True)
    peer.routes |= {"GET /api": says(200, [1]), "GET /m": serves(BLOB, 1_000_000)}
    yield from ((running_peer, certificate) for running_peer in running(peer))


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[Peer, Path]]:
    with with_tls(tmp_path, "127.0.0.1") as found:
        yield found


def https(peer: Peer, host: str = "127.0.0.1") -> str:
    return f"https://{host}:{peer.server_address[1]}"


@pytest.mark.parametrize("by", ["flag", "environment", "pin"])
async def test_a_certificate_is_believed_by_control_and_by_bulk_that_goes_on_after_a_cut(
    certified, tmp_path: Path, source: Path, monkeypatch, by: str
):
    peer, ca = certified
    inbox = Inbox(peer, 700_000)
    if by == "environment":
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    flags = {"flag": {"ca": ca}, "pin": {"pin": ca.read_text()}}.get(by, {})
    async with Http(https(peer), **flags) as http:
        assert await http.request("GET", "/api") == [1]
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
        await http.upload("/u", source, offset=0)
    assert (tmp_path / "m").read_bytes() == BLOB
    assert inbox.received == BLOB
    assert [ask for ask in peer.asked if ask[0] == "PUT"] == [("PUT", "/u?offset=0"), ("PUT", "/u?offset=700000")]
    assert len([ask for ask in peer.asked if ask == ("GET", "/m")]) == 2


async def test_without_its_ca_a_certificate_is_refused_by_control_and_bulk(certified, tmp_path: Path):
    peer, _ = certified
    async with Http(https(peer)) as http:
        with pytest.raises(NotTrusted, match="certificate of https://127") as caught:
            await http.request("GET", "/api")
        with pytest.raises(NotTrusted, match="certificate of https://127"):
            await http.download("/m", tmp_path / "m", expect_sha256=SHA256)
    assert "--ca" in caught.value.fix
    assert peer.asked == []


async def test_a_pin_is_for_one_certificate_whatever_it_is_called(certified, tmp_path: Path):
    peer, ca = certified
    other, _ = make_certificate(tmp_path, "127.0.0.1", "localhost", stem="other")
    async with Http(https(peer, "localhost"), pin=ca.read_text()) as http:
        assert await http.request("GET", "/api") == [1]
    async with Http(https(peer), pin=other.read_text()) as http:
        with pytest.raises(NotTrusted):
            await http.request("GET", "/api")
    async with Http(https(peer, "localhost"), ca=ca, pin=ca.read_text()) as http:       # the flag is what counts
        with pytest.raises(NotTrusted):
            await http.request("GET", "/api")


@pytest.mark.parametrize(("names", "days", "told", "fix"), [
    (["fed.example.org"], {}, "IP address mismatch", "a name that is in its certificate"),
    (["127.0.0.1"], {"from_days": -9, "to_days": -2}, "expired", "renew it"),
])
async def test_what_is_wrong_with_a_certificate_is_told_with_its_fix(tmp_path: Path, names, days, told: str, fix: str):
    with with_tls(tmp_path, *names, **days) as (peer, ca):
        async with Http(https(peer), ca=ca) as http:
            with pytest.raises(NotTrusted, match=told) as caught:
                await http.request("GET", "/api")
    assert fix in caught.value.fix


async def test_the_wrong_scheme_is_named_as_the_likely_fix(certified, peer: Peer):
    for url, fix in ((certified[0].url, "write https://"), (https(peer), f"write {peer.url}")):
        async with Http(url) as http:
            with pytest.raises(CannotConnect) as caught:
                await http.request("GET", "/api")
            assert fix in caught.value.fix


@pytest.mark.parametrize("content", [None, b"not a certificate"])
def test_a_ca_file_that_is_none_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadConfig, match=r"wrong\.pem"):
        Http("https://central.test", ca=path)


@pytest.fixture
def proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """A proxy, which answers for `central.test` itself."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", peer.url)
    return peer


async def test_a_proxy_of_the_environment_carries_control_and_bulk(proxy: Peer, tmp_path: Path, source: Path):
    inbox = Inbox(proxy, 1_000_000)
    proxy.routes |= {"GET /api": says(200, [1]), "GET /m": serves(BLOB, 1_000_000)}
    async with Http("http://central.test:5000", token="secret") as http:
        assert await http.request("GET", "/api") == [1]
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256, num_bytes=len(BLOB))
        assert await http.upload("/u", source, offset=0) == {"is_complete": True}
    assert (tmp_path / "m").read_bytes() == BLOB
    assert inbox.received == BLOB
    assert {urlsplit(path).netloc for _, path in proxy.asked} == {"central.test:5000"}
    assert {headers["authorization"] for headers in proxy.headers} == {"Bearer secret"}


async def test_this_machine_is_reached_without_the_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    peer.routes |= {"GET /api": says(200, [1]), "GET /m": serves(BLOB)}
    async with Http(peer.url) as http:
        assert await http.request("GET", "/api") == [1]
        await http.download("/m", tmp_path / "m", expect_sha256=SHA256)


async def test_a_proxy_that_cannot_be_is_named_and_hosts_of_no_proxy_do_without_it(proxy: Peer, monkeypatch):
    monkeypatch.setenv("http_proxy", "gopher://proxy.test")
    monkeypatch.setenv("no_proxy", "near.test")
    with pytest.raises(BadConfig, match=r"gopher://proxy\.test"):
        Http("http://central.test")
    await Http("http://near.test").aclose()


# --- retries


async def test_a_call_is_tried_again_until_somebody_answers():
    waits: list[float] = []
    errors: list[FednodeError] = [CannotConnect("a", fix="f"), TimedOut("b", fix="f"), CannotConnect("c", fix="f")]

    async def call(left: int, *, right: int) -> int:
        if errors:
            raise errors.pop()
        return left + right

    assert await with_retries(call, on_wait=lambda error, wait_s: waits.append(wait_s))(2, right=3) == 5
    assert len(waits) == 3
    assert all(wait_s <= limit_s for wait_s, limit_s in zip(waits, (0.1, 0.2, 0.4), strict=True))


async def test_other_errors_are_raised_at_once():
    calls = []

    async def call() -> None:
        calls.append(1)
        raise RoundClosed("round 3 is closed", fix="drop it")

    with pytest.raises(RoundClosed):
        await with_retries(call)()
    assert len(calls) == 1


async def test_attempts_have_an_end_where_one_is_given():
    calls = []

    async def call() -> None:
        calls.append(1)
        raise CannotConnect("nobody", fix="start it")

    with pytest.raises(CannotConnect, match="nobody"):
        await with_retries(call, attempts=3)()
    assert len(calls) == 3


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(peer: Peer, status: int):
    answers = [says(200, [1]), says(status, b"busy", retry_after="1")]
    peer.routes["GET /api"] = lambda request: answers.pop()(request)
    waits: list[float] = []
    async with Http(peer.url) as http:
        answer = await with_retries(http.request, on_wait=lambda error, wait_s: waits.append(wait_s))("GET", "/api")
    assert answer == [1]
    assert len(waits) == 1
    assert 1.0 <= waits[0] <= 1.1


def test_waits_double_to_10_s_with_full_jitter_and_stay_short_while_a_restart_may_last():
    backoffs = [Backoff() for _ in range(200)]
    limits_s = [0.1, 0.2, *[0.4] * 31, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]     # 31 times 0.2 s on average: a restart
    for limit_s in limits_s:
        waits = [backoff(CannotConnect("nobody", fix="start it")) for backoff in backoffs]
        assert max(waits) <= limit_s
        assert min(waits) < 0.2 * limit_s < 0.8 * limit_s < max(waits)     # 200 draws: missed once in 10**19


def test_who_is_asked_to_wait_doubles_at_once():
    backoffs = [Backoff() for _ in range(200)]
    for limit_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0):
        waits = [backoff(AskedToWait("busy", fix="wait", retry_after_s=100.0)) - 100.0 for backoff in backoffs]
        assert 0.8 * limit_s < max(waits) <= limit_s


def test_a_wish_to_be_left_alone_is_added_to_the_wait():
    assert 7.0 <= Backoff()(AskedToWait("busy", fix="wait", retry_after_s=7.0)) <= 7.1


# --- public files


def test_a_public_file_is_fetched_through_a_redirection_and_checked(peer: Peer, tmp_path: Path):
    peer.routes |= {"GET /mirror": says(302, location=f"{peer.url}/file"), "GET /file": serves(BLOB)}
    md5 = hashlib.md5(BLOB).hexdigest()
    fetch_file(f"{peer.url}/mirror", tmp_path / "file", expect_md5=md5, timeout_s=PATIENCE_S)
    assert (tmp_path / "file").read_bytes() == BLOB


def test_a_public_file_with_another_md5_is_refused_and_not_kept(peer: Peer, tmp_path: Path):
    peer.routes["GET /file"] = serves(BLOB)
    with pytest.raises(DataError, match="md5"):
        fetch_file(f"{peer.url}/file", tmp_path / "file", expect_md5="0" * 32, timeout_s=PATIENCE_S)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("answer", [says(403), serves(BLOB, 1_000), lambda request: request.hang_up()])
def test_a_mirror_that_fails_is_named_and_leaves_nothing(peer: Peer, tmp_path: Path, answer):
    peer.routes["GET /file"] = answer
    with pytest.raises(CannotConnect, match=f"{peer.url}/file"):
        fetch_file(f"{peer.url}/file", tmp_path / "file", expect_md5="0" * 32, timeout_s=PATIENCE_S)
    assert files_in(tmp_path) == []
