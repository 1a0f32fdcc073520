"""What a central node is called: by this machine's programs, by other machines, by the person who asks.

A wildcard bind has as many addresses as the machine; pages and join commands show one that works from elsewhere.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from fednode.central.certificate import Certificate
from fednode.errors import BadConfig
from fednode.web.callers import is_loopback_host

ANYWHERE = ("", "0.0.0.0", "::")
_FAR_AWAY = ("203.0.113.1", 9)      # of a block that is nobody's (RFC 5737)


def checked_public_url(url: str) -> str:
    """`url` without its last slash; "" stays. Raises BadConfig for what no browser asks for, or a path below that."""
    url = url.rstrip("/")
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if url and (not is_good or f"{parts.scheme}://{parts.netloc}" != url or "@" in url):
        raise BadConfig(
            f"--public-url {url} is no address of a site of its own",
            fix="write it as https://fed.example.org: without a path, which pages could not be served below",
        )
    return url.lower()


def local_url(scheme: str, host: str, port: int) -> str:
    """How this machine's own programs reach what is bound to `host`."""
    return f"{scheme}://{in_url('localhost' if host in ANYWHERE else host)}:{port}"


def lan_url(host: str, port: int, certificate: Certificate | None) -> str:
    """How other machines reach it, as far as this one can know: by a name that its certificate has, if there is one."""
    name = lan_address() if host in ANYWHERE else host
    if certificate is None:
        return f"http://{in_url(name)}:{port}"
    if not certificate.covers(name):
        name = next((known for known in certificate.names if _is_for_others(known)), name)
    return f"https://{in_url(name)}:{port}"


def lan_address() -> str:
    """The address of this machine from which it would speak to far ones; its host name where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_FAR_AWAY)            # of a datagram socket: asks the routing table, sends nothing
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_for_others(name: str) -> bool:
    return not name.startswith("*") and not is_loopback_host(name)
