"""An operator of the central node, over its API alone: a command would cost half a second of a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_client import RawClient

ENDED = ("completed", "failed", "cancelled", "paused")
LOOK_EVERY_S = 0.4
PATIENCE_S = 60.0


class People(RawClient):
    """Asks for runs and looks at them. `token`: where the central node is not for this machine alone."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", token: str = "") -> None:
        super().__init__(port, "people", host=host)
        self.secret = token

    def get(self, path: str) -> Any:
        said = self.call("GET", f"/api/v1/{path}")
        assert said.status == 200, (path, said)
        return said.json

    def join_token(self) -> str:
        return str(self.get("tokens/join")["join_token"])

    def start_run(self, task: str = "counting", **request: Any) -> str:
        """The id of a run. What is asked for in vain fails the test."""
        said = self.call("POST", "/api/v1/runs", {"task": task, "seed": 1, **request})
        assert said.status == 201, said
        return str(said.json["run_id"])

    def until_there(self, *names: str) -> None:
        def there() -> bool:
            rows = self.get("clients")      # each has registered a moment before it says what it offers
            return {row["name"] for row in rows if row["status"] in ("online", "busy") and row["offers"]} >= set(names)

        until(there, f"clients {names}")

    def ended_round(self, run_id: str, number: int, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The record of a round, once an attempt of it has ended."""
        return self.attempts(run_id, number, lambda row: row["ended_s"], patience_s)

    def open_round(self, run_id: str, number: int) -> dict[str, Any]:
        return self.attempts(run_id, number, lambda row: True)

    def attempts(
        self, run_id: str, number: int, wanted: Callable[[dict[str, Any]], Any], patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            history = self.get(f"runs/{run_id}")["history"]
            return next((row for row in history if row["number"] == number and wanted(row)), None)

        row: dict[str, Any] = until(found, f"round {number}", patience_s)
        return row

    def end_of(self, run_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            said = self.call("GET", f"/api/v1/runs/{run_id}")       # it may be away for a while
            return said.json if said.status == 200 and said.json["status"] in ENDED else None

        summary: dict[str, Any] = until(ended, f"the end of {run_id}")
        return summary


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """What `condition` returned as soon as it is true; fails the test when it never is. Looks now and then only."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        if found := condition():
            return found
        time.sleep(LOOK_EVERY_S)
    pytest.fail(f"waited {patience_s:.0f} s in vain for {what}")


def failures_of(row: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Of a round's record: code and sentence by client, of those that failed."""
    return {
        client["client"]: (client["failure"]["code"], client["failure"]["reason"])
        for client in row["clients"] if client["failure"]
    }


def anonymous_bytes(pid: int) -> int:
    """What a process has in memory that no file stands for."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])
