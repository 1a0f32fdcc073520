"""Updates that come in: announced, streamed to a file and checked on the way, resumed by offset, never in memory.

A body grows in `params/incoming/<run>.<round>.<attempt>.<client>.<digest>`, its announcement lies beside it, so both
outlive this process. What is wrong in itself (a NaN, a shape) ends the assignment as `refused`; what merely arrived
damaged is dropped, and sent again. Routes and the order of things: `work_api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from fednode.central.answers import Refusal
from fednode.central.tokens import write_private
from fednode.core.encoding import F32
from fednode.core.narrowed import encoding_of, manifest_on_wire
from fednode.core.params import Manifest, require_finite
from fednode.core.records import Round
from fednode.core.status import RoundKind
from fednode.errors import (
    BadParamsFile,
    Conflict,
    NotFound,
    ParamsError,
    ParamsMismatch,
    StoreDamaged,
    StoreError,
    TooLarge,
)
from fednode.ports import Clock
from fednode.store.params_files import round_key
from fednode.store.records import Blob
from fednode.store.sql import SqlStore
from fednode.wire.body_check import BodyCheck
from fednode.wire.codec import digest_of_file, disk_errors, read_header, read_params
from fednode.wire.durable import HURRY_BYTES, fsync, hurry
from fednode.wire.messages import OFFSET_HEADER, Announcement

PIECE_BYTES = 1 << 20
NOTE_SUFFIX = ".json"


@dataclass(kw_only=True)
class Upload:
    """One body under way."""

    key: str                            # of its client's part in its round
    path: Path
    announced: Announcement
    check: BodyCheck | None             # None: the first params of a run, which nothing can be held against yet
    announced_s: float                  # wall time
    offset: int = 0                     # bytes on disk, all of them seen by `check`
    defect: ParamsError | TooLarge | None = None      # the rest still comes in: its digest tells whose fault it is
    writer: int = 0                     # a new connection takes over from one that may be dead
    waiting: asyncio.Timeout | None = None      # of the writer, for its next bytes
    has_begun: bool = False
    hurried: int = 0                    # bytes that the disk was told to begin with
    finishing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def note_path(self) -> Path:
        return _note_of(self.path)

    @property
    def is_complete(self) -> bool:
        return self.offset == self.announced.num_bytes

    def interrupt(self) -> None:
        """Whoever writes to it ends now, be it in the middle of a wait for bytes that never come."""
        self.writer += 1
        if self.waiting is not None:
            with suppress(RuntimeError):        # that wait is over
                self.waiting.reschedule(0)


class Uploads:
    """All bodies under way at this central node."""

    def __init__(self, store: SqlStore, clock: Clock, *, max_model_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._max_model_bytes = max_model_bytes
        self._open: dict[str, Upload] = {}              # by `_key`: a client brings one body at a time
        self._found = _by_key(store.incoming_dir)       # what an earlier process left
        self._rounds: dict[str, str] = {}               # by run: the key of the round for which updates come
        self._manifests: dict[str, Manifest] = {}       # by run, as its updates have it: all of them the same one

    async def announce(self, round_: Round, client: str, announced: Announcement) -> Upload:
        """The upload, begun or gone on with. Raises ParamsMismatch or TooLarge for a size that cannot be right."""
        self._require_sane(round_, announced)
        check = await self._new_check(round_, announced)
        await self._drop_earlier(round_)
        key, path = _key(round_, client), self._store.incoming_path(round_, client, announced.digest)
        upload = self._open.get(key)
        if upload is None or upload.announced != announced:
            self._unlink_others(key, path)
            upload = self._open[key] = Upload(
                key=key, path=path, announced=announced, check=check, announced_s=self._clock.wall_s()
            )
        async with upload.finishing:
            if not upload.has_begun:
                await asyncio.to_thread(_begin, upload)
        return upload

    async def find(self, round_: Round, client: str) -> Upload:
        """The announced upload of a client, read from disk after a restart. Raises NotFound."""
        if (upload := self._open.get(_key(round_, client))) is not None:
            return upload
        announced = await asyncio.to_thread(self._read_note, _key(round_, client))
        return await self.announce(round_, client, announced)

    async def receive(self, upload: Upload, chunks: AsyncIterator[bytes]) -> None:
        """Write what comes behind `upload.offset`. A bad body is kept coming: only its end tells whose fault it is."""
        if not self.is_open(upload):
            raise Conflict("another connection ended this upload", fix="announce the update again")
        upload.interrupt()
        me = upload.writer
        with disk_errors(upload.path), upload.path.open("ab", buffering=0) as file:
            async for chunk in chunks:
                if upload.writer != me:
                    raise Conflict("another connection goes on with this body", fix="ask for the offset")
                _take(upload, file, chunk)
                _hurry(upload)

    async def require_arrived(self, upload: Upload) -> None:
        """Make a whole body durable. Raises BadParamsFile where it is not what was announced: the line's fault.

        Raises StoreFull, StoreError where the disk refuses it. Then it must come anew: its bytes are lost, and to
        fsync them again would succeed.
        """
        try:
            digest = await asyncio.to_thread(_make_last, upload)
        except StoreError:
            self.drop(upload)
            raise
        if digest != upload.announced.digest:
            raise BadParamsFile(
                f"the body of {upload.announced.num_bytes:,} bytes arrived damaged: its digest is another one",
                fix="announce it again and send it again",
            )

    async def require_sound(self, upload: Upload) -> Blob:
        """What has arrived, as the store takes it. Raises ParamsError or TooLarge: the update's own fault."""
        if upload.defect is not None:
            raise upload.defect
        if upload.check is None:
            await asyncio.to_thread(_check_first, upload.path)
        announced = upload.announced
        return Blob(
            path=upload.path, digest=announced.digest, num_bytes=announced.num_bytes, sent_s=upload.announced_s,
            encoding=F32 if upload.check is None else upload.check.encoding,
        )

    def drop(self, upload: Upload) -> None:
        """Forget it, and what has come of it."""
        upload.interrupt()
        self.forget(upload)

    def drop_all(self, round_: Round, client: str) -> None:
        """Whatever this client had begun for this assignment, in this process or before it."""
        self._unlink_others(_key(round_, client), kept=None)

    async def sweep(self, run_id: str) -> None:
        """Drop whatever is under way for a run that has no open round: nobody would take it."""
        await self._drop(f"{run_id}.", kept=None)
        self._rounds.pop(run_id, None)
        self._manifests.pop(run_id, None)

    def is_open(self, upload: Upload) -> bool:
        """Whether it was neither dropped nor taken."""
        return self._open.get(upload.key) is upload

    def forget(self, upload: Upload) -> None:
        """Its file has moved to its place. One that a late connection has made anew since then is nobody's."""
        _unlink([upload.path, upload.note_path])
        if self.is_open(upload):
            del self._open[upload.key]

    async def _drop_earlier(self, round_: Round) -> None:
        """A run has one open round: what lies here of its earlier ones came too late, and would lie here for ever."""
        if self._rounds.get(round_.run_id) != round_key(round_):
            self._rounds[round_.run_id] = round_key(round_)
            await self._drop(f"{round_.run_id}.", kept=f"{round_key(round_)}.")

    async def _drop(self, prefix: str, kept: str | None) -> None:
        """All whose key begins so, but not with `kept`."""
        def is_due(key: str) -> bool:
            return key.startswith(prefix) and not (kept and key.startswith(kept))

        for key, upload in list(self._open.items()):
            if is_due(key):
                upload.interrupt()
                async with upload.finishing:        # who reports it just now hears that it came too late
                    self.drop(upload)
        for key in [key for key in self._found if is_due(key)]:
            _unlink(self._found.pop(key))

    def _unlink_others(self, key: str, kept: Path | None) -> None:
        """Nobody writes any more to what a client had begun under this key; its files go, but for the one `kept`."""
        if (upload := self._open.pop(key, None)) is not None:
            upload.interrupt()
            self._found[key] = [upload.path, upload.note_path]
        stays = () if kept is None else (kept, _note_of(kept))
        _unlink(path for path in self._found.pop(key, ()) if path not in stays)

    def _require_sane(self, round_: Round, announced: Announcement) -> None:
        if round_.kind is RoundKind.EVALUATE:
            raise Conflict("this round only measures: it takes no update", fix="post the evaluation")
        if round_.kind is RoundKind.TRAIN and announced.num_examples < 1:
            raise ParamsMismatch("an update of 0 examples has no part in a mean", fix="check this site's data")
        if round_.kind is RoundKind.INIT and announced.num_bytes > self._max_model_bytes:
            raise TooLarge(
                f"initial params of {announced.num_bytes:,} bytes; at most {self._max_model_bytes:,} are taken",
                fix="choose a smaller model",
            )

    async def _new_check(self, round_: Round, announced: Announcement) -> BodyCheck | None:
        if round_.kind is RoundKind.INIT:
            return None
        if round_.run_id not in self._manifests:
            encoding = (await self._store.run(round_.run_id)).config.encoding
            manifest = await asyncio.to_thread(_read_manifest, self._store.model_path(round_.base_model))
            self._manifests[round_.run_id] = manifest_on_wire(manifest, encoding)
        return BodyCheck(self._manifests[round_.run_id], announced.num_bytes)

    def _read_note(self, key: str) -> Announcement:
        """As an earlier process noted it."""
        for path in self._found.get(key, ()):
            if path.suffix == NOTE_SUFFIX:
                with suppress(OSError, ValidationError):
                    return Announcement.model_validate_json(path.read_bytes())
        raise NotFound("no update is announced for this assignment", fix="announce it first")


