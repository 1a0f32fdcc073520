"""Networks of their own for the members of a federation: cut, one way or both, lossy, slow; always taken down again.

The central node lives in one namespace, each client in another, a cable between each two. A process is where the
thread was that started it: `with network.inside(name)`. Needs root, `ip`, `tc` and `nft`; skips where they are not.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
CENTRAL = "central"
_TABLE = "inet faults"


class Network:
    """`central` and the names given, each behind a cable of its own."""

    def __init__(self, *clients: str) -> None:
        self._prefix = f"fed{os.getpid() % 100_000}"
        self._names = (CENTRAL, *clients)
        self._made: list[str] = []

    def __enter__(self) -> Network:
        if os.geteuid() != 0:
            pytest.skip("only root may make network namespaces")
        for tool in ("ip", "tc", "nft"):
            if shutil.which(tool) is None:
                pytest.skip(f"there is no `{tool}` here")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network namespace may be made here: {error.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def address(self, client: str) -> str:
        """Of the central node, as this client reaches it."""
        return f"10.213.{self._names.index(client)}.1"

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and what it starts, is there."""
        with Path("/proc/self/ns/net").open() as here, Path(f"/run/netns/{self._space(name)}").open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    # --- faults -----------------------------------------------------------------------------------

    def cut(self, client: str, *directions: str, how: str = "drop") -> None:
        """Lose what goes `up` (to the central node), `down`, or both. `how`: as nft says it."""
        for direction in directions or ("up", "down"):
            chain, side = ("input", "iifname") if direction == "up" else ("output", "oifname")
            self._nft(f"add rule {_TABLE} {chain} {side} {self._cable(client)} {how}")

    def lose(self, client: str, percent: int) -> None:
        """So many of a hundred packets, in each direction."""
        self.cut(client, how=f"numgen random mod 100 < {percent} counter drop")

    def heal(self) -> int:
        """All cables are whole again. How many packets the rules that count have struck."""
        said = json.loads(self._in(CENTRAL, "nft", "-j", "list", "table", *_TABLE.split()))
        counters = [part["counter"] for row in said["nftables"] for part in row.get("rule", {}).get("expr", [])
                    if "counter" in part]
        self._nft(f"flush table {_TABLE}")
        return sum(counter["packets"] for counter in counters)

    def slow_down(self, client: str, rate: str) -> None:
        """So many bits a second, in each direction."""
        shape = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "50ms"]
        self._in(CENTRAL, "tc", "qdisc", "replace", "dev", self._cable(client), *shape)
        self._in(client, "tc", "qdisc", "replace", "dev", "up0", *shape)

    def num_bytes(self, client: str) -> tuple[int, int]:
        """What went over its cable: up and down."""
        (row,) = json.loads(self._in(client, "ip", "-s", "-j", "link", "show", "dev", "up0"))
        return int(row["stats64"]["tx"]["bytes"]), int(row["stats64"]["rx"]["bytes"])

    # --- how it is made ---------------------------------------------------------------------------

    def _make(self) -> None:
        for name in self._names:
            _run("ip", "netns", "add", self._space(name))
            self._made.append(self._space(name))
            self._in(name, "ip", "link", "set", "lo", "up")
        for client in self._names[1:]:
            cable = self._cable(client)
            self._in(CENTRAL, "ip", "link", "add", cable, "type", "veth", "peer", "name", "up0",
                     "netns", self._space(client))
            self._in(CENTRAL, "ip", "addr", "add", f"{self.address(client)}/24", "dev", cable)
            self._in(CENTRAL, "ip", "link", "set", cable, "up")
            self._in(client, "ip", "addr", "add", self.address(client)[:-1] + "2/24", "dev", "up0")
            self._in(client, "ip", "link", "set", "up0", "up")
        self._nft(f"add table {_TABLE}")
        for hook in ("input", "output"):
            self._nft(f"add chain {_TABLE} {hook} {{ type filter hook {hook} priority 0; }}")

    def _space(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _cable(self, client: str) -> str:
        return f"to{self._names.index(client)}"

    def _nft(self, command: str) -> None:
        self._in(CENTRAL, "nft", command)

    def _in(self, name: str, *command: str) -> str:
        return _run("ip", "netns", "exec", self._space(name), *command)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        pytest.skip(f"no network namespace may be entered here: {os.strerror(ctypes.get_errno())}")
