"""Settings: flag > FEDNODE_* > .env > ./fednode.toml > the user's fednode.toml > default. One place, one order.

Also here: the notes that a central node leaves for the clients and the CLI of the same user, because which
token to use is a setting like any other. What a run does is no setting: see `run_config`.
"""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fednode.errors import BadConfig

DEFAULT_PORT = 5000
TOML_NAME = "fednode.toml"
DOTENV = ".env"
PREFIX = "FEDNODE_"
POLICY_TABLE = "policy"         # of a fednode.toml, and no setting: `client.policy_file` reads what a client accepts
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
SECRET = frozenset({"token", "database"})
NO_SETTINGS = frozenset({       # of tests; of one task
    "FEDNODE_TEST_DATA", "FEDNODE_FAILPOINT", "FEDNODE_TORTURE", "FEDNODE_TORTURE_REPORT", "FEDNODE_MNIST_MIRRORS",
})


def user_toml() -> Path:
    return Path(platformdirs.user_config_dir("fednode")) / TOML_NAME


def _also(name: str, *prototype: str) -> AliasChoices:
    """`name` in files and flags, FEDNODE_NAME in the environment, and what the prototype called it.

    The bare name is no alias: other programs set HOST, NAME and PORT.
    """
    return AliasChoices(f"{PREFIX}{name.upper()}", *prototype)


class Settings(BaseSettings):
    """What is set about this machine. Flags are passed to `load_settings` and win."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=DOTENV, extra="ignore", populate_by_name=True, use_attribute_docstrings=True
    )

    central: str = Field(f"http://localhost:{DEFAULT_PORT}", validation_alias=_also("central", "SERVER_URL"))
    """The central node that clients and commands dial."""
    token: str = Field("", validation_alias=_also("token"))
    """What opens it: a join token for a client, the operator token for a person; this user's own needs none."""
    data: Path | None = Field(None, validation_alias=_also("data", "GLOBAL_DATASETS"))
    """The folder with this site's data."""
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("fednode")), validation_alias=_also("state_dir")
    )
    """Below it a central node, clients and the demo keep what they must not lose."""
    database: str = Field("", validation_alias=_also("database"))
    """Where a central node's rows are: postgresql://USER@HOST/NAME. Where none is set, SQLite in its state dir."""
    host: str = Field("127.0.0.1", validation_alias=_also("host"))
    """Where a central node listens; beyond loopback only with TLS or `--insecure`."""
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, validation_alias=_also("port"))
    """Of the central node."""
    name: str = Field("", validation_alias=_also("name"))
    """What this client is called: unique in the federation. Where none is set, this machine's name."""
    threads: int = Field(1, ge=0, validation_alias=_also("threads"))
    """Of training; `auto` or 0: as many as there are cores."""
    device: str = Field("cpu", pattern=DEVICE_PATTERN, validation_alias=_also("device"))
    """Where tasks compute: cpu, cuda, cuda:1, mps, or `auto`: the best that is there."""
    share_summary: bool = Field(True, validation_alias=_also("share_summary"))
    """Whether a client tells the central node the counts of its data, such as examples by class."""
    ca: Path | None = Field(None, validation_alias=_also("ca"))
    """The certificate authority that signed the central node's certificate, a PEM file."""
    page_port: int | None = Field(None, ge=0, le=65535, validation_alias=_also("page_port", "CLIENT_URL"))
    """Of the client's own page, on loopback. Where none is set, it has none."""
    tls_cert: Path | None = Field(None, validation_alias=_also("tls_cert"))
    """The central node's certificate, a PEM file."""
    tls_key: Path | None = Field(None, validation_alias=_also("tls_key"))
    """The key of that certificate."""
    public_url: str = Field("", validation_alias=_also("public_url"))
    """Under which a central node behind a proxy is reached."""

    @field_validator("page_port", mode="before")
    @classmethod
    def _port_of_url(cls, value: Any) -> Any:
        """The prototype's CLIENT_URL is a whole address; a client node answers to its own machine only."""
        return urlsplit(value).port if isinstance(value, str) and "://" in value else value

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
    return _load(Settings, flags)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as it is now, and who says so."""

    name: str
    value: Any
    origin: str         # "FEDNODE_PORT in the environment", "./fednode.toml", "default", ...
    is_secret: bool


def explain_settings() -> list[Setting]:
    """Every setting and where its value comes from, in the order in which the sources are asked. Raises BadConfig."""
    asked: list[PydanticBaseSettingsSource] = []

    class Watched(Settings):
        @classmethod
        def settings_customise_sources(cls, *sources: Any, **more: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            asked.extend(super().settings_customise_sources(*sources, **more))
            return tuple(asked)

    values = _load(Watched, {})
    return [
        Setting(name=name, value=getattr(values, name), origin=_origin(name, asked), is_secret=name in SECRET)
        for name in Settings.model_fields
    ]


def unknown_variables() -> list[str]:
    """FEDNODE_* of the environment that set nothing: misspelt, as a rule."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | NO_SETTINGS
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def _load(kind: type[Settings], flags: Mapping[str, Any]) -> Settings:
    for path in (Path(TOML_NAME), user_toml()):
        _refuse_unknown_keys(path)
    try:
        return kind(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).lower().removeprefix(PREFIX.lower())
        raise BadConfig(
            f"setting {name} = {first['input']!r}: {first['msg']}",
            fix=f"correct the flag --{name.replace('_', '-')}, the environment or {TOML_NAME}",
        ) from None


def _origin(name: str, sources: Sequence[PydanticBaseSettingsSource]) -> str:
    """The first source that knows the setting: the one whose value counts."""
    alias = Settings.model_fields[name].validation_alias
    names = [name, *(str(choice) for choice in alias.choices)] if isinstance(alias, AliasChoices) else [name]
    for source in sources:
        if not source().keys().isdisjoint(names):
            return _told(source, names)
    return "default"


def _told(source: PydanticBaseSettingsSource, names: Sequence[str]) -> str:
    """What a person calls this source; of the environment, which variable."""
    if isinstance(source, EnvSettingsSource):
        variable = next(name for name in names[1:] if name.lower() in source.env_vars)
        return f"{variable} in {DOTENV if isinstance(source, DotEnvSettingsSource) else 'the environment'}"
    path = source.toml_file_path if isinstance(source, TomlConfigSettingsSource) else None
    return f"./{path}" if path == Path(TOML_NAME) else str(path)


def read_toml(path: Path) -> dict[str, Any]:
    """What the file says; {} where there is none. Raises BadConfig where it is there and cannot be read."""
    if not os.path.lexists(path):
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is no TOML: {error}", fix="correct the line that it names") from None
    except OSError as error:        # what it says may matter: it is not passed over
        fix = "let this user read it, or take it away"
        raise BadConfig(f"{path} is there and cannot be read: {error.strerror}", fix=fix) from None


def _refuse_unknown_keys(path: Path) -> None:
    found = read_toml(path)
    for key in found.keys() - Settings.model_fields.keys() - {POLICY_TABLE}:
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


def url_by_note(url: str, note: Mapping[str, Any]) -> str:
    """`url`, as https where the note says that its central node has TLS and so speaks nothing else."""
    has_tls = str(note.get("url", "")).startswith("https://")
    return f"https://{url.removeprefix('http://')}" if has_tls and url.startswith("http://") else url


def pin_of(note: Mapping[str, Any]) -> str:
    """The one certificate that the note's central node has, as PEM; "" where it has no TLS, or there is no note."""
    return str(note.get("certificate", ""))


def _is_this_machine(host: str) -> bool:
    """Whether `host` names an address of this machine: only those can be bound."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
