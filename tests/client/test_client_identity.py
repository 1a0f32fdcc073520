"""The client's own files: keys, secrets, the lock."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fednode.client.identity import Secrets, StateLock, load_identity
from fednode.errors import StoreDamaged, StoreLocked, UsageError
from fednode.wire.messages import registration_text


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    first = load_identity(tmp_path).public_key
    assert load_identity(tmp_path).public_key == first
    assert len(first) == 64
    assert mode_of(tmp_path / "key.pem") == 0o600


def test_a_key_that_others_may_read_is_closed_to_them_at_the_next_start(tmp_path):
    load_identity(tmp_path)
    (tmp_path / "key.pem").chmod(0o644)
    load_identity(tmp_path)
    assert mode_of(tmp_path / "key.pem") == 0o600


def test_the_proof_signs_the_name_with_the_key(tmp_path):
    identity = load_identity(tmp_path)
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity.public_key))
    public.verify(bytes.fromhex(identity.proof("hospital-a")), registration_text("hospital-a"))
    with pytest.raises(InvalidSignature):
        public.verify(bytes.fromhex(identity.proof("hospital-a")), registration_text("hospital-b"))


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named_and_not_replaced(tmp_path, content):
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"key\.pem"):
        load_identity(tmp_path)
    assert (tmp_path / "key.pem").read_bytes() == content


def test_a_secret_belongs_to_one_central_node_and_one_name(tmp_path):
    Secrets(tmp_path).keep("http://one:5000", "hospital-a", "s1")
    Secrets(tmp_path).keep("http://two:5000", "hospital-a", "s2")
    Secrets(tmp_path).keep("http://two:5000", "hospital-b", "s3")
    secrets = Secrets(tmp_path)
    assert secrets.find("http://one:5000", "hospital-a") == "s1"
    assert secrets.find("http://two:5000", "hospital-a") == "s2"
    assert secrets.find("http://two:5000", "hospital-b") == "s3"
    assert secrets.find("http://one:5000", "hospital-b") == ""
    assert mode_of(tmp_path / "secrets.json") == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"http://one:5000": "s1"}', '{"http://one:5000": {"a": 1}}'])
def test_damaged_secrets_count_as_none(tmp_path, content):
    (tmp_path / "secrets.json").write_text(content)
    assert Secrets(tmp_path).find("http://one:5000", "a") == ""
    Secrets(tmp_path).keep("http://one:5000", "a", "s")
    assert Secrets(tmp_path).find("http://one:5000", "a") == "s"


def test_a_state_dir_has_one_daemon_and_the_second_is_told_which(tmp_path):
    lock = StateLock(tmp_path)
    with pytest.raises(StoreLocked, match=str(os.getpid())) as caught:
        StateLock(tmp_path)
    assert str(tmp_path) in caught.value.message
    lock.release()
    StateLock(tmp_path).release()


def test_a_state_dir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/state"):
        StateLock(tmp_path / "file" / "state")
