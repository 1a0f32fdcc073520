"""What was trained survives the process; what was not finished does not pretend to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from client_scenes import Heard

from fednode.client.link import Silence
from fednode.client.model_cache import MODELS_KEPT, ModelCache
from fednode.client.outbox import Outbox
from fednode.core.params import Params
from fednode.errors import BadConfig, CannotConnect
from fednode.tasks.state_dirs import StateDirs
from fednode.wire.codec import digest_of_file, write_params

ID = "run_1.3.1"


def an_outbox(folder: Path) -> Outbox:
    return Outbox(folder / "outbox", StateDirs(folder / "state"))


def finish(outbox: Outbox, assignment: str = ID) -> Path:
    file = outbox.update_file(assignment)
    write_params(Params({"w": np.ones(3, np.float32)}), file, is_durable=False)
    outbox.finish(assignment, num_examples=4, environment={"threads": 1}, evaluation={"values": {}, "num_examples": {}})
    return file


def test_a_finished_update_is_there_for_the_next_process(tmp_path):
    file = finish(an_outbox(tmp_path))
    (found,) = an_outbox(tmp_path).finished()
    assert (found.assignment, found.file) == (ID, file)
    assert found.announcement.num_examples == 4
    assert found.announcement.num_bytes == file.stat().st_size
    assert found.announcement.digest == digest_of_file(file)
    assert found.announcement.environment == {"threads": 1}
    assert found.evaluation == {"values": {}, "num_examples": {}}


def test_several_come_in_the_order_of_their_ids(tmp_path):
    for assignment in ("run_1.4.1", "run_1.3.2", "run_1.3.1"):
        finish(an_outbox(tmp_path), assignment)
    assert [f.assignment for f in an_outbox(tmp_path).finished()] == ["run_1.3.1", "run_1.3.2", "run_1.4.1"]


def test_what_was_not_finished_is_swept(tmp_path):
    finish(an_outbox(tmp_path)).with_name("report.json").unlink()
    assert an_outbox(tmp_path).finished() == ()
    assert list((tmp_path / "outbox").iterdir()) == []


def test_bytes_that_a_power_loss_changed_are_not_sent(tmp_path):
    file = finish(an_outbox(tmp_path))
    file.write_bytes(bytes(file.stat().st_size))
    assert an_outbox(tmp_path).finished() == ()


@pytest.mark.parametrize("report", ["", "{}", "[]", '{"announcement": {}, "evaluation": null}'])
def test_a_damaged_report_is_swept(tmp_path, report):
    finish(an_outbox(tmp_path)).with_name("report.json").write_text(report)
    assert an_outbox(tmp_path).finished() == ()


def test_a_dropped_one_is_gone(tmp_path):
    outbox = an_outbox(tmp_path)
    finish(outbox)
    outbox.drop(ID)
    assert outbox.finished() == ()


def finish_with_state(outbox: Outbox, assignment: str) -> str:
    """A visit that adds its assignment to a diary; what it found there."""
    outbox.update_file(assignment)
    diary = outbox.state_of(assignment).open() / "diary"
    found = diary.read_text() if diary.exists() else ""
    diary.write_text(f"{found}{assignment} ")
    write_params(Params({"w": np.ones(3, np.float32)}), diary.parent.with_name("update.safetensors"), is_durable=False)
    outbox.finish(assignment, num_examples=4, environment={}, evaluation=None)
    return found


def test_what_a_visit_keeps_counts_once_its_update_has_arrived_by_whichever_process(tmp_path):
    assert finish_with_state(an_outbox(tmp_path), "run_1.1.1") == ""
    (found,) = an_outbox(tmp_path).finished()                       # the next process sends it
    an_outbox(tmp_path).arrived(found.assignment)
    assert an_outbox(tmp_path).finished() == ()
    assert finish_with_state(an_outbox(tmp_path), "run_1.2.1") == "run_1.1.1 "


def test_what_a_visit_keeps_is_dropped_with_an_update_that_nobody_wants(tmp_path):
    outbox = an_outbox(tmp_path)
    finish_with_state(outbox, "run_1.1.1")
    outbox.arrived("run_1.1.1")
    finish_with_state(outbox, "run_1.2.1")
    outbox.drop("run_1.2.1")
    assert finish_with_state(outbox, "run_1.2.2") == "run_1.1.1 "


@pytest.mark.parametrize("name", ["../../etc.1.1", "run/1.1.1", "run_1.1", "run_1.1.1.1", "", "run_1.1.x", "RUN.1.1"])
def test_an_id_from_the_wire_never_leads_out_of_the_outbox(tmp_path, name):
    with pytest.raises(BadConfig):
        an_outbox(tmp_path).update_file(name)


def add_model(cache: ModelCache, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    cache.prepare(sha256).write_bytes(content)
    cache.add(sha256)
    return sha256


def test_the_cache_keeps_the_last_models_and_nothing_else(tmp_path):
    cache = ModelCache(tmp_path)
    (tmp_path / "left.safetensors.part").touch()
    first, second, third = (add_model(cache, content) for content in (b"1", b"2", b"3"))
    assert MODELS_KEPT == 2
    assert {path.name for path in tmp_path.iterdir()} == {f"{second}.safetensors", f"{third}.safetensors"}
    assert not cache.has(first)
    assert cache.has(second)        # and is the newest from now on
    fourth = add_model(cache, b"4")
    assert {path.name for path in tmp_path.iterdir()} == {f"{second}.safetensors", f"{fourth}.safetensors"}


def test_a_cached_model_is_checked_once_in_every_process(tmp_path):
    sha256 = add_model(ModelCache(tmp_path), b"1")
    ModelCache(tmp_path).path(sha256).write_bytes(b"0")
    assert not ModelCache(tmp_path).has(sha256)


def test_a_person_hears_of_a_silence_once_and_of_its_end_when_nobody_waits_any_more():
    heard, away = Heard(), CannotConnect("nobody there", fix="wait")
    silence = Silence(heard)
    silence.goes_on("upload", away)
    assert heard.lines == []            # one lost connection is no news
    for call in ("upload", "poll", "poll", "upload"):
        silence.goes_on(call, away)
    assert heard.lines == ["waiting"]
    silence.ended("poll")
    assert heard.lines == ["waiting"]   # the upload is still not answered
    silence.forget("upload")            # broken off: that is no answer
    assert heard.lines == ["waiting"]
    silence.ended("poll")
    assert heard.lines == ["waiting", "back"]
