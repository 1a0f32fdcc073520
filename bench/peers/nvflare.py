"""The work of `fednode bench round`, done by NVIDIA FLARE: a JSON line with the same fields.

    python bench/peers/nvflare.py --clients 2 --mb 100 --rounds 5

Installs it into a virtual environment of its own (--venv), once. Its proof of concept (POC) starts an FL server and so
many sites on loopback, with mutual TLS, as it always does; FedAvg aggregates one float32 array, clients return what
they got plus one. A round lasts from the moment at which the first site got a model to that at which it got the next.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import STOP_S, WARM_UP_ROUNDS, Sampler, anon_mb, figures, install, measure

from fednode.bench.machine import measurement

VERSION = "2.9.0"
STARTED_MB = 20                 # of memory: it is more than the shell that starts it
CALM_S, LIMIT_S = 2.0, 1_800

CLIENT = '''
import argparse
import time

import numpy as np
import nvflare.client as flare

parser = argparse.ArgumentParser()
parser.add_argument("--said")
said = parser.parse_args().said
flare.init()
site = flare.get_site_name()
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    with open(f"{said}.{site}", "a") as file:
        file.write(f"{time.time()}\\n")
    params = {name: np.asarray(array, np.float32) + np.float32(1) for name, array in model.params.items()}
    flare.send(flare.FLModel(params=params, params_type="FULL", meta={"NUM_STEPS_CURRENT_ROUND": 100}))
'''

CONDUCTOR = '''
import json
import sys
from pathlib import Path

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import PocEnv

folder, clients, params, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
first = np.resize(np.arange(1_000, dtype=np.float32), params)
np.save(folder / "first.npy", first)
recipe = NumpyFedAvgRecipe(
    name="echo", initial_ckpt=str(folder / "first.npy"), min_clients=clients, num_rounds=rounds,
    train_script=str(folder / "client.py"), train_args=f"--said {folder / 'said'}",
)
env = PocEnv(num_clients=clients)
try:
    run = recipe.execute(env)
    result = run.get_result(clean_up=False)
    last = [np.load(file) for file in Path(result).rglob("server.npy")]
    is_right = bool(last) and bool((last[0] == first + np.float32(rounds)).all())
    (folder / "end.json").write_text(json.dumps({"is_model_right": is_right, "status": str(run.get_status())}))
finally:
    env.stop(clean_up=False)
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--mb", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--venv", type=Path, default=Path("build/peers/nvflare"))
    asked = parser.parse_args()
    bin_dir = install(asked.venv, f"nvflare=={VERSION}", "numpy")

    def played(num_params: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
            return play(asked.clients, num_params, asked.rounds, bin_dir, Path(folder))

    found = measure(asked.clients, asked.mb, asked.rounds, played)
    sys.stdout.write(json.dumps(measurement("round", {"peer": f"NVFlare {VERSION}", **found})) + "\n")


def play(num_clients: int, num_params: int, num_rounds: int, bin_dir: Path, folder: Path) -> dict[str, Any]:
    (folder / "client.py").write_text(CLIENT)
    (folder / "conductor.py").write_text(CONDUCTOR)
    workspace = folder / "poc"
    env = os.environ | {
        "HOME": str(folder), "NVFLARE_POC_WORKSPACE": str(workspace), "PATH": f"{bin_dir}:{os.environ['PATH']}",
    }
    rounds = WARM_UP_ROUNDS + num_rounds
    command = [bin_dir / "python", folder / "conductor.py", folder, str(num_clients), str(num_params), str(rounds)]
    conductor = subprocess.Popen(command, env=env, cwd=folder, stdout=sys.stderr)
    try:
        deadline_s = time.monotonic() + LIMIT_S
        while anon_mb(sides(workspace)["central"]) < STARTED_MB and conductor.poll() is None:
            time.sleep(0.1)
        time.sleep(CALM_S)
        sampler = Sampler(lambda: sides(workspace)["central"], lambda: sides(workspace)["clients"])
        conductor.wait(max(1.0, deadline_s - time.monotonic()))
        sampler.stop()
    finally:
        conductor.kill()
        conductor.wait()
        stop(workspace)
    if not (folder / "end.json").exists():
        raise SystemExit("the run did not end well; what was said is above")
    told = json.loads((folder / "end.json").read_text())
    got_s = [[float(line) for line in file.read_text().split()] for file in sorted(folder.glob("said.*"))]
    return {
        **figures(got_s[0], sampler), "is_model_right": told["is_model_right"],
        "errors": num_clients * rounds - sum(map(len, got_s)),
    }


def sides(workspace: Path) -> dict[str, list[int]]:
    """Processes of the POC, which are nobody's children any more: by the folder that their commands name."""
    found: dict[str, list[int]] = {"central": [], "clients": []}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(workspace) in words:
            found["clients" if "/site-" in words else "central"].append(int(file.parent.name))
    return found


def stop(workspace: Path) -> None:
    """Whoever of them is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline_s = time.monotonic() + STOP_S
        while (left := [pid for side in sides(workspace).values() for pid in side]) and time.monotonic() < deadline_s:
            for pid in left:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            time.sleep(0.5)


if __name__ == "__main__":
    main()
