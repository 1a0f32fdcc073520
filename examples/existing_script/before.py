"""Two spirals, as a script: read the data, train a network, print the accuracy. Run it: python before.py"""

import argparse

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def load(path: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    is_test = np.arange(len(table)) % 5 == 0
    rows = table[is_test if split == "test" else ~is_test]
    return torch.tensor(rows[:, :2]).float(), torch.tensor(rows[:, 2]).long()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="spirals.csv")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--hidden", type=int, default=32)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)        # so small a network is slower on more
    x, y = load(args.data, "train")
    model = Net(args.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    for _ in range(args.epochs):
        order = torch.randperm(len(x))
        for rows in order.split(args.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    x, y = load(args.data, "test")
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean()
    print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
