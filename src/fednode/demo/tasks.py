"""What a demo may train: a row for each task, with the choices that make it short and worth watching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednode.core.json import JsonObject
from fednode.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """A task that comes with fednode, as the demo trains it."""

    name: str
    metric: str                     # its first, which the demo ends with
    config: JsonObject
    rounds: int                     # about a minute on two cores
    split: str                      # how a folder is cut among the clients
    sample: str                     # in words: what it is trained on where no folder is named
    split_of_sample: str            # how that is cut
    caution: str = ""               # beside every result
    caution_of_sample: str = ""     # beside results of the sample


DEMO_TASKS: Mapping[str, DemoTask] = {
    task.name: task for task in (
        DemoTask(
            name="mnist", metric="accuracy", config={"learning_rate": 0.1, "batch_size": 16}, rounds=5,
            split="dirichlet:0.5", sample="the MNIST sample bundled with fednode (10,000 + 2,000 images)",
            split_of_sample="dirichlet:0.5",
        ),
        DemoTask(
            name="chest_xray", metric="auc", config={}, rounds=4, split="dirichlet:0.5",
            sample="synthetic pictures, drawn by fednode: not X-rays (900 + 240 of them)",
            split_of_sample="dirichlet:1",
            caution="Not a medical device: these scores say nothing about anybody's health.",
            caution_of_sample="These scores are of synthetic pictures, drawn by fednode: not of X-rays.",
        ),
    )
}


def demo_task(name: str) -> DemoTask:
    """Raises UsageError."""
    if name not in DEMO_TASKS:
        raise UsageError(f"the demo has no task {name!r}", fix=f"its tasks: {', '.join(DEMO_TASKS)}")
    return DEMO_TASKS[name]
