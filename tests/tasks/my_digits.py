"""Ten digits, 28x28 grey images, in two files at each site: train.npz and test.npz."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fednode import TorchTask


class Digits(TorchTask):
    def model(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))

    def dataset(self, site, split):
        file = np.load(site.data / f"{split}.npz")
        return TensorDataset(torch.tensor(file["images"] / 255.0).float(), torch.tensor(file["labels"]).long())

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs, targets):
        return {"accuracy": (outputs.argmax(1) == targets).float().mean()}
