"""The certificate of a central node with TLS, and its key: read and checked before anybody can connect.

A mistake in it would be found by every client at once, and told there in OpenSSL's words; so it is found here first.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fednode.errors import BadConfig

SEE_TLS = "docs/how-to/tls.md shows how to make one"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a central node proves itself with."""

    cert_path: Path             # PEM: the central node's own first, then those that lead to its authority
    key_path: Path
    pem: str                    # the first alone: programs of this user on this machine believe this one and no other
    names: tuple[str, ...]      # what clients may call it: DNS names, then IP addresses

    def covers(self, host: str) -> bool:
        """Whether a client that calls `host` will believe this certificate."""
        name = host.strip("[]").rstrip(".").lower()
        if name in self.names:
            return True
        return not _is_address(name) and f"*.{name.partition('.')[2]}" in self.names


def load_certificate(cert_path: Path | None, key_path: Path | None, wall_s: float) -> Certificate | None:
    """The pair, or None where neither is given. Raises BadConfig naming the file and what is wrong with it."""
    if cert_path is None and key_path is None:
        return None
    if cert_path is None or key_path is None:
        given, missing = ("--tls-cert", "--tls-key") if key_path is None else ("--tls-key", "--tls-cert")
        raise BadConfig(f"{given} was given without {missing}", fix=f"name the other file by {missing}")
    leaf = _read_certificates(cert_path)[0]
    _require_pair(leaf, cert_path, key_path)
    _require_valid_now(leaf, cert_path, wall_s)
    names = _names(leaf)
    if not names:
        raise BadConfig(f"the certificate {cert_path} names no host (subjectAltName)", fix=SEE_TLS)
    _require_usable(cert_path, key_path)
    pem = leaf.public_bytes(Encoding.PEM).decode()
    return Certificate(cert_path=cert_path, key_path=key_path, pem=pem, names=names)


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(
            f"cannot read {flag} {path}: {error.strerror}", fix="name a PEM file that this user may read"
        ) from None


def _read_certificates(path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read("--tls-cert", path))
    except ValueError:
        raise BadConfig(f"--tls-cert {path} holds no certificate in PEM form", fix=SEE_TLS) from None


def _require_pair(leaf: x509.Certificate, cert_path: Path, key_path: Path) -> None:
    """Raise BadConfig unless the key can be read and is that of the certificate."""
    content = _read("--tls-key", key_path)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise BadConfig(
            f"--tls-key {key_path} is locked by a passphrase, which nobody can type at a restart",
            fix=f"store it without: openssl pkey -in {key_path} -out plain-key.pem, readable by this user alone",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadConfig(f"--tls-key {key_path} holds no private key in PEM form", fix=SEE_TLS) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise BadConfig(
            f"the key {key_path} is not that of the certificate {cert_path}",
            fix="name the two that were made together; in a chain the central node's own certificate comes first",
        )


def _require_valid_now(leaf: x509.Certificate, path: Path, wall_s: float) -> None:
    now = datetime.fromtimestamp(wall_s, UTC)
    if now > leaf.not_valid_after_utc:
        raise BadConfig(f"the certificate {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d}", fix="renew it")
    if now < leaf.not_valid_before_utc:
        raise BadConfig(
            f"the certificate {path} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, and here it is "
            f"{now:%Y-%m-%d %H:%M} UTC", fix="correct the clock of this machine, or wait",
        )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    return (*dns, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))


def _require_usable(cert_path: Path, key_path: Path) -> None:
    """What only OpenSSL knows: a key that is too short for it, a broken chain."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path)
    except ssl.SSLError as error:
        raise BadConfig(f"OpenSSL will not use {cert_path}: {error.reason or error}", fix=SEE_TLS) from None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
