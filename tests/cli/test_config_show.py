"""`fednode config show`: each setting and who says so, in the order that `load_settings` has. Secrets stay hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fednode.settings import Settings, explain_settings, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def an_empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FEDNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def origins() -> dict[str, str]:
    return {setting.name: setting.origin for setting in explain_settings()}


def test_each_setting_names_the_source_whose_value_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(origins().values()) == {"default"}
    user = tmp_path / "config" / "fednode" / "fednode.toml"
    user.parent.mkdir(parents=True)
    user.write_text('central = "http://user:1"\nthreads = 3\nname = "user"\nport = 1001\nhost = "::1"\n')
    Path("fednode.toml").write_text('central = "http://here:2"\nthreads = 2\nname = "here"\nport = 1002\n')
    Path(".env").write_text("SERVER_URL=http://dotenv:3\nFEDNODE_NAME=dotenv\n")
    monkeypatch.setenv("SERVER_URL", "http://environment:4")
    monkeypatch.setenv("GLOBAL_DATASETS", "/old")
    monkeypatch.setenv("FEDNODE_DATA", "/new")
    found = origins()
    assert {name: found[name] for name in ("host", "port", "threads", "name", "central", "data", "ca")} == {
        "host": str(user), "port": "./fednode.toml", "threads": "./fednode.toml", "name": "FEDNODE_NAME in .env",
        "central": "SERVER_URL in the environment", "data": "FEDNODE_DATA in the environment", "ca": "default",
    }
    loaded = load_settings()
    assert {setting.name: setting.value for setting in explain_settings()} == {
        name: getattr(loaded, name) for name in Settings.model_fields
    }


def test_what_other_programs_set_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "NAME", "DATA", "TOKEN", "CENTRAL", "THREADS", "CA", "STATE_DIR"):
        monkeypatch.setenv(name, "99999")
    assert set(origins().values()) == {"default"}


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDNODE_CENTRALL", "http://x")
    monkeypatch.setenv("FEDNODE_CENTRAL", "http://x")
    assert unknown_variables() == ["FEDNODE_CENTRALL"]


def show(**env: str) -> Any:
    command = [sys.executable, "-m", "fednode", "config", "show", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=60, check=True)
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_a_secret_is_shown_by_its_kind_alone() -> None:
    secret = "op_" + "5ec2e7" * 10
    assert show(FEDNODE_TOKEN=secret)["token"] == {
        "name": "token", "value": "op_...", "origin": "FEDNODE_TOKEN in the environment"
    }
    assert show(FEDNODE_TOKEN="hunter2")["token"]["value"] == "..."
    assert show()["token"]["value"] == ""


@pytest.mark.parametrize("password", ["hunter2", "p@ss/w:rd?"])
def test_an_address_is_shown_without_its_password(password: str) -> None:
    url = f"postgresql://fednode:{password}@db.example.org:5433/fednode?sslmode=verify-full&password={password}"
    assert "hunter2" not in (told := show(FEDNODE_DATABASE=url)["database"]["value"]) and "w:rd" not in told
    plain = "postgresql://fednode@db.example.org/fednode"
    assert show(FEDNODE_DATABASE=plain)["database"]["value"] == plain
