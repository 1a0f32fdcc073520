"""The central node's own tokens: who may join, and who may operate. Made once, kept 0600 in its state dir.

`join_...` admits new clients, `op_...` opens the admin API and the pages. What a registered client shows is neither:
its own secret, `sec_...`, of which the store keeps the sha256. What a browser keeps after its operator signed in is
none of these but a seal, made and checked here. Who asks for them: `auth`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from fednode.errors import NotAuthorised, StoreDamaged
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.wire.codec import disk_errors
from fednode.wire.durable import fsync

TOKEN_BYTES = 32                        # 256 bits
JOIN_DAYS = 7
SEAL_DAYS = 30                          # then a browser signs in again
SECONDS_OF_A_DAY = 86_400.0
FILE_NAME = "tokens.json"
OWNER_ONLY = 0o600
KINDS = {"join_": "a join token", "op_": "an operator token", "sec_": "a client's secret"}


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the file holds."""

    join_token: str
    join_made_s: float                  # wall time
    operator_token: str


class TokenFile:
    """The tokens of a state dir. `is_loopback`: nobody else can come, so the join token does not grow old."""

    def __init__(self, state_dir: Path, clock: Clock, *, is_loopback: bool, is_new_token: bool = False) -> None:
        """Raises StoreDamaged where the file is not what was written."""
        self._path = state_dir / FILE_NAME
        self._clock = clock
        self._is_loopback = is_loopback
        drop_half_written(self._path)
        found = _read(self._path)
        self._tokens = found or Tokens(join_token="", join_made_s=0.0, operator_token=_new("op_"))
        if found is None or is_new_token:
            self.renew_join_token()

    @property
    def join_token(self) -> str:
        return self._tokens.join_token

    @property
    def operator_token(self) -> str:
        return self._tokens.operator_token

    @property
    def join_expires_s(self) -> float | None:
        """Wall time after which the join token admits nobody; None: it does not grow old."""
        return None if self._is_loopback else self._tokens.join_made_s + JOIN_DAYS * SECONDS_OF_A_DAY

    def renew_join_token(self) -> str:
        """A new one; the old one admits nobody any more. Who has joined stays."""
        self._tokens = replace(self._tokens, join_token=_new("join_"), join_made_s=self._clock.wall_s())
        write_private(self._path, asdict(self._tokens))
        return self.join_token

    def require_join(self, token: str) -> None:
        """Raise NotAuthorised unless `token` is the join token and not too old."""
        require_kind(token, "join_")
        if not hmac.compare_digest(token, self.join_token):
            raise NotAuthorised("this join token is not, or no longer, valid here", fix=ASK_FOR_JOIN)
        if self.join_expires_s is not None and self._clock.wall_s() > self.join_expires_s:
            raise NotAuthorised(f"this join token is older than {JOIN_DAYS} days", fix=ASK_FOR_JOIN)

    def require_operator(self, token: str) -> None:
        """Raise NotAuthorised unless `token` is the operator token."""
        require_kind(token, "op_")
        if not hmac.compare_digest(token, self.operator_token):
            raise NotAuthorised(
                "this operator token is not valid here", fix=f"it lies in {FILE_NAME} of the central node's state dir"
            )

    @property
    def cookie_name(self) -> str:
        """Of this central node alone: browsers send the cookies of one port of a machine to all of its ports."""
        return f"fednode_{hashlib.sha256(self.operator_token.encode()).hexdigest()[:8]}"

    def seal(self) -> str:
        """What the browser of an operator keeps: it says when it was made, and nobody without the token can make it."""
        return self._fernet().encrypt_at_time(_SIGNED_IN, int(self._clock.wall_s())).decode().rstrip("=")

    def is_seal(self, text: str) -> bool:
        """Whether `text` was sealed here, under the operator token of today, within SEAL_DAYS."""
        if not text.isascii():
            return False
        now_s, ttl_s = int(self._clock.wall_s()), int(SEAL_DAYS * SECONDS_OF_A_DAY)
        try:
            return self._fernet().decrypt_at_time(text + _PADDING, ttl_s, now_s) == _SIGNED_IN
        except InvalidToken:
            return False

    def _fernet(self) -> Fernet:
        """Its key is made from the operator token: it outlives a restart, and a new token ends every sign-in."""
        key = hashlib.sha256(b"fednode sign-in\0" + self.operator_token.encode()).digest()
        return Fernet(base64.urlsafe_b64encode(key))


_SIGNED_IN = b"operator"
_PADDING = "=="                         # which a cookie would have to quote
ASK_FOR_JOIN = "ask the operator for the token that `fednode clients join-command` shows"


def new_secret() -> str:
    """A client's secret."""
    return _new("sec_")


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def require_kind(token: str, prefix: str) -> None:
    """Raise NotAuthorised, saying what came and what is needed, where `token` is of another kind."""
    if not token.isascii():
        raise NotAuthorised("this token holds characters that no token has", fix="copy it again")
    if token.startswith(prefix):
        return
    came = next((kind for start, kind in KINDS.items() if token.startswith(start)), "no token of fednode's")
    raise NotAuthorised(
        f"{KINDS[prefix]} ({prefix}...) is needed here, and what came is {came}", fix=f"send {KINDS[prefix]}"
    )


def write_private(path: Path, content: object, *, is_durable: bool = True) -> None:
    """JSON that only its owner may read: never for a moment otherwise, and never half written."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        reach("private_file.written")
        part.replace(path)
        if is_durable:
            fsync(path.parent)


def drop_half_written(path: Path) -> None:
    """What a crash has left of `write_private`; nobody else may be writing `path`. It holds secrets, too."""
    for part in path.parent.glob(f"{path.name}.*.tmp"):
        part.unlink(missing_ok=True)


def _new(prefix: str) -> str:
    return prefix + secrets.token_hex(TOKEN_BYTES)


def _read(path: Path) -> Tokens | None:
    """None where there is no file yet."""
    try:
        return Tokens(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamaged(
            f"{path} cannot be read: {error}", fix="mend it, or delete it: new tokens are made, who has joined stays"
        ) from None
