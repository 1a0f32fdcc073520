"""The way to a central node: its name, its port, its certificate, its protocol, its clock. Stops where it is barred."""

from __future__ import annotations

import asyncio
import socket
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from fednode.client.talk import ClientSettings
from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import BadConfig, CannotConnect, FednodeError, NotTrusted
from fednode.ports import Clock
from fednode.web.callers import is_loopback_host
from fednode.wire.answers import Reply, not_ours, read_reply
from fednode.wire.http import CONNECT_TIMEOUT_S, Http
from fednode.wire.messages import PROTOCOL, PROTOCOL_HEADER

MAX_CLOCK_DIFFERENCE_S = 30.0
NO_WAY = CannotConnect.exit_code


async def network(settings: ClientSettings, clock: Clock) -> tuple[list[Finding], bool]:
    """What was found on the way, and whether a central node answers at its end."""
    try:
        async with Http(settings.central, ca=settings.ca, pin=settings.pin) as http:
            found = [good("address", f"{settings.central} is well-formed"), _proxy(http)]
            if http.proxy is None:
                found += await _reach(urlsplit(settings.central))
            if any(finding.exit_code for finding in found):
                return found, False
            return await _answer(http, found, clock)
    except BadConfig as error:
        return [of_error("address", error)], False


def _proxy(http: Http) -> Finding:
    told = f"the environment puts {http.proxy} on the way" if http.proxy else "none on the way"
    return good("proxy", told)


async def _reach(address: SplitResult) -> list[Finding]:
    """By name and by TCP, without a proxy."""
    host, port = str(address.hostname), address.port or (443 if address.scheme == "https" else 80)
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        fix = "check the name, or write its address; ask who runs this network's DNS"
        return [bad("host", f"{host} is unknown here: {error.strerror}", fix, NO_WAY)]
    named = good("host", f"{host} is {', '.join(dict.fromkeys(str(row[4][0]) for row in rows))}")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        said = "no answer in time" if isinstance(error, TimeoutError) else "refused, or no way there"
        fix = "start the central node there; open the port in its firewall and in this network's"
        return [named, bad("connection", f"{host} port {port}: {said}", fix, NO_WAY)]
    writer.close()
    return [named, good("connection", f"{host} port {port} accepts connections")]


async def _answer(http: Http, found: list[Finding], clock: Clock) -> tuple[list[Finding], bool]:
    try:
        reply = await http.look("/healthz")
    except NotTrusted as error:
        return [*found, of_error("certificate", error)], False
    except FednodeError as error:
        return [*found, of_error("connection", error)], False
    found = [*found, _certificate(http.base_url)]
    try:
        _require_central_node(reply)
    except FednodeError as error:
        return [*found, of_error("central node", error)], False
    said = reply.headers[PROTOCOL_HEADER.lower()]
    answers = good("central node", f"answers, and speaks protocol {said} (this side: {PROTOCOL})")
    return [*found, answers, _clock(reply, clock)], True


def _require_central_node(reply: Reply) -> None:
    """Raises CannotConnect for some other web site, VersionMismatch."""
    if PROTOCOL_HEADER.lower() not in reply.headers:
        raise not_ours(reply)
    read_reply(reply)


def _certificate(url: str) -> Finding:
    if url.startswith("https://"):
        return good("certificate", "is to be trusted")
    if is_loopback_host(urlsplit(url).netloc):
        return good("certificate", "none, and nothing leaves this machine")
    return doubtful(
        "certificate", "none: params, scores and secrets can be read on the way",
        "ask for an https address: fednode central --tls-cert FILE --tls-key FILE",
    )


def _clock(reply: Reply, clock: Clock) -> Finding:
    try:
        theirs_s = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return good("clocks", "the central node does not tell its time")
    ahead_s = clock.wall_s() - theirs_s
    if abs(ahead_s) > MAX_CLOCK_DIFFERENCE_S:
        told = f"this machine is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the central node"
        return doubtful("clocks", told, "set both by NTP: timedatectl set-ntp true")
    return good("clocks", "both sides have the same time")
