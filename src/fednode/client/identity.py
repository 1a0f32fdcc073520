"""What makes a client node itself, on its own disk: its key pair, its secrets, and the lock against a second one.

`key.pem` is made at the first start and never leaves the state dir; `secrets.json` holds one secret for each
central node. Both are readable by their owner only. What is sent with them lives in `link`.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fednode.core.ids import key_fingerprint
from fednode.errors import StoreDamaged, StoreError, StoreLocked, UsageError
from fednode.failpoints import reach
from fednode.wire.codec import disk_errors
from fednode.wire.durable import fsync, make_state_dir
from fednode.wire.messages import registration_text

KEY_NAME = "key.pem"
OWNER_ONLY_FILE = 0o600
OWNER_ONLY_FOLDER = 0o700


class StateLock:
    """One daemon per client state dir. The kernel frees the lock with the process, however it ends."""

    def __init__(self, state_dir: Path) -> None:
        """Raises StoreLocked where another process holds it, UsageError where the folder cannot be written."""
        path = state_dir / "client.lock"
        try:
            if not path.exists():
                make_state_dir(state_dir, OWNER_ONLY_FOLDER)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY_FILE)
        except OSError as error:
            raise UsageError(
                f"the state dir {state_dir} cannot be used: {error.strerror}",
                fix="name a folder that this user may write to, by --state-dir",
            ) from error
        self._hold(path)

    def _hold(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            pid = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise StoreLocked(
                f"the state dir {path.parent} is held by another client node (process {pid})",
                fix="stop that one, or give this one a --name or a --state-dir of its own",
            ) from None
        except OSError as error:
            self.release()
            raise StoreError(
                f"the state dir {path.parent} cannot be locked: {error.strerror}",
                fix="put it on a local disk that has room, by --state-dir",
            ) from error

    def release(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Identity:
    """A client node's Ed25519 key pair."""

    key: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """Raw, 64 hex digits."""
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @property
    def fingerprint(self) -> str:
        """What two people compare: the beginning of the public key's sha256."""
        return key_fingerprint(self.public_key)

    def proof(self, name: str, nonce: str = "") -> str:
        """The signature (128 hex digits) by which whoever asks for `name` shows that the key is theirs."""
        return self.key.sign(registration_text(name, nonce)).hex()


def load_identity(state_dir: Path) -> Identity:
    """The key pair of this state dir, made where there is none. Raises StoreDamaged on a file that holds no key."""
    if found := find_identity(state_dir):
        return found
    made = Ed25519PrivateKey.generate()
    reach("key.made")
    write_private(state_dir / KEY_NAME, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    reach("key.written")
    return Identity(made)


def find_identity(state_dir: Path) -> Identity | None:
    """The key pair of this state dir; None before the first start. Raises StoreDamaged on a file that holds no key."""
    path = state_dir / KEY_NAME
    if not path.exists():
        return None
    _close_to_others(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreDamaged(
            f"{path} holds no Ed25519 key",
            fix="restore it from a backup; without it, delete it and have the name revoked at the central node",
        )
    return Identity(key)


class Secrets:
    """The client's bearer for each central node that it registered with, under the name it has there."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "secrets.json"

    def find(self, central: str, name: str) -> str:
        """The secret; "" where this client is not registered there yet."""
        return self._read().get(central, {}).get(name, "")

    def keep(self, central: str, name: str, secret: str) -> None:
        """On disk, fsynced, before it returns: a secret is shown once."""
        reach("secret.received")
        known = self._read()
        mine = known.get(central, {}) | {name: secret}
        write_private(self._path, json.dumps(known | {central: mine}, indent=2, sort_keys=True).encode())
        reach("secret.written")

    def _read(self) -> dict[str, dict[str, str]]:
        """What is on disk. A damaged file counts as empty: registering again with the same key is harmless."""
        if not self._path.exists():
            return {}
        _close_to_others(self._path)
        try:
            rows = json.loads(self._path.read_bytes())
        except ValueError:
            return {}
        if not isinstance(rows, dict):
            return {}
        return {url: names for url, names in rows.items() if _are_secrets(names)}


def _are_secrets(names: object) -> bool:
    return isinstance(names, dict) and all(isinstance(secret, str) for secret in names.values())


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once, for its owner's eyes only, and durably. Raises StoreFull, StoreError."""
    tmp = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        tmp.unlink(missing_ok=True)         # a leftover of a crash may have another mode
        file = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY_FILE)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(file)
        tmp.replace(path)
        fsync(path.parent)


def _close_to_others(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        path.chmod(OWNER_ONLY_FILE)
