"""Requests that nobody honest sends: each gets a plain refusal, and the honest poll after it its answer.

A row: what is sent, and which statuses will do. What only the scene knows stands as @secret, @assignment and so on.
Slow attacks, which wait for a timer, are in test_slow_connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from door_scene import CLOSED, Door, ask, request, require_well_told

Attacks: TypeAlias = dict[str, tuple[bytes, tuple[int, ...]]]

ME, RUNS = "/api/v1/clients/me/work", "/api/v1/runs"
UPDATE, METRICS = "/api/v1/assignments/@assignment/update", "/api/v1/assignments/@assignment/metrics"
SECRET, OPERATOR, JOIN = (f"Authorization: Bearer @{who}" for who in ("secret", "operator", "join"))
FORM = "application/x-www-form-urlencoded"
HUGE = "9" * 30
DIGITS = "9" * 5_000  # more than Python turns into an int


def get(target: str, *headers: str) -> bytes:
    return request("GET", target, *headers)


def post(target: str, body: Any, *headers: str) -> bytes:
    return request("POST", target, *headers, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def raw(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


def announced(**changes: Any) -> bytes:
    return post(UPDATE, {"num_bytes": 100, "digest": "0" * 32, "num_examples": 1} | changes, SECRET)


LINES: Attacks = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), (400,)),
    "a line without an end": (b"GET /healthz HTTP/1.1" + b"A" * 100_000, (400, 414, 431)),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), (400,)),
    "http/0.9": (b"GET /healthz\r\n\r\n", (400,)),
    "http/1.1 of another world": (raw("GET /healthz HTTP/9.9\nHost: localhost"), (400,)),
    "a method in lower case": (request("get", "/healthz"), (400, 405)),
    "a method of its own": (request("BREW", "/healthz"), (400, 405)),
    "TRACE": (request("TRACE", "/healthz"), (405,)),
    "CONNECT": (request("CONNECT", "localhost:443"), (400, 405)),
    "OPTIONS of everything": (request("OPTIONS", "*"), (400, 405)),
    "DELETE of runs": (request("DELETE", RUNS), (405,)),
    "PATCH of a file": (request("PATCH", "/static/fednode.js"), (405,)),
    "no Host": (raw("GET /healthz HTTP/1.1\nConnection: close"), (400,)),
    "an empty Host": (get("/healthz", "Host: "), (400,)),
    "two Hosts": (get("/healthz", "Host: localhost", "Host: localhost"), (400,)),
    "a foreign Host": (get(RUNS, "Host: evil.example"), (401,)),
    "a Host that is no name": (get(RUNS, "Host: localhost@evil.example"), (400,)),
    "a Host with half a bracket": (get(RUNS, "Host: [::1", OPERATOR), (200, 400)),
    "an absolute target of ours": (get("http://localhost:@port/healthz", "Host: localhost:@port"), (200,)),
    "an absolute target of another": (get("http://evil.example/healthz"), (400,)),
    "a target without a slash": (get("healthz"), (400,)),
    "a target with a space": (raw("GET /health z HTTP/1.1\nHost: localhost"), (400,)),
    "a raw byte in the path": (get("/healthz\xff"), (400, 404)),
    "a very long path": (get("/" + "a" * 100_000), (414,)),
    "a very long query": (get("/runs?status=" + "a" * 20_000), (414,)),
    "a very long header": (get("/healthz", "X-Long: " + "a" * 100_000), (431,)),
    "a header of megabytes": (get("/healthz", "X-Long: " + "a" * 5_000_000), (431, CLOSED)),
    "ten thousand headers": (get("/healthz", *(f"X-{n}: 1" for n in range(10_000))), (431,)),
    "a folded header": (get("/healthz", "X-A: 1", " folded"), (400,)),
    "a header without a colon": (get("/healthz", "X-Nothing"), (400,)),
    "a space before the colon": (get("/healthz", "X-A : 1"), (400,)),
    "NUL in a header": (get("/healthz", "X-A: a\0b"), (400,)),
    "a bare line feed": (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", (200, 400)),
    "a carriage return in a header": (get("/healthz", "X-A: a\rX-B: b"), (400,)),
    "Upgrade to h2c": (
        get("/healthz", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
        (200,),
    ),
    "Upgrade to WebSocket": (
        get(
            "/live", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAA", "Sec-WebSocket-Version: 13"
        ),
        (200, 400),
    ),
    "an Expect of its own": (get("/healthz", "Expect: a-miracle"), (417,)),
}

LENGTHS: Attacks = {
    "two lengths": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Length: 2\nContent-Length: 3", b"{} "),
        (400,),
    ),
    "two equal lengths": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Length: 2\nContent-Length: 2", b"{}"),
        (400,),
    ),
    **{
        f"a length of {length!r}": (
            raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Length: {length}", b"{}"),
            (400,),
        )
        for length in ("+2", "-2", "2, 2", "0x2", "2 2", "two", "", "\xb2", "99999999999999999999999", DIGITS)
    },
    "a length and chunks": (
        raw(
            f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Length: 2\nTransfer-Encoding: chunked",
            b"2\r\n{}\r\n0\r\n\r\n",
        ),
        (400,),
    ),
    "an encoding of its own": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nTransfer-Encoding: gzip, identity", b"{}"),
        (400, 415),
    ),
    "chunked twice": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked, chunked", b"0\r\n\r\n"),
        (400, 415),
    ),
    "a chunk size that overflows": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked", b"f" * 40 + b"\r\n"),
        (400, 415),
    ),
    "a chunk size that is none": (
        raw(
            f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked",
            b"-1\r\n",
        ),
        (400,),
    ),
    "trailers": (
        raw(
            f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked",
            b"2\r\n{}\r\n0\r\nAuthorization: Bearer op_\r\n\r\n",
        ),
        (400,),
    ),
    "an update in chunks": (
        raw(f"PUT {UPDATE} HTTP/1.1\nHost: localhost\n{SECRET}\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        (404, 411),
    ),
    "an update without a length": (raw(f"PUT {UPDATE} HTTP/1.1\nHost: localhost\n{SECRET}"), (404, 411)),
    "JSON of a gigabyte": (
        raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 1000000000", b"{"),
        (413,),
    ),
    "chunks without an end": (
        raw(
            f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked",
            b"100000\r\n" + b" " * 0x100000 + b"\r\n" + b"100000\r\n" + b" " * 0x100000 + b"\r\n",
        ),
        (413,),
    ),
    "a gigabyte after a promise": (
        raw(
            f"POST {RUNS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
            "Expect: 100-continue\nContent-Length: 1000000000"
        ),
        (413,),
    ),
    "a body for GET": (request("GET", RUNS, body=b"{}"), (200,)),
    "a zipped body": (post(RUNS, b"\x1f\x8b\x08", "Content-Encoding: gzip"), (415,)),
    "a zipped update": (request("PUT", UPDATE, SECRET, "Content-Encoding: gzip", body=b"x"), (415,)),
    "a request within a request": (post(RUNS, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), (422,)),
    "a thousand at once": (get("/healthz") * 1_000, (200,)),
}

PATHS: Attacks = {
    **{
        f"static {path}": (get(f"/static/{path}"), (400, 404))
        for path in (
            "../central/app.py",
            "..%2f..%2fcentral%2fapp.py",
            "%2e%2e/%2e%2e/etc/passwd",
            "..%5c..%5capp.py",
            "%252e%252e%252fapp.py",
            "....//....//app.py",
            "/etc/passwd",
            "%00.js",
            "fednode.js%00",
            "a" * 5_000,
            "%ff%fe",
            "..%c0%af..%c0%afapp.py",
        )
    },
    **{
        f"a model {ref}": (get(f"/api/v1/models/{ref}/params", OPERATOR), (400, 404))
        for ref in (
            "..%2f..%2ftokens.json",
            "%2e%2e",
            "0" * 64,
            "%00",
            "*",
            "%25",
            "a" * 4_000,
            "..",
            "%0d%0aX: 1".replace(" ", "%20"),
        )
    },
    **{
        f"a run {ref}": (get(f"{RUNS}/{ref}", OPERATOR), (400, 404))
        for ref in (
            HUGE,
            DIGITS,
            "-1",
            "%00",
            "%27%20OR%201=1--",
            "%ED%A0%80",
            "%F0%9F%92%A9",
            "_",
            "%25",
            "1e3",
            "%2e%2e%2f1",
        )
    },
    **{
        f"an assignment {ref}": (post(f"/api/v1/assignments/{ref}/metrics", {"local": []}, SECRET), (400, 404))
        for ref in (
            "@run.0.2",
            "@run.-1.1",
            f"@run.{HUGE}.1",
            "@run.1.1.1",
            "..%2f..",
            "@run.%D9%A1.%D9%A1",
            "%00",
            "@run..",
            "run.",
        )
    },
    "a client by traversal": (get("/api/v1/clients/..%2f..%2fetc", OPERATOR), (404,)),
    "NUL in a query": (get("/api/v1/clients?search=%00", OPERATOR), (400,)),
    "a page beyond all numbers": (get(f"/runs?page={HUGE}"), (422,)),
    "a page of words": (get("/models?page=last"), (422,)),
    "an event beyond all numbers": (get(f"/api/v1/events?after={HUGE}", OPERATOR), (422,)),
    "an event of minus one": (get("/api/v1/events?after=-1", OPERATOR), (422,)),
    "a limit of int64": (get(f"/api/v1/models?limit={2**63}", OPERATOR), (422,)),
    "an offset of int64": (get(f"/api/v1/clients?offset={2**63}", OPERATOR), (422,)),
    "an offset of five thousand digits": (get(f"/api/v1/clients?offset={DIGITS}", OPERATOR), (422,)),
    "a round beyond all numbers": (get(f"{RUNS}/1?before={2**64}", OPERATOR), (422,)),
    "a wait without an end": (get(f"{ME}?wait=inf", SECRET), (422,)),
    "a wait that is no number": (get(f"{ME}?wait=nan", SECRET), (422,)),
    "half a surrogate in a query": (get("/api/v1/clients?search=%ED%A0%80", OPERATOR), (200,)),
    "a search of percent signs": (get("/api/v1/clients?search=%25%25%25", OPERATOR), (200,)),
    "a thousand runs to compare": (
        get("/api/v1/compare?" + "&".join(["run=1"] * 1_000), OPERATOR),
        (400, 404, 409, 414, 422),
    ),
    "no run to compare": (get("/api/v1/compare", OPERATOR), (422,)),
    "a stream from beyond": (get("/live", f"Last-Event-ID: {DIGITS}"), (200,)),
}

BODIES: Attacks = {
    **{
        f"JSON: {name}": (post(RUNS, body, OPERATOR), (400, 422))
        for name, body in {
            "no JSON": b"{",
            "empty": b"",
            "a list": b"[]",
            "a number": b"7",
            "null": b"null",
            "NaN": b'{"task": "toy", "deadline_s": NaN}',
            "Infinity": b'{"task": "toy", "deadline_s": Infinity}',
            "beyond a float": b'{"task": "toy", "deadline_s": 1e999}',
            "a name twice": b'{"task": "toy", "task": "x"}',
            "half a surrogate": b'{"task": "toy", "task_config": {"a": "\\ud800"}}',
            "NUL": b'{"task": "a\\u0000b"}',
            "no UTF-8": b'{"task": "\xff\xfe"}',
            "UTF-16": '{"task": "toy"}'.encode("utf-16"),
            "deep lists": b"[" * 100_000,
            "deep objects": b'{"a":' * 100_000,
            "deep and whole": b'{"task_config": {"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
            "five thousand digits": b'{"task": "toy", "seed": ' + DIGITS.encode() + b"}",
            "an unknown field": b'{"task": "toy", "admin": true}',
            "a seed of int64": b'{"task": "toy", "seed": 9223372036854775808}',
            "rounds without an end": b'{"task": "toy", "rounds": 1e300}',
            "a task of megabytes": b'{"task": "' + b"a" * 900_000 + b'"}',
            "ten thousand names": json.dumps({f"f{n}": n for n in range(10_000)}).encode(),
            "a deadline of nothing": b'{"task": "toy", "deadline_s": 0}',
            "a name with a slash": b'{"task": "toy", "clients": ["../x"]}',
        }.items()
    },
    "a form for the API": (request("POST", RUNS, OPERATOR, body=b"task=toy", kind=FORM), (415,)),
    "XML": (request("POST", RUNS, OPERATOR, body=b"<a/>", kind="application/xml"), (415,)),
    "no type": (raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\n{OPERATOR}\nContent-Length: 2", b"{}"), (415, 422)),
    "a body without fields": (raw(f"POST {RUNS} HTTP/1.1\nHost: localhost\n{OPERATOR}\nContent-Length: 0"), (422,)),
    "metrics that overflow": (
        post(METRICS, b'{"local": [{"epoch": ' + HUGE.encode() + b', "values": {}}]}', SECRET),
        (422,),
    ),
    "metrics of infinity": (post(METRICS, b'{"local": [{"epoch": 1, "values": {"loss": 1e999}}]}', SECRET), (422,)),
    "an evaluation of words": (
        post(METRICS, {"evaluation": {"values": {"accuracy": "good"}, "num_examples": {}}}, SECRET),
        (422,),
    ),
    "an evaluation of too many": (
        post(METRICS, {"evaluation": {"values": {}, "num_examples": {"test": 10**39}}}, SECRET),
        (422,),
    ),
    "an evaluation of nothing": (post(METRICS, {"evaluation": {}}, SECRET), (422,)),
    "an update of int64": (announced(num_bytes=2**63), (422,)),
    "an update of nothing": (announced(num_bytes=0), (422,)),
    "an update of a path": (announced(digest="../../../../../../../../tmp/x"), (422,)),
    "an update of minus examples": (announced(num_examples=-1), (422,)),
    "a failure of its own code": (
        post("/api/v1/assignments/@assignment/failure", {"code": "root", "reason": ""}, SECRET),
        (422,),
    ),
    "a failure of megabytes": (
        post("/api/v1/assignments/@assignment/failure", {"code": "task_error", "reason": "a" * 500_000}, SECRET),
        (422,),
    ),
    "a name of a path": (
        post("/api/v1/clients", {"name": "../a", "public_key": "0" * 64, "proof": "0" * 128}, JOIN),
        (422,),
    ),
    "a key that is none": (
        post("/api/v1/clients", {"name": "a", "public_key": "0" * 64, "proof": "0" * 128}, JOIN),
        (401,),
    ),
    "an offer of a broken schema": (
        request(
            "PUT",
            "/api/v1/clients/me",
            SECRET,
            body=json.dumps(
                {"offers": [{"task": "toy", "fingerprint": "x", "schema": {"type": 7}, "metrics": [{"name": 1}]}]}
            ).encode(),
        ),
        (422,),
    ),
    "a multipart bomb": (
        request(
            "POST",
            "/sign-in",
            "Content-Type: multipart/form-data; boundary=x",
            body=b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n1\r\n' % n for n in range(15_000))
            + b"--x--",
        ),
        (413, 415),
    ),
    "a form of a hundred thousand fields": (request("POST", "/sign-in", body=b"a=1&" * 100_000, kind=FORM), (400, 413)),
    "a form with a name of half a megabyte": (
        request("POST", "/sign-in", body=b"a" * 500_000 + b"=1", kind=FORM),
        (400, 401, 413),
    ),
    "a form of a megabyte and more": (
        request("POST", "/sign-in", body=b"token=" + b"a" * 1_100_000, kind=FORM),
        (413,),
    ),
    "NUL in a form": (request("POST", "/sign-in", body=b"token=%00", kind=FORM), (400,)),
    "a token of no letters": (request("POST", "/sign-in", body=b"token=%ff%fe", kind=FORM), (401,)),
    "a launch of odd fields": (
        request("POST", "/launch", body=b"task=toy&rounds=%F0%9F%92%A9&rounds=2&pinned=x", kind=FORM),
        (200, 303, 422),
    ),
    "a launch of huge numbers": (
        request(
            "POST",
            "/launch/check",
            body=b"task=toy&run.rounds=" + DIGITS.encode() + b"&run.seed=" + HUGE.encode(),
            kind=FORM,
        ),
        (200, 422),
    ),
}

HEADERS: Attacks = {
    **{
        f"a range {said[:20]!r}": (get("/api/v1/models/" + "0" * 64 + "/params", OPERATOR, f"Range: {said}"), (404,))
        for said in (
            "bytes=" + "0-1," * 5_000,
            "bytes=9-1",
            f"bytes={HUGE}-",
            f"bytes=0-{DIGITS}",
            "lines=1-2",
            "bytes=-",
            "bytes=\xb2-",
        )
    },
    **{
        f"a static range {said[:20]!r}": (get("/static/fednode.js", f"Range: {said}"), (200, 206, 400, 416))
        for said in (
            "bytes=" + ",".join(f"{n}-{n}" for n in range(3_000)),
            "bytes=9-1",
            f"bytes={HUGE}-",
            f"bytes=0-{DIGITS}",
            "lines=1-2",
            "bytes=-",
            "bytes=\xb2-",
            "bytes=0-0,-1",
            "bytes=-0",
            "bytes",
        )
    },
    "an If-None-Match flood": (
        get("/static/fednode.js", "If-None-Match: " + ", ".join(f'"{n}"' for n in range(3_000))),
        (200, 431),
    ),
    "a date that is none": (get("/static/fednode.js", "If-Modified-Since: yesterday, or so"), (200,)),
    "a protocol of five thousand digits": (get("/healthz", f"Fednode-Protocol: {DIGITS}"), (422,)),
    "a protocol of words": (get("/healthz", "Fednode-Protocol: newest"), (422,)),
    "an old protocol": (get("/healthz", "Fednode-Protocol: 0"), (426,)),
    "an Origin that is none": (get(RUNS, "Origin: http://["), (401,)),
    "a Referer that is none": (
        get("/runs", "Origin: http://evil.example", "Accept: text/html", "Referer: http://["),
        (200, 303, 401),
    ),
    "another site's post": (post(RUNS, {"task": "toy"}, "Origin: https://evil.example"), (401,)),
    "another site's post without an Origin": (post(RUNS, {"task": "toy"}, "Sec-Fetch-Site: cross-site"), (401,)),
    "another site's form": (
        request("POST", "/launch", "Sec-Fetch-Site: cross-site", body=b"task=toy", kind=FORM),
        (401,),
    ),
    "a bearer of another alphabet": (get(RUNS, "Authorization: Bearer op_\xe9\xe9"), (401,)),
    "a bearer of kilobytes": (get(RUNS, "Authorization: Bearer op_" + "0" * 20_000), (401,)),
    "a bearer of nothing": (get(ME, "Authorization: Bearer "), (401,)),
    "Basic": (get(ME, "Authorization: Basic YTpi"), (401,)),
    "two bearers": (get(ME, SECRET, "Authorization: Bearer sec_0"), (200, 400, 401)),
    "an operator for a client": (get(ME, OPERATOR), (401,)),
    "a client for an operator": (get(RUNS, SECRET), (401,)),
    "a joiner for an operator": (get(RUNS, JOIN), (401,)),
    "a thousand cookies": (
        get(RUNS, "X-Forwarded-For: 1.2.3.4", "Cookie: " + "; ".join(f"fednode_{n}=x" for n in range(1_000))),
        (401,),
    ),
    "a cookie of no letters": (get(RUNS, "X-Forwarded-For: 1.2.3.4", "Cookie: fednode=\xff\xfe; =; ;;"), (401,)),
    "a method in a header": (get(RUNS, "X-HTTP-Method-Override: DELETE"), (200,)),
    "markup in a path": (get("/%3Cscript%3Ealert(1)%3C/script%3E", "Accept: text/html"), (404,)),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    scene = Door(tmp_path_factory.mktemp("attacked") / "central")
    yield scene
    scene.close()


@pytest.mark.parametrize(
    "attacks", [LINES, LENGTHS, PATHS, BODIES, HEADERS], ids=["lines", "lengths", "paths", "bodies", "headers"]
)
def test_no_request_gets_more_than_a_plain_refusal(door: Door, attacks: Attacks) -> None:
    wrong = {}
    for name, (sent, statuses) in attacks.items():
        heard = ask(door.port, door.filled(sent))
        try:
            assert heard.status in statuses, heard
            require_well_told(heard)
            assert not door.holds()["withdrawn"]
        except AssertionError as error:
            wrong[name] = str(error)[:400]
    assert not wrong, "\n".join(f"{name}: {said}" for name, said in wrong.items())
    assert "Traceback" not in door.log()


def test_there_are_many_attacks() -> None:
    assert sum(map(len, (LINES, LENGTHS, PATHS, BODIES, HEADERS))) >= 150
