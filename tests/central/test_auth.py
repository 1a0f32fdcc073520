"""Who may call what: the three kinds of callers, and everybody else, who is told why and what would open the door."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import httpx2
import pytest
from central_scene import ScriptedClient, central

from fednode.central.tokens import JOIN_DAYS, SECONDS_OF_A_DAY, TokenFile
from fednode.clock import HandClock
from fednode.errors import NotAuthorised, PortTaken, StoreDamaged, UsageError
from fednode.web.callers import is_loopback_host


def refusal(answer: httpx2.Response) -> str:
    assert answer.status_code == 401, answer.text
    assert set(answer.json()) == {"code", "message", "fix"}
    assert answer.json()["code"] == "not_authorised"
    return str(answer.json()["message"])


# --- an open door on loopback, and what shuts it -----------------------------------------------------


async def test_this_machine_needs_no_token(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for host in ("localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "LOCALHOST"):
            assert (await fed.people.get("/api/v1/runs", headers={"Host": host})).status_code == 200


async def test_what_may_not_come_from_this_machine_needs_the_operator_token(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({"Host": "evil.example"}, "was called 'evil.example'"),
        ({"Host": "localhost.evil.example:5000"}, "was called"),
        ({"Host": "10.0.0.1"}, "was called"),
        ({"Origin": "http://evil.example"}, "a page of 'http://evil.example'"),
        ({"Origin": "http://localhost:9999"}, "a page of"),
        ({"Origin": "null"}, "a page of 'null'"),
        ({"X-Forwarded-For": "10.0.0.1"}, "through a proxy (x-forwarded-for)"),
        ({"X-Forwarded-Proto": "https"}, "through a proxy"),
        ({"Forwarded": "for=10.0.0.1"}, "through a proxy (forwarded)"),
        ({"Via": "1.1 proxy"}, "through a proxy (via)"),
    ]
    async with central(tmp_path) as fed:
        bearer = {"Authorization": f"Bearer {fed.serving.operator_token}"}
        for headers, reason in cases:
            assert reason in refusal(await fed.people.get("/api/v1/runs", headers=headers))
            assert (await fed.people.get("/api/v1/runs", headers=headers | bearer)).status_code == 200


async def test_our_own_pages_may_call(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        origin = f"http://127.0.0.1:{fed.serving.port}"
        assert (await fed.people.get("/api/v1/runs", headers={"Origin": origin})).status_code == 200


async def test_a_request_has_one_host(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", fed.serving.port)
            writer.write(f"GET /healthz HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            writer.close()


async def test_beyond_loopback_everybody_needs_the_operator_token(tmp_path: Path) -> None:
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        assert "can be reached from other machines" in refusal(await fed.people.get("/api/v1/runs"))
        assert (await fed.people.get("/healthz")).status_code == 200
        bearer = {"Authorization": f"Bearer {fed.serving.operator_token}"}
        assert (await fed.people.get("/api/v1/runs", headers=bearer)).status_code == 200


# --- tokens ------------------------------------------------------------------------------------------


async def test_the_wrong_kind_of_token_is_refused_by_name(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        join, operator = fed.serving.join_token, fed.serving.operator_token
        as_operator = await a.call("GET", "/api/v1/runs", token=join)
        assert refusal(as_operator) == (
            "an operator token (op_...) is needed here, and what came is a join token"
        )
        assert "what came is a client's secret" in refusal(await a.call("GET", "/api/v1/runs"))
        as_client = await a.call("GET", "/api/v1/clients/me/work", token=operator)
        assert "a client's secret (sec_...) is needed here, and what came is an operator token" in refusal(as_client)
        assert "a join token (join_...) is needed here" in refusal(await ScriptedClient(a.http, "b").join(operator))
        assert "no token of fednode's" in refusal(await a.call("GET", "/api/v1/runs", token="hunter2"))
        assert "not valid here" in refusal(await a.call("GET", "/api/v1/runs", token="op_" + "0" * 64))


async def test_a_name_belongs_to_the_key_that_took_it(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        old_secret = a.secret
        assert (await a.join(fed.serving.join_token)).status_code == 200        # the same key: a new secret
        assert a.secret != old_secret
        refusal(await a.call("GET", "/api/v1/clients/me/work", token=old_secret))
        taken = await ScriptedClient(a.http, "a").join(fed.serving.join_token)
        assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
        forged = a.registration() | {"proof": "0" * 128}
        answer = await a.call("POST", "/api/v1/clients", json=forged, token=fed.serving.join_token)
        assert "was not made by the key" in refusal(answer)


async def test_a_secret_can_be_renewed_by_its_client(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        new = (await a.call("POST", "/api/v1/clients/me/secret")).json()["secret"]
        refusal(await a.call("GET", "/api/v1/clients/me/work"))
        assert (await a.call("GET", "/api/v1/clients/me/work", token=new)).status_code == 200


async def test_a_revoked_client_is_told_so_and_cannot_come_back_by_the_same_name(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        revoked = await fed.people.post("/api/v1/clients/a/revoke")
        assert revoked.json()["status"] == "revoked"
        assert refusal(await a.call("GET", "/api/v1/clients/me/work")) == "client 'a' was revoked"
        assert "was revoked" in refusal(await a.join(fed.serving.join_token))
        assert (await fed.people.post("/api/v1/clients/nobody/revoke")).status_code == 404
    async with central(tmp_path) as fed:
        a.http = fed.people
        refusal(await a.call("GET", "/api/v1/clients/me/work"))


async def test_a_new_join_token_shuts_out_the_old_one_and_nobody_who_has_joined(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        old, operator = fed.serving.join_token, fed.serving.operator_token
        new = (await fed.people.post("/api/v1/tokens/join")).json()["join_token"]
        assert "no longer" in refusal(await ScriptedClient(fed.people, "b").join(old))
        assert (await ScriptedClient(fed.people, "b").join(new)).status_code == 200
    async with central(tmp_path) as fed:
        assert (fed.serving.join_token, fed.serving.operator_token) == (new, operator)
        a.http = fed.people
        assert (await a.call("GET", "/api/v1/clients/me/work")).status_code == 200
    async with central(tmp_path, is_new_token=True) as fed:
        assert fed.serving.join_token != new
        assert fed.serving.operator_token == operator


def test_a_join_token_grows_old_where_others_can_reach_it(tmp_path: Path) -> None:
    clock = HandClock()
    tokens = TokenFile(tmp_path, clock, is_loopback=False)
    assert len(tokens.join_token) == len("join_") + 64          # 256 bits in hex
    tokens.require_join(tokens.join_token)
    old = HandClock(clock.wall_s() + JOIN_DAYS * SECONDS_OF_A_DAY + 1)
    with pytest.raises(NotAuthorised, match="older than 7 days"):
        TokenFile(tmp_path, old, is_loopback=False).require_join(tokens.join_token)
    TokenFile(tmp_path, old, is_loopback=True).require_join(tokens.join_token)


def test_a_damaged_token_file_is_named(tmp_path: Path) -> None:
    TokenFile(tmp_path, HandClock(), is_loopback=True)
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(StoreDamaged, match=r"tokens\.json"):
        TokenFile(tmp_path, HandClock(), is_loopback=True)


async def test_the_note_for_this_users_clients_is_private_and_goes_with_the_process(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        path = tmp_path / "centrals" / f"{fed.serving.port}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "central" / "tokens.json").stat().st_mode) == 0o600
        note = json.loads(path.read_text())
        assert note == {
            "url": fed.serving.url, "join_token": fed.serving.join_token,
            "operator_token": fed.serving.operator_token, "pid": os.getpid(), "certificate": "",
        }
    assert not path.exists()


# --- binding -----------------------------------------------------------------------------------------


async def test_a_bind_that_others_can_reach_must_be_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can be reached from other machines") as caught:
        async with central(tmp_path, host="0.0.0.0"):
            pass
    assert "--insecure" in caught.value.fix


async def test_a_port_that_is_taken_is_named_with_the_fix(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        with pytest.raises(PortTaken, match=str(fed.serving.port)) as caught:
            async with central(tmp_path / "other", port=fed.serving.port):
                pass
    assert "--port" in caught.value.fix


async def test_an_address_of_another_machine_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        async with central(tmp_path, host="192.0.2.1", is_insecure=True):
            pass


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[", "0.0.0.0"]
)
def test_only_names_of_this_machine_alone_are_loopback(host: str) -> None:
    assert not is_loopback_host(host)