def _key(round_: Round, client: str) -> str:
    return f"{round_key(round_)}.{client}"


def _by_key(folder: Path) -> dict[str, list[Path]]:
    """Files of bodies and their notes. A digest has no dot, a name may have some."""
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        found.setdefault(path.name.removesuffix(NOTE_SUFFIX).rpartition(".")[0], []).append(path)
    return found


def _begin(upload: Upload) -> None:
    """Note the announcement; what came before a restart is checked again, from its first byte."""
    write_private(upload.note_path, upload.announced.model_dump(mode="json"), is_durable=False)
    upload.path.touch(mode=0o600)
    with upload.path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            _check(upload, piece)
    upload.has_begun = True


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{NOTE_SUFFIX}")


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def require_length(upload: Upload, offset: int, length: str | None) -> None:
    """Raise unless a PUT of `length` bytes (its Content-Length) from `offset` on brings exactly what is missing."""
    if length is None or not length.isdecimal():
        raise Refusal(411, "usage", "an update's body needs a Content-Length", "send the body's exact length")
    if offset != upload.offset:
        raise Refusal(
            409, "conflict", f"the next byte is number {upload.offset:,}, this body begins at {offset:,}",
            "ask by HEAD for the offset, and send from there", {OFFSET_HEADER: str(upload.offset)},
        )
    missing = upload.announced.num_bytes - offset
    if int(length) > missing:
        raise TooLarge(f"a body of {int(length):,} bytes, where {missing:,} are missing", fix="send what was announced")
    if int(length) < missing:
        raise Refusal(
            400, "usage", f"a body of {int(length):,} bytes, where {missing:,} are missing", "send all that is missing"
        )


