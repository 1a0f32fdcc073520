"""A client node beside a central node of the wire's words: it joins, works, loses nothing, and goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from client_scenes import FINGERPRINT, TASK
from scripted_central import error

from fednode.client.daemon import run_client
from fednode.clock import SystemClock
from fednode.errors import BadConfig, DataError, NameTaken, NotAuthorised, StoreLocked, UsageError, VersionMismatch
from fednode.wire.codec import read_params

ENDED = "GET /me/work"      # the next poll: the assignment before it has ended


# --- it joins -----------------------------------------------------------------------------------------


async def test_it_registers_once_and_says_what_it_offers(central, node):
    async with node() as client:
        await central.until(ENDED)
    assert client.heard.lines == ["offered ['small'] refused []", "registering", "registered"]
    body = central.calls("PUT /clients/me")[0].json
    offered = [(offer["task"], offer["fingerprint"], offer["summary"]) for offer in body["offers"]]
    assert offered == [("small", FINGERPRINT, {"train": 4})]
    assert {"fednode", "numpy"} <= body["versions"].keys()
    assert central.calls("POST /me/leave")[0].token in central.secrets

    async with node():
        await central.until(ENDED, 2)
    assert len(central.calls("POST /clients")) == 1
    assert len(central.calls("PUT /clients/me")) == 2


async def test_it_leaves_no_child_behind_in_a_process_that_goes_on(central, node):
    def children() -> set[str]:
        return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}

    before = children()
    async with node() as client:
        await client.until("registered")
        assert children() > before
    assert children() == before


async def test_a_wrong_join_token_ends_it(central, node):
    async with node(token="join_wrong") as client:
        with pytest.raises(NotAuthorised):
            await client.until("registered")
    assert len(central.calls("POST /clients")) == 1


async def test_without_any_token_it_says_where_to_get_one(central, node):
    async with node(token="") as client:
        with pytest.raises(NotAuthorised) as caught:
            await client.until("registered")
    assert "--token" in caught.value.fix
    assert central.calls("POST /clients") == []


async def test_the_note_of_a_central_node_on_this_machine_opens_its_door(central, settings, node):
    async with node(token="") as client:
        client.life.cancel()
        client.life = asyncio.create_task(
            run_client(client.settings, client.heard, SystemClock(), {central.url: "join_right"}.__getitem__)
        )
        await client.until("registered")


@pytest.mark.parametrize(
    ("reply", "ends_with"),
    [(error(409, "name_taken"), NameTaken), (error(426, "version_mismatch"), VersionMismatch)],
)
async def test_what_cannot_mend_itself_ends_it(central, node, reply, ends_with):
    central.answers["POST /clients"] = reply
    async with node() as client:
        with pytest.raises(ends_with):
            await client.until("registered")


async def test_it_registers_again_where_the_central_node_has_lost_its_state(central, node):
    async with node() as client:
        await central.until(ENDED)
        central.secrets.clear()
        central.give(0, "init", fingerprint=FINGERPRINT, config={})   # wakes the poll
        await client.until("registered", 2)
        await central.until("PUT /clients/me", 2)
        await client.until("sent")


async def test_a_secret_that_opens_no_door_right_after_it_was_given_ends_it(central, node):
    central.answers["PUT /clients/me"] = error(401, "not_authorised")
    async with node() as client:
        with pytest.raises(NotAuthorised):
            await client.until("registered")
    assert len(central.calls("POST /clients")) == 1


# --- it checks before it joins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "ends_with"),
    [
        ({"central": "localhost:5000"}, UsageError),
        ({"central": "ftp://host"}, BadConfig),
        ({"name": "Hospital A"}, UsageError),
        ({"tasks": ("nothing_of_this_name",)}, UsageError),
    ],
)
async def test_what_is_mistyped_is_told_before_anybody_hears_of_it(central, node, changes, ends_with):
    async with node(**changes) as client:
        with pytest.raises(ends_with):
            await client.until("registered")
    assert central.heard == []


async def test_a_data_folder_that_is_not_there_is_named(central, node, tmp_path):
    async with node(data=tmp_path / "nowhere") as client:
        with pytest.raises(DataError, match="nowhere"):
            await client.until("registered")
    assert central.heard == []


async def test_data_that_the_task_cannot_use_are_told_by_the_task(central, node, tmp_path):
    async with node(data=tmp_path) as client:
        with pytest.raises(DataError, match="holds no file 'examples'"):
            await client.until("registered")
    assert central.heard == []


async def test_a_second_daemon_on_the_same_state_dir_is_refused(central, node):
    async with node() as first:
        await first.until("registered")
        async with node() as second:
            with pytest.raises(StoreLocked, match=str(first.settings.state_dir)):
                await second.until("registered")


# --- it works -----------------------------------------------------------------------------------------


async def test_it_trains_and_sends_in_the_order_that_the_wire_asks_for(central, node, order, tmp_path):
    assignment = order()
    async with node() as client:
        await client.until("sent")
        await central.until(ENDED, 2)
    assert client.heard.lines[-6:] == [
        "config 0.1 2 32", "started #1 1/3", "epoch 1 0.25", "epoch 2 0.5", "finished 4", "sent",
    ]
    assert client.visits == ["evaluate 1", "train 1"]
    assert client.outbox == []

    told = [h for h in central.heard if assignment in h.path]
    evaluation = next(h for h in told if h.path.endswith("metrics") and h.json["evaluation"])
    announced = central.calls("POST /update")[0]
    assert evaluation.json["evaluation"] == {"num_examples": {"test": 2}, "values": {"accuracy": 0.0}}
    assert told.index(evaluation) < told.index(announced)
    assert announced.json["num_examples"] == 4
    local = [epoch for h in told if h.path.endswith("metrics") for epoch in h.json["local"]]
    assert local == [{"epoch": 1, "values": {"accuracy": 0.25}}, {"epoch": 2, "values": {"accuracy": 0.5}}]

    (tmp_path / "got").write_bytes(central.uploads[assignment])
    assert read_params(tmp_path / "got")["w"].tolist() == [1.0, 1.0, 1.0]


async def test_an_update_waits_until_its_evaluation_is_safe(central, node, order):
    central.answers["POST /metrics"] = error(503, "cannot_connect")
    order()
    async with node() as client:
        await client.until("finished")
        tries = len(central.calls("POST /metrics"))
        await central.until("POST /metrics", tries + 3)
        assert central.calls("POST /update") == []
        central.answers.clear()
        await client.until("sent")


async def test_local_scores_that_are_late_follow_the_update(central, node, order):
    central.answers["POST /metrics"] = lambda heard: error(503, "cannot_connect") if heard.json["local"] else None
    order()
    async with node() as client:
        await client.until("sent")
        tries = len(central.calls("POST /metrics"))
        central.answers.clear()
        late = await central.until("POST /metrics", tries + 1)
    assert late.json["local"][0] == {"epoch": 1, "values": {"accuracy": 0.25}}


async def test_one_assignment_after_the_other_from_the_first_params_to_the_last_score(central, node, order):
    first = order(0, "init", base_model="", base_model_bytes=0)
    second, third = order(1), order(4, "evaluate")
    async with node() as client:
        await central.until(ENDED, 4)
    assert client.visits == ["evaluate 1", "train 1", "evaluate 4"]
    assert central.reported == {first, second, third}
    assert set(central.uploads) == {first, second}
    assert len(central.calls("GET /params")) == 1       # the third order's model was in the cache


async def test_it_holds_its_lease_while_it_trains(central, node, order):
    assignment = order(config={"behaviour": "hold"})
    async with node():
        held = await central.until(ENDED, 2)
    assert held.query["holding"] == assignment


async def test_what_is_taken_back_is_cancelled_and_the_next_is_done(central, node, order):
    assignment = order(config={"behaviour": "hold"})
    async with node() as client:
        await client.until("epoch 2")
        central.withdraw(assignment)
        await client.until("dropped")
        order(2)
        await client.until("sent")
    assert client.visits == ["evaluate 1", "train 1", "evaluate 2", "train 2"]
    assert central.calls("POST /failure") == []         # the central node knows
    assert client.outbox == []


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"task": "other"}, "refused", "'other' is not offered at this site"),
        ({"fingerprint": "small#0123"}, "refused", "'small#0123'"),
        ({"config": {"epochs": 0}}, "refused", "epochs"),
        ({"config": {"behaviour": "raise"}}, "task_error", "this site's disk is on fire"),
    ],
)
async def test_what_it_cannot_do_is_told_and_it_goes_on(central, node, order, fields, code, told):
    order(**fields)
    async with node() as client:
        body = (await central.until("POST /failure")).json
        order(2)
        await client.until("sent")
    assert body["code"] == code
    assert told in body["reason"]
    assert client.heard.count("failed") == 1
    assert client.outbox == []


@pytest.mark.parametrize("where", ["POST /update", "POST /metrics"])
async def test_what_the_central_node_cannot_take_is_told_as_refused(central, node, order, where):
    central.answers[where] = error(422, "params_mismatch")
    order()
    async with node() as client:
        body = (await central.until("POST /failure")).json
        central.answers.clear()
        order(2)
        await client.until("sent")
    assert body["code"] == "refused"
    assert body["reason"] == "told: params_mismatch; a fix"
    assert client.heard.count("failed") == 1
    assert client.heard.count("dropped") == 0


async def test_an_id_that_leads_elsewhere_ends_it(central, node, order):
    order(id="../../../v1/clients/me/leave?.1.1")
    async with node() as client:
        with pytest.raises(VersionMismatch, match="no assignment id"):
            await client.until("started")


# --- it outlives others, and itself -------------------------------------------------------------------


async def test_it_waits_for_a_central_node_that_is_not_there_yet_and_tells_so_once(central, node):
    await central.stop()
    async with node() as client:
        await client.until("waiting")
        await asyncio.sleep(0.5)        # some more tries
        await central.start()
        await client.until("registered")
    assert client.heard.lines == ["offered ['small'] refused []", "waiting", "back", "registering", "registered"]


async def test_a_central_node_that_goes_while_it_trains_gets_the_update_when_it_is_back(central, node, order):
    order()
    central.answers["POST /update"] = error(503, "cannot_connect")
    async with node() as client:
        await central.until("POST /update", 2)
        await central.stop()
        await client.until("waiting")
        central.answers.clear()
        await central.start()
        await client.until("sent")
    assert client.visits == ["evaluate 1", "train 1"]
    assert client.heard.count("waiting") == client.heard.count("back") == 1


async def test_a_fault_of_the_central_node_is_waited_for_and_told_once(central, node, order):
    order()
    central.answers["POST /update"] = error(507, "store_full")
    async with node() as client:
        await central.until("POST /update", 4)
        central.answers.clear()
        await client.until("sent")
    assert client.heard.lines[-4:] == ["finished 4", "waiting", "back", "sent"]


async def test_a_proxy_that_is_astray_is_no_reason_to_end(central, node, order):
    central.answers[ENDED] = error(404, "not_found")
    async with node() as client:
        await client.until("waiting")
        central.answers.clear()
        order()
        await client.until("sent")


async def test_a_finished_update_is_sent_by_the_next_process_and_not_trained_again(central, node, order):
    assignment = order()
    central.answers["POST /update"] = error(503, "cannot_connect")
    async with node() as client:
        await central.until("POST /update")
    assert client.outbox == [assignment]
    num_before = len(central.heard)

    central.answers.clear()
    async with node() as client:
        await client.until("sent")
        await central.until(ENDED, 2)
    assert client.visits == ["evaluate 1", "train 1"]
    assert client.outbox == []
    again = [h.path.rpartition("/")[2] for h in central.heard[num_before:] if h.method == "POST"]
    assert again[:2] == ["metrics", "update"]           # its evaluation may not have arrived
    assert central.uploads[assignment]


@pytest.mark.parametrize("code", ["round_closed", "withdrawn", "already_reported", "not_found"])
async def test_an_update_that_is_not_wanted_any_more_is_dropped(central, node, order, code):
    assignment = order()
    central.answers["POST /update"] = error(404 if code == "not_found" else 409, code)
    async with node() as client:
        await central.until("POST /update")
        central.reported.add(assignment)
        await client.until(f"dropped told: {code}")
        central.answers.clear()
        order(2)
        await client.until("sent")
    assert client.outbox == []
    assert client.visits == ["evaluate 1", "train 1", "evaluate 2", "train 2"]
    assert central.calls("POST /failure") == []


async def test_a_finished_update_of_the_last_process_may_be_too_late(central, node, order):
    assignment = order()
    central.answers["POST /update"] = error(503, "cannot_connect")
    async with node():
        await central.until("POST /update")
    central.answers["POST /metrics"] = error(409, "round_closed")
    central.reported.add(assignment)
    async with node() as client:
        await client.until("dropped told: round_closed")
        await central.until(ENDED, 2)
    assert client.outbox == []
    assert len(client.visits) == 2


async def test_an_update_that_was_damaged_on_the_way_is_sent_once_more(central, node, order):
    central.answers["PUT /uploads/run_1.1.1"] = error(422, "bad_params_file")
    order()
    async with node() as client:
        await central.until("PUT /uploads/run_1.1.1")
        central.answers.clear()
        await client.until("sent")
    assert central.calls("POST /failure") == []


async def test_two_sides_that_are_out_of_step_begin_the_upload_again(central, node, order):
    assignment = order()
    central.answers[f"PUT /uploads/{assignment}"] = error(409, "conflict")
    async with node() as client:
        await central.until("POST /update", 2)
        central.answers.clear()
        await client.until("sent")
    assert client.visits == ["evaluate 1", "train 1"]


async def test_training_ends_where_the_evaluation_comes_too_late(central, node, order):
    central.answers["POST /metrics"] = error(409, "round_closed")
    order(config={"behaviour": "hold"})
    async with node() as client:
        await client.until("dropped told: round_closed")
    assert central.calls("POST /update") == []


async def test_an_update_is_sent_to_the_central_node_only(central, node, order):
    ticket = {"url": "http://127.0.0.1:1/elsewhere", "offset": 0}
    central.answers["POST /update"] = (200, ticket)
    order()
    async with node() as client:
        with pytest.raises(VersionMismatch, match="is no path"):
            await client.until("sent")


async def test_without_a_name_of_a_task_it_offers_what_the_data_allow_and_says_what_not(central, node, tmp_path):
    async with node(tasks=(), data=tmp_path) as client:
        with pytest.raises(DataError, match="mnist"):
            await client.until("registered")


async def test_two_tasks_of_one_name_are_refused(central, node):
    async with node(tasks=(TASK, TASK)) as client:
        with pytest.raises(UsageError, match="both called 'small'"):
            await client.until("registered")
