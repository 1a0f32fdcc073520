"""Scenes for a client node: a folder with data, a central node of the wire's words, and what a person reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from client_scenes import FINGERPRINT, TASK, Node
from scripted_central import JOIN_TOKEN, ScriptedCentral

from fednode.client.daemon import run_client
from fednode.client.talk import ClientSettings
from fednode.clock import SystemClock
from fednode.core.params import Params


@pytest.fixture
async def central() -> AsyncIterator[ScriptedCentral]:
    async with ScriptedCentral() as central:
        yield central


@pytest.fixture
def settings(central: ScriptedCentral, tmp_path: Path) -> ClientSettings:
    data = tmp_path / "data"
    data.mkdir()
    (data / "examples").touch()
    return ClientSettings(
        central=central.url, name="hospital-a", data=data, tasks=(TASK,), partition=None, offline_sample=False,
        threads=1, state_dir=tmp_path / "state", token=JOIN_TOKEN, ca=None,
    )


NodeMaker = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def node(settings: ClientSettings) -> NodeMaker:
    """`async with node() as client:` runs a client node; fields of its settings may be given."""

    @asynccontextmanager
    async def start(**changes: object) -> AsyncIterator[Node]:
        node = Node(replace(settings, **changes))
        node.life = asyncio.create_task(run_client(node.settings, node.heard, SystemClock()))
        try:
            yield node
        finally:
            node.life.cancel()
            await asyncio.gather(node.life, return_exceptions=True)

    return start


@pytest.fixture
def start_params() -> Params:
    return Params({"w": np.zeros(3, np.float32)})


@pytest.fixture
def order(central: ScriptedCentral, start_params: Params) -> Callable[..., str]:
    """Posts an order to train (or whatever is given) and returns its id."""
    base = central.model(start_params)

    def give(number: int = 1, kind: str = "train", **fields: object) -> str:
        config = {"epochs": 2, "batch_size": 32, "learning_rate": 0.1, "proximal_mu": 0.0, "behaviour": ""}
        filled = {
            "fingerprint": FINGERPRINT, "base_model": base, "base_model_bytes": len(central.models[base]), **fields,
            "config": config | fields.get("config", {}),
        }
        return central.give(number, kind, **filled)

    return give
