"""The connections of one port: bounded in number, in the size of what comes before a body, and in how long they stall.

uvicorn reads HTTP; what it would leave open for ever ends here, by timers on no progress, never on total time: a model
of any size may come or go over a slow line. Only a request's headers, which fit into one packet, have a total.
Who is refused here hears {code, message, fix}, as from everything behind it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fednode.web.headers import KEEP_NOTHING, SECURITY_HEADERS

MAX_URL_BYTES = 8 << 10
MAX_HEADERS_BYTES = 32 << 10
MAX_HEADERS = 100
MAX_PIPELINED = 16                  # requests that wait for the answer to an earlier one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a connection may stall, and how many there may be.

    1 KiB/s is what the slowest line that can bring a model at all brings (a modem of 1990 had twice that); who drips
    slower is cut, and an upload or a download goes on from its offset. Taking an answer may stall for longer: the
    system's own buffers hide what the other side takes out of them for up to a megabyte.
    """

    headers_s: float = 20.0         # from a connection, or a next request's first byte, to the end of its headers
    body_s: float = 20.0            # in each such while a body brings `min_bytes_per_s` of it
    answer_s: float = 60.0          # in each such while that much of an answer is taken
    idle_s: float = 75.0            # between two requests: longer than a client's pause between two polls
    linger_s: float = 3.0           # for what is left of a body that is not wanted, so that the answer is not lost
    min_bytes_per_s: int = 1 << 10
    max_connections: int = 8_192
    max_of_address: int = 1_024     # loopback apart: there everybody has the same; so has who comes through a proxy


@dataclass(frozen=True, kw_only=True)
class EarlyAnswer:
    """Why a connection ends before any app has seen the request."""

    status: int
    code: str
    message: str
    fix: str
    retry_after_s: int = 0

    def to_bytes(self) -> bytes:
        body = json.dumps({"code": self.code, "message": self.message, "fix": self.fix}).encode()
        headers = {
            "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close",
            "Cache-Control": KEEP_NOTHING, **SECURITY_HEADERS,
        }
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return STATUS_LINE[self.status] + lines.encode() + b"\r\n" + body


NO_HTTP = EarlyAnswer(status=400, code="usage", message="this is no HTTP/1.1 request", fix="send one")
OTHER_HOST = EarlyAnswer(
    status=400, code="usage", message="the request's target and its Host header name different hosts", fix="send a path"
)
NO_TRAILERS = EarlyAnswer(status=400, code="usage", message="a body with trailers", fix="send headers before the body")
TOO_MANY_AT_ONCE = EarlyAnswer(
    status=400, code="usage", message=f"more than {MAX_PIPELINED} requests before the first answer", fix="wait for it"
)
LONG_URL = EarlyAnswer(
    status=414, code="usage", message=f"an address of more than {MAX_URL_BYTES:,} bytes", fix="send a shorter one"
)
LARGE_HEADERS = EarlyAnswer(
    status=431, code="usage", fix="send fewer and shorter ones",
    message=f"more than {MAX_HEADERS} headers, or more than {MAX_HEADERS_BYTES:,} bytes of them",
)
TOO_SLOW = EarlyAnswer(
    status=408, code="timed_out", message="the request did not come to its end in time",
    fix="send it again; an update goes on from its offset",
)
FULL = EarlyAnswer(
    status=503, code="busy", message="too many connections are open here", fix="try again in a second", retry_after_s=1
)


class Connections:
    """All connections of one port. `protocol` makes one, as uvicorn asks for it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[Connection] = set()
        self._of_address: Counter[str] = Counter()
        self._unheard: dict[Connection, None] = {}      # who has asked for nothing yet, longest first

    def protocol(self, **parts: Any) -> Connection:
        return Connection(self, **parts)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room; where all is taken, who has waited longest without a request makes some."""
        self._open.add(connection)
        self._of_address[connection.address] += 1
        if not _is_shared(connection.address) and self._of_address[connection.address] > self.limits.max_of_address:
            return False
        if len(self._open) > self.limits.max_connections:
            longest = next(iter(self._unheard), None)
            if longest is None:
                return False
            longest.transport.abort()
            self.forget(longest)
        return True

    def forget(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]
        self._unheard.pop(connection, None)

    def expects(self, connection: Connection) -> None:
        """It may send a request now."""
        self._unheard[connection] = None

    def has_heard(self, connection: Connection) -> None:
        """It has sent one."""
        self._unheard.pop(connection, None)


