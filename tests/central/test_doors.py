"""Signing in, proxies, what a browser is told: one row for each way in, and a walk along every wall without a key."""

from __future__ import annotations

import importlib
import pkgutil
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from central_scene import Central, ScriptedClient, central
from fastapi import APIRouter

import fednode.central
from certificates import make_certificate
from fednode.central.addresses import checked_public_url, lan_address, lan_url
from fednode.central.certificate import Certificate, load_certificate
from fednode.central.tokens import SEAL_DAYS, SECONDS_OF_A_DAY, TokenFile
from fednode.clock import HandClock, SystemClock
from fednode.errors import BadConfig
from fednode.settings import read_note

PUBLIC = "https://fed.example.org"
A_BROWSER = {"Accept": "text/html,application/xhtml+xml"}
OPEN_TO_ALL = {("GET", "/healthz"), ("GET", "/sign-in")}        # and /static
JUDGED_BY_THEIR_BODY = {("POST", "/api/v1/clients"), ("POST", "/api/v1/nonces"), ("POST", "/sign-in")}


@pytest.fixture
async def reachable(tmp_path: Path) -> AsyncIterator[Central]:
    """A central node that other machines can reach."""
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        yield fed


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Central]:
    """A central node on loopback that others reach through a proxy with TLS."""
    async with central(tmp_path, public_url=PUBLIC) as fed:
        yield fed


async def sign_in(fed: Central) -> dict[str, str]:
    """The headers of a browser that has signed in."""
    answer = await fed.people.get("/sign-in", params={"token": fed.serving.operator_token})
    assert answer.status_code == 303, answer.text
    fed.people.cookies.clear()
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


# --- signing in --------------------------------------------------------------------------------------


