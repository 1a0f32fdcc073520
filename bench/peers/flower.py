"""The work of `fednode bench round`, done by Flower: a JSON line with the same fields.

    python bench/peers/flower.py --clients 2 --mb 100 --rounds 5

Installs Flower into a virtual environment of its own (--venv), once. Starts a SuperLink and so many SuperNodes on
loopback without TLS, and one app: its clients return what they got plus one, nobody evaluates, FedAvg aggregates. A
round lasts from one aggregated model to the next. What is acknowledged there is in memory: nothing is on a disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

from fednode.bench.federation import num_params_of, spread
from fednode.bench.limit import Limit
from fednode.bench.machine import measurement
from fednode.bench.processes import MEGABYTE, cpu_s, family, memory_mb
from fednode.clock import SystemClock

VERSION = "1.42.0"
WARM_UP_ROUNDS, TRIES_OF_LIMIT, NUM_TENSORS = 2, 2, 8
LOOK_S, CALM_S, STOP_S = 0.05, 3.0, 15.0

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
    install(asked.venv)
    figures = measure(asked.clients, asked.mb, asked.rounds, (asked.venv / "bin").absolute())
    sys.stdout.write(json.dumps(measurement("round", {"peer": f"Flower {VERSION}", **figures})) + "\n")


def install(venv: Path) -> None:
    if not (venv / "bin" / "flower-superlink").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"flwr=={VERSION}", "numpy"], check=True, stdout=sys.stderr)


def measure(num_clients: int, mb: float, num_rounds: int, bin_dir: Path) -> dict[str, Any]:
    num_params = num_params_of(mb)
    limit = Limit(num_clients=num_clients, num_bytes=4 * num_params, clock=SystemClock())
    limit.measure(TRIES_OF_LIMIT)
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        played = play(num_clients, num_params, num_rounds, bin_dir, Path(folder))
    limit.measure(TRIES_OF_LIMIT)
    return {
        "clients": num_clients, "mb": mb, "rounds": num_rounds, **played, "model_mb": 4 * num_params / MEGABYTE,
        "limit_seconds": round(limit.seconds, 4),
        "limit_parts": {name: round(value, 4) for name, value in limit.parts.items()},
        "ratio_to_limit": round(played["seconds_per_round"] / limit.seconds, 2),
    }


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
        base_mb = anon_mb(central.pid)
        sampler = Sampler(central.pid, [client.pid for client in clients])
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
    ended_s = told["s"][WARM_UP_ROUNDS - 1 :]
    counted = ended_s[0], ended_s[-1]
    return {
        **spread([after - before for before, after in itertools.pairwise(ended_s)], "seconds_per_round"),
        "central_anon_mb": sampler.peak_anon_mb(*counted), "base_mb": base_mb,
        "central_cpu_s": sampler.cpu_s("central", *counted), "clients_cpu_s": sampler.cpu_s("clients", *counted),
        "is_model_right": told["is_model_right"],
        "errors": num_clients * (WARM_UP_ROUNDS + num_rounds) - told["updates"],
    }


class Sampler:
    """Looks at all processes of the central side together, and at all of the clients'."""

    def __init__(self, central: int, clients: list[int]) -> None:
        self._pids = {"central": [central], "clients": clients}
        self._anon_mb: list[tuple[float, float]] = []
        self._cpu_s: dict[str, list[tuple[float, float]]] = {"central": [], "clients": []}
        self._over = Event()
        self._thread = Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def peak_anon_mb(self, from_s: float, to_s: float) -> float:
        return max(mb for at_s, mb in self._anon_mb if from_s - LOOK_S <= at_s <= to_s + LOOK_S)

    def cpu_s(self, who: str, from_s: float, to_s: float) -> float:
        """At least this: a process that has ended between two looks took more."""
        found = [took for at_s, took in self._cpu_s[who] if from_s - LOOK_S <= at_s <= to_s + LOOK_S]
        return round(sum(max(0.0, after - before) for before, after in itertools.pairwise(found)), 2)

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_S):
            at_s = time.time()
            self._anon_mb.append((at_s, anon_mb(self._pids["central"][0])))
            for who, pids in self._pids.items():
                self._cpu_s[who].append((at_s, cpu_s(one for pid in pids for one in family(pid)) or 0.0))


def anon_mb(pid: int) -> float:
    return round(sum(memory_mb(one).get("anon", 0.0) for one in family(pid)), 1)


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


def end(process: subprocess.Popen[bytes]) -> None:
    """It and whatever it has started: they are a session of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


if __name__ == "__main__":
    main()
