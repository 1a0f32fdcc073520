"""What every answer that a browser may show says of itself: whose scripts run, who may frame it, what others learn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

App: TypeAlias = Callable[..., Awaitable[None]]

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HSTS = ("Strict-Transport-Security", "max-age=2592000")     # 30 days
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
KEEP_NOTHING = "no-store"


def cache_rule(path: str, query: bytes) -> str:
    """For an answer that names none itself. A static file's address may hold its content's hash, as the query."""
    if not path.startswith("/static/"):
        return KEEP_NOTHING
    return FOR_EVER if query else ASK_AGAIN


def whole_files(files: App) -> App:
    """`files`, asked for whole ones: a part of a style sheet helps nobody, and thousands of parts would hurt us."""

    async def whole(scope: MutableMapping[str, Any], receive: App, send: App) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await files({**scope, "headers": headers}, receive, send)

    return whole
