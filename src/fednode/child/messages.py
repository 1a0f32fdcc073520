"""What a child process and its parent say to each other: frames of JSON, and the JSON form of each value.

A frame is four bytes of length (big-endian) and one JSON object. Params never travel in it: they lie in
safetensors files whose paths do. `child` is the parent's side, `main` the child's.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.records import Failure, Outcome, Update
from fednode.core.status import FailureCode, RoundKind
from fednode.errors import FednodeError
from fednode.tasks.base import Bytes, Partition, Picture, Samples, Site
from fednode.tasks.predictions import TaskCard
from fednode.tasks.state_dirs import StateDir
from fednode.visit import Order

LENGTH = struct.Struct(">I")

Message = dict[str, Any]        # always with the key "what"


def pack(message: Message) -> bytes:
    """One frame. NaN is allowed: a diverged local score is no reason to lose the line."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Message:
    message: Message = json.loads(body)
    return message


def site_to_json(site: Site) -> Message:
    """Its data folder from the root on: a task may go elsewhere in its process."""
    return asdict(site) | {"data": None if site.data is None else str(site.data.absolute())}


def site_from_json(row: Message) -> Site:
    partition = row["partition"] and Partition(**row["partition"])
    return Site(**(row | {"data": None if row["data"] is None else Path(row["data"]), "partition": partition}))


def state_to_json(state: StateDir | None) -> Message | None:
    if state is None:
        return None
    return {name: path and str(path.absolute()) for name, path in asdict(state).items()}


def state_from_json(row: Message | None) -> StateDir | None:
    return None if row is None else StateDir(folder=Path(row["folder"]), before=row["before"] and Path(row["before"]))


def order_to_json(order: Order) -> Message:
    return asdict(order)


def order_from_json(row: Message) -> Order:
    return Order(**(row | {"kind": RoundKind(row["kind"])}))


def outcome_to_json(outcome: Outcome) -> Message:
    """Everything but the params, which the child has written to the update's file before."""
    update, failure, evaluation = outcome.update, outcome.failure, outcome.evaluation
    return {
        "client": outcome.client,
        "update": update and {"num_examples": update.num_examples, "environment": update.environment},
        "failure": failure and asdict(failure),
        "evaluation": evaluation and evaluation.to_json(),
    }


def outcome_from_json(row: Message, params: Params | None) -> Outcome:
    """`params` are those of the update's file, None where the outcome has no update."""
    client, failure, evaluation = row["client"], row["failure"], row["evaluation"]
    return Outcome(
        client=client,
        update=None if params is None else Update(client=client, params=params, **row["update"]),
        failure=failure and Failure(**(failure | {"code": FailureCode(failure["code"])})),
        evaluation=evaluation and Metrics.from_json(evaluation),
    )


def card_to_json(card: TaskCard) -> Message:
    samples = card.samples
    return asdict(card) | {"samples": samples and asdict(samples) | {"pictures": pictures_to_json(samples.pictures)}}


def card_from_json(row: Message) -> TaskCard:
    picture, samples = row["picture"], row["samples"]
    return TaskCard(
        fingerprint=row["fingerprint"], picture=picture and Picture(**picture), classes=tuple(row["classes"]),
        reads_files=row["reads_files"], notice=row["notice"],
        samples=samples and Samples(
            pictures=pictures_from_json(samples["pictures"]), labels=tuple(samples["labels"]), source=samples["source"]
        ),
    )


def pictures_to_json(pictures: Bytes) -> Message:
    return {"shape": list(pictures.shape), "base64": b64encode(pictures.tobytes()).decode()}


def pictures_from_json(row: Message) -> Bytes:
    return np.frombuffer(b64decode(row["base64"]), np.uint8).reshape(row["shape"])


def error_to_json(error: FednodeError, trace: str = "") -> Message:
    return {"what": "error", "code": error.code, "message": error.message, "fix": error.fix, "traceback": trace}


def error_from_json(row: Message) -> FednodeError:
    """The error that the child raised, of the same class."""
    kind = _class_of(FednodeError, row["code"]) or FednodeError
    return kind(row["message"], fix=row["fix"])


def _class_of(kind: type[FednodeError], code: str) -> type[FednodeError] | None:
    if kind.code == code:
        return kind
    found = (_class_of(below, code) for below in kind.__subclasses__())
    return next((match for match in found if match is not None), None)
