"""A federation of real processes on loopback, for tests that kill and restart them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked import Forked
from torture_scale import IS_FULL

FEDNODE = [sys.executable, "-m", "fednode"]
PATIENCE_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """What `condition` returned as soon as it is true; fails the test when it never is."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.04)
    pytest.fail(f"waited {patience_s:.0f} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Federation:
    """Starts, kills and restarts members by name; `central` is the central node."""

    def __init__(self, folder: Path, *, is_forked: bool = not IS_FULL) -> None:
        """`is_forked`: a member has its imports already when it is started, which is most of what a start costs."""
        self.folder = folder
        self._is_forked = is_forked
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls: ssl.SSLContext | None = None
        self.env = os.environ | {"FEDNODE_STATE_DIR": str(folder / "state"), "FEDNODE_CENTRAL": self.url}
        self.members: dict[str, subprocess.Popen[bytes] | Forked] = {}
        self.args: dict[str, list[str]] = {}

    def start(self, name: str, *args: str) -> None:
        """Start a member, or start it again as it was."""
        self.args[name] = list(args) or self.args[name]
        path = self.folder / f"{name}.log"
        if self._is_forked and Forked.can_have(self.env):
            self.members[name] = Forked(self.args[name], log=path, env=self.env, cwd=self.folder)
            return
        with path.open("ab") as log:
            self.members[name] = subprocess.Popen(
                [*FEDNODE, *self.args[name]], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env,
                cwd=self.folder,
            )

    def start_central(self, *args: str) -> None:
        self.start("central", "central", "--port", str(self.port), "--state-dir", str(self.folder / "central"), *args)
        self.wait_for_central()

    def restart_central(self) -> None:
        self.start("central")
        self.wait_for_central()

    def wait_for_central(self) -> None:
        wait_until(self.is_up, f"the central node: {self.log('central')}")

    def is_up(self) -> bool:
        assert self.members["central"].poll() is None, self.log("central")
        with contextlib.suppress(OSError), self.open("/healthz") as answer:
            return answer.status == 200
        return False

    def start_client(self, name: str, *args: str) -> None:
        self.start(name, "client", "--name", name, "--state-dir", str(self.folder / "clients" / name), *args)

    def wait_for_clients(self, *names: str) -> None:
        def there() -> bool:
            found = [c for c in self.clients() if c["status"] in ("online", "busy") and c["offers"]]
            return {c["name"] for c in found} >= set(names)

        wait_until(there, f"clients {names}: {[self.log(name) for name in names]}")

    def clients(self) -> Any:
        """Asked by a command only where the API wants the token that commands find: a command takes its time."""
        try:
            return self.get("clients")
        except urllib.error.HTTPError:
            return self.json("clients")

    def kill(self, name: str) -> None:
        """`kill -9`, of a process that we started."""
        self.members[name].send_signal(signal.SIGKILL)
        self.members[name].wait()

    def stop(self, name: str, patience_s: float = 20) -> int:
        self.members[name].send_signal(signal.SIGTERM)
        return self.members[name].wait(patience_s)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def cli(self, *args: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FEDNODE, *args], capture_output=True, text=True, env=self.env, cwd=self.folder, timeout=timeout_s
        )

    def json(self, *args: str) -> Any:
        """The last line of a command's `--json`."""
        done = self.cli(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def open(self, path: str) -> Any:
        return urllib.request.urlopen(self.url + path, timeout=10, context=self.tls)

    def get(self, path: str) -> Any:
        with self.open(f"/api/v1/{path}") as answer:
            return json.load(answer)

    def run_in_background(self, *args: str) -> str:
        """Ask for a run; its id."""
        done = self.cli("run", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def end_of(self, run_id: str, patience_s: float = 240) -> dict[str, Any]:
        """The summary of a run, once it has ended. Survives a central node that is away."""

        def ended() -> dict[str, Any] | None:
            with contextlib.suppress(OSError):
                summary = self.get(f"runs/{run_id}")
                return summary if summary["status"] in ("completed", "failed", "cancelled", "paused") else None
            return None

        return wait_until(ended, f"the end of {run_id}: {self.log('central')}", patience_s)

    def stop_all(self) -> None:
        for member in self.members.values():
            if member.poll() is None:
                member.kill()
        for member in self.members.values():
            member.wait()
