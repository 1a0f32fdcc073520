"""The strategies that come with fednode, by name. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from fednode.strategies.base import Strategy
from fednode.strategies.centered_clipping import CenteredClipping
from fednode.strategies.fedadagrad import FedAdagrad
from fednode.strategies.fedadam import FedAdam
from fednode.strategies.fedavg import FedAvg
from fednode.strategies.fedavgm import FedAvgM
from fednode.strategies.fedprox import FedProx
from fednode.strategies.fedyogi import FedYogi
from fednode.strategies.geometric_median import GeometricMedian
from fednode.strategies.median import Median
from fednode.strategies.multi_krum import MultiKrum
from fednode.strategies.trimmed_mean import TrimmedMean

STRATEGIES: Mapping[str, type[Strategy]] = {
    "fedavg": FedAvg, "fedavgm": FedAvgM, "fedadam": FedAdam, "fedyogi": FedYogi, "fedadagrad": FedAdagrad,
    "fedprox": FedProx, "median": Median, "trimmed_mean": TrimmedMean, "multi_krum": MultiKrum,
    "geometric_median": GeometricMedian, "centered_clipping": CenteredClipping,
}
