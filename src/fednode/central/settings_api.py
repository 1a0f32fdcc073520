"""What this central node is and holds, as JSON: versions, addresses, the store, its limits. No token is in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from fednode import __version__
from fednode.central.addresses import local_url
from fednode.central.node import Node, Operator
from fednode.central.tokens import FILE_NAME
from fednode.store.usage import usage_of
from fednode.wire.messages import PROTOCOL

router = APIRouter(prefix="/api/v1/settings", tags=["health"], dependencies=[Operator])


@router.get("")
async def show_settings(request: Request, node: Node) -> dict[str, Any]:
    """What it was told at its start and what it makes of that; how much its store holds. Tokens: `/tokens/join`."""
    settings, tokens = node.settings, node.doors.tokens
    certificate = settings.certificate
    return {
        "version": __version__, "protocol": PROTOCOL,
        "url": node.base_url(request), "host": settings.host, "port": request.scope["server"][1],
        "local_url": local_url(settings.scheme, settings.host, request.scope["server"][1]),
        "public_url": settings.public_url, "is_for_this_machine": settings.is_for_this_machine,
        "is_loopback": settings.is_loopback, "is_encrypted": settings.is_encrypted,
        "certificate": {"file": str(certificate.cert_path), "names": certificate.names} if certificate else None,
        "state_dir": str(settings.state_dir), "tokens_file": str(settings.state_dir / FILE_NAME),
        "join_expires_s": tokens.join_expires_s, "store": asdict(await usage_of(node.store, settings.state_dir)),
        "lease_s": settings.lease_s, "gone_after_s": settings.gone_after_s, "max_model_bytes": settings.max_model_bytes,
    }
