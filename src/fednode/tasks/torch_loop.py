"""How a torch task trains, evaluates and predicts: the loop over epochs and batches, and params to and from a model.

Each visit has a fresh model and optimiser, generators that start from the visit's seed, and torch's deterministic
algorithms; nothing of it is left behind. Imports torch, so `torch_task.py` imports it late. What a person writes is
in `torch_task.py`; where batches come from in `torch_data.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fednode.core.metrics import Histogram, Metric, Metrics, Split, Sum, Value
from fednode.core.params import Params, require_match
from fednode.core.pooling import pool
from fednode.core.records import Update
from fednode.core.seeds import derive_seed, global_generators, numpy_rng
from fednode.errors import TaskFailed
from fednode.tasks import local_params
from fednode.tasks.base import Bytes, Cancelled, Floats, Site, Visit
from fednode.tasks.declared import returned
from fednode.tasks.grad_cam import heat_maps
from fednode.tasks.torch_data import Indices, Part, batches

NUM_LOCAL_TEST = 2_000          # examples of the test split that score the local model after each epoch
BUILD_SEED = 0                  # of what a model draws when it is built only to be filled with params
VAL_PREFIX = "val_"             # of the names of what `metrics` finds on the split "val"
CENTRAL = Site(client="central")        # where a model is tried: one thread, on the CPU

CPU = torch.device("cpu")

_NUMPY_DTYPES = frozenset([
    torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.uint16, torch.uint32, torch.uint64, torch.bool,
])


class Trainable(Protocol):
    """What the loop asks of a task: the methods of `TorchTask`, which says what each returns."""

    config: Any
    splits: ClassVar[tuple[Split, ...]]
    measures: ClassVar[tuple[Metric, ...]]
    evaluation_batch_size: ClassVar[int]
    device: str
    local_params: ClassVar[tuple[str, ...]]

    def model(self) -> nn.Module: ...

    def optimizer(self, model: nn.Module) -> Any: ...

    def loss(self, outputs: Any, targets: Tensor) -> Tensor: ...

    def metrics(self, outputs: Any, targets: Tensor) -> Mapping[str, Any]: ...

    def part(self, site: Site, split: str) -> Part: ...


def initial_params(task: Trainable, seed: int) -> Params:
    """The params of a model that is built by `seed`, as far as they travel."""
    return local_params.divided(params_of(_build(task, seed)), task.local_params)[0]


def train(task: Trainable, params: Params, visit: Visit) -> Update:
    """`config.epochs` passes over the site's part of the train split, starting from `params`."""
    with _reproducible(visit.seed, visit.site):
        own, whose = _own_params(task, visit)
        part, model = task.part(visit.site, "train"), _model_with(task, params, own, visit.site.device)
        steps = _Steps(task, model, visit)
        rng = numpy_rng(derive_seed(visit.seed, "batches"))
        for epoch in range(1, task.config.epochs + 1):
            loss = steps.epoch(part, rng.permutation(len(part)))
            visit.report(epoch, {**_local_scores(task, model, visit), "loss": loss})
        shared, own = local_params.divided(params_of(model), task.local_params)
        if own is not None:
            local_params.keep(own, visit)
        told = {} if own is None else {"local_params": whose}
        return Update(client=visit.site.client, params=shared, num_examples=len(part), environment=told)


def evaluate(task: Trainable, params: Params, visit: Visit) -> Metrics:
    """The task's metrics on all of the site's held-out data."""
    with _reproducible(visit.seed, visit.site):
        model = _model_with(task, params, _own_params(task, visit)[0], visit.site.device)
        values: dict[str, Value] = {}
        counts: dict[Split, int] = {}
        for split in task.splits:
            part = task.part(visit.site, split)
            values |= _scores(task, model, part, np.arange(len(part)), split, visit.is_cancelled)
            counts[split] = len(part)
        return Metrics(values=values, num_examples=counts)


