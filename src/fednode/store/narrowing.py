"""Models as they go out in bf16: files beside the models, made when somebody asks for one.

A model is float32, and its narrowed file comes of it alone, so it has the same bits whenever it is made. It is a copy
that nobody must keep: no row names it, a start sweeps it, a backup leaves it out, and it goes with its model.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from fednode.store.params_files import ParamsFiles, narrowed_name
from fednode.wire.codec import Written

NUM_KEPT = 8                    # a run under way needs one


class NarrowedModels:
    """The narrowed files of one store, the last few. One is made at a time, however many ask."""

    def __init__(self, files: ParamsFiles) -> None:
        self._files = files
        self._made: dict[str, Written] = {}     # by the model's sha256, what was asked for last at the end
        self._turn = asyncio.Lock()

    def path(self, sha256: str) -> Path:
        return self._files.path(narrowed_name(sha256))

    async def of(self, sha256: str) -> Written:
        """Of a model that has its file. Raises NotFinite where bf16 cannot say it, StoreDamaged, StoreFull."""
        async with self._turn:
            known = self._made.pop(sha256, None)
            if known is None or not self.path(sha256).is_file():
                known = await asyncio.to_thread(self._files.narrow, sha256)
            self._made[sha256] = known
            while len(self._made) > NUM_KEPT:
                oldest = next(iter(self._made))
                del self._made[oldest]
                self._files.delete([narrowed_name(oldest)])
            return known