class Connection(HttpToolsProtocol):
    """One of them: uvicorn's, with an end to everything."""

    def __init__(self, every: Connections, **parts: Any) -> None:
        """`parts`: what uvicorn gives to each."""
        super().__init__(**parts)
        self.address = ""
        self._every = every
        self._limits = every.limits
        self._receiving: asyncio.TimerHandle | None = None      # ends who does not send what we wait for
        self._sending: asyncio.TimerHandle | None = None        # ends who does not take what we send
        self._is_in_headers = False
        self._is_in_body = False
        self._is_ended = False          # what still comes is thrown away
        self._num_bytes = 0             # of these headers, or of the body in this while
        self._refusal = NO_HTTP         # what is told when the parser gives up

    # --- its life ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self._every.admit(self):
            self._refuse(FULL)
            return
        self._every.expects(self)
        self._receiving = self._later(self._limits.headers_s, self._time_out)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        _cancel(self._receiving)
        _cancel(self._sending)
        self._unset_keepalive_if_required()
        self._every.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            return
        self._unset_keepalive_if_required()
        if self._is_idle and self._receiving is None:       # a next request begins, be it by an empty line
            self._receiving = self._later(self._limits.headers_s, self._time_out)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_after_answer()        # nothing here speaks another protocol: the answer is HTTP's
        except httptools.HttpParserError:
            self._give_up()
        else:
            self._num_bytes += len(data) if self._is_in_headers else 0
            if self._is_in_headers and self._num_bytes > MAX_URL_BYTES + MAX_HEADERS_BYTES:
                self._refusal = LARGE_HEADERS
                self._give_up()

    # --- what the parser finds ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_headers, self._num_bytes = True, 0
        if self._receiving is None:
            self._receiving = self._later(self._limits.headers_s, self._time_out)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._stop_parsing(LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_headers:
            self._stop_parsing(NO_TRAILERS)         # they would join the headers of a request that is under way
        self._num_bytes += len(name) + len(value)
        if len(self.headers) >= MAX_HEADERS or self._num_bytes > MAX_HEADERS_BYTES:
            self._stop_parsing(LARGE_HEADERS)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop_parsing(TOO_MANY_AT_ONCE)
        if not self.url.startswith(b"/"):
            self._require_own_target()
        super().on_headers_complete()
        self._is_in_headers, self._is_in_body, self._num_bytes = False, True, 0
        self._every.has_heard(self)
        _cancel(self._receiving)
        self._receiving = self._later(self._limits.body_s, self._look_at_body)

    def on_body(self, body: bytes) -> None:
        self._num_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        _cancel(self._receiving)
        self._receiving, self._is_in_body = None, False
        super().on_message_complete()
        if self._is_idle:
            self._rest()

    # --- what the answer does ----------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()     # uvicorn's own does not know of what is left to come
        if self.transport.is_closing():
            self._watch_sending()           # until the last bytes are taken
        elif self._is_in_body and not self.pipeline:
            _cancel(self._receiving)
            self._receiving = self._later(self._limits.linger_s, self._end)
        elif self._is_idle:
            self._rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._sending)
        self._sending = None

    # --- the timers --------------------------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is under way, and a next request may come."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not (self._is_in_headers or self._is_in_body)

    @property
    def _is_behind(self) -> bool:
        """Whether what comes now belongs to a request behind one that is not answered yet."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return bool(self.pipeline) or not (is_answered or self._is_in_body)

    def _rest(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self._later(self._limits.idle_s, self._end)
        self._every.expects(self)

    def _look_at_body(self) -> None:
        """Whether enough of it has come. What we have not read yet, for want of room, is our own delay."""
        is_slow = self._num_bytes < self._limits.body_s * self._limits.min_bytes_per_s
        if is_slow and not self.flow.read_paused:
            self._time_out()
            return
        self._num_bytes = 0
        self._receiving = self._later(self._limits.body_s, self._look_at_body)

    def _watch_sending(self) -> None:
        if self._sending is None:
            self._look_at_sending_later()

    def _look_at_sending_later(self) -> None:
        num_left = self.transport.get_write_buffer_size()
        self._sending = self._later(self._limits.answer_s, lambda: self._look_at_sending(num_left))

    def _look_at_sending(self, num_before: int) -> None:
        num_taken = num_before - self.transport.get_write_buffer_size()
        if num_taken < self._limits.answer_s * self._limits.min_bytes_per_s:
            self.transport.abort()
        else:
            self._look_at_sending_later()

    def _time_out(self) -> None:
        """Who has said nothing at all is told nothing: browsers open connections ahead of need."""
        self._receiving = None
        if self._is_behind:
            self._end_after_answer()
        elif self._is_in_headers or self._is_in_body:
            self._refuse(TOO_SLOW)
        else:
            self._end()

    # --- ends --------------------------------------------------------------------------------------

    def _stop_parsing(self, refusal: EarlyAnswer) -> None:
        """From within one of the parser's calls; `data_received` hears of it."""
        self._refusal = refusal
        raise ValueError(refusal.message)

    def _require_own_target(self) -> None:
        """`GET http://host/path` is a request to us where Host says the same host."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if [urlsplit(self.url).netloc.lower()] != [host.lower() for host in hosts]:
            self._stop_parsing(OTHER_HOST if b"://" in self.url else NO_HTTP)

    def _give_up(self) -> None:
        """The parser can make nothing of what came. An answer that is under way is not disturbed."""
        if self._is_behind:
            self._end_after_answer()
        else:
            self._refuse(self._refusal)

    def _end_after_answer(self) -> None:
        self._is_ended, self._is_in_headers = True, False
        _cancel(self._receiving)
        self._receiving = None
        self.pipeline.clear()
        if self.cycle is None or self.cycle.response_complete:
            self._end()
        else:
            self.cycle.keep_alive = False

    def _refuse(self, refusal: EarlyAnswer) -> None:
        """Say why, if no answer has begun, and end. The app, where it still reads, hears that the caller has gone."""
        has_begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not has_begun:
            self.transport.write(refusal.to_bytes())
        self._end_reading()

    def _end_reading(self) -> None:
        """Take and forget what still comes for a moment: else the system would drop the answer with it."""
        self._is_ended = True
        self._leave_app()
        _cancel(self._receiving)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._receiving = self._later(self._limits.linger_s, self._end)

    def _end(self) -> None:
        """Close; who does not take the last bytes is cut off."""
        self._is_ended = True
        self._leave_app()
        self.transport.close()
        self._watch_sending()

    def _leave_app(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def _later(self, seconds: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, do)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _is_shared(address: str) -> bool:
    """Whether many may come from one address, because it is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True
