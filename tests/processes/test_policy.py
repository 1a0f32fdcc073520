"""A site whose operator has a word to say, in a real federation: what they did not accept is not done there."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from federation_scene import Federation, wait_until

GATED = Path(__file__).parents[1] / "pages" / "gated_task.py"
WORD = """
[policy]
tasks = ["gated"]
max_epochs = 2
max_wall_time = "1s"
min_cohort = 2
approve = "by-hand"
"""


def start(fed: Federation, name: str, word: str = "") -> Path:
    """A client node of a user of its own, with this policy; the folder with its data and its copy of the task."""
    data, config = fed.folder / f"data-{name}", fed.folder / f"config-{name}"
    data.mkdir()
    (config / "fednode").mkdir(parents=True)
    (config / "fednode" / "fednode.toml").write_text(word)
    (data / "gated.py").write_text(GATED.read_text())
    fed.env["XDG_CONFIG_HOME"] = str(config)
    fed.start_client(name, "--task", f"{data / 'gated.py'}:Gated", "--data", str(data))
    return data


def refusals(fed: Federation, run_id: str) -> list[tuple[str, str, str]]:
    rows = [row for round_ in fed.get(f"runs/{run_id}")["history"] for row in round_["clients"] if row["failure"]]
    return [(row["client"], row["failure"]["code"], row["failure"]["reason"]) for row in rows]


def test_a_central_node_can_lower_nothing_of_an_operators_word(federation: Federation) -> None:
    fed = federation
    fed.start_central()
    start(fed, "hospital-a")
    data = start(fed, "hospital-b", WORD)
    fed.wait_for_clients("hospital-a")
    wait_until(lambda: {row["name"] for row in fed.clients()} >= {"hospital-b"}, "who offers nothing yet")

    where = ("--state-dir", str(fed.folder / "clients" / "hospital-b"))
    waiting = fed.json("client", "approvals", *where)[0]
    assert waiting["verdict"] == "waiting"
    assert waiting["fingerprint"] in fed.cli("client", "approvals", *where).stdout
    assert fed.get("clients/hospital-b")["offers"] == []
    assert fed.cli("client", "approve", "gated#0", *where).returncode == 2
    assert fed.cli("client", "approve", waiting["fingerprint"], *where).returncode == 0
    limits = {"max_epochs": 2, "max_wall_time_s": 1.0, "min_cohort": 2}
    wait_until(lambda: [o.get("limits") for o in fed.get("clients/hospital-b")["offers"]] == [limits], "the offer")

    assert check(fed, epochs=3)["warnings"] == [
        "A round needs 2 updates and 1 client accepts this run: its rounds will fail",
        "hospital-b accepts at most 2 epochs a round (max_epochs), the run asks for 3: it will refuse",
    ]
    too_long = fed.run_in_background("gated", "--rounds", "1", "--epochs", "3", "--min-updates", "1")
    assert fed.end_of(too_long)["status"] == "completed"        # without it: what it refuses costs its update
    told = refusals(fed, too_long)
    assert {(client, code) for client, code, _ in told} == {("hospital-b", "refused")}
    assert "accepts at most 2 epochs a round (max_epochs), the run asks for 3" in told[0][2]

    (data / "closed").touch()                                   # it trains on and on
    held = fed.run_in_background("gated", "--rounds", "1", "--epochs", "2", "--min-updates", "1")
    assert fed.end_of(held)["status"] == "completed"
    told = refusals(fed, held)
    assert [(client, code) for client, code, _ in told] == [("hospital-b", "refused")]
    assert "a visit that takes longer than 1.0 s (max_wall_time)" in told[0][2]


def check(fed: Federation, epochs: int) -> Any:
    body = json.dumps({"task": "gated", "task_config": {"epochs": epochs}}).encode()
    asked = urllib.request.Request(f"{fed.url}/api/v1/runs/check", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)
