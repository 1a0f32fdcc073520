"""What the doctor says of a machine, and of the way to a real central node: well, doubtful, bad, each with its fix."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from federation_scene import Federation, free_port, wait_until
from fednode.client.talk import ClientSettings
from fednode.clock import HandClock, SystemClock
from fednode.doctor import machine
from fednode.doctor.central import central
from fednode.doctor.disk import disk
from fednode.doctor.findings import Finding, Level, exit_code_of
from fednode.doctor.membership import key, membership
from fednode.doctor.network import network
from fednode.doctor.store import store
from fednode.doctor.tasks import tasks
from fednode.settings import Settings
from fednode.store.sql import SqlStore

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A central node and one client that offers a task."""
    federation = Federation(tmp_path_factory.mktemp("shared"))
    try:
        federation.start_central()
        federation.start_client("hospital-a", "--task", "mnist_3v7", "--offline-sample")
        federation.wait_for_clients("hospital-a")
        yield federation
    finally:
        federation.stop_all()


def client_settings(federation: Federation, name: str, **changes: Any) -> ClientSettings:
    return replace(ClientSettings(
        central=federation.url, name=name, data=None, tasks=(), partition=None, offline_sample=True, threads=1,
        state_dir=federation.folder / "clients" / name, token=join_token(federation), ca=None,
    ), **changes)


def join_token(federation: Federation) -> str:
    note = json.loads((federation.folder / "state" / "centrals" / f"{federation.port}.json").read_text())
    return str(note["join_token"])


def central_settings(federation: Federation, **changes: Any) -> Settings:
    return Settings(state_dir=federation.folder / "state", port=federation.port, **changes)


def levels(found: Sequence[Finding]) -> dict[str, Level]:
    assert all(bool(finding.fix) == (finding.level is not Level.OK) for finding in found), found
    return {finding.check: finding.level for finding in found}


def told(found: Sequence[Finding], check: str) -> str:
    return next(finding.told for finding in found if finding.check == check)


# --- the central node's side ----------------------------------------------------------------------------


def test_a_central_node_that_is_well(shared: Federation) -> None:
    found = asyncio.run(central(central_settings(shared), CLOCK))
    assert set(levels(found).values()) == {Level.OK}, found
    assert f"process {shared.members['central'].pid}" in told(found, "central node")
    assert told(found, "clients") == "1 of 1 are there"
    kept = store(shared.folder / "central", CLOCK)
    assert set(levels(kept).values()) == {Level.OK}, kept
    assert "1 clients" in told(kept, "store")


