"""Where a setting comes from: flag > FEDNODE_* > .env > ./fednode.toml > the user's file > default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fednode.errors import BadConfig
from fednode.settings import load_settings, note_path, read_note


@pytest.fixture(autouse=True)
def an_empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("FEDNODE_") or name in ("SERVER_URL", "GLOBAL_DATASETS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_source_wins_over_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().central == "http://localhost:5000"
    user = tmp_path / "config" / "fednode" / "fednode.toml"
    user.parent.mkdir(parents=True)
    user.write_text('central = "http://user:1"\n')
    assert load_settings().central == "http://user:1"
    Path("fednode.toml").write_text('central = "http://here:2"\n')
    assert load_settings().central == "http://here:2"
    Path(".env").write_text("FEDNODE_CENTRAL=http://dotenv:3\n")
    assert load_settings().central == "http://dotenv:3"
    monkeypatch.setenv("FEDNODE_CENTRAL", "http://environment:4")
    assert load_settings().central == "http://environment:4"
    assert load_settings(central="http://flag:5").central == "http://flag:5"


def test_the_prototypes_names_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_URL", "http://old:5000")
    monkeypatch.setenv("GLOBAL_DATASETS", "/datasets")
    settings = load_settings()
    assert (settings.central, settings.data) == ("http://old:5000", Path("/datasets"))


def test_threads_take_auto() -> None:
    assert load_settings(threads="auto").threads == 0
    assert load_settings(threads="2").threads == 2


def test_a_wrong_value_names_the_setting_and_the_flag() -> None:
    with pytest.raises(BadConfig, match="port = '99999'") as caught:
        load_settings(port="99999")
    assert "--port" in caught.value.fix


def test_an_unknown_key_in_a_file_is_refused() -> None:
    Path("fednode.toml").write_text('centrall = "http://x:1"\n')
    with pytest.raises(BadConfig, match="no setting 'centrall'"):
        load_settings()


def test_a_file_that_is_no_toml_is_named() -> None:
    Path("fednode.toml").write_text("central = \n")
    with pytest.raises(BadConfig, match="is no TOML"):
        load_settings()


def test_a_note_is_found_by_every_name_of_this_machine_and_by_no_other(tmp_path: Path) -> None:
    path = note_path(tmp_path, 5000)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"operator_token": "op_x"}))
    for url in ("http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000"):
        assert read_note(tmp_path, url).get("operator_token") == "op_x" or "::1" in url
    assert read_note(tmp_path, "http://192.0.2.7:5000") == {}
    assert read_note(tmp_path, "http://localhost:5001") == {}
