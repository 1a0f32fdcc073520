"""TensorBoard event files of a run: `DIR/run-12/pooled`, and `DIR/run-12/clients/NAME` for each client.

A file holds what the central node recorded and nothing of the moment in which it is written: the same run gives the
same bytes. Its frames are those of TFRecord; tensorboardX brings the messages and the checksum.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fednode.errors import UsageError
from fednode.wire.codec import disk_errors

VERSION = "brain.Event:2"
MAX_WAITING_BYTES = 8 << 20         # of all files, before they are written: five hundred need not be open at once

Row: TypeAlias = Mapping[str, str]  # of the run's metrics.csv


def require_tensorboard() -> None:
    """Raises UsageError where the extra is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UsageError(
            "event files are written by tensorboardX, which is not installed here",
            fix="pip install 'fednode[tensorboard]'",
        ) from None


class EventFiles:
    """The files of one run. What an earlier export left in their place is replaced."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """`run`: as `GET /api/v1/runs/{ref}` tells it."""
        self.folder = folder / f"run-{run['number']}"
        self.num_scalars = 0
        self.next_round = 0             # those before it are in the files
        self._epochs = int(run["config"]["task_config"].get("epochs", 1))
        self._created_s = self._wall_s = float(run["created_s"])
        self._waiting: defaultdict[Path, bytearray] = defaultdict(bytearray)
        self._begun: set[Path] = set()

    @property
    def num_folders(self) -> int:
        return len(self._begun)

    def add_round(self, model_round: int, rows: Sequence[Row]) -> None:
        """All rows of one model, in order; models come in order, too."""
        for row in rows:
            self._add(row)
        self.next_round = model_round + 1
        if sum(map(len, self._waiting.values())) > MAX_WAITING_BYTES:
            self.write()

    def write(self) -> None:
        """Bring everything to disk. Raises StoreFull, StoreError."""
        for path, content in self._waiting.items():
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab" if path in self._begun else "wb") as file:
                    file.write(content)
            self._begun.add(path)
        self._waiting.clear()

    def _add(self, row: Row) -> None:
        """A value is of the moment when its model was committed; one of a round without a model, of the one before."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        self._wall_s = float(row["committed_s"] or self._wall_s)
        if not row["value"]:
            return                      # it was no number
        path = self._path(row["client"])
        if path not in self._begun and path not in self._waiting:
            self._waiting[path] += _frame(Event(wall_time=self._created_s, file_version=VERSION).SerializeToString())
        value = Summary.Value(tag=f"{row['phase']}/{row['name']}", simple_value=float(row["value"]))
        event = Event(wall_time=self._wall_s, step=self._step(row), summary=Summary(value=[value]))
        self._waiting[path] += _frame(event.SerializeToString())
        self.num_scalars += 1

    def _step(self, row: Row) -> int:
        """The round of the model; of a client's own scores while it trains, its epochs since the run began."""
        if row["phase"] != "local":
            return int(row["model_round"])
        return max(0, int(row["model_round"]) - 1) * self._epochs + int(row["step"])

    def _path(self, client: str) -> Path:
        place = self.folder / "clients" / client if client else self.folder / "pooled"
        return place / f"events.out.tfevents.{int(self._created_s):010d}.fednode"


def _frame(message: bytes) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", masked_crc32c(length)) + message + struct.pack("<I", masked_crc32c(message))
