"""One client that misbehaves, in each way that we could think of, beside honest ones: their round goes on without it.

All misdeeds happen in the same round of one run, each by a client of its own, so that the waits are one wait. What they
send would move the model by 1000, what honest clients send by 1: the next model shows whose updates are in it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import People, anonymous_bytes, failures_of, until
from raw_client import HonestClient, RawClient, Said, Work, answer_of, body_of, floats_of, update_path

from federation_scene import Federation
from torture_scale import pick

TASK = Path(__file__).with_name("counting_task.py")
NUM_PARAMS = pick(250_000, 5_000_000)           # 1 MB, 20 MB
DEADLINE_S = pick(15, 50)                       # less than the 60 s after which the silent ones are gone
PATIENCE_S = DEADLINE_S + 120.0                 # until a round is over
EVIL_STEP = 1000.0
GIGANTIC_BYTES = 200 << 20
REAL, RAW = "a-real", "b-raw"                   # the honest ones
UPDATE = "an update"                            # what counts in spite of all


@dataclass
class Scene:
    """What a misdeed may look at."""

    people: People
    round_is_over: threading.Event = field(default_factory=threading.Event)


Misdeed = Callable[[RawClient, Work, Scene], None]
MISDEEDS: dict[str, tuple[Misdeed, str, str]] = {}      # by client -> what it does; the record's code and sentence


def ends_as(code: str, sentence: str = "") -> Callable[[Misdeed], Misdeed]:
    def enter(misdeed: Misdeed) -> Misdeed:
        MISDEEDS["m-" + misdeed.__name__.replace("_", "-")] = misdeed, code, sentence
        return misdeed

    return enter


TOO_LATE = f"not done within the round's {DEADLINE_S} s"


# --- it never brings what was asked -------------------------------------------------------------------


@ends_as("deadline", TOO_LATE)
def leases_and_disappears(evil: RawClient, work: Work, scene: Scene) -> None:
    pass


@ends_as("deadline", TOO_LATE)
def measures_and_disappears(evil: RawClient, work: Work, scene: Scene) -> None:
    assert evil.measure(work).status == 200


@ends_as("deadline", TOO_LATE)
def hangs_in_mid_upload(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    line = evil.begin_put(work, len(body), body[: len(body) // 2])
    assert scene.round_is_over.wait(PATIENCE_S)
    assert_hung_up(line)


@ends_as("deadline", TOO_LATE)
def sends_one_byte_a_second(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    line = evil.begin_put(work, len(body), body[:1000])
    for number in range(1000, 1000 + 10 * DEADLINE_S):
        if scene.round_is_over.wait(1):
            break
        try:
            line.sendall(body[number : number + 1])
        except OSError:                 # hung up on: the round is over, or this is no progress
            return
    assert_hung_up(line, drip=b"\0")


@ends_as("deadline", TOO_LATE)
def hangs_up_in_mid_upload(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    evil.begin_put(work, len(body), body[: len(body) // 2]).close()


@ends_as("deadline", TOO_LATE)
def sends_bytes_of_another_digest(evil: RawClient, work: Work, scene: Scene) -> None:
    for _ in range(3):
        body = announced(evil, work)
        said = evil.put(work, body[:-4] + body_of([7.0])[-4:])
        assert (said.status, said.code) == (422, "bad_params_file"), said
        assert "arrived damaged" in said.json["message"]


@ends_as("deadline", TOO_LATE)
def sends_less_than_announced(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    assert evil.put(work, body[:-1]).status == 400
    assert evil.put(work, body, offset=1).status == 409


@ends_as("deadline", TOO_LATE)
def sends_more_than_announced(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    line = evil.begin_put(work, GIGANTIC_BYTES, body)
    said = flooded(line, GIGANTIC_BYTES - len(body))
    assert said.status in (0, 413), said                # 0: it hung up in mid-flood


@ends_as("deadline", TOO_LATE)
def sends_what_nobody_announced(evil: RawClient, work: Work, scene: Scene) -> None:
    said = flooded(evil.begin_put(work, GIGANTIC_BYTES, b""), GIGANTIC_BYTES)
    assert said.status in (0, 404), said


@ends_as("deadline", TOO_LATE)
def sends_a_gigantic_json(evil: RawClient, work: Work, scene: Scene) -> None:
    head = f"POST {update_path(work)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {evil.secret}\r\n"
    line = evil.open(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
    said = flooded(line, 64 * len(piece), piece)
    assert said.status in (0, 413), said
    assert evil.tell(work, "metrics", b"[" * 100_000).status == 422
    assert evil.tell(work, "update", b'{"environment":' + b'{"a":' * 100_000 + b"}" * 100_001).status == 422


@ends_as("deadline", TOO_LATE)
def lies_about_its_examples(evil: RawClient, work: Work, scene: Scene) -> None:
    body = evil.trained(work, EVIL_STEP)
    for count in (-1, 2**63, 10**400, 1.5, "many", None, float("nan"), float("inf")):
        said = evil.announce(work, body, num_examples=count)
        assert said.status == 422, (count, said)


@ends_as("deadline", TOO_LATE)
def names_other_rounds(evil: RawClient, work: Work, scene: Scene) -> None:
    body = evil.trained(work, EVIL_STEP)
    run = work["run_id"]
    for wrong in (f"{run}.0.1", f"{run}.1.2", f"{run}.99.1", f"{run}.1", "..1.1", f"{run}.1.{'9' * 30}", "x" * 5000):
        said = evil.bring({"id": wrong}, body)
        assert (said.status, said.code) == (404, "not_found"), (wrong, said)
        assert evil.tell({"id": wrong}, "failure", {"code": "task_error", "reason": "?"}).status == 404


@ends_as("deadline", TOO_LATE)
def sends_evaluations_that_are_none(evil: RawClient, work: Work, scene: Scene) -> None:
    bad_values: list[Any] = [
        {"accuracy": "high"}, {"accuracy": [1, 2]}, {"confusion": {"sum": "all"}},
        {"confusion": {"sum": [[1], [1, 2]]}},
        {"confusion": {"histogram": [[-1.0], [1.0]]}}, [], [1], "text", {"accuracy": {"sum": [1], "more": 1}},
        {"accuracy": True}, {"confusion": {"sum": {"a": 1}}}, {"confusion": {"sum": deep(100)}},
    ]
    for values in bad_values:
        assert evil.measure(work, values).status == 422, values
    for count in (-1, 2**63, 10**400, float("inf"), float("nan"), "x", None, []):
        said = evil.measure(work, counts={"test": count})
        assert said.status == 422, (count, said)
    assert evil.measure(work, counts={"train": 3}).status == 422


# --- it brings what cannot be taken --------------------------------------------------------------------


@ends_as("refused", "NaN or an infinity")
def brings_a_nan_in_the_last_place(evil: RawClient, work: Work, scene: Scene) -> None:
    assert refused(evil, work, with_last(evil.trained(work, EVIL_STEP), np.nan)) == "not_finite"


@ends_as("refused", "NaN or an infinity")
def brings_an_infinity_in_the_last_place(evil: RawClient, work: Work, scene: Scene) -> None:
    assert refused(evil, work, with_last(evil.trained(work, EVIL_STEP), -np.inf)) == "not_finite"


@ends_as("refused", r"lacks tensor 'w'|extra tensor 'v'")
def brings_other_names(evil: RawClient, work: Work, scene: Scene) -> None:
    assert refused(evil, work, body_of(np.full(NUM_PARAMS, EVIL_STEP), name="v")) == "params_mismatch"


@ends_as("refused", r"of shape \[1, \d+\], the run's is float32 of shape")
def brings_another_shape_of_the_same_size(evil: RawClient, work: Work, scene: Scene) -> None:
    assert refused(evil, work, body_of(np.full((1, NUM_PARAMS), EVIL_STEP))) == "params_mismatch"


@ends_as("refused", "without a header")
def announces_too_little(evil: RawClient, work: Work, scene: Scene) -> None:
    assert evil.announce(work, body_of([1.0])).code == "params_mismatch"


@ends_as("refused", "the limit is")
def announces_a_gigantic_body(evil: RawClient, work: Work, scene: Scene) -> None:
    assert evil.announce(work, b"", num_bytes=10**15).code == "too_large"


@ends_as("refused", "0 examples")
def brings_no_examples(evil: RawClient, work: Work, scene: Scene) -> None:
    said = evil.announce(work, evil.trained(work, EVIL_STEP), num_examples=0)
    assert (said.status, said.code) == (422, "params_mismatch"), said


@ends_as("refused", "header")
def brings_a_header_that_is_none(evil: RawClient, work: Work, scene: Scene) -> None:
    body = evil.trained(work, EVIL_STEP)
    assert refused(evil, work, b"\xff" * 100 + body[100:]) in ("bad_params_file", "params_mismatch", "too_large")


# --- it brings too much ----------------------------------------------------------------------------------


@ends_as(UPDATE)
def brings_it_twice_and_then_another(evil: RawClient, work: Work, scene: Scene) -> None:
    body, other = evil.trained(work), evil.trained(work, EVIL_STEP)
    assert evil.bring(work, body).json["is_complete"]
    assert evil.bring(work, body).json["is_complete"]
    assert evil.put(work, body, offset=len(body)).json["is_complete"]
    assert evil.announce(work, body, num_examples=10**6).json["is_complete"]        # the first word counts
    for said in (evil.announce(work, other), evil.put(work, other), evil.put(work, body, offset=7)):
        assert said.code == "already_reported", said
    assert evil.tell(work, "failure", {"code": "task_error", "reason": "no"}).code == "already_reported"


@ends_as(UPDATE)
def brings_it_in_twenty_parts_over_twenty_lines(evil: RawClient, work: Work, scene: Scene) -> None:
    body = evil.trained(work)
    assert evil.announce(work, body).status == 200
    offset = 0
    for part in range(1, 21):
        end = len(body) * part // 20
        line = evil.begin_put(work, len(body) - offset, body[offset:end], offset)
        offset = until(lambda at=end - 1: arrived(evil, work, above=at), "a part to arrive whole")
        line.close()
    assert evil.put(work, body, len(body)).json["is_complete"]


@ends_as(UPDATE)
def polls_over_fifty_lines(evil: RawClient, work: Work, scene: Scene) -> None:
    with ThreadPoolExecutor(50) as fifty:
        first = list(fifty.map(lambda _: evil.poll(), range(50)))
        assert {said.json["assignment"]["id"] for said in first} == {work["id"]}
        evil.do(work)
        assert all(said.json["withdrawn"] for said in fifty.map(lambda _: evil.poll(work["id"], 0), range(50)))


@ends_as(UPDATE)
def spams_scores(evil: RawClient, work: Work, scene: Scene) -> None:
    for batch in range(20):
        epochs = [{"epoch": 10 * batch + k, "values": {f"x{n}": 1.0 for n in range(50)}} for k in range(1, 11)]
        assert evil.tell(work, "metrics", {"local": epochs}).status == 200
    for epoch in (0, -1, 2**63, 10**400, "x"):
        assert evil.tell(work, "metrics", {"local": [{"epoch": epoch, "values": {}}]}).status == 422, epoch
    for value in (float("nan"), float("inf"), 10**400, "x"):
        assert evil.tell(work, "metrics", {"local": [{"epoch": 1, "values": {"x": value}}]}).status == 422, value
    evil.do(work)


@ends_as(UPDATE)
def measures_a_matrix_of_another_shape(evil: RawClient, work: Work, scene: Scene) -> None:
    evil.measure(work, {"accuracy": 0.5, "confusion": {"sum": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}})
    assert evil.bring(work, evil.trained(work)).status == 200


@ends_as(UPDATE)
def measures_beyond_all_numbers(evil: RawClient, work: Work, scene: Scene) -> None:
    huge = {"accuracy": 1.7e308, "confusion": {"sum": [[1.7e308, 1.7e308], [1.7e308, 0]]}, "unknown": 1e308}
    assert evil.measure(work, huge, {"test": 2**53}).status == 200
    assert evil.bring(work, evil.trained(work)).status == 200


@ends_as(UPDATE)
def measures_what_is_not_finite(evil: RawClient, work: Work, scene: Scene) -> None:
    """Of a diverged loss: left out, as if it had not been measured."""
    assert evil.measure(work, {"accuracy": float("nan"), "confusion": {"sum": [[float("inf")]]}}).status in (200, 422)
    assert evil.bring(work, evil.trained(work)).status == 200


# --- it comes when it is no longer asked ------------------------------------------------------------------


@ends_as("deadline", TOO_LATE)
def brings_it_late(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    assert scene.round_is_over.wait(PATIENCE_S)
    for said in (evil.put(work, body), evil.announce(work, body), evil.measure(work)):
        assert (said.status, said.code) == (409, "round_closed"), said
    assert evil.poll(work["id"], 0).json["withdrawn"]


@ends_as("gone", "was revoked")
def is_revoked_in_mid_upload(evil: RawClient, work: Work, scene: Scene) -> None:
    body = announced(evil, work)
    line = evil.begin_put(work, len(body), body[: len(body) // 2])
    until(lambda: arrived(evil, work, above=0), "the first half")
    assert scene.people.call("POST", f"/api/v1/clients/{evil.name}/revoke").status == 200
    with contextlib.suppress(OSError):
        line.sendall(body[len(body) // 2 :])
    assert answer_of(line).status in (0, 401)
    assert evil.poll().status == 401
    assert evil.put(work, body, offset=len(body)).status == 401


# --- the round ---------------------------------------------------------------------------------------------


@pytest.fixture
def people(federation: Federation) -> People:
    federation.start_central()
    federation.start_client(REAL, "--task", f"{TASK}:Counting")
    return People(federation.port)


@pytest.fixture
def mob(people: People) -> Iterator[dict[str, RawClient]]:
    """Everybody but the real client: one more that is honest, an outsider, and all who will misbehave."""
    people.until_there(REAL)
    token, offers = people.join_token(), people.get(f"clients/{REAL}")["offers"]
    everybody = {name: RawClient(people.port, name) for name in (RAW, "z-outsider", *MISDEEDS)}
    for raw in everybody.values():
        raw.join(token, offers)
    honest = HonestClient(everybody[RAW])
    honest.start()
    yield everybody
    honest.stop()
    for raw in everybody.values():
        raw.close()


def test_a_round_goes_on_whatever_one_of_its_clients_does_and_says_what_it_did(
    federation: Federation, people: People, mob: dict[str, RawClient], figures: Any
) -> None:
    scene, central = Scene(people), federation.members["central"].pid
    before_bytes = anonymous_bytes(central)
    run_id = people.start_run(
        rounds=2, clients=[REAL, RAW, *MISDEEDS], min_updates=2, deadline_s=DEADLINE_S,
        task_config={"num_params": NUM_PARAMS},
    )
    with ThreadPoolExecutor(len(MISDEEDS)) as all_at_once:
        acts = {
            name: all_at_once.submit(lambda n=name, m=misdeed: m(mob[n], mob[n].work(), scene))
            for name, (misdeed, _, _) in MISDEEDS.items()
        }
        try:
            people.open_round(run_id, 1)
            assert_an_outsider_has_no_part(mob["z-outsider"], f"{run_id}.1.1")
            first = people.ended_round(run_id, 1, PATIENCE_S)
            growth_bytes = anonymous_bytes(central) - before_bytes
        finally:
            scene.round_is_over.set()
        wrong = {name: error for name, act in acts.items() if (error := act.exception(PATIENCE_S)) is not None}
    assert not wrong, "\n".join(f"{name}: {error!r}" for name, error in wrong.items())
    for name in MISDEEDS:
        mob[name].call("POST", "/api/v1/clients/me/leave")
    summary = people.end_of(run_id)

    assert (summary["status"], summary["rounds"]) == ("completed", 2), summary
    assert_recorded(first)
    model = floats_of(mob[RAW].fetch({"base_model": first["model_sha256"]}))
    assert (model.min(), model.max()) == (1.0, 1.0)     # everybody who counts took one step of 1
    assert_honest(federation)
    assert_nothing_is_left(federation, run_id)
    assert growth_bytes < 64 << 20, "a body was kept in memory"
    figures.note(misdeeds=len(MISDEEDS), memory_growth_mb=growth_bytes >> 20, num_params=NUM_PARAMS)


def assert_recorded(row: dict[str, Any]) -> None:
    """Each client's failure is in the record, with its code and its sentence; who counts has none."""
    failures = failures_of(row)
    assert len(row["clients"]) == len(MISDEEDS) + 2
    assert failures.keys() == {name for name, (_, code, _) in MISDEEDS.items() if code != UPDATE}
    for name, (code, reason) in failures.items():
        _, wanted, sentence = MISDEEDS[name]
        assert code == wanted, (name, code, reason)
        assert re.search(sentence, reason), (name, reason)


