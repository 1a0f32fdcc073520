"""Which patients will come back? A small network in PyTorch on `patients.csv` in each hospital's own folder."""

import csv
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn, tensor
from torch.utils.data import TensorDataset

from fednode import DataError, Histogram, Metric, Site, TorchTask, TrainConfig

# What is taken from each number and what it is divided by: agreed once, the same at every site (see the README).
SCALES = {"age": (60.0, 15.0), "systolic": (130.0, 20.0), "glucose": (105.0, 25.0), "smoker": (0.5, 0.5)}


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """What a person may set besides epochs and batch size."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Step size of local training")] = 0.3
    hidden: Annotated[int, Field(ge=1, le=1000, description="Units of the hidden layer")] = 16


class Outcomes(TorchTask):
    """Which patients will come back? From age, blood pressure, glucose and smoking."""

    name, Config = "outcomes", Config
    default_rounds = 10
    measures = (
        Metric(name="auc", combine="auc", of="scores"),
        Metric(name="sensitivity", combine="sensitivity", of="scores", at=0.5),
        Metric(name="specificity", combine="specificity", of="scores", at=0.5),
        Metric(name="loss", goal="min"),
    )

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(len(SCALES), self.config.hidden), nn.ReLU(), nn.Linear(self.config.hidden, 1))

    def dataset(self, site: Site, split: str) -> "Visits":
        rows = [row for row in rows_of(site) if split_of(row["patient"]) == split]
        inputs = [[(row[name] - centre) / spread for name, (centre, spread) in SCALES.items()] for row in rows]
        outcomes = [row["outcome"] for row in rows]
        return Visits(tensor(inputs).float(), tensor(outcomes).float(), [row["patient"] for row in rows])

    def groups(self, dataset: "Visits") -> list[str]:
        return dataset.patients         # where a simulation cuts one folder, nobody's visits are dealt to two clients

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        return {"scores": Histogram.of_scores(outputs[:, 0].sigmoid().double().numpy(), targets.numpy(), bins=200)}


class Visits(TensorDataset):
    """Inputs and outcomes of visits, and whose they were."""

    def __init__(self, inputs: Tensor, outcomes: Tensor, patients: list[str]) -> None:
        super().__init__(inputs, outcomes)
        self.patients = patients


def split_of(patient: str) -> str:
    """By the patient's own name: always the same, wherever they are seen and whoever is added later."""
    return "test" if zlib.crc32(patient.encode()) % 5 == 0 else "train"


def rows_of(site: Site) -> Iterator[dict[str, Any]]:
    """The lines of `patients.csv`, as numbers; what was not measured is the agreed mean. Raises DataError."""
    path = (site.data or Path()) / "patients.csv"
    wanted = ["patient", *SCALES, "outcome"]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if missing := [name for name in wanted if name not in (table.fieldnames or ())]:
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; its columns: {', '.join(table.fieldnames or ())}",
                    fix=f"name them in its first line: {','.join(wanted)}",
                )
            for row in table:
                if not row["patient"]:
                    raise DataError(f"{path}, line {table.line_num}: no patient", fix="say whose line it is")
                yield {"patient": row["patient"], **numbers_of(row, f"{path}, line {table.line_num}")}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="name its folder by --data") from error


def numbers_of(row: dict[str, Any], place: str) -> dict[str, float]:
    found = {name: row[name] or centre for name, (centre, _) in SCALES.items()} | {"outcome": row["outcome"]}
    for name, text in found.items():
        try:
            found[name] = float(text)
        except (TypeError, ValueError):
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise DataError(f"{place}: {name} is {text!r}", fix="write a number, or nothing where it was not measured")
    if found["outcome"] not in (0, 1):
        raise DataError(f"{place}: outcome is {found['outcome']:g}", fix="write 1 (came back) or 0")
    return found
