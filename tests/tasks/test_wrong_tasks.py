"""Tasks with a mistake in them, as people make them: what is said names the mistake and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fednode.errors import FednodeError
from fednode.simulation.simulate import simulate

RIGHT = """
from dataclasses import dataclass
import numpy as np
from fednode import Metric, Metrics, Params, Sum, Task, TrainConfig, Update

class Mine(Task):
    measures = (Metric(name="accuracy", combine="accuracy"),)

    def initial_params(self, seed):
        return Params({"w": np.zeros(3, np.float32)})

    def train(self, params, visit):
        return Update(client=visit.site.client, params=params, num_examples=3)

    def evaluate(self, params, visit):
        return Metrics(values={"accuracy": Sum([1, 2])}, num_examples={"test": 2})
"""
UPDATE = "Update(client=visit.site.client, params=params, num_examples=3)"
METRICS = 'Metrics(values={"accuracy": Sum([1, 2])}, num_examples={"test": 2})'
METHOD = "\n    def {}:\n        {}\n"
CONFIG = "\n    {}class Config{}:\n        {}\n"
DATACLASS = "@dataclass(frozen=True, kw_only=True)\n    "


def said_of(folder: Path, text: str) -> str:
    """Message and fix, or the reason of the run that ended."""
    path = folder / "mine.py"
    path.write_text(text)
    try:
        result = simulate(f"{path}:Mine", clients=2, rounds=1, seed=1)
    except FednodeError as error:
        return f"{error.message}; {error.fix}"
    return "" if result.status == "completed" else result.reason


def test_the_right_one_is_right(tmp_path: Path) -> None:
    assert said_of(tmp_path, RIGHT) == ""


@pytest.mark.parametrize(("right", "wrong", "told"), [
    ("def evaluate", "def evalute", "Mine does not define evaluate; define it in the class Mine"),
    ('Params({"w": np.zeros(3, np.float32)})', '{"w": 0}', r"returned a dict from initial_params; return Params\(\{"),
    ("np.zeros(3, np.float32)", 'np.array(["a"])', "tensor 'w' has dtype str32, which params cannot hold; convert it"),
    (UPDATE, "params, 3", r"tuple from train; return Update"),
    ("params=params", 'params={"w": 0}', r"returned a dict from train, in its update; return Params\("),
    ("params=params", "params=params * np.float32(2)", ""),
    ("params=params", 'params=Params({"w": np.zeros(3)})', r"other params .* float64, .* float32; .*astype"),
    ("params=params", 'params=Params({"w": np.zeros(4, np.float32)})', r"other params .* \(4,\), .* \(3,\); ret"),
    ("params=params", 'params=Params({"v": params["w"]})', "other params than it received: .* tensor 'v'"),
    ("num_examples=3", "num_examples=0", "trained on 0 examples; check this site's data"),
    ("return Update(", "x = {}['no']\n        return Update(", r"KeyError: 'no' \(mine.py, line 13\)"),
    (METRICS, '{"accuracy": 0.5}', r"a dict from evaluate; return Metrics\(values="),
    ('{"accuracy": Sum', '{"acuracy": Sum', "returns 'acuracy', but `measures` are made of accuracy; add Metric"),
    ("Sum([1, 2])", "Sum([1, 2, 3])", r"'accuracy' cannot be made of a Sum of shape \(3,\): .*square Sum"),
    ('Sum([1, 2])}, num_examples={"test": 2}', "0.5}", "'accuracy' as a mean, and not of how many examples; return"),
    ('"accuracy"),)', '"accuracy"))', r"`measures` .* is Metric\(.* no tuple of Metric; .*comma"),
    ('(Metric(name="accuracy", combine="accuracy"),)', '("accuracy",)', "no tuple of Metric"),
    ("measures =", 'supports = "proximal"\n    measures =', "`supports` .* is 'proximal', and no tuple of str"),
])
def test_a_mistake_in_a_verb_or_a_class_variable(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert RIGHT.count(right) == 1
    said = said_of(tmp_path, RIGHT.replace(right, wrong))
    assert bool(said) == bool(told) and re.search(told, said), said


@pytest.mark.parametrize(("added", "told"), [
    (METHOD.format("__init__(self, config)", "self.rows = {}['no']"), r"__init__ of .* KeyError: 'no' \(mine.py"),
    (METHOD.format("__init__(self)", "super().__init__()"), r"takes 1 positional argument.*; begin it so: "),
    (METHOD.format("__init__(self, config)", "self.rows = 3"), r"does not call that of Task or TorchTask; begin it so"),
    (METHOD.format("check(self, site)", "return len(site.data)"), r"check\(\) of .* raised TypeError: .*mine.py, l"),
    (METHOD.format("check(self, site)", "pass"), r"check\(\) of the task Mine returns None.*; return a dict"),
    (METHOD.format("check(self, site)", "return {'n': np.int64(3)}"), r"cannot be sent as it is; .*int\(...\) of"),
    (CONFIG.format("", "", "hidden: int = 3"), "`Config` .* does not extend fednode.TrainConfig; write @d"),
    (CONFIG.format("", "(TrainConfig)", "hidden: int = 3"), "'hidden' in `Config` .* is no field: nobody could set it"),
    (CONFIG.format(DATACLASS, "(TrainConfig)", "epochs = 3"), "'epochs' in `Config` .* is no field.*epochs: int = "),
    (CONFIG.format(DATACLASS, "(TrainConfig)", "hidden: int"), "cannot be made of its defaults: hidden .*default"),
    (CONFIG.format(DATACLASS, "(TrainConfig)", "w: np.ndarray = None"), "a field that no form can show: .*; give fi"),
])
def test_a_mistake_in_what_is_checked_before_it_is_offered(tmp_path: Path, added: str, told: str) -> None:
    said = said_of(tmp_path, RIGHT + added)
    assert re.search(told, said), said


TORCH = """
import torch
from torch import nn
from fednode import TorchTask

class Mine(TorchTask):
    def model(self):
        return nn.Linear(4, 3)

    def dataset(self, site, split):
        x = torch.randn(90, 4)
        return x, x[:, :3].argmax(1)

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs, targets):
        return {"accuracy": (outputs.argmax(1) == targets).float().mean()}
"""


@pytest.mark.parametrize(("right", "wrong", "told"), [
    ("return nn.Linear(4, 3)", "nn.Linear(4, 3)", r"model\(\) returned a NoneType, and no Module; ret"),
    ("return x, x[:, :3].argmax(1)", "pass", r"dataset\(\) returned a NoneType, .*; return a Ten"),
    ("(outputs, targets)\n", "(outputs, targets, reduction='none')\n", r"loss\(\) returns a Tensor as .*; return a"),
    ("return {", "x = {", r"metrics\(\) returned a NoneType, and no Mapping"),
    (".float().mean()", "", r"metrics\(\) returns a Tensor as 'accuracy'; return a number, a Sum or a Histogram"),
    ('"accuracy":', '"acc":', "returns 'acc', which its `measures` do not declare; add Metric"),
    ("x[:, :3].argmax(1)", "x[:, 0]", r"RuntimeError: .* \(mine.py, line 15\)"),
    ("x = torch.randn(90, 4)", "x = torch.load(site.data / 'x')", r"check\(\) of .* TypeError.*\(mine.py, l"),
])
def test_a_mistake_in_a_torch_task(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert right in TORCH
    said = said_of(tmp_path, TORCH.replace(right, wrong))
    assert re.search(told, said), said
