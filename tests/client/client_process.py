"""A client node as a process: `python client_process.py CENTRAL STATE_DIR DATA TASK`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from client_scenes import Heard
from scripted_central import JOIN_TOKEN

from fednode.client.daemon import run_client
from fednode.client.talk import ClientSettings
from fednode.clock import SystemClock


def main() -> None:
    central, state_dir, data, task = sys.argv[1:]
    settings = ClientSettings(
        central=central, name="hospital-a", data=Path(data), tasks=(task,), partition=None, offline_sample=False,
        threads=1, state_dir=Path(state_dir), token=JOIN_TOKEN, ca=None,
    )
    asyncio.run(run_client(settings, Heard(), SystemClock()))


if __name__ == "__main__":
    main()
