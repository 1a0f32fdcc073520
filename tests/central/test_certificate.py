"""A certificate that cannot serve is refused at the start, with the file, what is wrong with it, and the fix."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from pathlib import Path
from shutil import which

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from certificates import make_certificate
from fednode.central.certificate import Certificate, load_certificate
from fednode.errors import BadConfig

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "tls.md"


def load(cert: Path | None, key: Path | None) -> Certificate:
    found = load_certificate(cert, key, time.time())
    assert found is not None
    return found


def refusal(cert: Path | None, key: Path | None) -> BadConfig:
    with pytest.raises(BadConfig) as caught:
        load_certificate(cert, key, time.time())
    return caught.value


def test_a_good_pair_says_what_clients_may_call_it(tmp_path: Path) -> None:
    found = load(*make_certificate(tmp_path, "Fed.example.org", "*.lab.example.org", "192.168.1.5", "::1"))
    assert found.names == ("fed.example.org", "*.lab.example.org", "192.168.1.5", "::1")
    for host, is_covered in [
        ("fed.example.org", True), ("FED.example.org.", True), ("[::1]", True), ("192.168.1.5", True),
        ("a.lab.example.org", True), ("a.b.lab.example.org", False), ("lab.example.org", False),
        ("localhost", False), ("192.168.1.6", False), ("1.lab.example.org.evil.example", False),
    ]:
        assert found.covers(host) is is_covered, host
    assert load_certificate(None, None, time.time()) is None


@pytest.mark.skipif(which("openssl") is None, reason="no openssl on this machine")
def test_the_command_of_the_how_to_makes_one_that_serves(tmp_path: Path) -> None:
    (command,) = re.findall(r"```sh\n(openssl .*?)```", HOW_TO.read_text(), re.DOTALL)
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    found = load(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert found.names == ("fed.example.org", "localhost", "192.168.1.5")
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    ssl.create_default_context(cafile=tmp_path / "cert.pem")


def test_of_a_chain_this_machine_believes_the_first_alone(tmp_path: Path) -> None:
    first, key = make_certificate(tmp_path, "fed.example.org")
    other, _ = make_certificate(tmp_path, "ca.example.org", stem="ca")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(first.read_bytes() + other.read_bytes())
    assert load(chain, key).pem == first.read_text()
    chain.write_bytes(other.read_bytes() + first.read_bytes())
    assert "comes first" in refusal(chain, key).fix


def test_one_file_of_the_two_is_not_enough(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    assert "--tls-key" in refusal(cert, None).fix
    assert "--tls-cert" in refusal(None, key).fix


def test_what_cannot_serve_is_refused_by_name(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    _, foreign_key = make_certificate(tmp_path, "localhost", stem="foreign")
    expired = make_certificate(tmp_path, "localhost", from_days=-9, to_days=-2, stem="expired")
    future = make_certificate(tmp_path, "localhost", from_days=2, to_days=9, stem="future")
    nameless = make_certificate(tmp_path, stem="nameless")
    empty, locked = tmp_path / "empty.pem", tmp_path / "locked.pem"
    empty.write_text("nothing\n")
    plain = load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    for pair, message, fix in [
        ((tmp_path / "gone.pem", key), "cannot read --tls-cert .*gone.pem: No such file", "may read"),
        ((cert, tmp_path), "cannot read --tls-key .*: Is a directory", "may read"),
        ((empty, key), "empty.pem holds no certificate", "docs/how-to/tls.md"),
        ((cert, empty), "empty.pem holds no private key", "docs/how-to/tls.md"),
        ((cert, foreign_key), "foreign-key.pem is not that of the certificate .*cert.pem", "made together"),
        ((cert, locked), "locked by a passphrase", "openssl pkey"),
        (expired, "expired.pem expired on 20", "renew it"),
        (future, "valid from 20", "clock"),
        (nameless, "names no host", "docs/how-to/tls.md"),
    ]:
        told = refusal(*pair)
        assert re.search(message, told.message), told.message
        assert fix in told.fix
