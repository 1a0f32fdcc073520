"""TLS between real processes: a certificate that nobody knows, who believes it, and what the others are told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import make_certificate
from federation_scene import Federation, wait_until

WORK = ("--task", "mnist_3v7", "--offline-sample")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A central node that other machines can reach, by https alone, as `localhost`."""
    fed = Federation(tmp_path_factory.mktemp("secure"))
    cert, key = make_certificate(fed.folder, "localhost")
    fed.url = f"https://localhost:{fed.port}"
    fed.tls = ssl.create_default_context(cafile=cert)
    fed.start_central("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key))
    yield fed
    fed.stop_all()


@pytest.fixture
def afar(secure: Federation, federation: Federation) -> Federation:
    """Another user: no note of the central node lies there."""
    federation.env["FEDNODE_CENTRAL"] = secure.url
    return federation


def join_token(fed: Federation) -> str:
    return str(fed.log("central").partition("--token ")[2].split()[0])


def test_a_client_with_the_ca_trains_and_this_users_commands_need_nothing(
    secure: Federation, afar: Federation
) -> None:
    assert "--insecure" not in secure.log("central")
    ca = str(secure.folder / "cert.pem")
    afar.start_client("hospital-a", *WORK, "--ca", ca, "--token", join_token(secure))
    # The same user on the same machine: found by the port, although the setting says http and the certificate is ours.
    secure.start_client("hospital-b", *WORK)
    secure.wait_for_clients("hospital-a", "hospital-b")
    done = secure.cli("run", "mnist_3v7", "--rounds", "1", "--set", "task.epochs=1", "--follow")
    assert done.returncode == 0, done.stderr + secure.log("central") + afar.log("hospital-a")
    assert secure.json("runs")[0]["status"] == "completed"
    assert "not encrypted" not in afar.log("hospital-a")
    assert "Client registered successfully" in afar.log("hospital-a")


def test_who_cannot_believe_the_certificate_ends_with_the_fix(secure: Federation, afar: Federation) -> None:
    ca = str(secure.folder / "cert.pem")
    other, _ = make_certificate(afar.folder, "localhost", stem="other")
    by_address = secure.url.replace("localhost", "127.0.0.1")
    token = join_token(secure)
    client = ("client", "--name", "c", *WORK, "--token", token)
    for command, told, fix in [
        (client, "self-signed certificate", "--ca FILE"),
        ((*client, "--ca", ca, "--central", by_address), "IP address mismatch", "a name that is in its certificate"),
        (("runs", "--token", "op_x"), "self-signed certificate", "--ca FILE"),
        (("runs", "--token", "op_x", "--ca", str(other)), "certificate of https://localhost", "--ca FILE"),
    ]:
        done = afar.cli(*command, timeout_s=60)
        assert (done.returncode, "Traceback" in done.stderr) == (3, False), (command, done.stderr)
        assert told in done.stderr, done.stderr
        assert fix in done.stderr, done.stderr
    assert "c" not in {known["name"] for known in secure.json("clients")}


def test_a_client_at_work_waits_until_it_can_believe_the_certificate_again(federation: Federation) -> None:
    pairs = [make_certificate(federation.folder, "127.0.0.1", stem=stem) for stem in ("good", "other")]
    both = federation.folder / "both.pem"
    both.write_text("".join(cert.read_text() for cert, _ in pairs))
    federation.url = f"https://127.0.0.1:{federation.port}"
    federation.tls = ssl.create_default_context(cafile=both)
    (good, other) = [("--tls-cert", str(cert), "--tls-key", str(key)) for cert, key in pairs]
    federation.start_central(*good)
    federation.start_client("a", *WORK, "--ca", str(pairs[0][0]), "--central", federation.url)
    federation.wait_for_clients("a")
    for pair, told in ((other, "is not to be trusted"), (good, "The central node answers again")):
        federation.stop("central")
        federation.start_central(*pair)
        wait_until(lambda told=told: told in federation.log("a"), told)
    assert federation.members["a"].poll() is None


def test_the_start_says_how_to_come_in(secure: Federation) -> None:
    lines = secure.log("central").splitlines()
    sign_in = next(line for line in lines if line.startswith("A browser signs in"))
    join = next(line for line in lines if line.startswith("A client joins with"))
    warning = next(line for line in lines if "will believe the certificate" in line)
    assert "https://" in sign_in
    assert "/sign-in?token=op_" in sign_in
    assert "fednode client --central https://" in join
    assert "--token join_" in join
    assert "--ca CERT.pem" in join
    assert "which is for localhost" in warning
    assert "can read params" not in secure.log("central")


def test_a_certificate_that_cannot_serve_ends_the_start(federation: Federation, tmp_path: Path) -> None:
    cert, _ = make_certificate(tmp_path, "localhost")
    done = federation.cli("central", "--port", "0", "--state-dir", str(tmp_path / "c"), "--tls-cert", str(cert))
    assert done.returncode == 2
    assert "--tls-key" in done.stderr
    assert not (tmp_path / "c").exists()
