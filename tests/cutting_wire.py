"""A wire to PostgreSQL that breaks at the worst moment: right before a COMMIT, or right before its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Moment = Literal["before", "after"]
COMMIT = b"COMMIT\0"


class CuttingWire:
    """Carries bytes between any number of connections and PostgreSQL. Made by `cutting_wire`."""

    def __init__(self, port: int) -> None:
        self.num_cuts = 0
        self._to = port
        self._armed: Moment | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next_commit(self, moment: Moment) -> None:
        """`before`: PostgreSQL never hears of it. `after`: it commits, and nobody is told."""
        self._armed = moment

    @property
    def is_armed(self) -> bool:
        return self._armed is not None

    def close(self) -> None:
        self._listening.close()
        for each in self._open:
            _shut(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:                         # PostgreSQL is down
                    _shut(near)
                    continue
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        answers = threading.Thread(target=_pump, args=(far, near), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while piece := near.recv(1 << 16):
                if COMMIT in piece and (moment := self._armed) is not None:
                    self._armed = None
                    self.num_cuts += 1
                    _shut(near)                         # whoever waits for an answer hears that the line is dead
                    if moment == "after":
                        far.sendall(piece)
                        far.shutdown(socket.SHUT_WR)    # PostgreSQL commits, then sees the end
                        answers.join(10)
                    break
                far.sendall(piece)
        _shut(near)
        _shut(far)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            with contextlib.suppress(OSError):          # the near end is cut: read on, so that nothing is reset
                target.sendall(piece)
    _shut(target)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextmanager
def cutting_wire(port: int) -> Iterator[CuttingWire]:
    """To the PostgreSQL at `port` of loopback."""
    wire = CuttingWire(port)
    try:
        yield wire
    finally:
        wire.close()
