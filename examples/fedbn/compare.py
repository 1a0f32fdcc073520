"""FedAvg and FedBN on the same digits: pooled accuracy after the last round. An error unless FedBN is ahead."""

from __future__ import annotations

import argparse
from statistics import mean

from scanners import FedAvg, FedBN

import fednode


def accuracy(task: type[fednode.TorchTask], rounds: int, seed: int) -> float:
    return fednode.simulate(
        task, clients=5, rounds=rounds, seed=seed, offline_sample=True, task_config={"learning_rate": 0.1}
    ).metrics["accuracy"]


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--rounds", type=int, default=4)
    args = asked.parse_args()
    found = {task: [accuracy(task, args.rounds, seed) for seed in range(args.seeds)] for task in (FedAvg, FedBN)}
    for task, scores in found.items():
        print(f"{task.__name__:<7} mean {mean(scores):.3f}  seeds {' '.join(f'{score:.3f}' for score in scores)}")
    if mean(found[FedBN]) <= mean(found[FedAvg]):
        raise SystemExit("FedBN is not ahead")
