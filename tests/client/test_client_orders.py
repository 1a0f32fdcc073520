"""A client node decides what it runs: only what it offered, exactly as it offered it."""

from __future__ import annotations

import pytest

from fednode.client.execution import check_order, failure_of, task_config
from fednode.client.offers import Offered
from fednode.core.records import Offer
from fednode.core.status import FailureCode
from fednode.errors import BadConfig, ParamsMismatch, TaskFailed
from fednode.tasks.base import TrainConfig, config_schema
from fednode.wire.messages import AssignmentBody

OFFER = Offer(task="small", fingerprint="small@1", schema=config_schema(TrainConfig), metrics=())
OFFERS = {"small": Offered(spec="small.py:Small", offer=OFFER)}
SHA256 = "0" * 64


def order(**changes: object) -> AssignmentBody:
    fields = {
        "id": "run_1.1.1", "run_id": "run_1", "run_number": 1, "number": 1, "attempt": 1, "kind": "train", "rounds": 3,
        "task": "small", "fingerprint": "small@1", "run_seed": 7, "base_model": SHA256, "base_model_bytes": 100,
        "config": {"epochs": 1, "batch_size": 32, "learning_rate": 0.1, "proximal_mu": 0.5},
    }
    return AssignmentBody.model_validate(fields | changes)


def test_an_order_for_what_was_offered_is_taken_with_what_the_strategy_sets():
    assert check_order(order(), OFFERS).spec == "small.py:Small"
    assert check_order(order(encoding="bf16", base_file=SHA256), OFFERS).spec == "small.py:Small"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "other"}, "'other' is not offered"),
        ({"fingerprint": "small@2"}, "'small@2'.*'small@1'"),
        ({"config": {"epochs": 0}}, "epochs"),
        ({"config": {"learning_rate": "fast"}}, "learning_rate"),
        ({"config": {"shell": "rm"}}, "shell"),
        ({"base_model": "../secrets"}, r"\.\./secrets"),
        ({"base_model": ""}, "kind train"),
        ({"kind": "init"}, "kind init"),
        ({"encoding": "fp8"}, "travel as 'fp8'"),
        ({"encoding": "bf16", "base_file": "../secrets"}, r"\.\./secrets"),
    ],
)
def test_any_other_order_is_refused_with_a_sentence(changes, told):
    with pytest.raises(BadConfig, match=told):
        check_order(order(**changes), OFFERS)


def test_what_an_order_leaves_out_has_the_offers_default():
    config = task_config(order(config={"epochs": 3, "proximal_mu": 0.5}), OFFER)
    assert config == {"epochs": 3, "batch_size": 32, "learning_rate": 0.1}


def test_the_initial_params_need_no_model():
    assert check_order(order(kind="init", base_model=""), OFFERS).offer is OFFER


def test_a_failure_says_whether_it_was_a_refusal_or_the_sites_own_trouble():
    refused = failure_of("a", ParamsMismatch("shape (3,)", fix="take the version of the run"))
    assert (refused.code, refused.reason) == (FailureCode.REFUSED, "shape (3,); take the version of the run")
    assert failure_of("a", TaskFailed("died", fix="look")).code is FailureCode.TASK_ERROR
