"""Params of a torch model that stay at each client: those whose name fits `TorchTask.local_params`.

They are no part of what travels, and so of no update, no model and no average. A client's first ones are those of a
model that is built by its own seed; from round to round they lie in its state dir. FedBN keeps what belongs to
BatchNorm so (Li et al. 2021, arXiv:2102.07623).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fednode.core.params import Params
from fednode.errors import TaskFailed
from fednode.tasks.base import Visit
from fednode.wire.codec import read_params, write_params

FILE_NAME = "local_params.safetensors"
SEED_PURPOSE = "local params"


def is_local(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def divided(params: Params, patterns: Sequence[str]) -> tuple[Params, Params | None]:
    """What travels of a model's params, and what stays. Raises TaskFailed where a pattern fits nothing, or all do."""
    if not patterns:
        return params, None
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in params):
            raise TaskFailed(
                f"local_params: {pattern!r} fits no name in the model's state_dict", fix=f"its names: {_told(params)}"
            )
    own = {name: array for name, array in params.items() if is_local(name, patterns)}
    shared = {name: array for name, array in params.items() if name not in own}
    if not shared:
        raise TaskFailed(
            f"local_params {tuple(patterns)} fit every name in the model's state_dict: nothing would travel",
            fix=f"leave some of these out: {_told(params)}",
        )
    return Params(shared), Params(own)


def kept(visit: Visit) -> Params | None:
    """What the client's last visit kept; None: it has kept none in this run. Raises BadParamsFile."""
    path = visit.state_dir / FILE_NAME
    return read_params(path) if path.exists() else None


def keep(params: Params, visit: Visit) -> None:
    """Raises StoreFull, StoreError."""
    write_params(params, visit.state_dir / FILE_NAME, is_durable=False)


def _told(params: Params) -> str:
    names = sorted(params)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
