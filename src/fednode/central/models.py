"""Models as they go out: one memory map a file, shared by everybody who downloads it, copied for nobody."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from pathlib import Path

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fednode.central.answers import Refusal
from fednode.errors import NotFound
from fednode.failpoints import reach_after_sending
from fednode.wire.messages import MEDIA_TYPE

MAX_DIGITS = 18         # of an offset in a file
PIECE_BYTES = 1 << 20
NUM_KEPT = 8            # maps cost address space, not memory; the current model of every run that is under way


class ModelBuffers:
    """Memory maps of model files, the last few."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Path, memoryview] = OrderedDict()

    def get(self, path: Path) -> memoryview:
        """The file's bytes. Raises NotFound."""
        if path not in self._maps:
            for gone in [known for known in self._maps if not known.exists()]:
                del self._maps[gone]            # freed: a map would keep its bytes on the disk
            self._maps[path] = _map(path)
        self._maps.move_to_end(path)
        while len(self._maps) > NUM_KEPT:
            self._maps.popitem(last=False)      # whoever still sends it holds a reference of its own
        return self._maps[path]


class ParamsResponse(Response):
    """A params file on its way, piece by piece: who asks for one and takes nothing costs the memory of one piece.

    A test may end this process in its middle.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_pieces(message: Message) -> None:
            body = memoryview(message.get("body", b""))
            num_bytes = max(1, min(PIECE_BYTES, len(body) // 2))
            for start in range(0, len(body) - num_bytes, num_bytes):
                await send({**message, "body": body[start : start + num_bytes], "more_body": True})
                if start < len(body) // 2 <= start + num_bytes:
                    await reach_after_sending("model.half_sent")
                message["body"] = body[start + num_bytes :]
            await send(message)

        await super().__call__(scope, receive, in_pieces)


def params_response(buffer: memoryview, sha256: str, *, asked_range: str | None, known: str | None) -> Response:
    """The params file as asked for: 200, 206 for a part, 304 where the caller has it (`known`: If-None-Match)."""
    etag = f'"{sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=31536000, immutable"}
    if known is not None and (known.strip() == "*" or etag in [tag.strip() for tag in known.split(",")]):
        return Response(status_code=304, headers=headers)
    start, stop = _range_of(asked_range, len(buffer))
    if stop - start == len(buffer):
        return ParamsResponse(buffer, headers=headers, media_type=MEDIA_TYPE)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(buffer)}"
    return ParamsResponse(buffer[start:stop], 206, headers, MEDIA_TYPE)


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise NotFound(f"there are no params {path.stem!r}", fix="`fednode models` lists what there is") from None


def _range_of(said: str | None, size: int) -> tuple[int, int]:
    """[start, stop) of a single byte range; all of it where there is none, or one that may be ignored."""
    unit, _, ranges = (said or "").partition("=")
    first, dash, last = ranges.strip().partition("-")
    is_single = unit.strip() == "bytes" and dash == "-" and "," not in ranges
    if not is_single or not (first + last).isdecimal() or max(len(first), len(last)) > MAX_DIGITS:
        return 0, size
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return 0, size                      # a malformed range is as good as none
    if start >= size or (not first and int(last) == 0):
        raise Refusal(
            416, "usage", f"the range {said!r} begins beyond the file's {size:,} bytes",
            "ask from an offset that the file has", {"Content-Range": f"bytes */{size}"},
        )
    return start, stop
