"""Whose certificate is believed: the system's authorities, those of a file, or one certificate and no other.

Who connects: `wire/http.py`. What is said of a certificate that is not believed: `wire/answers.py`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2

from fednode.errors import BadConfig


def trust(scheme: str, *, ca: Path | None = None, pin: str = "") -> ssl.SSLContext:
    """The authorities in the file `ca`, else `pin` (PEM) alone, else the system's. Raises BadConfig for unfit files."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)      # never used: to read the CAs takes a while
    if pin and ca is None:
        return _one(pin)
    try:
        context = httpx2.create_ssl_context() if ca is None else ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise BadConfig(
            f"cannot read CA certificates from {ca or 'the file that SSL_CERT_FILE names'}: {error}",
            fix="give --ca (or SSL_CERT_FILE) a file of certificates in PEM form",
        ) from error
    # A file may hold the central node's own certificate, whoever signed it; Python 3.13 does so by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _one(pin: str) -> ssl.SSLContext:
    """The very certificate that this user's own central node on this machine says it has.

    Which name it was called by proves nothing on top: nobody else has the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=pin)
    except ssl.SSLError as error:
        raise BadConfig(
            f"the certificate in this user's note of the central node cannot be read: {error}",
            fix="start the central node again, or give its certificate by --ca",
        ) from error
    return context
