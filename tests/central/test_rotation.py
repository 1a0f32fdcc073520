"""A secret that the operator voids, and who comes back without a join token: whoever has the key, and proves it now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from central_scene import TIMEOUT_S, Central, ScriptedClient, at_work, central

from fednode.central.nonces import NONCE_AGE_S, Nonces
from fednode.clock import HandClock
from fednode.errors import NotAuthorised
from fednode.wire.messages import registration_text


async def nonce_for(client: ScriptedClient) -> str:
    answer = await client.http.post("/api/v1/nonces", json={"name": client.name})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["nonce"])


def signed(client: ScriptedClient, nonce: str) -> dict[str, str]:
    proof = client.key.sign(registration_text(client.name, nonce)).hex()
    return client.registration() | {"proof": proof, "nonce": nonce}


async def renew(client: ScriptedClient) -> httpx2.Response:
    answer = await client.http.post("/api/v1/clients", json=signed(client, await nonce_for(client)))
    client.secret = answer.json().get("secret", client.secret)
    return answer


async def rotated(fed: Central, name: str) -> ScriptedClient:
    client = await fed.client(name)
    assert (await fed.people.post(f"/api/v1/clients/{name}/rotate")).json()["name"] == name
    return client


async def test_a_rotated_secret_opens_nothing_and_the_key_gets_a_new_one_without_a_token(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await rotated(fed, "a")
        assert (await a.call("GET", "/api/v1/clients/me/work")).status_code == 401
        assert (await renew(a)).status_code == 200
        assert (await a.call("GET", "/api/v1/clients/me/work")).status_code == 200
        events = (await fed.people.get("/api/v1/events")).json()
        assert "client rotated" in str(events)


async def test_a_poll_that_waits_with_the_old_secret_ends_at_once(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        poll = asyncio.create_task(a.call("GET", "/api/v1/clients/me/work", params={"wait": TIMEOUT_S}))
        while not (await fed.people.post("/api/v1/clients/a/rotate")).json():
            pass
        assert (await poll).status_code == 401


async def test_a_signed_nonce_is_good_once_for_its_name_and_its_key(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await rotated(fed, "a"), await fed.client("b")
        stranger = ScriptedClient(a.http, "a")              # the name, and another key
        nonce = await nonce_for(a)
        for body, told in [
            (signed(stranger, nonce), "no client 'a' with this key"),
            (signed(ScriptedClient(a.http, "nobody"), nonce), "no client 'nobody' with this key"),
            (signed(a, nonce) | {"proof": a.registration()["proof"]}, "was not made by the key"),
            (signed(a, await nonce_for(b)), "was not made here"),
            (signed(a, nonce[:-1] + ("0" if nonce[-1] != "0" else "1")), "was not made here"),
            (signed(a, "-"), "was not made here"),
        ]:
            refused = await a.http.post("/api/v1/clients", json=body)
            assert (refused.status_code, told in refused.text) == (401, True), refused.text
        assert (await a.http.post("/api/v1/clients", json=signed(a, nonce))).status_code == 200
        again = await a.http.post("/api/v1/clients", json=signed(a, nonce))
        assert (again.status_code, "used before" in again.text) == (401, True)


async def test_a_revoked_client_gets_nothing_by_its_key(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.people.post("/api/v1/clients/a/revoke")
        refused = await renew(a)
        assert (refused.status_code, "was revoked" in refused.text) == (401, True)
        assert (await fed.people.post("/api/v1/clients/a/rotate")).status_code == 409
        assert (await fed.people.post("/api/v1/clients/nobody/rotate")).status_code == 404


def test_a_nonce_grows_old_and_what_was_used_is_not_remembered_for_ever() -> None:
    clock = HandClock()
    nonces = Nonces(clock)
    first, second = nonces.make("a"), nonces.make("a")
    nonces.use_up("a", first)
    asyncio.run(clock.advance(NONCE_AGE_S + 1))
    with pytest.raises(NotAuthorised, match="too old"):
        nonces.use_up("a", second)
    with pytest.raises(NotAuthorised, match="too old"):
        nonces.use_up("a", first)
    with pytest.raises(NotAuthorised, match="not made here"):
        Nonces(clock).use_up("a", nonces.make("a"))         # of another process


async def test_work_goes_on_under_the_new_secret(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        run = await fed.start_run(rounds=2)
        assignment = await a.work()
        await fed.people.post("/api/v1/clients/a/rotate")
        assert (await renew(a)).status_code == 200
        await a.do(assignment)
        async with at_work(a, b):
            assert (await fed.until(run["number"], "completed", "failed"))["status"] == "completed"


# --- who am I ----------------------------------------------------------------------------------------


async def whoami(fed: Central, token: str, **params: str) -> httpx2.Response:
    return await fed.people.get("/api/v1/whoami", params=params, headers={"Authorization": f"Bearer {token}"})


async def test_everybody_with_a_token_is_told_what_it_opens(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        key = a.registration()["public_key"]
        for token, asked, kind, name, name_is in [
            (a.secret, {}, "client", "a", "yours"),
            (fed.serving.join_token, {"name": "new"}, "join", "new", "free"),
            (fed.serving.join_token, {"name": "a"}, "join", "a", "taken"),
            (fed.serving.join_token, {"name": "a", "public_key": key}, "join", "a", "yours"),
            (fed.serving.operator_token, {}, "operator", "", "free"),
        ]:
            facts = (await whoami(fed, token, **asked)).json()
            assert (facts["kind"], facts["name"], facts["name_is"]) == (kind, name, name_is), facts
        await fed.people.post("/api/v1/clients/a/revoke")
        assert (await whoami(fed, fed.serving.join_token, name="a", public_key=key)).json()["name_is"] == "revoked"
        for wrong in (a.secret, "join_wrong", "op_wrong", "sec_wrong", "hunter2"):
            assert (await whoami(fed, wrong)).status_code == 401, wrong


async def test_to_ask_is_no_sign_of_life(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await a.call("POST", "/api/v1/clients/me/leave")
        assert (await whoami(fed, a.secret)).status_code == 200
        (row,) = (await fed.people.get("/api/v1/clients")).json()
        assert row["status"] == "gone"


async def test_the_join_token_is_told_with_its_end_and_the_address(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        facts = (await fed.people.get("/api/v1/tokens/join")).json()
        url = f"http://127.0.0.1:{fed.serving.port}"
        assert facts == {"join_token": fed.serving.join_token, "expires_s": None, "url": url}
        new = (await fed.people.post("/api/v1/tokens/join")).json()
        assert new["join_token"] != facts["join_token"]
        assert (await fed.people.get("/api/v1/tokens/join")).json() == new