def test_a_port_that_another_program_has_is_named_with_it(shared: Federation, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        settings = Settings(state_dir=tmp_path, port=other.getsockname()[1])
        (port, none) = asyncio.run(central(settings, CLOCK))
    assert (port.level, none.level) == (Level.WARN, Level.OK)
    assert "has port" in port.told
    if os.path.exists("/proc/net/tcp"):         # noqa: PTH110 - what the check itself looks for
        assert f"process {os.getpid()}" in port.told
    nowhere = Settings(state_dir=tmp_path, host="192.0.2.1", port=free_port())
    assert exit_code_of(asyncio.run(central(nowhere, CLOCK))) == 2
    stranger = Settings(state_dir=tmp_path, port=shared.port)
    assert "a central node of somebody else's" in told(asyncio.run(central(stranger, CLOCK)), "port")
    assert told(asyncio.run(central(Settings(state_dir=tmp_path, port=free_port()), CLOCK)), "port").endswith("is free")


def test_a_killed_central_node_is_told(federation: Federation) -> None:
    federation.start_central()
    federation.kill("central")
    found = asyncio.run(central(central_settings(federation), CLOCK))
    assert levels(found) == {"port": Level.OK, "central node": Level.WARN}
    assert "was killed" in told(found, "central node")


def test_a_store_that_is_damaged_newer_or_lacks_a_file(tmp_path: Path) -> None:
    assert levels(store(tmp_path, CLOCK)) == {"store": Level.OK}
    asyncio.run(make_store(tmp_path))
    assert set(levels(store(tmp_path, CLOCK)).values()) == {Level.OK}
    ahead = store(tmp_path, HandClock(wall_s=CLOCK.wall_s() - 3600))
    assert levels(ahead)["clock went back"] is Level.WARN
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("insert into model values ('m', (select id from run), 0, 'abc', 1, 1, '', '', 0.0, null)")
        database.commit()
    assert "1 params files are gone" in told(store(tmp_path, CLOCK), "store")
    with closing(sqlite3.connect(path)) as database:
        database.execute("update alembic_version set version_num = 'v9999'")
        database.commit()
    assert exit_code_of(store(tmp_path, CLOCK)) == 7
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    assert exit_code_of(store(tmp_path, CLOCK)) == 1


async def make_store(folder: Path) -> None:
    from fednode.core.records import RunConfig

    opened = await SqlStore.open(folder, CLOCK)
    config = RunConfig(
        task="toy", fingerprint="toy@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=1, min_updates=1,
        cohort_fraction=1.0, deadline_s=600.0, seed=7,
    )
    await opened.create_run(config, ())
    await opened.close()


# --- the way, seen from a client -----------------------------------------------------------------------


def test_the_way_to_a_central_node_that_is_there(shared: Federation) -> None:
    found, is_there = asyncio.run(network(client_settings(shared, "new"), CLOCK))
    assert is_there
    assert set(levels(found).values()) == {Level.OK}, found
    assert {"address", "proxy", "host", "connection", "certificate", "central node", "clocks"} == set(levels(found))
    late, _ = asyncio.run(network(client_settings(shared, "new"), HandClock(wall_s=CLOCK.wall_s() - 500)))
    assert levels(late)["clocks"] is Level.WARN
    assert "behind the central node" in told(late, "clocks")


@contextmanager
def some_other_site() -> Iterator[str]:
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    site.RequestHandlerClass.log_message = lambda *args: None       # type: ignore[method-assign]
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{site.server_address[1]}"
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


def test_where_the_way_is_barred_the_check_that_bars_it_says_so(shared: Federation, tmp_path: Path) -> None:
    with some_other_site() as other:
        for url, check, code, fix in [
            ("localhost:5000", "address", 2, "http://"),
            ("http://no-such-host.invalid:5000", "host", 3, "check the name"),
            (f"http://127.0.0.1:{free_port()}", "connection", 3, "start the central node"),
            (other, "central node", 3, "the central node itself"),
        ]:
            found, is_there = asyncio.run(network(client_settings(shared, "new", central=url), CLOCK))
            assert (is_there, levels(found)[check], exit_code_of(found)) == (False, Level.FAIL, code), found
            assert fix in found[-1].fix
    (tmp_path / "ca.pem").write_text("no certificate")
    odd = client_settings(shared, "new", central="https://127.0.0.1:1", ca=tmp_path / "ca.pem")
    found, _ = asyncio.run(network(odd, CLOCK))
    assert "--ca" in found[-1].fix


def test_a_certificate_is_believed_where_its_authority_is_named(federation: Federation) -> None:
    cert, key_file = make_certificate(federation.folder, "127.0.0.1")
    federation.url = f"https://127.0.0.1:{federation.port}"
    federation.tls = ssl.create_default_context(cafile=cert)
    federation.start_central("--tls-cert", str(cert), "--tls-key", str(key_file))
    settings = client_settings(federation, "new")
    doubted, is_there = asyncio.run(network(settings, CLOCK))
    assert (is_there, exit_code_of(doubted), levels(doubted)["certificate"]) == (False, 3, Level.FAIL)
    assert "--ca" in doubted[-1].fix
    believed, is_there = asyncio.run(network(replace(settings, ca=cert), CLOCK))
    assert (is_there, levels(believed)["certificate"]) == (True, Level.OK)
    running = asyncio.run(central(central_settings(federation), CLOCK))
    assert levels(running)["central node"] is Level.OK, running


def test_who_a_client_is_to_its_central_node(shared: Federation) -> None:
    for name, changes, expected in [
        ("hospital-a", {"token": ""}, {"name": Level.OK, "token": Level.OK}),
        ("new", {}, {"name": Level.OK, "token": Level.OK}),
        ("hospital-a", {"state_dir": shared.folder / "elsewhere"}, {"name": Level.FAIL, "token": Level.OK}),
        ("new", {"token": ""}, {"token": Level.FAIL}),
        ("new", {"token": "op_0"}, {"token": Level.FAIL}),
        ("new", {"token": "join_0"}, {"token": Level.FAIL}),
    ]:
        settings = client_settings(shared, name, **changes)
        found = asyncio.run(membership(settings))
        assert levels(found) == expected, (name, changes, found)
        assert exit_code_of(found) == (4 if Level.FAIL in expected.values() else 0)
        assert not (shared.folder / "clients" / "new").exists(), "a check makes no key"
    assert {client["name"] for client in shared.json("clients")} == {"hospital-a"}, "a check registers nobody"
    assert "sha256:" in key(client_settings(shared, "hospital-a")).told


def test_a_revoked_client_and_one_whose_secret_is_void(federation: Federation) -> None:
    federation.start_central()
    federation.start_client("a", "--task", "mnist_3v7", "--offline-sample")
    federation.wait_for_clients("a")
    federation.stop("a")
    settings = client_settings(federation, "a")
    federation.json("clients", "rotate", "a")
    assert levels(asyncio.run(membership(settings)))["name"] is Level.WARN
    federation.json("clients", "revoke", "a")
    (name,) = [finding for finding in asyncio.run(membership(settings)) if finding.check == "name"]
    assert (name.level, name.exit_code) == (Level.FAIL, 4)
    (federation.folder / "clients" / "a" / "key.pem").write_text("no key")
    assert key(settings).level is Level.FAIL


def test_each_tasks_own_check_of_the_data(shared: Federation, tmp_path: Path) -> None:
    found = asyncio.run(tasks(client_settings(shared, "new", tasks=("mnist_3v7", "mnits")), CLOCK))
    assert levels(found) == {"device": Level.OK, "task mnist_3v7": Level.OK, "task mnits": Level.FAIL}
    assert "mnist_3v7@" in told(found, "task mnist_3v7")
    for changes, code in [({"data": tmp_path / "nowhere"}, 6), ({"data": tmp_path, "offline_sample": False}, 6)]:
        found = asyncio.run(tasks(client_settings(shared, "new", tasks=("mnist_3v7",), **changes), CLOCK))
        assert exit_code_of(found) == code, found
    (nowhere,) = asyncio.run(tasks(client_settings(shared, "new", tasks=("mnist_3v7",), device="cuda:99"), CLOCK))
    assert (nowhere.check, nowhere.exit_code, "this machine has" in nowhere.told) == ("device", 2, True)
    everything = asyncio.run(tasks(client_settings(shared, "new", data=tmp_path, offline_sample=False), CLOCK))
    assert everything[-1].check == "data"
    assert exit_code_of(everything) == 6


# --- the machine ----------------------------------------------------------------------------------------


def test_this_machine_runs_these_tests_so_it_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [machine.python(), machine.packages(), machine.torch_is_there(), machine.clock_is_set(CLOCK)]
    assert set(levels(found).values()) == {Level.OK}, found
    assert "numpy" in told(found, "packages")
    assert machine.clock_is_set(HandClock(wall_s=0.0)).level is Level.FAIL
    assert machine.threads(0).level is Level.OK
    assert machine.threads(100_000).level is Level.WARN
    monkeypatch.setenv("FEDNODE_CENTRALL", "http://x")
    assert "FEDNODE_CENTRALL" in machine.environment().told
    assert asyncio.run(machine.torch_imports()).level is Level.OK


def test_the_disk_of_a_state_dir(tmp_path: Path) -> None:
    found = disk(tmp_path / "not" / "yet", CLOCK)
    assert {"state dir", "disk", "room", "fsync"} == set(levels(found))
    assert levels(found)["state dir"] is Level.OK
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    if os.getuid():                             # root may write everywhere
        (tmp_path / "shut").mkdir(mode=0o500)
        assert disk(tmp_path / "shut", CLOCK)[0].level is Level.FAIL


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_prints_one_object_or_a_line_a_check(shared: Federation) -> None:
    kept = ("--state-dir", str(shared.folder / "central"))
    shared.env["FEDNODE_PORT"] = str(shared.port)
    done = shared.cli("doctor", "--json", *kept)
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (done.returncode, found["ok"]) == (0, True), done.stdout
    assert {"check", "level", "message", "fix"} == set(found["checks"][0])
    wait_until(lambda: shared.json("clients")[0]["status"] == "online", "the client to be there")
    nobody = f"http://127.0.0.1:{free_port()}"
    barred = shared.cli("doctor", "--central", nobody, "--task", "mnist_3v7", "--offline-sample")
    assert barred.returncode == 3, barred.stdout
    assert "FAIL  connection" in barred.stdout
    assert "Fix: start the central node there" in barred.stdout
    assert "Traceback" not in barred.stderr
    odd = shared.cli("doctor", "--central", "localhost:5000", "--json")
    assert (odd.returncode, json.loads(odd.stdout)["ok"]) == (2, False)