async def test_an_address_signs_a_browser_in_once_and_for_thirty_days(reachable: Central, tmp_path: Path) -> None:
    operator = reachable.serving.operator_token
    answer = await reachable.people.get("/sign-in", params={"token": operator, "next": "/runs/1?tab=log"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/1?tab=log")
    cookie = answer.headers["set-cookie"]
    rules = {rule.strip().lower() for rule in cookie.split(";")[1:]}
    assert rules == {"httponly", "samesite=strict", "path=/", "max-age=2592000"}        # 30 * 86,400
    assert operator not in cookie
    assert operator.removeprefix("op_") not in cookie
    assert (await reachable.people.get("/api/v1/runs")).status_code == 200              # it keeps the cookie


async def test_the_form_signs_in_too_and_says_what_is_wrong(reachable: Central) -> None:
    people, serving = reachable.people, reachable.serving
    form = await people.get("/sign-in", params={"next": '/runs"><script>'})
    assert form.status_code == 200
    assert "<script>" not in re.sub(r"<script [^>]*src=", "", form.text)
    for token, told in (("", "no token"), (serving.join_token, "a join token"), ("op_" + "0" * 64, "not valid here")):
        refused = await people.post("/sign-in", data={"token": token})
        assert (refused.status_code, told in refused.text) == (401, True), refused.text
        assert "set-cookie" not in refused.headers
    admitted = await people.post("/sign-in", data={"token": f" {serving.operator_token} ", "next": "/runs"})
    assert (admitted.status_code, admitted.headers["location"]) == (303, "/runs")
    assert (await people.get("/api/v1/runs")).status_code == 200
    assert (await people.get("/sign-in", params={"next": "/models"})).headers["location"] == "/models"


async def test_signing_out_forgets_the_cookie(reachable: Central) -> None:
    people = reachable.people
    await people.get("/sign-in", params={"token": reachable.serving.operator_token})
    out = await people.post("/sign-out", headers={"Origin": str(people.base_url).rstrip("/")})
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
    assert (await people.get("/api/v1/runs")).status_code == 401


@pytest.mark.parametrize("wanted", [
    "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
    "/\n//evil.example", "javascript:alert(1)", "evil.example", "", " //evil.example", "/%0a\r//evil.example",
])
async def test_signing_in_never_leads_to_somebody_else(reachable: Central, wanted: str) -> None:
    asked = {"token": reachable.serving.operator_token, "next": wanted}
    for answer in (
        await reachable.people.get("/sign-in", params=asked), await reachable.people.post("/sign-in", data=asked)
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_a_sign_in_outlives_a_restart_and_ends_with_the_operator_token(tmp_path: Path) -> None:
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        cookie = await sign_in(fed)
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        assert (await fed.people.get("/api/v1/runs", headers=cookie)).status_code == 200
    (tmp_path / "central" / "tokens.json").unlink()
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        assert (await fed.people.get("/api/v1/runs", headers=cookie)).status_code == 401
        name, _, value = cookie["Cookie"].partition("=")
        new_name, _, _ = (await sign_in(fed))["Cookie"].partition("=")
        assert new_name != name
        moved = {"Cookie": f"{new_name}={value}"}
        assert (await fed.people.get("/api/v1/runs", headers=moved)).status_code == 401


async def test_a_cookie_that_was_not_made_here_or_too_long_ago_opens_nothing(
    reachable: Central, tmp_path: Path
) -> None:
    cookie = (await sign_in(reachable))["Cookie"]
    name, _, value = cookie.partition("=")
    too_old = SystemClock().wall_s() - SEAL_DAYS * SECONDS_OF_A_DAY - 60
    expired = TokenFile(tmp_path / "central", HandClock(too_old), is_loopback=False).seal()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    foreign = TokenFile(elsewhere, SystemClock(), is_loopback=False).seal()
    flipped = value[:20] + ("A" if value[20] != "A" else "B") + value[21:]
    operator = reachable.serving.operator_token
    for wrong in (expired, foreign, flipped, value[:-3], value + "A", operator, "operator", "", "=" * 9, "\u00e9"):
        headers = {"Cookie": f"{name}={wrong}".encode()}
        answer = await reachable.people.get("/api/v1/runs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authorised"), wrong
    assert (await reachable.people.get("/api/v1/runs", headers={"Cookie": cookie})).status_code == 200


def test_a_seal_lasts_thirty_days_to_the_second(tmp_path: Path) -> None:
    clock = HandClock()
    seal = TokenFile(tmp_path, clock, is_loopback=False).seal()
    for later_s, is_good in ((0, True), (30 * 86_400, True), (30 * 86_400 + 1, False)):
        then = TokenFile(tmp_path, HandClock(clock.wall_s() + later_s), is_loopback=False)
        assert then.is_seal(seal) is is_good


# --- what a cookie may do ----------------------------------------------------------------------------


async def test_a_cookie_changes_something_for_our_own_pages_only(reachable: Central) -> None:
    cookie = await sign_in(reachable)
    own = str(reachable.people.base_url).rstrip("/")
    port = reachable.serving.port
    for headers, status in [
        ({"Origin": own}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 401),
        ({"Origin": "http://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": f"https://127.0.0.1:{port}"}, 401),             # another scheme is another origin
        ({"Origin": "http://127.0.0.1:1"}, 401),
        ({"Origin": f"http://127.0.0.1:{port}.evil.example"}, 401),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Sec-Fetch-Site": "none"}, 401),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 401),
    ]:
        answer = await reachable.people.post("/api/v1/tokens/join", headers=cookie | headers)
        assert answer.status_code == status, (headers, answer.text)
    read = await reachable.people.get("/api/v1/runs", headers=cookie | {"Origin": "http://evil.example"})
    assert read.status_code == 401
    assert "a page of 'http://evil.example'" in read.json()["message"]


async def test_who_may_not(reachable: Central) -> None:
    """One row for each kind of caller that is refused, with what it is told."""
    people, serving = reachable.people, reachable.serving
    client = await reachable.client("a")
    bearer = {"Authorization": f"Bearer {serving.operator_token}"}
    await people.post("/api/v1/clients/a/revoke", headers=bearer)
    me, runs = "/api/v1/clients/me/work", "/api/v1/runs"
    for path, token, told in [
        (me, client.secret, "client 'a' was revoked"),
        (me, serving.operator_token, "a client's secret (sec_...) is needed here"),
        (me, "", "no client secret"),
        (runs, client.secret, "what came is a client's secret"),
        (runs, serving.join_token, "what came is a join token"),
        (runs, "op_" + "0" * 64, "not valid here"),
        (runs, "", "can be reached from other machines"),
    ]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await people.get(path, headers=headers)
        assert (answer.status_code, told in answer.text) == (401, True), (path, token, answer.text)
    cookie = await sign_in(reachable)
    assert (await people.get(me, headers=cookie)).status_code == 401        # a browser is no client node
    own = {"Origin": str(people.base_url).rstrip("/")}
    assert (await people.post("/api/v1/clients", json=client.registration(), headers=cookie | own)).status_code == 401


# --- proxies and names -------------------------------------------------------------------------------


async def test_behind_a_proxy_nobody_comes_in_without_signing_in(proxied: Central) -> None:
    """Nobody: a proxy may add no header of its own and call us localhost."""
    people = proxied.people
    for headers in (
        {}, {"Host": "localhost"}, {"Host": "fed.example.org"}, {"X-Forwarded-For": "10.0.0.1"}, {"Via": "1.1 p"},
        {"Host": "fed.example.org", "Origin": PUBLIC}, {"Origin": "http://127.0.0.1"},
    ):
        answer = await people.get("/api/v1/runs", headers=headers)
        assert (answer.status_code, PUBLIC in answer.text) == (401, True), headers
    evil = await people.get("/sign-in", headers={"Host": "evil.example"})
    assert (evil.status_code, "'evil.example'" in evil.text) == (401, True)
    wrong = await people.get("/api/v1/runs", headers={"Host": "fed.example.org.evil.example"})
    assert wrong.status_code == 401


async def test_behind_a_proxy_our_pages_are_those_of_the_public_address(proxied: Central) -> None:
    people = proxied.people
    told = await people.get("/sign-in", params={"token": proxied.serving.operator_token})
    assert "secure" in told.headers["set-cookie"].lower().replace(" ", "").split(";")
    people.cookies.clear()
    cookie = {"Cookie": told.headers["set-cookie"].partition(";")[0], "X-Forwarded-For": "10.0.0.1"}
    for host in ("fed.example.org", "FED.example.org:443", "127.0.0.1:5000"):     # as nginx passes it on, or not
        named = cookie | {"Host": host}
        assert (await people.get("/api/v1/runs", headers=named)).status_code == 200
        assert (await people.post("/api/v1/tokens/join", headers=named | {"Origin": PUBLIC})).status_code == 200
        forged = await people.post("/api/v1/tokens/join", headers=named | {"Origin": "https://evil.example"})
        assert forged.status_code == 401


async def test_a_client_comes_through_a_proxy_by_any_name(proxied: Central) -> None:
    client = ScriptedClient(proxied.people, "a")
    headers = {"Host": "10.0.0.9", "X-Forwarded-For": "10.0.0.1"}
    body, token = client.registration(), proxied.serving.join_token
    joined = await client.call("POST", "/api/v1/clients", json=body, token=token, headers=headers)
    assert joined.status_code == 200, joined.text


async def test_what_pages_and_commands_show_works_from_other_machines(tmp_path: Path) -> None:
    lan = lan_address()
    for number, (settings, host, shown) in enumerate([
        ({}, "localhost:{port}", "http://localhost:{port}"),
        ({"host": "0.0.0.0", "is_insecure": True}, "localhost:{port}", f"http://{lan}:{{port}}"),
        ({"host": "0.0.0.0", "is_insecure": True}, "10.1.2.3:{port}", "http://10.1.2.3:{port}"),
        ({"public_url": PUBLIC}, "localhost:{port}", PUBLIC),
    ]):
        async with central(tmp_path / str(number), **settings) as fed:
            headers = {"Host": host.format(port=fed.serving.port)} | await sign_in(fed)
            told = await fed.people.get("/api/v1/tokens/join", headers=headers)
            assert told.json()["url"] == shown.format(port=fed.serving.port)
            page = await fed.people.get("/", headers=headers)
            assert f"fednode client --central {told.json()['url']} " in page.text, (host, page.text)


def certificate(*names: str) -> Certificate:
    return Certificate(cert_path=Path("c"), key_path=Path("k"), pem="", names=names)


@pytest.mark.parametrize(("host", "names", "shown"), [
    ("192.168.1.5", (), "http://192.168.1.5:5000"),
    ("fe80::1", (), "http://[fe80::1]:5000"),
    ("192.168.1.5", ("192.168.1.5", "fed.example.org"), "https://192.168.1.5:5000"),
    ("0.0.0.0", ("localhost", "127.0.0.1", "*.example.org", "fed.example.org"), "https://fed.example.org:5000"),
])
def test_with_tls_the_address_for_others_is_a_name_of_the_certificate(
    host: str, names: tuple[str, ...], shown: str
) -> None:
    assert lan_url(host, 5000, certificate(*names) if names else None) == shown


@pytest.mark.parametrize("url", [
    "fed.example.org", "ftp://fed.example.org", "https://", "https://fed.example.org/below", "https://a@b",
    "https://fed.example.org?x", "https://fed.example.org:0", "https://[",
])
def test_a_public_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="--public-url"):
        checked_public_url(url)
    assert checked_public_url("https://Fed.example.org:8443/") == "https://fed.example.org:8443"


# --- what a browser is told --------------------------------------------------------------------------


async def test_a_browser_is_led_to_sign_in_and_back(reachable: Central) -> None:
    people = reachable.people
    led = await people.get("/runs/1?tab=a%20b", headers=A_BROWSER)
    assert (led.status_code, led.headers["location"]) == (303, "/sign-in?next=%2Fruns%2F1%3Ftab%3Da%2520b")
    form = await people.get(led.headers["location"], headers=A_BROWSER)
    assert 'value="/runs/1?tab=a%20b"' in form.text
    for headers in ({}, {"Accept": "application/json"}, A_BROWSER | {"HX-Request": "true"}):
        assert set((await people.get("/runs/1", headers=headers)).json()) == {"code", "message", "fix"}
    assert (await people.get("/api/v1/runs", headers=A_BROWSER)).json()["code"] == "not_authorised"
    wrong = await people.get("/", headers=A_BROWSER | {"Authorization": "Bearer join_x"})
    assert (wrong.status_code, "a join token" in wrong.text) == (401, True)


async def test_who_follows_another_sites_link_is_sent_on_by_a_page_of_ours(reachable: Central) -> None:
    """A browser keeps the cookie from a request that another site made, and shows it to the next one, which is ours."""
    people = reachable.people
    for elsewhere in ({"Sec-Fetch-Site": "cross-site"}, {"Referer": "http://wiki.example/page"}):
        again = await people.get("/runs/1?a=1&b=2", headers=A_BROWSER | elsewhere)
        assert again.status_code == 401
        assert '<meta http-equiv="refresh" content="0; url=/runs/1?a=1&amp;b=2">' in again.text
    own = str(people.base_url).rstrip("/")
    for ours in (
        {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Referer": f"{own}/runs"},
        {"Referer": "https://as-a-proxy-calls-us.example/runs/1?a=1&b=2"},       # the page above, which loads itself
    ):
        assert (await people.get("/runs/1?a=1&b=2", headers=A_BROWSER | ours)).status_code == 303


async def test_errors_are_pages_for_people_and_json_for_programs(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for method, path, status, told in [
            ("GET", "/nothing/<b>here</b>", 404, "here is nothing at /nothing/&lt;b&gt;here&lt;/b&gt;"),
            ("GET", "/runs/99", 404, "99"),
            ("DELETE", "/runs", 405, "/runs does not take DELETE"),
            ("POST", "/runs/1/explode", 422, "Verb: Input should be"),
        ]:
            page = await fed.people.request(method, path, headers=A_BROWSER)
            assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8"), page.text
            assert told in page.text
            assert "<h1>" in page.text
            program = await fed.people.request(method, path)
            assert program.status_code == status
            assert program.json().keys() >= {"code", "message", "fix"}
        foreign = await fed.people.get("/", headers=A_BROWSER | {"Host": "evil.example"})
        assert (foreign.status_code, "was called" in foreign.text) == (401, True)
        assert "http-equiv" not in foreign.text
        made_by_another = await fed.people.post("/runs/1/cancel", headers=A_BROWSER | {"Origin": "http://evil.example"})
        assert made_by_another.status_code == 401
        assert "http://evil.example" in made_by_another.text


async def test_every_answer_carries_the_security_headers(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for path, status, cache in [
            ("/", 200, "no-store"), ("/sign-in", 303, "no-store"), ("/nothing", 404, "no-store"),
            ("/api/v1/runs", 200, "no-store"), ("/openapi.json", 200, "no-store"),
            ("/static/fednode.css", 200, "no-cache"), ("/static/nothing.css?1", 404, "no-store"),
            ("/static/fednode.css?1", 200, "public, max-age=31536000, immutable"),
        ]:
            answer = await fed.people.get(path, headers=A_BROWSER)
            assert (answer.status_code, answer.headers["cache-control"]) == (status, cache), path
            policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
            assert policy == {
                "default-src": "'self'", "img-src": "'self' data:", "frame-ancestors": "'none'",
                "form-action": "'self'", "base-uri": "'none'", "object-src": "'none'",
            }
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert "strict-transport-security" not in answer.headers


async def test_with_tls_everything_is_https(tmp_path: Path) -> None:
    paths = make_certificate(tmp_path, "localhost", "fed.example.org")
    pair = load_certificate(*paths, SystemClock().wall_s())
    trusted = ssl.create_default_context(cafile=paths[0])
    async with central(tmp_path, host="0.0.0.0", certificate=pair) as fed:
        url = fed.serving.url
        assert (url, fed.serving.is_clear) == (f"https://localhost:{fed.serving.port}", False)
        note = read_note(tmp_path, url)
        assert (note["url"], note["certificate"]) == (url, paths[0].read_text())
        async with httpx2.AsyncClient(base_url=url, verify=trusted, trust_env=False) as browser:
            for host, is_told in (("localhost", False), ("fed.example.org:5000", True)):
                told = await browser.get("/healthz", headers={"Host": host})
                assert ("strict-transport-security" in told.headers) is is_told, host
            signed_in = await browser.get("/sign-in", params={"token": fed.serving.operator_token})
            assert "; Secure" in signed_in.headers["set-cookie"]
            for origin, status in ((url, 200), (url.replace("https", "http"), 401)):
                changed = await browser.post("/api/v1/tokens/join", headers={"Origin": origin})
                assert changed.status_code == status
            assert changed.headers["content-security-policy"]
        with pytest.raises(httpx2.RemoteProtocolError):
            await fed.people.get("/healthz")                    # it speaks nothing else


# --- the walk ----------------------------------------------------------------------------------------


def hidden_routes() -> set[tuple[str, str]]:
    """(method, path) of every route of every module of `fednode.central`, published or not."""
    names = [module.name for module in pkgutil.walk_packages(fednode.central.__path__, "fednode.central.")]
    routers = [getattr(importlib.import_module(name), "router", None) for name in names]
    return {
        (method, route.path)
        for router in routers if isinstance(router, APIRouter) for route in router.routes for method in route.methods
    }


async def published_routes(fed: Central) -> set[tuple[str, str]]:
    bearer = {"Authorization": f"Bearer {fed.serving.operator_token}"}
    spec = (await fed.people.get("/openapi.json", headers=bearer)).json()
    return {(method.upper(), path) for path, methods in spec["paths"].items() for method in methods}


async def test_no_route_answers_who_shows_nothing(reachable: Central) -> None:
    routes = await published_routes(reachable) | hidden_routes() | {("GET", "/openapi.json")}
    assert len(routes) > 40
    assert {("GET", "/"), *OPEN_TO_ALL, *JUDGED_BY_THEIR_BODY} <= routes
    for method, path in sorted(routes - OPEN_TO_ALL - JUDGED_BY_THEIR_BODY):
        asked = re.sub(r"\{[^}]*\}", "1", path)
        told = await reachable.people.request(method, asked)
        assert told.status_code == 401, (method, path, told.text)
        if method == "GET" and not path.startswith("/api/"):
            led = await reachable.people.get(asked, headers=A_BROWSER)
            assert (led.status_code, led.headers["location"][:14]) == (303, "/sign-in?next="), path


async def test_what_is_open_to_all_tells_nothing(reachable: Central) -> None:
    client = await reachable.client("a")
    stranger = ScriptedClient(client.http, "b")
    nameless = {"Authorization": ""}
    bodies = {
        "/api/v1/clients": {"json": stranger.registration()}, "/api/v1/nonces": {"json": {"name": "a"}},
        "/sign-in": {"data": {"token": ""}},
    }
    expected = {"/api/v1/clients": 401, "/api/v1/nonces": 200, "/sign-in": 401}
    answers = [await reachable.people.get(path) for _, path in sorted(OPEN_TO_ALL)]
    for _, path in sorted(JUDGED_BY_THEIR_BODY):
        answers.append(await reachable.people.post(path, headers=nameless, **bodies[path]))
        assert answers[-1].status_code == expected[path], answers[-1].text
    for answer in answers:
        assert not re.search(r"(op|join|sec)_[0-9a-f]{8}", answer.text)


async def test_static_files_are_open_and_nothing_beside_them(reachable: Central) -> None:
    assert (await reachable.people.get("/static/fednode.css")).status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/look.py", "/static/..%2flook.py", "/static/", "/static"):
        answer = await reachable.people.get(httpx2.URL(path))
        assert answer.status_code in (401, 404, 405, 307), path
        assert "import" not in answer.text
