"""Who may look at a page of this machine: programs and browser pages of the machine itself, and no proxy's guests.

Pure functions over a request's headers, whatever framework read them. Who else may come in, and by what token:
`central/auth.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PROXY_HEADERS = ("forwarded", "via")
PROXY_PREFIX = "x-forwarded-"


def why_not_local(headers: Mapping[str, str]) -> str:
    """Why a request is not one that this machine's own programs and pages make of us; "" where it is.

    `headers` have their names in lower case.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    proxy = next((name for name in headers if name in PROXY_HEADERS or name.startswith(PROXY_PREFIX)), None)
    if proxy is not None:
        return f"the request came through a proxy ({proxy})"
    if not is_loopback_host(host):
        return f"the request is for {host!r}, not for this machine"
    if origin is not None and _netloc(origin) != host:
        return f"the request was made by a page of {origin!r}"
    return ""


def is_foreign_act(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another site wants something changed here. A link that leads here is no act."""
    return method not in ("GET", "HEAD") and headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def is_loopback_host(host: str) -> bool:
    """Whether a Host header, or a name to bind, means this machine alone."""
    try:
        name = host if host.count(":") > 1 and "[" not in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name.rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
