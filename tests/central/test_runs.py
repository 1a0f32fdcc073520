"""Runs at a real central node: the queue, rosters, who joins later, pause, resume, cancel, restarts."""

from __future__ import annotations

from pathlib import Path

from central_scene import at_work, central, offer


async def test_a_run_plays_from_its_acceptance_to_the_last_evaluation(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        b.step = 3.0
        async with at_work(a, b):
            accepted = await fed.start_run(rounds=2)
            done = await fed.until(accepted["number"], "completed", "failed", "paused")
        assert accepted["status"] in ("queued", "running")
        assert accepted["rounds_planned"] == 2
        assert (done["status"], done["rounds"], done["clients"]) == ("completed", 2, ["a", "b"])
        assert done["metrics"] == {"accuracy": 0.5}
        model = await fed.people.get(f"/api/v1/models/{done['model_sha256']}/params")
        # each round adds the mean of the steps 1 and 3, weighed equally: 2; twice: 4
        assert model.content[-16:] == b"\x00\x00\x80\x40" * 4
