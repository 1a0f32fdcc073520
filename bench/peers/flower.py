"""The work of `fednode bench round`, done by Flower: a JSON line with the same fields.

    python bench/peers/flower.py --clients 2 --mb 100 --rounds 5

Installs Flower into a virtual environment of its own (--venv), once. Starts a SuperLink and so many SuperNodes on
loopback without TLS, and one app: its clients return what they got plus one, nobody evaluates, FedAvg aggregates. A
round lasts from one aggregated model to the next. What is acknowledged there is in memory: nothing is on a disk.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import LOOK_S, WARM_UP_ROUNDS, Sampler, end, figures, install, measure

from fednode.bench.machine import measurement
from fednode.bench.processes import family

VERSION = "1.42.0"
CALM_S = 3.0

PROJECT = """
[project]
name = "echo"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "echo_app:server_app"
clientapp = "echo_app:client_app"

[tool.flwr.app.config]
rounds = 1
clients = 1
params = 1
said = ""
"""

APP = '''
import json
import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client_app = ClientApp()
server_app = ServerApp()
TENSORS = 8


def model(num_params, num_rounds):
    sizes = [num_params // TENSORS + (place < num_params % TENSORS) for place in range(TENSORS)]
    return [np.resize(np.arange(1_000, dtype=np.float32) + np.float32(num_rounds), size) for size in sizes]


@client_app.train()
def train(message: Message, context: Context) -> Message:
    arrays = [array + np.float32(1) for array in message.content["arrays"].to_numpy_ndarrays()]
    found = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 100})}
    return Message(content=RecordDict(found), reply_to=message)


class Timed(FedAvg):
    aggregated_s, num_updates = [], 0

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        Timed.num_updates += sum(not reply.has_error() for reply in replies)
        result = super().aggregate_train(server_round, replies)
        Timed.aggregated_s.append(time.time())
        return result


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = Timed(
        fraction_evaluate=0.0, min_train_nodes=config["clients"], min_available_nodes=config["clients"],
    )
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord(model(config["params"], 0)), num_rounds=config["rounds"],
    )
    wanted = model(config["params"], config["rounds"])
    found = result.arrays.to_numpy_ndarrays()
    is_right = all(bool((one == other).all()) for one, other in zip(found, wanted, strict=True))
    with open(config["said"], "w") as file:
        json.dump({"s": Timed.aggregated_s, "is_model_right": is_right, "updates": Timed.num_updates}, file)
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--mb", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--venv", type=Path, default=Path("build/peers/flower"))
    asked = parser.parse_args()
    bin_dir = install(asked.venv, f"flwr=={VERSION}", "numpy")

    def played(num_params: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
            return play(asked.clients, num_params, asked.rounds, bin_dir, Path(folder))

    found = measure(asked.clients, asked.mb, asked.rounds, played)
    sys.stdout.write(json.dumps(measurement("round", {"peer": f"Flower {VERSION}", **found})) + "\n")


def play(num_clients: int, num_params: int, num_rounds: int, bin_dir: Path, folder: Path) -> dict[str, Any]:
    write_app(folder)
    port, *ports = free_ports(1 + num_clients)
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    path = f"{bin_dir}:{os.environ['PATH']}"       # it starts programs of its own by name
    env = os.environ | {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": path}
    with ExitStack() as stack:
        def start(name: str, *args: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            started = subprocess.Popen(
                [bin_dir / args[0], *args[1:]], stdout=log, stderr=log, env=env, cwd=folder, start_new_session=True
            )
            stack.callback(end, started)
            return started

        central = start(
            "superlink", "flower-superlink", "--insecure", "--disable-runtime-dependency-installation",
            "--port", str(port),
        )
        until_open(port)
        clients = [
            start(f"supernode-{own}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
                  "--port", str(own))
            for own in ports
        ]
        for own in ports:
            until_open(own)
        time.sleep(CALM_S)
        sampler = Sampler(
            lambda: family(central.pid), lambda: [one for client in clients for one in family(client.pid)]
        )
        said = folder / "said.json"
        config = f'rounds={WARM_UP_ROUNDS + num_rounds} clients={num_clients} params={num_params} said="{said}"'
        asked = subprocess.run(
            [bin_dir / "flwr", "run", "app", "--stream", "--run-config", config],
            env=env, cwd=folder, stdout=sys.stderr, check=False,
        )
        deadline_s = time.monotonic() + 1_800
        while asked.returncode == 0 and not said.exists() and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        if not said.exists():
            logs = "\n".join(log.read_text(errors="replace")[-2_000:] for log in sorted(folder.glob("*.log"))[-2:])
            raise SystemExit(f"the run did not end well: {logs}")
        time.sleep(LOOK_S)
        sampler.stop()
        told = json.loads(said.read_text())
    return {
        **figures(told["s"], sampler), "is_model_right": told["is_model_right"],
        "errors": num_clients * (WARM_UP_ROUNDS + num_rounds) - told["updates"],
    }


def write_app(folder: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text(PROJECT)
    (folder / "app" / "echo_app.py").write_text(APP)


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(door.getsockname()[1]) for door in doors]


def until_open(port: int, patience_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(LOOK_S)
    raise SystemExit(f"nobody listens at port {port}")


if __name__ == "__main__":
    main()