def assert_honest(federation: Federation) -> None:
    """Nobody's misdeed was a mistake of ours, and the real client lives."""
    log = (federation.folder / "central.log").read_text()
    assert "Traceback" not in log, log
    assert "request.failed" not in log, log
    assert federation.members[REAL].poll() is None, federation.log(REAL)


def assert_nothing_is_left(federation: Federation, run_id: str) -> None:
    params = federation.folder / "central" / "params"
    left = [*params.glob("incoming/*"), *params.glob(f"updates/{run_id}/*/*")]
    assert left == []
    for descriptor in Path(f"/proc/{federation.members['central'].pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            assert "incoming" not in str(descriptor.readlink()), "a body that nobody wants is still open"


def assert_an_outsider_has_no_part(outsider: RawClient, assignment: str) -> None:
    """The id of an assignment opens nothing for a client that was not asked."""
    work = {"id": assignment}
    body = body_of(np.full(NUM_PARAMS, EVIL_STEP))
    told = {"code": "task_error", "reason": "?"}
    for said in (outsider.bring(work, body), outsider.measure(work), outsider.tell(work, "failure", told)):
        assert (said.status, said.code) == (404, "not_found"), said


# --- what they share ------------------------------------------------------------------------------------


def announced(evil: RawClient, work: Work) -> bytes:
    body = evil.trained(work, EVIL_STEP)
    assert evil.announce(work, body).status == 200
    return body


def refused(evil: RawClient, work: Work, body: bytes) -> str:
    """The code of the answer to the body's last byte. A refusal is final."""
    said = evil.bring(work, body)
    assert said.status == 422, said
    assert evil.announce(work, evil.trained(work)).code == "already_reported"
    return said.code


def with_last(body: bytes, value: float) -> bytes:
    return body[:-4] + np.float32(value).tobytes()


def arrived(evil: RawClient, work: Work, above: int) -> int:
    """Bytes that are there, where they are more than `above`; else 0."""
    said = evil.call("HEAD", update_path(work))
    offset = int(said.headers.get("upload-offset", 0))
    return offset if offset > above else 0


def flooded(line: socket.socket, num_bytes: int, piece: bytes = bytes(1 << 20)) -> Said:
    """Send as much as is taken; the answer, if there was one."""
    with contextlib.suppress(OSError):
        for _ in range(num_bytes // len(piece)):
            line.sendall(piece)
    return answer_of(line)


def assert_hung_up(line: socket.socket, drip: bytes = b"") -> None:
    """The central node ends what it does not want any more, or says so."""
    end_s = time.monotonic() + 30
    line.settimeout(1)
    while time.monotonic() < end_s:
        try:
            line.sendall(drip)
            said = line.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return
        assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), said
        return
    raise AssertionError("the round is over, and its upload goes on")


def deep(levels: int) -> Any:
    found: Any = 1.0
    for _ in range(levels):
        found = [found]
    return found
