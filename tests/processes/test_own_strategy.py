"""A strategy of another package, installed at the central node alone, across real processes."""

from __future__ import annotations

import os
from pathlib import Path

from federation_scene import Federation
from own_strategy import installed_in


def test_a_run_takes_a_strategy_that_is_installed_at_the_central_node(federation: Federation, tmp_path: Path) -> None:
    bare = dict(federation.env)
    path = (str(installed_in(tmp_path / "site")), bare.get("PYTHONPATH", ""))
    federation.env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    federation.start_central()
    federation.env = bare
    federation.start_client("a", "--task", "mnist_3v7", "--offline-sample")
    federation.wait_for_clients("a")
    args = ("mnist_3v7", "--rounds", "2", "--set", "task.epochs=2", "--strategy")
    run_id = federation.run_in_background(*args, "clipped", "--set", "strategy.limit=1")
    assert federation.end_of(run_id)["status"] == "completed"
    (run,) = federation.json("runs")
    assert (run["strategy"], run["config"]["strategy_config"]) == ("clipped", {"limit": 1.0})
    refused = federation.cli("run", *args, "my_strategy.py:ClippedAvg")
    assert refused.returncode == 2
    assert "entry point in fednode.strategies" in refused.stderr
