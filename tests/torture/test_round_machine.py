"""The round against a model of it that fits on a page: whatever clients, people, clocks and crashes do, in any order.

The central node is the real one, in a simulated world (`simulated_world`): its routes over its SQLite store, killed
and started again between any two steps and in the middle of some. What the reference model knows of a client's part in
a round is one word: what it brought, or how it ended. From that follow the answer to each request, what each round
closes with, and every committed model, to the bit.

The short form was shown to catch each of these bugs when it was put in by hand, within 11 of its 20 examples: a late
update that is taken, a cohort selected anew after a restart, a pause that never gives its work out again, work that is
taken though it was withdrawn, a deadline that begins anew at each restart, an update's file swept at a restart; and
within 8 of 20, under each of three seeds: an update that counts twice after a take-over, and one asked for again then.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated_sites import CALM, ENDED, ZEROS, Federation, Site, Values, announcement, body_of, enrolled, mean, post
from simulated_world import Answer, Lost, Request, world

from fednode.core.journal import JournalRow
from fednode.store.rows import last_event_seq
from torture_scale import IS_FULL, pick

SEED = 20_261_124               # of the full form's examples; the short one's are the same every time
NAMES = ["a", "b", "c", "d", "e"]
NUM_AT_START = 3                # are heard of at once; the others may come later
DEADLINE_S = 120.0
LOST_BY_A_KILL_S = 7.0          # of a round's budget that was spent: saved every 5 s, looked at every second
MAX_RUNS = 3
NAN: Values = (float("nan"), *ZEROS[1:])

Part = tuple[int, int, int, str]            # run, round, attempt, client
CLIENTS = st.sampled_from(NAMES)
PICKS = st.integers(min_value=0, max_value=10**6)


# --- the reference model ----------------------------------------------------------------------------------


@dataclass
class Reference:
    """What must be true of rounds, in plain dicts."""

    brought: dict[Part, Values | None] = field(default_factory=dict)    # None: it only measured
    failed: set[Part] = field(default_factory=set)                      # it said so, or what it sent was refused
    withdrawn: set[Part] = field(default_factory=set)                   # by `pause --now` or `cancel`
    opened: dict[tuple[int, int, int], list[str]] = field(default_factory=dict)     # an attempt's cohort
    closed: set[tuple[int, int, int]] = field(default_factory=set)      # its outcomes are frozen, or its run ended
    open_s: dict[tuple[int, int, int], float] = field(default_factory=dict)         # of up-time, its run running

    def answer_to(self, part: Part, *, is_same: bool) -> str:
        """What a report is told. `is_same`: as that which this client reported before."""
        if part in self.brought:
            return "200" if is_same else "409 already_reported"
        if part in self.failed and part[:3] not in self.closed:
            return "200" if is_same else "409 already_reported"
        if part in self.withdrawn:
            return "409 withdrawn"
        return "409 round_closed" if part[:3] in self.closed else "200"

    def is_waiting(self, part: Part) -> bool:
        return self.answer_to(part, is_same=False) == "200"

    def open_of(self, run: int) -> tuple[int, int, int] | None:
        return next((key for key in self.opened if key[0] == run and key not in self.closed), None)

    def withdraw(self, run: int) -> None:
        """What nobody has reported yet is taken back."""
        if (key := self.open_of(run)) is not None:
            self.withdrawn |= {(*key, name) for name in self.opened[key] if self.is_waiting((*key, name))}

    def give_out_again(self, run: int) -> None:
        self.withdrawn -= {part for part in self.withdrawn if part[0] == run and part[:3] not in self.closed}

    def learn(self, run: int, entry: dict[str, Any]) -> None:
        """A decision of the journal. A later attempt takes over what its cohort brought to an earlier one."""
        if entry["what"] == "round opened":
            key = (run, entry["round"], entry["attempt"])
            self.opened[key] = entry["cohort"]
            for old in sorted(key for key in self.opened if key[:2] == (run, entry["round"])):
                for name in entry["cohort"]:
                    if old != key and self.brought.get((*old, name)) is not None:
                        self.brought[(*key, name)] = self.brought[(*old, name)]
        if entry["what"] == "round closed":
            self.closed.add((run, entry["round"], entry["attempt"]))
        if entry["what"] == "ended":
            self.closed |= {key for key in self.opened if key[0] == run}

    def outcome_of(self, part: Part, num_examples: int) -> Any:
        """As the journal has it; a failure's code is `str`."""
        if part not in self.brought:
            return str
        return None if self.brought[part] is None else num_examples