def _take(upload: Upload, file: BinaryIO, chunk: bytes) -> None:
    """One chunk, to the disk and past the check, or (on a full disk) neither."""
    view = memoryview(chunk)
    while view:
        written = file.write(view)
        _check(upload, view[:written])
        view = view[written:]


def _hurry(upload: Upload) -> None:
    """The disk writes while the rest still comes: at the end there is little to wait for."""
    if upload.offset - upload.hurried >= HURRY_BYTES:
        upload.hurried = upload.offset
        asyncio.get_running_loop().run_in_executor(None, hurry, upload.path)


def _check(upload: Upload, piece: bytes | memoryview) -> None:
    upload.offset += len(piece)
    if upload.check is None or upload.defect is not None:
        return
    try:
        upload.check.feed(piece)
    except (ParamsError, TooLarge) as error:
        upload.defect = error


def _make_last(upload: Upload) -> str:
    """Wait until the body is on the disk. Its digest: as taken on the way in, where the check came through."""
    with disk_errors(upload.path):
        fsync(upload.path)
    if upload.check is not None and upload.defect is None:
        return upload.check.finish()
    return digest_of_file(upload.path)


def _read_manifest(path: Path) -> Manifest:
    """Of a model that is ours: what is wrong with its file is no fault of the client that asks."""
    try:
        return read_header(path).manifest
    except BadParamsFile as error:
        raise StoreDamaged(error.message, fix="restore the state dir from a backup") from error


def _check_first(path: Path) -> None:
    """A run's first params: any names and shapes, but a sound file of finite numbers, none of them narrowed."""
    params = read_params(path)
    if encoding_of(params) != F32:
        raise BadParamsFile("the first params of a run came as bf16", fix="send them as float32")
    require_finite(params)
