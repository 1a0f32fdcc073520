"""Finished updates on their way: what was trained is sent, even by the next process, and never trained again.

`<folder>/<assignment id>/` holds `update.safetensors` and what the visit leaves in its state dir, `state/`, both
written by the child, and `report.json`, whose rename makes it finished. Nothing is fsynced: it survives `kill -9`;
after a power loss the digest tells, and the same bits are trained again. Where a state goes with the update, all is
fsynced: once the update has arrived, no visit would make that state again. Who sends them is `execution`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fednode.core.json import JsonObject
from fednode.errors import BadConfig
from fednode.tasks.state_dirs import StateDir, StateDirs, fsync_all
from fednode.wire.codec import digest_of_file, disk_errors
from fednode.wire.messages import Announcement

_ASSIGNMENT_ID = re.compile(r"[a-z0-9_]{1,64}\.[0-9]{1,9}\.[0-9]{1,9}")     # it names a folder: no dots, no slashes


def check_assignment_id(text: str) -> str:
    """`text`, where it is `<run id>.<round>.<attempt>`. Raises BadConfig: it came over the wire and names a folder."""
    if _ASSIGNMENT_ID.fullmatch(text) is None:
        raise BadConfig(f"{text!r} is no assignment id", fix="<run id>.<round>.<attempt>")
    return text


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An update that is ready to go."""

    assignment: str                 # its id
    file: Path
    announcement: Announcement
    evaluation: JsonObject | None   # `core.metrics.Metrics` as JSON, of the params that it was trained from


class Outbox:
    """The folder of finished updates, and of those that are being made."""

    def __init__(self, folder: Path, kept: StateDirs) -> None:
        """`kept`: where a visit's state goes when its update has arrived."""
        self._folder = folder
        self._kept = kept

    def update_file(self, assignment: str) -> Path:
        """Where the child writes the update of this assignment. Its folder is made, and is empty."""
        self.drop(assignment)
        folder = self._folder_of(assignment)
        folder.mkdir(parents=True)
        return folder / "update.safetensors"

    def state_of(self, assignment: str) -> StateDir:
        """Where its visit keeps what is to stay at this client. It counts when the update has arrived."""
        before = self._kept.before(*_run_and_round(assignment))
        return StateDir(folder=self._folder_of(assignment) / "state", before=before)

    def has_state(self, assignment: str) -> bool:
        """Whether its visit left any."""
        return (self._folder_of(assignment) / "state").is_dir()

    def finish(
        self, assignment: str, *, num_examples: int, environment: JsonObject, evaluation: JsonObject | None
    ) -> Finished:
        """The written update of this assignment is complete: from here on it survives the process."""
        file = self._folder_of(assignment) / "update.safetensors"
        announcement = Announcement(
            num_bytes=file.stat().st_size, digest=digest_of_file(file),
            num_examples=num_examples, environment=dict(environment),
        )
        report = {"announcement": announcement.model_dump(), "evaluation": evaluation}
        tmp = file.with_name("report.json.tmp")
        tmp.write_text(json.dumps(report))
        tmp.replace(file.with_name("report.json"))
        if self.has_state(assignment):
            with disk_errors(file.parent):
                fsync_all(file.parent)
        return Finished(assignment=assignment, file=file, announcement=announcement, evaluation=evaluation)

    def finished(self) -> tuple[Finished, ...]:
        """All that is ready to go, by id. What was left half-made or does not match its digest is swept."""
        if not self._folder.is_dir():
            return ()
        for folder in self._folder.iterdir():
            if not _is_complete(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return tuple(_read(folder) for folder in sorted(self._folder.iterdir()))

    def arrived(self, assignment: str) -> None:
        """The central node has it: what its visit left counts from now on. Raises StoreFull, StoreError."""
        self._kept.keep(*_run_and_round(assignment), self._folder_of(assignment) / "state")
        self.drop(assignment)

    def sweep_states(self, runs: Collection[str]) -> None:
        """Only of these runs anything is still to be kept."""
        self._kept.sweep(runs)

    def drop(self, assignment: str) -> None:
        """It was sent, or is not wanted any more."""
        shutil.rmtree(self._folder_of(assignment), ignore_errors=True)

    def _folder_of(self, assignment: str) -> Path:
        return self._folder / check_assignment_id(assignment)


def _run_and_round(assignment: str) -> tuple[str, int]:
    run_id, number, _ = check_assignment_id(assignment).split(".")
    return run_id, int(number)


def _is_complete(folder: Path) -> bool:
    try:
        wanted = _read(folder).announcement
        file = folder / "update.safetensors"
        return file.stat().st_size == wanted.num_bytes and digest_of_file(file) == wanted.digest
    except (OSError, ValueError, KeyError, TypeError, BadConfig):   # whatever a crash left there
        return False


def _read(folder: Path) -> Finished:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return Finished(
        assignment=check_assignment_id(folder.name), file=folder / "update.safetensors",
        announcement=Announcement.model_validate(report["announcement"]), evaluation=report["evaluation"],
    )
