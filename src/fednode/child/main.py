"""What runs inside a child process: `python -m fednode.child.main PARENT_PID`, started by `child.Child` only.

The main thread executes tasks, one request after the other; a reader thread takes the parent's frames, so that a
cancel or the parent's death is noticed while a task is busy. Tasks may print: their file descriptor 1 is stderr.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from fednode.child import messages
from fednode.child.messages import LENGTH, Message
from fednode.child.parent import die_with_parent
from fednode.core.json import canonical_json
from fednode.core.metrics import Metrics
from fednode.core.params import Manifest, Params, require_match
from fednode.core.records import Outcome
from fednode.errors import FednodeError, TaskFailed, VersionMismatch
from fednode.failpoints import reach
from fednode.tasks import devices
from fednode.tasks.base import Bytes, Task
from fednode.tasks.devices import placed
from fednode.tasks.file_predictions import predict_files
from fednode.tasks.predictions import card_of, explain, picture_from_file, predict
from fednode.tasks.registry import TaskType, load_installed, load_task, offer_of
from fednode.visit import described, run_visit
from fednode.wire.codec import read_params, write_params

MAX_INSTANCES = 4               # bound tasks kept, each with the data that it loaded
MAX_CARDS = 64                  # of a task with one config each


def main() -> None:
    """Serve requests until the parent closes the line."""
    die_with_parent(int(sys.argv[1]))
    line = Line.take()
    threading.Thread(target=line.listen, name="fednode-parent", daemon=True).start()
    while True:
        line.send(_answer(line.next_request(), line))


@dataclass(kw_only=True)
class Line:
    """The two pipes to the parent, out of the task's reach."""

    source: int                 # file descriptors
    sink: int
    requests: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    visiting: int = 0           # number of the visit under way
    cancelled: int = 0          # of one that is no longer wanted

    @staticmethod
    def take() -> Line:
        """Move the pipes away from 0 and 1: there a task finds an empty stdin, and stderr for its prints."""
        line = Line(source=os.dup(0), sink=os.dup(1))
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return line

    def listen(self) -> None:
        """Runs in its own thread: a cancel is heard at once, the end of the line ends the process."""
        while (message := self._receive()) is not None:
            if message["what"] == "cancel":
                self.cancelled = message["visit"]
            else:
                self.requests.put(message)
        end_with_all_below()

    def _receive(self) -> Message | None:
        """The next frame; None at the end of the line, which may come in the middle of a frame."""
        length = self._read(LENGTH.size)
        body = self._read(LENGTH.unpack(length)[0]) if len(length) == LENGTH.size else b""
        return messages.unpack(body) if body else None

    def _read(self, num_bytes: int) -> bytes:
        parts = bytearray()             # a file of a picture comes in hundreds of pieces
        while len(parts) < num_bytes:
            part = os.read(self.source, num_bytes - len(parts))
            if not part:
                return b""
            parts += part
        return bytes(parts)

    def next_request(self) -> Message:
        return self.requests.get()

    def send(self, message: Message, visit: int | None = None) -> None:
        """`visit`: it tells of that one, and is dropped where that is over: a task may leave threads behind."""
        frame = memoryview(messages.pack(message))
        with self.lock:             # a task may report from a thread of its own
            while frame and visit in (None, self.visiting):
                frame = frame[os.write(self.sink, frame) :]

    def visit(self, number: int) -> None:
        """From here on the line tells of this visit; 0: of none."""
        with self.lock:
            self.visiting = number


def end_with_all_below() -> None:
    """End this process and whatever a task has started in its process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """The observer of a visit, at the child's end of the line."""

    line: Line
    visit: int
    round: int

    def evaluated(self, metrics: Metrics) -> None:
        self.line.send({"what": "evaluated", "metrics": metrics.to_json()}, self.visit)

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None:
        reach("epoch.trained", self.round)
        self.line.send({"what": "progressed", "epoch": epoch, "metrics": dict(metrics)}, self.visit)

    def is_cancelled(self) -> bool:
        return self.line.cancelled == self.visit


def _answer(request: Message, line: Line) -> Message:
    """The one frame that ends a request. A task's own errors travel as such."""
    try:
        return _ANSWERS[request["what"]](request, line)
    except FednodeError as error:
        return messages.error_to_json(error)
    except BaseException as error:  # a stranger's code: it must not take the line down. No Ctrl-C comes here
        traceback.print_exc()
        reason = TaskFailed(described(error), fix="see the task's output above this line")
        return messages.error_to_json(reason, traceback.format_exc())


