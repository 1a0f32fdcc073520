"""Settings: flag > FEDNODE_* > .env > ./fednode.toml > the user's fednode.toml > default. One place, one order.

Also here: the notes that a central node leaves for the clients and the CLI of the same user, because which
token to use is a setting like any other. What a run does is no setting: see `run_config`.
"""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from fednode.errors import BadConfig

DEFAULT_PORT = 5000
TOML_NAME = "fednode.toml"


def user_toml() -> Path:
    return Path(platformdirs.user_config_dir("fednode")) / TOML_NAME


def _also(name: str, *prototype: str) -> AliasChoices:
    """`name` in files and flags, FEDNODE_NAME in the environment, and what the prototype called it."""
    return AliasChoices(name, f"FEDNODE_{name.upper()}", *prototype)


class Settings(BaseSettings):
    """What is set about this machine. Flags are passed to `load_settings` and win."""

    model_config = SettingsConfigDict(env_prefix="FEDNODE_", env_file=".env", extra="ignore", toml_file=[])

    central: str = Field(f"http://localhost:{DEFAULT_PORT}", validation_alias=_also("central", "SERVER_URL"))
    token: str = Field("", validation_alias=_also("token"))
    data: Path | None = Field(None, validation_alias=_also("data", "GLOBAL_DATASETS"))
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("fednode")), validation_alias=_also("state_dir")
    )
    host: str = Field("127.0.0.1", validation_alias=_also("host"))
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, validation_alias=_also("port"))
    name: str = Field("", validation_alias=_also("name"))
    threads: int = Field(1, ge=0, validation_alias=_also("threads"))      # 0: as many as there are cores
    ca: Path | None = Field(None, validation_alias=_also("ca"))

    @field_validator("threads", mode="before")
    @classmethod
    def _auto_threads(cls, value: Any) -> Any:
        return 0 if value == "auto" else value

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        here = TomlConfigSettingsSource(settings_cls, toml_file=Path(TOML_NAME))
        user = TomlConfigSettingsSource(settings_cls, toml_file=user_toml())
        return (init_settings, env_settings, dotenv_settings, here, user)


def load_settings(**flags: Any) -> Settings:
    """The settings, with the flags that were given (None: not given). Raises BadConfig."""
    for path in (Path(TOML_NAME), user_toml()):
        _refuse_unknown_keys(path)
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise BadConfig(
            f"setting {name} = {first['input']!r}: {first['msg']}",
            fix=f"correct the flag --{name.lower().replace('_', '-')}, the environment or {TOML_NAME}",
        ) from None


def _refuse_unknown_keys(path: Path) -> None:
    if not path.is_file():
        return
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is no TOML: {error}", fix="correct the line that it names") from None
    for key in found.keys() - Settings.model_fields.keys():
        known = ", ".join(sorted(Settings.model_fields))
        raise BadConfig(f"{path} has no setting {key!r}", fix=f"its settings are: {known}")


def note_path(user_state_dir: Path, port: int) -> Path:
    """Where the central node of this user at `port` says how it is reached and what opens it."""
    return user_state_dir / "centrals" / f"{port}.json"


def read_note(user_state_dir: Path, url: str) -> dict[str, Any]:
    """The note of the central node at `url`, where `url` is this machine; else {}."""
    parts = urlsplit(url)
    path = note_path(user_state_dir, parts.port or (443 if parts.scheme == "https" else 80))
    if not parts.hostname or not _is_this_machine(parts.hostname):
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _is_this_machine(host: str) -> bool:
    """Whether `host` names an address of this machine: only those can be bound."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