def predict(task: Trainable, params: Params, inputs: Bytes) -> Floats:
    """The softmax of what the model makes of `inputs`: (n, classes). Raises TaskFailed where that has another shape."""
    with _reproducible(BUILD_SEED, Site(client=CENTRAL.client, device=task.device)):
        model = _model_with(task, _whole(task, params), device=task.device)
        model.eval()
        with torch.no_grad():
            outputs = model(torch.tensor(inputs, device=task.device))
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise TaskFailed(
            f"the model of {type(task).__name__} gives {got}, not one row of logits a picture",
            fix="define predict(self, params, pictures) in the task's class",
        )
    return outputs.cpu().to(torch.float64).softmax(dim=1).numpy()


def explain(task: Trainable, params: Params, inputs: Bytes, labels: Indices) -> Floats | None:
    """Grad-CAM heat maps, (n, height, width); None where the model has no feature maps."""
    with _reproducible(BUILD_SEED, CENTRAL):
        model = _model_with(task, _whole(task, params))
        model.eval()
        maps = heat_maps(model, torch.tensor(inputs), torch.from_numpy(labels))
    return None if maps is None else maps.to(torch.float64).numpy()


class _Steps:
    """The steps of one visit: model, optimiser, and where the proximal term pulls to."""

    def __init__(self, task: Trainable, model: nn.Module, visit: Visit) -> None:
        self._task = task
        self._model = model
        self._optimizer = task.optimizer(model)
        self._is_cancelled = visit.is_cancelled
        self._mu = float(task.config.proximal_mu)
        trained = [
            param for name, param in model.named_parameters()
            if param.requires_grad and not local_params.is_local(name, task.local_params)
        ]
        self._received = [(param, param.detach().clone()) for param in trained] if self._mu else []
        self._device = torch.device(visit.site.device)

    def epoch(self, part: Part, order: Indices) -> float:
        """One pass in this order. Returns the mean loss, as it was before each step."""
        self._model.train()
        total = 0.0
        for positions in batches(order, self._task.config.batch_size):
            if self._is_cancelled():
                raise Cancelled
            total += self._step(*part.batch(positions)) * len(positions)
        return total / len(order)

    def _step(self, *batch: Tensor) -> float:
        *inputs, targets = _on(self._device, batch)
        self._optimizer.zero_grad()
        loss = self._task.loss(self._model(*inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        for param, received in self._received:
            if param.grad is not None:          # the gradient of mu/2 * |w - w_received|^2: FedProx, arXiv:1812.06127
                param.grad.add_(param.detach() - received, alpha=self._mu)
        self._optimizer.step()
        return loss.item()


class PlainSgd:
    """Stochastic gradient descent, param -= learning_rate * gradient: torch.optim.SGD to the bit.

    Not that one, because its first use imports torch's compiler: two seconds of every new process.
    """

    def __init__(self, params: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._params = list(params)
        self._learning_rate = learning_rate

    def zero_grad(self) -> None:
        for param in self._params:
            param.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for param in self._params:
            if param.grad is not None:
                param.add_(param.grad, alpha=-self._learning_rate)


def _local_scores(task: Trainable, model: nn.Module, visit: Visit) -> dict[str, float]:
    """What the model achieves, while it trains, on some of the test examples: the same ones all through a run."""
    part = task.part(visit.site, "test")
    rows = numpy_rng(derive_seed(visit.client_seed, "local test")).permutation(len(part))[:NUM_LOCAL_TEST]
    values = _scores(task, model, part, np.sort(rows), "test", visit.is_cancelled)
    measures = [measure for measure in task.measures if measure.split == "test"]
    pooled = pool(measures, {visit.site.client: Metrics(values=values, num_examples={"test": len(rows)})})
    return {metric.name: metric.value for metric in pooled if isinstance(metric.value, float)}


def _scores(
    task: Trainable, model: nn.Module, part: Part, order: Indices, split: Split, is_cancelled: Callable[[], bool]
) -> dict[str, Value]:
    """The declared metrics of a split over `order`, added up batch by batch."""
    tally = _Tally()
    model.eval()
    device = next((param.device for param in model.parameters()), CPU)
    with torch.no_grad():       # not inference_mode: what a model caches in it could not be trained with afterwards
        for positions in batches(order, task.evaluation_batch_size):
            if is_cancelled():
                raise Cancelled
            *inputs, targets = _on(device, part.batch(positions))
            tally.add(_batch_metrics(task, model(*inputs), targets), len(positions))
    return _declared(task, split, tally.values())


def _on(device: torch.device, value: Any) -> Any:
    """A tensor, or a dict, list or tuple that holds some, on `device`; the very object where nothing has to move."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        moved = {name: _on(device, part) for name, part in value.items()}
        return value if all(moved[name] is value[name] for name in moved) else moved
    if isinstance(value, list | tuple):
        parts = [_on(device, part) for part in value]
        is_moved = any(part is not before for part, before in zip(parts, value, strict=True))
        return tuple(parts) if is_moved and isinstance(value, tuple) else parts if is_moved else value
    return value


def _batch_metrics(task: Trainable, outputs: Any, targets: Tensor) -> dict[str, object]:
    found: dict[str, object] = dict(returned(task.metrics(*_on(CPU, (outputs, targets))), Mapping, "metrics"))
    if "loss" not in found and _sources(task) & {"loss", f"{VAL_PREFIX}loss"}:
        found["loss"] = task.loss(outputs, targets)
    return found


class _Tally:
    """Metric values of batches, added up: sums and histograms as they are, numbers as a mean by examples."""

    def __init__(self) -> None:
        self._totals: dict[str, Any] = {}
        self._num_examples = 0

    def add(self, found: Mapping[str, object], num_examples: int) -> None:
        if self._num_examples and found.keys() != self._totals.keys():
            odd = ", ".join(sorted(found.keys() ^ self._totals.keys()))
            raise TaskFailed(f"metrics() returns {odd} for some batches only", fix="return the same names every time")
        self._num_examples += num_examples
        for name, value in found.items():
            before = self._totals.get(name)
            now = _value(name, value)
            now = now * num_examples if isinstance(now, float) else now
            self._totals[name] = now if before is None else _added(name, before, now)

    def values(self) -> dict[str, Value]:
        return {n: v / self._num_examples if isinstance(v, float) else v for n, v in self._totals.items()}


def _value(name: str, found: object) -> Value:
    if isinstance(found, Sum | Histogram):
        return found
    if isinstance(found, int | float | np.number) or (isinstance(found, Tensor) and found.numel() == 1):
        return float(found)
    raise TaskFailed(
        f"{'loss' if name == 'loss' else 'metrics'}() returns a {type(found).__name__} as {name!r}",
        fix="return a number, a Sum or a Histogram",
    )


def _added(name: str, before: Value, now: Value) -> Value:
    if isinstance(before, float) and isinstance(now, float):
        return before + now
    if isinstance(before, Sum) and isinstance(now, Sum) and before.values.shape == now.values.shape:
        return Sum(before.values + now.values)
    if isinstance(before, Histogram) and isinstance(now, Histogram) and before.counts.shape == now.counts.shape:
        return Histogram(before.counts + now.counts)
    raise TaskFailed(f"metric {name!r} changes its kind or its shape between batches", fix="return equal ones")


def _sources(task: Trainable, split: Split | None = None) -> set[str]:
    """Names of the values that the declared metrics of a split (None: of all) are made of."""
    return {measure.of or measure.name for measure in task.measures if split in (None, measure.split)}


def _declared(task: Trainable, split: Split, found: Mapping[str, Value]) -> dict[str, Value]:
    """Of what was found on a split, what is declared for it. Raises TaskFailed where the two do not fit."""
    owner, all_sources = type(task).__name__, _sources(task)
    for name in sorted(found):
        if not {name, VAL_PREFIX + name} & all_sources:
            raise TaskFailed(
                f"metrics() of {owner} returns {name!r}, which its `measures` do not declare",
                fix=f"add Metric(name={name!r}) to `measures`, or do not return it",
            )
    prefix = VAL_PREFIX if split == "val" else ""
    named = {prefix + name: value for name, value in found.items()}
    for name in sorted(_sources(task, split) - named.keys()):
        raise TaskFailed(
            f"`measures` of {owner} declare {name!r} on the split {split!r}, and metrics() does not return "
            f"{name.removeprefix(prefix)!r}",
            fix="return it, or take it out of `measures`",
        )
    return {name: named[name] for name in sorted(_sources(task, split))}


# --- params and models ---------------------------------------------------------------------------------


def params_of(model: nn.Module) -> Params:
    """The model's state as arrays that share its memory. Raises TaskFailed on what no array can hold."""
    return Params({name: _array(name, tensor) for name, tensor in model.state_dict().items()})


def _array(name: str, tensor: object) -> np.ndarray[Any, Any]:
    if not isinstance(tensor, Tensor):
        raise TaskFailed(
            f"the model's state {name!r} is a {type(tensor).__name__}, not a tensor", fix="keep it out of state_dict()"
        )
    if tensor.dtype not in _NUMPY_DTYPES:
        raise TaskFailed(
            f"the model's tensor {name!r} is {tensor.dtype}, which params cannot hold",
            fix="keep the model in float32 (model.float()); compute in other types inside forward()",
        )
    return tensor.detach().contiguous().numpy(force=True)


def _model_with(task: Trainable, params: Params, own: Params | None = None, device: str = "cpu") -> nn.Module:
    """A new model that holds a copy of `params` and of the client's own. Raises ParamsMismatch: another model's."""
    model = _build(task, BUILD_SEED)
    whole = Params({**params, **(own or {})})
    require_match(whole, params_of(model).manifest)
    # Copies: the arrays may be read-only views of a memory-mapped file.
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in whole.items()})
    return model.to(device)


def _own_params(task: Trainable, visit: Visit) -> tuple[Params | None, str]:
    """Those that stay at this client, and whose they are: "own", or "fresh" where it has kept none in this run."""
    if not task.local_params:
        return None, ""
    if (found := local_params.kept(visit)) is not None:
        return found, "own"
    fresh = params_of(_build(task, derive_seed(visit.client_seed, local_params.SEED_PURPOSE)))
    return local_params.divided(fresh, task.local_params)[1], "fresh"


def _whole(task: Trainable, params: Params) -> Params:
    """`params`, where they are all that a model needs. Raises TaskFailed: parts of it are at the clients alone."""
    if not task.local_params:
        return params
    raise TaskFailed(
        f"this model is not whole: {', '.join(task.local_params)} of {type(task).__name__} stay at its clients",
        fix="read its metrics, which each client measures with its own; elsewhere it cannot be tried",
    )


def _build(task: Trainable, seed: int) -> nn.Module:
    with _generators(seed):
        return returned(task.model(), nn.Module, "model")


# --- the same bits every time --------------------------------------------------------------------------


@contextmanager
def isolated() -> Iterator[None]:
    """For code whose result is kept from visit to visit: what it draws depends on no visit, and shifts none."""
    with _generators(BUILD_SEED):
        yield


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """Inside, every global generator starts from `seed`; after, it goes on as if nothing had been drawn."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with global_generators(seed), torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


@contextmanager
def _reproducible(seed: int, site: Site) -> Iterator[None]:
    """Inside, torch computes the same bits every time; after, it is as the caller had it.

    On a GPU some operations have one implementation only, and that is not reproducible: torch warns, naming it.
    """
    had_threads, had_mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(site.threads or _num_cores())
    # As use_deterministic_algorithms(True), which would first spend two seconds on importing torch's compiler.
    torch.set_deterministic_debug_mode("error" if site.device == "cpu" else "warn")
    try:
        with _generators(seed):
            yield
    finally:
        torch.set_deterministic_debug_mode(had_mode)
        torch.set_num_threads(had_threads)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