def _offer(request: Message, line: Line) -> Message:
    site = placed(messages.site_from_json(request["site"]))     # before anything imports torch
    return {"what": "offer", "offer": offer_of(_load(request["spec"]), site).to_json()}


def _report(request: Message, line: Line) -> Message:
    report = _load(request["spec"]).bind({}).report(messages.site_from_json(request["site"]))
    return {"what": "report", "report": report and report.to_json()}


def _device(request: Message, line: Line) -> Message:
    return {"what": "device", "device": devices.described(placed(messages.site_from_json(request["site"])).device)}


def _visit(request: Message, line: Line) -> Message:
    order, site = messages.order_from_json(request["order"]), placed(messages.site_from_json(request["site"]))
    task = _bind(request["spec"], canonical_json(order.config))
    _require_same(_load(request["spec"]), order.fingerprint)
    params = None if request["params_file"] is None else read_params(Path(request["params_file"]))
    reporter = Reporter(line=line, visit=request["visit"], round=order.number)
    line.visit(reporter.visit)
    outcome = run_visit(task, site, order, params, reporter, messages.state_from_json(request["state"]))
    line.visit(0)
    reach("update.trained", order.number)
    _save(outcome, Path(request["update_file"]))
    reach("update.written", order.number)
    return {"what": "outcome", "outcome": messages.outcome_to_json(outcome)}


def _save(outcome: Outcome, path: Path) -> None:
    if outcome.update is not None:
        write_params(outcome.update.params, path, is_durable=False)


def _card(request: Message, line: Line) -> Message:
    task = _named(request)
    config = request["config"] if request["fingerprint"] in ("", task.fingerprint) else {}
    return {"what": "card", "card": _card_with(task, canonical_json(config))}


@lru_cache(maxsize=MAX_CARDS)
def _card_with(task: TaskType, config: str) -> Message:
    return messages.card_to_json(card_of(task, messages.unpack(config.encode())))


def _predict(request: Message, line: Line) -> Message:
    task, params, pictures = _asked_of(request)
    return {"what": "probabilities", "probabilities": predict(task, params, pictures).tolist()}


def _explain(request: Message, line: Line) -> Message:
    maps = explain(*_asked_of(request), request["labels"])
    return {"what": "maps", "maps": None if maps is None else maps.tolist()}


def _picture(request: Message, line: Line) -> Message:
    picture = picture_from_file(_same_task(request), b64decode(request["content"]))
    return {"what": "picture", "picture": messages.pictures_to_json(picture)}


def _predict_files(request: Message, line: Line) -> Message:
    site, named = placed(messages.site_from_json(request["site"])), _named(request)
    if request["fingerprint"]:
        _require_same(named, request["fingerprint"])
    config = canonical_json(request["config"])
    task, params = _bind(named.spec, config), read_params(Path(request["params_file"]))
    require_match(params, _manifest(named.spec, config))
    task.device = site.device
    return {"what": "found", "found": predict_files(task, params, [Path(file) for file in request["files"]])}


def _asked_of(request: Message) -> tuple[Task, Params, Bytes]:
    params, pictures = read_params(Path(request["params_file"])), messages.pictures_from_json(request["pictures"])
    return _same_task(request), params, pictures


def _same_task(request: Message) -> Task:
    _require_same(_installed(request["task"]), request["fingerprint"])
    return _bind(request["task"], canonical_json(request["config"]))


_ANSWERS = {
    "offer": _offer, "report": _report, "device": _device, "visit": _visit, "card": _card, "predict": _predict,
    "explain": _explain, "picture": _picture, "predict_files": _predict_files,
}


def _require_same(task: TaskType, fingerprint: str) -> None:
    if task.fingerprint != fingerprint:
        raise VersionMismatch(
            f"the run was started with task {fingerprint!r}, this machine has {task.fingerprint!r}",
            fix="install here the task version that the run was started with",
        )


def _named(request: Message) -> TaskType:
    """Installed: its name may come from another machine. Where a person here has typed it, it may be a file."""
    return (_load if request.get("is_typed") else _installed)(request["task"])


@cache
def _manifest(spec: str, config: str) -> Manifest:
    return _bind(spec, config).initial_params(0).manifest


@cache
def _installed(name: str) -> TaskType:
    return load_installed(name)


@cache
def _load(spec: str) -> TaskType:
    return load_task(spec)


@lru_cache(maxsize=MAX_INSTANCES)
def _bind(spec: str, config: str) -> Task:
    return _load(spec).bind(messages.unpack(config.encode()))


if __name__ == "__main__":
    main()
