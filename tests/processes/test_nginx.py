"""The central node behind a real nginx, with the very configuration that the how-to shows."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from certificates import make_certificate
from federation_scene import Federation, free_port, wait_until

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "behind-nginx.md"
BIG_TASK = Path(__file__).with_name("big_task.py")
NGINX = which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on this machine")

AROUND = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


def site_of_the_how_to(**changes: str) -> str:
    """The how-to's one nginx block, with what it tells the reader to change."""
    (block,) = re.findall(r"```nginx\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    return block


@pytest.fixture
def proxied(federation: Federation) -> Iterator[Federation]:
    """A central node on loopback; `url` is where nginx answers for it."""
    folder, port = federation.folder, free_port()
    cert, key = make_certificate(folder, "localhost")
    site = site_of_the_how_to(**{
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "http://127.0.0.1:5000": f"http://127.0.0.1:{federation.port}",
        "/etc/ssl/fed.example.org/fullchain.pem": str(cert), "/etc/ssl/fed.example.org/privkey.pem": str(key),
    })
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, site=site, user=user))
    federation.start_central("--public-url", f"https://localhost:{port}")
    federation.url, federation.tls = f"https://localhost:{port}", ssl.create_default_context(cafile=cert)
    nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        wait_until(lambda: nginx.poll() is not None or _listens(port), "nginx")
        assert nginx.poll() is None
        yield federation
    finally:
        nginx.terminate()
        nginx.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_a_client_joins_and_trains_through_the_proxy_with_more_than_a_megabyte(proxied: Federation) -> None:
    token = proxied.log("central").partition("--token ")[2].split()[0]
    ca = str(proxied.folder / "cert.pem")
    for name in ("a", "b"):
        where = ("--central", proxied.url, "--ca", ca, "--token", token)
        proxied.start_client(name, *where, "--task", f"{BIG_TASK}:Big")
    proxied.wait_for_clients("a", "b")
    done = proxied.cli("run", "big", "--rounds", "2", "--follow")
    assert done.returncode == 0, done.stderr + proxied.log("a")
    (run,) = proxied.json("runs")
    assert run["metrics"]["accuracy"] == 2.0           # two rounds, each adds 1
    target = proxied.folder / "got.safetensors"
    got = proxied.cli("models", "get", run["model_sha256"], "-o", str(target))
    assert got.returncode == 0, got.stderr
    assert target.stat().st_size > 2_800_000           # 700,000 * 4 bytes, and so was every update
    puts = [line for line in (proxied.folder / "access.log").read_text().splitlines() if '"PUT /api/v1/ass' in line]
    assert len(puts) == 5, puts                        # the initial params, and two updates in each of two rounds


def test_a_browser_signs_in_through_the_proxy_and_hears_what_happens(proxied: Federation) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        proxied.open("/")
    assert refused.value.code == 401
    sign_in = proxied.log("central").partition("with: ")[2].split()[0]
    assert sign_in.startswith(f"{proxied.url}/sign-in?token=op_")
    browser = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=proxied.tls), urllib.request.HTTPCookieProcessor()
    )
    with browser.open(sign_in) as page:
        assert page.url == f"{proxied.url}/"
        assert f"fednode client --central {proxied.url} " in page.read().decode()
    with browser.open(f"{proxied.url}/live") as stream:                 # not held back until it ends
        assert stream.readline().startswith(b"event: ")
    address, origin = f"{proxied.url}/api/v1/tokens/join", {"Origin": proxied.url}
    with browser.open(urllib.request.Request(address, method="POST", headers=origin)) as answer:
        assert answer.status == 200
    log = (proxied.folder / "access.log").read_text()
    assert "GET / HTTP" in log
    assert "op_" not in log
