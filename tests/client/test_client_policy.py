"""What a client accepts is its operator's word: where it is written, and that nothing from elsewhere weakens it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from client_scenes import Node
from scripted_central import Heard, error

from fednode.client.daemon import run_client
from fednode.client.execution import check_order
from fednode.client.offers import Offered
from fednode.client.policy_file import explain_policy, load_policy
from fednode.clock import HandClock
from fednode.core.policy import Limits, Policy
from fednode.core.records import Offer
from fednode.errors import BadConfig, DataError, UsageError
from fednode.settings import TOML_NAME, load_settings, user_toml
from fednode.tasks.base import TrainConfig, config_schema
from fednode.wire.messages import ADDED_TO_OFFER, AssignmentBody, OfferBody, Presence

WORD = """
[policy]
tasks = ["mnist", "chest_xray"]
max_epochs = 5
max_wall_time = "2h"
min_cohort = 3
approve = "by-hand"
"""


# --- where it is written ------------------------------------------------------------------------------


@pytest.fixture
def users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any file yet, in a folder of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    user_toml().parent.mkdir(parents=True)
    return user_toml()


def test_without_a_table_all_is_accepted(users_file: Path) -> None:
    assert load_policy() == Policy()
    assert {line.origin for line in explain_policy()} == {"default"}


def test_a_table_is_read_and_is_in_nobodys_way(users_file: Path) -> None:
    Path(TOML_NAME).write_text('name = "hospital-a"\n' + WORD)
    limits = Limits(max_epochs=5, max_wall_time_s=7200.0, min_cohort=3)
    assert load_policy() == Policy(tasks=("mnist", "chest_xray"), limits=limits, is_by_hand=True)
    assert load_settings().name == "hospital-a"
    assert {line.name: line.origin for line in explain_policy()} == dict.fromkeys(
        ("policy.tasks", "policy.max_epochs", "policy.max_wall_time", "policy.min_cohort", "policy.approve"),
        f"./{TOML_NAME}",
    )


def test_of_two_files_the_stricter_line_counts(users_file: Path) -> None:
    users_file.write_text(WORD)
    Path(TOML_NAME).write_text(
        '[policy]\ntasks = ["mnist", "toy"]\nmax_epochs = 100\nmax_wall_time = "10m"\nmin_cohort = 2\n'
    )
    limits = Limits(max_epochs=5, max_wall_time_s=600.0, min_cohort=3)
    assert load_policy() == Policy(tasks=("mnist",), limits=limits, is_by_hand=True)
    origins = {line.name.partition(".")[2]: line.origin for line in explain_policy()}
    here, user = f"./{TOML_NAME}", str(users_file)
    assert origins == {
        "tasks": f"{here} and {user}", "max_epochs": user, "max_wall_time": here, "min_cohort": user, "approve": user,
    }


@pytest.mark.parametrize("variable", ["FEDNODE_POLICY", "FEDNODE_POLICY__MAX_EPOCHS", "fednode_policy_tasks"])
@pytest.mark.parametrize("is_in_a_file", [False, True], ids=["environment", "dotenv"])
def test_the_environment_has_no_say(
    users_file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, is_in_a_file: bool
) -> None:
    if is_in_a_file:
        Path(".env").write_text(f"{variable}=100\n")
    else:
        monkeypatch.setenv(variable, "100")
    with pytest.raises(BadConfig, match=f"{variable} is set") as caught:
        load_policy()
    assert "unset it" in caught.value.fix


@pytest.mark.parametrize(("line", "told"), [
    ("max_epoch = 5", "no line 'max_epoch'"), ("max_epochs = 0", "max_epochs = 0: .*greater than or equal to 1"),
    ('max_epochs = "5"', "max_epochs = '5': .*integer"), ("min_cohort = 2.5", "min_cohort = 2.5"),
    ('max_wall_time = "soon"', "max_wall_time = 'soon': no duration"), ("max_wall_time = 0", "max_wall_time = 0: no"),
    ('approve = "by hand"', "approve = 'by hand': .*'by-hand'"), ('tasks = "mnist"', "tasks = 'mnist': .*list"),
])
def test_what_a_line_cannot_say_is_named_with_a_fix(users_file: Path, line: str, told: str) -> None:
    Path(TOML_NAME).write_text(f"[policy]\n{line}\n")
    with pytest.raises(BadConfig, match=told) as caught:
        load_policy()
    assert TOML_NAME in caught.value.message and caught.value.fix


def test_a_file_that_is_there_and_cannot_be_read_is_no_missing_policy(users_file: Path) -> None:
    """A folder, as a container makes it where a file that is mounted is missing; a link that leads nowhere."""
    Path(TOML_NAME).mkdir()
    for load in (load_policy, load_settings):
        with pytest.raises(BadConfig, match=r"fednode\.toml is there and cannot be read"):
            load()
    Path(TOML_NAME).rmdir()
    users_file.symlink_to("nowhere.toml")
    with pytest.raises(BadConfig, match="cannot be read"):
        load_policy()


def test_a_policy_that_is_no_table_is_refused(users_file: Path) -> None:
    Path(TOML_NAME).write_text("policy = 5\n")
    with pytest.raises(BadConfig, match="no table"):
        load_policy()


# --- which orders it is against -----------------------------------------------------------------------

LIMITS = Limits(max_epochs=5, min_cohort=3)
OFFER = Offer(task="small", fingerprint="small@1", schema=config_schema(TrainConfig), metrics=(), limits=LIMITS)


def order(epochs: int, cohort_size: int | None, kind: str = "train") -> AssignmentBody:
    return AssignmentBody(
        id="run_1.1.1", run_id="run_1", run_number=1, number=1, attempt=1, kind=kind, rounds=3, task="small",
        fingerprint="small@1", run_seed=7, base_model="" if kind == "init" else "0" * 64, base_model_bytes=100,
        config={"epochs": epochs, "batch_size": 32, "learning_rate": 0.1}, cohort_size=cohort_size,
    )


@pytest.mark.parametrize(("body", "told"), [
    (order(6, 3), r"this site accepts at most 5 epochs a round \(max_epochs\), the run asks for 6"),
    (order(5, 2), r"this site accepts cohorts of 3 or more \(min_cohort\), this one has 2"),
    (order(6, 2), "at most 5 epochs.*, and accepts cohorts"), (order(5, None), "does not say how many take part"),
])
def test_a_training_beyond_the_word_is_refused_by_the_line_and_both_numbers(body: AssignmentBody, told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        check_order(body, {"small": Offered(spec="small.py", offer=OFFER)})


@pytest.mark.parametrize("body", [
    order(5, 3), order(6, 1, "evaluate"), order(6, None, "evaluate"), order(6, 1, "init"),
])
def test_what_is_within_it_or_does_not_train_is_taken(body: AssignmentBody) -> None:
    assert check_order(body, {"small": Offered(spec="small.py", offer=OFFER)}).offer is OFFER


# --- a client node holds to it ------------------------------------------------------------------------


async def test_an_order_beyond_it_is_told_as_refused_and_the_next_one_is_done(central, node, order) -> None:
    async with node(policy=Policy(limits=Limits(max_epochs=1, min_cohort=3))) as client:
        order(1, config={"epochs": 1}, cohort_size=2)
        failure = (await central.until("POST /failure")).json
        assert failure["code"] == "refused" and "cohorts of 3 or more (min_cohort)" in failure["reason"]
        order(2, config={"epochs": 1}, cohort_size=3)
        await client.until("sent")
    assert [visit for visit in client.visits if visit.startswith("train")] == ["train 2"]
    offered = central.calls("PUT /clients/me")[0].json["offers"][0]
    assert offered["limits"] == {"max_epochs": 1, "max_wall_time_s": None, "min_cohort": 3}


async def test_an_older_central_node_is_told_no_limits_and_cannot_lower_them(central, node, order) -> None:
    def older(heard: Heard) -> object:
        return error(422, "usage") if ADDED_TO_OFFER & heard.json["offers"][0].keys() else None

    central.answers["PUT /clients/me"] = older
    async with node(policy=Policy(limits=Limits(max_epochs=1))) as client:
        await client.until("registered")
        order(1, config={"epochs": 2})
        assert "max_epochs" in (await central.until("POST /failure")).json["reason"]
    told = [call.json["offers"][0] for call in central.calls("PUT /clients/me")]
    assert "limits" in told[0]
    assert not ADDED_TO_OFFER & told[-1].keys()
    assert client.visits == []


def test_an_older_central_node_is_told_none_of_the_later_fields() -> None:
    offer = OfferBody(
        task="xrays", fingerprint="xrays@1", schema={}, metrics=[], classes=["NORMAL", "ILL"], notice="No device.",
        limits={"max_epochs": 1},
    )
    said = Presence(offers=[offer])
    assert said.model_dump()["offers"][0].keys() >= ADDED_TO_OFFER
    assert not ADDED_TO_OFFER & said.of_the_first_release().model_dump()["offers"][0].keys()


async def test_without_limits_an_offer_has_no_word_of_them(central, node) -> None:
    async with node() as client:
        await client.until("registered")
    assert "limits" not in central.calls("PUT /clients/me")[0].json["offers"][0]


async def test_only_the_tasks_of_the_policy_are_offered(central, node) -> None:
    async with node(policy=Policy(tasks=("mnist",))) as client:
        with pytest.raises(BadConfig, match=r"'small' is not among the tasks of this site's policy \(mnist\)"):
            await client.until("registered")
    async with node(policy=Policy(tasks=("nothing",)), tasks=()) as client:
        with pytest.raises(DataError, match="mnist: task 'mnist' is not among the tasks"):
            await client.until("registered")
    assert central.heard == []


async def test_a_visit_that_takes_longer_than_allowed_is_ended_and_told_as_refused(settings, central, order) -> None:
    """On the hand-moved clock: 9 s are not 10."""
    clock, client = HandClock(), Node(replace(settings, policy=Policy(limits=Limits(max_wall_time_s=10.0))))
    client.life = asyncio.create_task(run_client(client.settings, client.heard, clock))
    try:
        order(1, config={"behaviour": "hold"})
        await client.until("epoch 2")           # it is training, and holds
        await clock.advance(9.0)
        assert central.calls("POST /failure") == []
        async with asyncio.timeout(60):         # each second of its own, so that the child may answer in between
            while not central.calls("POST /failure") or client.outbox:
                await clock.advance(1.0)
                await asyncio.sleep(0.01)
    finally:
        client.life.cancel()
        await asyncio.gather(client.life, return_exceptions=True)
    failure = central.calls("POST /failure")[0].json
    assert failure["code"] == "refused"
    assert failure["reason"].startswith("this site ends a visit that takes longer than 10.0 s (max_wall_time)")
    assert client.outbox == []


async def test_the_hardest_word_leaves_a_client_nothing_to_offer(node) -> None:
    async with node(policy=Policy(tasks=()), tasks=()) as client:
        with pytest.raises((DataError, UsageError), match="none"):
            await client.until("registered")


def test_the_words_say_each_line() -> None:
    policy = Policy(tasks=("mnist",), limits=Limits(max_epochs=1, max_wall_time_s=90, min_cohort=3), is_by_hand=True)
    assert policy.words == [
        "tasks mnist", "at most 1 epoch a round", "at most 1m 30s a round", "cohorts of 3 or more",
        "each new fingerprint by hand",
    ]
    assert Policy().words == []
