"""The published API against a generator of requests (schemathesis): as an operator, as a client, and as nobody.

Whatever it makes of /openapi.json: no answer is a mistake of ours, each status, type and body is one that is
published, and what is no member of the API gets 405. A real process; a poll's wait is left out, it would only wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door_scene import Door, ask, request

from torture_scale import IS_FULL, pick

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method",
)
NUM_EXAMPLES = pick(3, 300)
PHASES = "fuzzing,coverage" if IS_FULL else "fuzzing"
SEED = 20261124
# What would shut out the caller itself, and with it whatever comes after.
LEFT_OUT = {"operator": (), "client": ("--exclude-path=/api/v1/clients/me/secret",), "nobody": ()}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """One each: an operator will revoke the client, and renew its token."""
    scene = Door(tmp_path / "central")
    yield scene
    scene.close()


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("who", ["operator", "client", "nobody"])
def test_the_api_answers_whatever_is_made_of_its_schema_as_it_says(
    door: Door, who: str, tmp_path: Path, figures: Any
) -> None:
    headers = {
        "operator": {"Authorization": f"Bearer {door.operator_token}"},
        "client": {"Authorization": f"Bearer {door.secret}"},
        "nobody": {"X-Forwarded-For": "10.0.0.1"},      # from elsewhere: this machine's own need no token
    }[who]
    published = tmp_path / "openapi.json"
    published.write_text(json.dumps(without_waits(ask(door.port, request("GET", "/openapi.json")).json())))
    told = schemathesis(published, door.port, headers, tmp_path, *LEFT_OUT[who])
    counted = [line for line in told.stdout.splitlines() if "generated" in line]
    figures.note(who=who, examples=NUM_EXAMPLES, said=" ".join(counted))
    assert told.returncode == 0, told.stdout[-6_000:] + told.stderr[-2_000:]
    assert counted
    assert door.call("GET", "/healthz")["status"] == "ok"
    assert "Traceback" not in door.log()


def schemathesis(
    published: Path, port: int, headers: dict[str, str], folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    """The command, in an environment without a proxy, with all of its files in `folder`."""
    options = [f"--header={name}: {value}" for name, value in headers.items()] + list(more)
    return subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", published, f"--url=http://127.0.0.1:{port}",
            f"--checks={','.join(CHECKS)}", f"--phases={PHASES}", f"--max-examples={NUM_EXAMPLES}", f"--seed={SEED}",
            "--continue-on-failure", "--request-timeout=60", "--no-color", "--suppress-health-check=all", *options,
        ],
        capture_output=True, text=True, cwd=folder, check=False,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
    )


def without_waits(api: dict[str, Any]) -> dict[str, Any]:
    """`api` with no parameter `wait`: each of them would cost up to 25 s."""
    for path in api["paths"].values():
        for operation in path.values():
            if "parameters" in operation:
                operation["parameters"] = [row for row in operation["parameters"] if row["name"] != "wait"]
    return api
