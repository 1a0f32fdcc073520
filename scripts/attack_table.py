"""What two hostile clients of ten do to each strategy, as a table.

    python scripts/attack_table.py [--rounds 15] [--seeds 1 2 3] [--model mlp] [--cells FILE]

Ten simulated clients share the MNIST sample that comes with fednode, cut evenly and by `dirichlet:0.5`. Each cell is
the mean accuracy over the seeds, with a star where it is more than 2 points (evenly) or 5 points below what the same
strategy reaches without an attack. A training takes seven seconds of one core; there are 72 a seed. Prints one JSON
line a training, then the tables; FILE keeps the lines, and what it holds already is not trained again.

The attacks, by clients 4 and 7: label flip (a digit d is learned as 9 - d); sign flip (the change is sent with its
sign turned); scaling (ten times the change, turned); IPM (Xie et al. 2019, arXiv:1903.03936: -0.5 times the mean
change of the honest ones); ALIE (Baruch et al. 2019, arXiv:1902.06156: the honest mean less 1.5 standard deviations).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import numpy as np

from fednode import simulate
from fednode.core.params import Params
from fednode.core.records import State, Update
from fednode.strategies.base import Strategy, Updates
from fednode.strategies.registry import STRATEGIES, installed_strategy
from fednode.strategies.robust import Robust
from fednode.tasks.base import Visit
from fednode.tasks.mnist import Mnist

HOSTILE = ("client-4", "client-7")
NUM_CLIENTS = 10
ATTACKS = ("none", "label flip", "sign flip", "scaling", "IPM", "ALIE")
SPLITS = {"iid": 0.02, "dirichlet:0.5": 0.05}           # what an attack may cost before it has a star
SHOWN = ("fedavg", *(name for name, kind in STRATEGIES.items() if issubclass(kind, Robust)))


class Flipped(Mnist):
    """MNIST, of which the hostile clients learn the wrong labels."""

    is_flipping: ClassVar[bool] = False
    is_hostile = False

    def train(self, params: Params, visit: Visit) -> Update:
        self.is_hostile = self.is_flipping and visit.site.client in HOSTILE
        try:
            return super().train(params, visit)
        finally:
            self.is_hostile = False

    def loss(self, outputs: Any, targets: Any) -> Any:
        return super().loss(outputs, 9 - targets if self.is_hostile else targets)


@dataclass(frozen=True, kw_only=True)
class Attacked(Strategy):
    """`inner`, of whose updates the hostile ones are replaced: they know what all the others send."""

    inner: str
    attack: str

    def aggregate(self, state: State, updates: Updates) -> State:
        honest = [one.params for one in updates if one.client not in HOSTILE]
        sent = [
            replace(one, params=crafted(self.attack, state.params, one.params, honest))
            if one.client in HOSTILE else one for one in updates
        ]
        settings = {"hostile": len(HOSTILE)} if issubclass(STRATEGIES[self.inner], Robust) else {}
        cohort = [one.client for one in updates]
        return installed_strategy(self.inner).bind(settings).aggregate(state, Updates(cohort, sent, updates.manifest))


def crafted(attack: str, start: Params, own: Params, honest: Sequence[Params]) -> Params:
    if attack == "sign flip":
        return start - (own - start)
    if attack == "scaling":
        return start - 10 * (own - start)
    if attack == "IPM":
        return start - 0.5 * (over(honest, np.mean) - start)
    if attack == "ALIE":
        return over(honest, np.mean) - 1.5 * over(honest, np.std)
    return own


def over(many: Sequence[Params], rule: Any) -> Params:
    rows = {name: [one[name] for one in many] for name in many[0]}
    return Params({name: rule(arrays, axis=0).astype(arrays[0].dtype) for name, arrays in rows.items()})


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training, as a line of the file says it."""

    split: str
    strategy: str
    attack: str
    seed: int
    rounds: int
    model: str


def accuracy(asked: Training) -> float | None:
    """None: the model grew beyond all numbers, and the clients cannot train it any more."""
    Flipped.is_flipping = asked.attack == "label flip"
    run = simulate(
        Flipped, clients=NUM_CLIENTS, rounds=asked.rounds, split=asked.split, offline_sample=True, seed=asked.seed,
        strategy=Attacked(inner=asked.strategy, attack=asked.attack), min_updates=NUM_CLIENTS,
        task_config={"model": asked.model},
    )
    if run.status == "completed":
        return run.metrics["accuracy"]
    if "NaN or an infinity" in run.reason:
        return None
    raise SystemExit(f"{asked.strategy} under {asked.attack}: {run.reason}")


def known(path: Path | None) -> dict[Training, float | None]:
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {Training(**{name: row[name] for name in Training.__annotations__}): row["accuracy"] for row in rows}


def keep(row: Mapping[str, Any], path: Path | None) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(f"{line}\n")


def told(split: str, scores: Mapping[tuple[str, str, str], Sequence[float | None]]) -> str:
    lines = [f"| {split} | {' | '.join(ATTACKS)} |", "| --- " * (len(ATTACKS) + 1) + "|"]
    for strategy in SHOWN:
        cells = [cell(scores[split, strategy, attack], scores[split, strategy, "none"], split) for attack in ATTACKS]
        lines.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(scores: Sequence[float | None], calm: Sequence[float | None], split: str) -> str:
    reached = [score for score in scores if score is not None]
    if len(reached) < len(scores):
        return "diverged*"
    is_too_low = mean(score for score in calm if score is not None) - mean(reached) > SPLITS[split]
    return f"{mean(reached):.3f}{'*' if is_too_low else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--model", default="mlp", help="of the task mnist")
    parser.add_argument("--cells", type=Path, metavar="FILE")
    asked = parser.parse_args()
    found, scores = known(asked.cells), {}
    for split, strategy, attack in product(SPLITS, SHOWN, ATTACKS):
        trainings = [
            Training(split=split, strategy=strategy, attack=attack, seed=seed, rounds=asked.rounds, model=asked.model)
            for seed in asked.seeds
        ]
        for training in trainings:
            if training not in found:
                found[training] = accuracy(training)
                keep(asdict(training) | {"accuracy": found[training]}, asked.cells)
        scores[split, strategy, attack] = [found[training] for training in trainings]
    print("\n\n".join(told(split, scores) for split in SPLITS))


if __name__ == "__main__":
    main()
