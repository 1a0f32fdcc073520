"""The params that a client node keeps by: which stay, which go."""

from __future__ import annotations

import os
from pathlib import Path

from fednode.client.model_cache import MODELS_KEPT, ModelCache
from fednode.wire.codec import sha256_of_file


def fetched(cache: ModelCache, folder: Path, content: bytes) -> str:
    """The sha256 of a file that came, as `Link.model` leaves it."""
    path = folder / "new"
    path.write_bytes(content)
    sha256 = sha256_of_file(path)
    path.rename(cache.prepare(sha256))
    cache.add(sha256)
    return sha256


def test_the_last_few_stay_and_the_others_go(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "models")
    known = [fetched(cache, tmp_path, bytes([number])) for number in range(4)]
    assert [cache.path(sha256).exists() for sha256 in known] == [False, False, True, True]


def test_a_clock_that_was_set_back_costs_no_model_that_just_came(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "models")
    old = [fetched(cache, tmp_path, bytes([number])) for number in range(MODELS_KEPT)]
    for sha256 in old:
        os.utime(cache.path(sha256), (4e9, 4e9))        # the year 2096
    assert cache.has(fetched(cache, tmp_path, b"new"))
