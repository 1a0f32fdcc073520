"""The model params that a client node keeps between rounds: files named by their sha256. Who fetches them: `link`."""

from __future__ import annotations

from pathlib import Path

from fednode.wire.codec import sha256_of_file

MODELS_KEPT = 2


class ModelCache:
    """The last few params that came, each under its sha256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[str] = set()     # after a power loss a file may hold what its name does not say

    def path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.safetensors"

    def prepare(self, sha256: str) -> Path:
        """Where the file of these params is to be put."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self.path(sha256)

    def has(self, sha256: str) -> bool:
        path = self.path(sha256)
        if not path.is_file() or not (sha256 in self._checked or sha256_of_file(path) == sha256):
            return False
        self.add(sha256)
        return True

    def add(self, sha256: str) -> None:
        """It is there and checked: the newest of those that are kept. All else in the folder goes."""
        newest = self.path(sha256)
        newest.touch()
        self._checked.add(sha256)
        # Not by its time alone: a clock that was set back would have it deleted before it is used.
        files = sorted(self._folder.iterdir(), key=lambda file: (file == newest, file.stat().st_mtime_ns), reverse=True)
        models = [file for file in files if file.suffix == ".safetensors"]
        for file in set(files) - set(models[:MODELS_KEPT]):
            file.unlink(missing_ok=True)