# --- the machine --------------------------------------------------------------------------------------------


@cache
def five() -> tuple[Path, dict[str, str]]:
    """A central node's state that knows all names, and their secrets; kept while the tests run."""
    kept = tempfile.TemporaryDirectory(prefix="fednode-five-")
    folder = Path(kept.name) / "state"
    secrets = enrolled(NAMES, folder)
    _KEPT.append(kept)
    return folder, secrets


_KEPT: list[Any] = []


class RoundMachine(RuleBasedStateMachine):
    """One central node, five clients, a person."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder, secrets = five()
        self.world = self.stack.enter_context(world(1, folder))
        self.fed = Federation(world=self.world, weather=CALM)
        self.sites = {
            name: Site(fed=self.fed, name=name, index=index, secret=secrets[name]) for index, name in enumerate(NAMES)
        }
        self.model = Reference()
        self.journals: dict[int, list[JournalRow]] = {}
        self.runs: dict[int, dict[str, Any]] = {}           # as last seen, by number
        self.given: list[tuple[str, dict[str, Any]]] = []   # client and assignment, of every delivery
        self.revoked: set[str] = set()
        self.cancelled: set[int] = set()
        self.num_kills = 0
        self.must_look = True           # all runs are looked at, ended ones too: it has died, or somebody moved a run
        self.seen_seq = 0               # of the newest event at the last look

    @initialize(rounds=st.integers(1, 2), min_updates=st.sampled_from([1, 2, 2]))
    def begin(self, rounds: int, min_updates: int) -> None:
        self.world.run(self.world.start())
        self.world.run(asyncio.sleep(61))       # nobody is awaited any more
        for name in NAMES[:NUM_AT_START]:
            self.say(name)
        self._launch([], rounds, min_updates)

    # --- clients ------------------------------------------------------------------------------------------

    def say(self, name: str) -> None:
        """A client node is started, or comes back."""
        site = self.sites[name]
        if name not in self.revoked:
            self.world.run(site.say())

    @rule(name=CLIENTS)
    def poll(self, name: str) -> None:
        """It gets what is waiting for it, as often as it asks, and nothing else."""
        said = self._ask(self.sites[name]._poll())
        assert said.said == ("401 not_authorised" if name in self.revoked else "200")
        if name in self.revoked:
            return
        found = said.json["assignment"]
        waiting = [key for key, cohort in self.model.opened.items()
                   if name in cohort and self._is_running(key[0]) and self.model.is_waiting((*key, name))]
        got = [] if found is None else [(found["run_number"], found["number"], found["attempt"])]
        assert got == waiting
        if found is not None:
            self.given.append((name, found))

    def hold(self, pick: int) -> None:
        """It asks whether it may go on."""
        name, assignment = self._given(pick)
        if name in self.revoked:
            return
        said = self._ask(self.sites[name]._poll(holding=assignment["id"]))
        is_wanted = self.model.is_waiting(self._part(name, assignment))
        assert said.json == {"assignment": None, "withdrawn": not is_wanted}

    @precondition(lambda self: self.given)
    @rule(pick=PICKS, is_other=st.booleans(), dies_at=st.sampled_from([None, None, 1, 2, 3, 4, 5, 7, 9]))
    def bring(self, pick: int, is_other: bool, dies_at: int | None) -> None:
        """A good update, of this round or an old one: for the first time, again, another one; and a kill in it."""
        name, assignment = self._given(pick)
        part = self._part(name, assignment)
        if assignment["kind"] == "evaluate":
            self._measure(name, assignment)
            return
        values = (7.0, 7.0, 7.0, float(pick % 3)) if is_other else self._values_of(name, assignment)
        is_known = part in self.model.brought
        expected = self.model.answer_to(part, is_same=is_known and self.model.brought[part] == values)
        if name in self.revoked:
            expected = "401 not_authorised"
        if dies_at is not None:
            self.world.fatal = {("thread", "commit")[pick % 2]: dies_at}
        said = self._bring(name, assignment, values)
        self.world.fatal = {}
        if said is None:                        # killed in it: done or not, and again it must come to the same
            self._restart(1.0)
            said = self._bring(name, assignment, values)
        assert said is not None
        assert said.said == expected, (said.said, expected, said.body)
        if said.status == 200:
            self.model.brought[part] = values

    def bring_bad(self, pick: int, what: str) -> None:
        """What is wrong in itself ends the client's part; what came damaged may come again."""
        name, assignment = self._given(pick)
        part = self._part(name, assignment)
        if assignment["kind"] == "evaluate" or (assignment["kind"], what) == ("init", "shape"):
            return
        body, changes = {
            "nan": (body_of(*NAN), {}), "shape": (body_of(1, 2), {}), "digest": (body_of(*ZEROS), {"digest": "0" * 32}),
        }[what]
        expected = self.model.answer_to(part, is_same=False)
        if expected == "200":
            expected = {"nan": "422 not_finite", "shape": "422 params_mismatch", "digest": "422 bad_params_file"}[what]
            if what != "digest" and name not in self.revoked:
                self.model.failed.add(part)
        said = self._send(name, assignment, body, announcement(body, self._num_examples(name, assignment)) | changes)
        assert said is not None
        assert said.said == ("401 not_authorised" if name in self.revoked else expected)

    def fail(self, pick: int) -> None:
        name, assignment = self._given(pick)
        part = self._part(name, assignment)
        expected = self.model.answer_to(part, is_same=part in self.model.failed)
        failure = {"code": "task_error", "reason": "no data"}
        said = self._ask(self.sites[name]._tell(assignment, "failure", failure))
        assert said.said == ("401 not_authorised" if name in self.revoked else expected)
        if said.status == 200:
            self.model.failed.add(part)

    @precondition(lambda self: self.given)
    @rule(pick=PICKS, what=st.sampled_from(["hold", "fail", "nan", "shape", "digest"]))
    def tell(self, pick: int, what: str) -> None:
        """Whatever else it says of an assignment."""
        if what in ("hold", "fail"):
            {"hold": self.hold, "fail": self.fail}[what](pick)
        else:
            self.bring_bad(pick, what)

    @rule(name=CLIENTS, comes=st.booleans())
    def come_or_go(self, name: str, comes: bool) -> None:
        (self.say if comes else self.leave)(name)

    @rule(name=CLIENTS, is_other=st.booleans())
    def work(self, name: str, is_other: bool) -> None:
        """All that a client node does in a round, and a report that comes twice: so that rounds get on."""
        num = len(self.given)
        self.say(name)
        self.every_promise_holds()
        self.poll(name)
        if len(self.given) > num:
            self.bring(num, is_other=False, dies_at=None)
            self.every_promise_holds()
            self.bring(num, is_other=is_other, dies_at=None)

    def leave(self, name: str) -> None:
        """Its owner pauses it."""
        reason = {"reason": "sharing paused by its owner"}
        said = self._ask(post("/api/v1/clients/me/leave", reason, self.sites[name].secret))
        assert said.said == ("401 not_authorised" if name in self.revoked else "200")

    @rule(names=st.permutations(NAMES))
    def all_work(self, names: list[str]) -> None:
        """A round or two get on."""
        for name in names[:NUM_AT_START]:
            self.work(name, is_other=False)
            self.every_promise_holds()

    # --- what takes several steps in one order, and would hardly come about by chance ------------------------

    @rule(name=CLIENTS, sleeps_s=st.sampled_from([61.0, 130.0]))
    def oversleep(self, name: str, sleeps_s: float) -> None:
        """It takes work, is away for longer than anybody waits for it, and brings what it made all the same."""
        if (order := self._take(name)) is None:
            return
        self.tick(sleeps_s)
        self.every_promise_holds()
        self.bring(order, is_other=False, dies_at=None)

    @rule(name=CLIENTS, brings=st.booleans())
    def pause_under_work(self, name: str, brings: bool) -> None:
        """The run is paused while it works; what it brings nevertheless comes too late or, after the pause, in time."""
        if (order := self._take(name)) is None:
            return
        pick = self.given[order][1]["run_number"] - 1
        self.pause(pick, is_now=True)
        self.every_promise_holds()
        if brings:
            self.bring(order, is_other=False, dies_at=None)
        self.resume(pick)
        self.every_promise_holds()
        self.poll(name)

    @rule(name=CLIENTS)
    def work_through_kills(self, name: str) -> None:
        """It is there, and never done, while the central node is killed again and again."""
        if self._take(name) is None:
            return
        for _ in range(5):
            self.tick(50.0)
            self.every_promise_holds()
            self.kill(0.5, are_back=True)
            self.every_promise_holds()

    @rule(names=st.permutations(NAMES))
    def try_in_vain(self, names: list[str]) -> None:
        """One brings its update and the others fail: where two are needed, the next attempt takes over what came."""
        orders = self._take_all(names)
        if orders and self.given[orders[0]][1]["kind"] == "init":
            self.bring(orders[0], is_other=False, dies_at=None)
            orders = self._take_all(names)
        for order in orders[:1]:
            self.bring(order, is_other=False, dies_at=None)
        for order in orders[1:]:
            self.fail(order)
        self.every_promise_holds()
        self.tick(61.0)
        for name in names:
            self.say(name)
        self.every_promise_holds()
        for name in names:
            self.poll(name)

    def _take_all(self, names: list[str]) -> list[int]:
        return [order for name in names if (order := self._take(name)) is not None]

    def _take(self, name: str) -> int | None:
        """Which assignment it gets when it comes and asks."""
        num = len(self.given)
        self.say(name)
        self.every_promise_holds()
        self.poll(name)
        return num if len(self.given) > num else None

    # --- time and death -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 7.0, 30.0, 61.0, 130.0, 310.0]))
    def tick(self, seconds: float) -> None:
        for number, run in self.runs.items():
            if run["status"] == "running" and (key := self.model.open_of(number)) is not None:
                self.model.open_s[key] = self.model.open_s.get(key, 0.0) + seconds
        self.world.run(asyncio.sleep(seconds))

    @rule(down_s=st.sampled_from([0.5, 1_000.0]), are_back=st.booleans())
    def kill(self, down_s: float, are_back: bool) -> None:
        """Without any goodbye; and nobody's deadline runs while nobody is up. `are_back`: all clients, at once."""
        self.world.kill()
        self._restart(down_s)
        for name in NAMES if are_back else ():
            self.say(name)

    # --- a person ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.runs) < MAX_RUNS)
    @rule(names=st.sets(CLIENTS, min_size=2, max_size=3), rounds=st.integers(1, 2), min_updates=st.integers(1, 2))
    def launch(self, names: set[str], rounds: int, min_updates: int) -> None:
        if not names & self.revoked:
            self._launch(sorted(names), rounds, min_updates)

    @rule(pick=PICKS, what=st.sampled_from(["pause", "pause now", "resume", "resume"]))
    def pause_or_resume(self, pick: int, what: str) -> None:
        if what == "resume":
            self.resume(pick)
        else:
            self.pause(pick, is_now=what == "pause now")

    def pause(self, pick: int, is_now: bool) -> None:
        run = self._run(pick)
        said = self._ask(post(f"/api/v1/runs/{run['number']}/pause", {"now": is_now}))
        assert said.said == ("200" if run["status"] in ("running", "queued") else "409 illegal_move")
        if said.status == 200 and is_now:
            self.model.withdraw(run["number"])
        if said.status == 200 and (is_now or self.model.open_of(run["number"]) is None or run["status"] == "queued"):
            assert said.json["status"] == "paused"

    def resume(self, pick: int) -> None:
        run = self._run(pick)
        said = self._ask(post(f"/api/v1/runs/{run['number']}/resume"))
        may = run["status"] == "paused" or (run["status"], run["reason"][:6]) == ("running", "pauses")
        assert said.said == ("200" if may else "409 illegal_move")

    @precondition(lambda self: len(self.runs) > 1)
    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        self._cancel(self._run(pick))

    def _cancel(self, run: dict[str, Any]) -> None:
        said = self._ask(post(f"/api/v1/runs/{run['number']}/cancel"))
        assert said.said == ("409 illegal_move" if run["status"] in ENDED else "200")
        if said.status == 200:
            self.cancelled.add(run["number"])
            self.model.withdraw(run["number"])

    @precondition(lambda self: not self.revoked)
    @rule(name=CLIENTS)
    def revoke(self, name: str) -> None:
        assert self._ask(post(f"/api/v1/clients/{name}/revoke")).status == 200
        self.revoked.add(name)

    # --- what must hold after every step --------------------------------------------------------------------------

    @invariant()
    def every_promise_holds(self) -> None:
        if self.world.central is None:
            return
        self.world.run(asyncio.sleep(0.001))                # whoever can go on does, as far as it comes
        seq = self.world.run(self.world.central.store.read(last_event_seq))
        if (seq, self.must_look) != (self.seen_seq, False):     # nothing is decided without an event
            for number, run in list(self.runs.items()):
                if run["status"] not in ENDED or self.must_look:
                    self._look_at(number)
        self.seen_seq, self.must_look = seq, False
        for key, open_s in self.model.open_s.items():
            is_over = key in self.model.closed
            assert is_over or open_s <= DEADLINE_S + 2 + LOST_BY_A_KILL_S * self.num_kills, f"{key} is held open"

    def _look_at(self, number: int) -> None:
        self.fed.run_ref = str(number)
        known, rows = self.journals[number], self.world.run(self.fed.journal())
        assert rows[: len(known)] == known, "what was decided stands"
        for row in rows[len(known) :]:
            self.model.learn(number, dict(row.entry))
        self.journals[number] = rows
        run = self.runs[number] = self.world.run(self.fed.show())
        if run["status"] == "running":
            self.model.give_out_again(number)
        self._check_status(run)
        self._check_rounds(number, [dict(row.entry) for row in rows])

    def _check_status(self, run: dict[str, Any]) -> None:
        """No run fails, for nothing here is a reason to; who pauses or waits says why."""
        assert run["status"] in ("queued", "running", "paused", "completed", "cancelled"), run["reason"]
        assert (run["status"] == "cancelled") == (run["number"] in self.cancelled)
        if run["status"] in ("queued", "paused", "cancelled"):
            assert run["reason"]

    def _check_rounds(self, number: int, entries: list[dict[str, Any]]) -> None:
        """Each attempt closed with what its cohort brought; each model is the mean of that, and of nothing else."""
        closed = {(e["round"], e["attempt"]): e["outcomes"] for e in entries if e["what"] == "round closed"}
        for (round_, attempt), outcomes in closed.items():
            assert [name for name, _ in outcomes] == self.model.opened[number, round_, attempt]
            for name, got in outcomes:
                num = 0 if round_ == 0 else self.sites[name].num_examples
                want = self.model.outcome_of((number, round_, attempt, name), num)
                assert isinstance(got, str) if want is str else got == want, (round_, attempt, name, got, want)
        committed = [e for e in entries if e["what"] == "model committed"]
        assert [e["round"] for e in committed] == list(range(len(committed)))
        assert self.runs[number]["rounds"] == max(0, len(committed) - 1)
        for entry in committed:
            attempt = max(attempt for round_, attempt in closed if round_ == entry["round"])
            values = self._mean_of(number, entry["round"], attempt)
            assert hashlib.sha256(body_of(*values)).hexdigest() == entry["model_sha256"], entry

    def _mean_of(self, number: int, round_: int, attempt: int) -> Values:
        parts = [(number, round_, attempt, name) for name in self.model.opened[number, round_, attempt]]
        brought = [(self.sites[part[3]].num_examples, self.model.brought.get(part)) for part in parts]
        updates = [(num, values) for num, values in brought if values is not None]
        return updates[0][1] if round_ == 0 else mean(updates)

    def teardown(self) -> None:
        """Given time and willing clients, every run with its quorum ends."""
        try:
            if self.runs and self.world.central is not None:
                self._let_everybody_work()
        finally:
            self.stack.close()

    def _let_everybody_work(self) -> None:
        self.every_promise_holds()
        for run in self.runs.values():
            if run["status"] not in ENDED and not self._has_quorum(run):
                self._cancel(run)           # it would wait for ever, and with it whoever shares its clients
        for turn in range(400):
            num_given = len(self.given)
            self.every_promise_holds()
            waiting = [run for run in self.runs.values() if run["status"] not in ENDED]
            if not waiting:
                return
            for run in waiting:
                if run["status"] == "paused":
                    self._ask(post(f"/api/v1/runs/{run['number']}/resume"))
            for name in sorted(set(NAMES) - self.revoked):
                if not turn:
                    self.say(name)
                self.every_promise_holds()
                num = len(self.given)
                self.poll(name)
                if len(self.given) > num:
                    self.bring(num, is_other=False, dies_at=None)
            self.every_promise_holds()
            self.tick(10.0 if len(self.given) > num_given else 50.0)
        raise AssertionError([(run["number"], run["status"], run["reason"]) for run in waiting])

    def _has_quorum(self, run: dict[str, Any]) -> bool:
        """Whether enough of its clients may still come."""
        config = run["config"]
        return len(set(config["clients"] or NAMES) - self.revoked) >= config["min_updates"]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, request: Request) -> Answer:
        return self.world.run(self.world.call(request))

    def _launch(self, names: list[str], rounds: int, min_updates: int) -> None:
        body = {
            "task": "toy", "clients": names, "rounds": rounds, "min_updates": min_updates, "seed": 7,
            "deadline_s": DEADLINE_S,
        }
        said = self._ask(post("/api/v1/runs", body))
        assert said.status == 201, said.body
        self.runs[said.json["number"]] = said.json
        self.journals[said.json["number"]] = []

    def _restart(self, down_s: float) -> None:
        self.num_kills += 1
        self.must_look = True
        self.world.run(asyncio.sleep(down_s))
        self.world.run(self.world.start())

    def _bring(self, name: str, assignment: dict[str, Any], values: Values) -> Answer | None:
        """None: the central node died in it."""
        body = body_of(*values)
        return self._send(name, assignment, body, announcement(body, self._num_examples(name, assignment)))

    def _send(self, name: str, assignment: dict[str, Any], body: bytes, announced: dict[str, Any]) -> Answer | None:
        site, path = self.sites[name], f"/api/v1/assignments/{assignment['id']}/update"
        try:
            said = self._ask(post(path, announced, site.secret))
            if said.status != 200 or said.json["is_complete"]:
                return said
            offset = said.json["offset"]
            return self._ask(Request(
                method="PUT", path=path, query={"offset": offset}, bearer=site.secret, chunks=((0.0, body[offset:]),)
            ))
        except Lost:
            return None

    def _measure(self, name: str, assignment: dict[str, Any]) -> None:
        """The report of a round that only measures."""
        part = self._part(name, assignment)
        expected = self.model.answer_to(part, is_same=part in self.model.brought)
        measured = {"values": {"accuracy": 0.5}, "num_examples": {"test": 10}}
        said = self._ask(self.sites[name]._tell(assignment, "metrics", {"evaluation": measured}))
        assert said.said == ("401 not_authorised" if name in self.revoked else expected)
        if said.status == 200:
            self.model.brought[part] = None

    def _values_of(self, name: str, assignment: dict[str, Any]) -> Values:
        """What this client makes of the model that it was given: by its number, whatever the model."""
        return ZEROS if assignment["kind"] == "init" else self.sites[name].trained((float(assignment["number"]),) * 4)

    def _num_examples(self, name: str, assignment: dict[str, Any]) -> int:
        return 0 if assignment["kind"] == "init" else self.sites[name].num_examples

    def _part(self, name: str, assignment: dict[str, Any]) -> Part:
        return (assignment["run_number"], assignment["number"], assignment["attempt"], name)

    def _given(self, pick: int) -> tuple[str, dict[str, Any]]:
        """Mostly one of the newest."""
        return self.given[pick] if pick < len(self.given) else self.given[-1 - pick % min(4, len(self.given))]

    def _run(self, pick: int) -> dict[str, Any]:
        self.must_look = True           # why it is as it is may change without an event
        return self.runs[1 + pick % len(self.runs)]

    def _is_running(self, number: int) -> bool:
        return bool(self.runs[number]["status"] == "running")


# Not made smaller when it fails: a step takes milliseconds, and thousands of tries minutes. The steps are printed.
RoundMachine.TestCase.settings = settings(
    max_examples=pick(20, 1_500), stateful_step_count=pick(30, 60), deadline=None, database=None,
    phases=[Phase.generate], derandomize=not IS_FULL, suppress_health_check=list(HealthCheck),
)
TestRoundMachine = seed(SEED)(RoundMachine.TestCase) if IS_FULL else RoundMachine.TestCase
