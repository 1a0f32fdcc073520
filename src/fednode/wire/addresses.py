"""Addresses of central nodes: what is one, and which proxy of the environment stands on the way."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from fednode.errors import BadConfig


def address_of(url: str) -> SplitResult:
    """Its parts. Raises BadConfig where it is none."""
    try:
        address = urlsplit(url)
        is_good = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise BadConfig(f"{url!r} is no address", fix="write it as http://HOST:PORT or https://HOST:PORT")
    return address


def proxy_for(address: SplitResult) -> str | None:
    """What the environment puts on the way there; None: nothing, or this machine."""
    host = str(address.hostname)
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
