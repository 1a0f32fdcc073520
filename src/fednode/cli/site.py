"""From flags to the settings of a client node, for every command of a site: `client`, `doctor`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fednode.errors import BadConfig

if TYPE_CHECKING:
    from fednode.client.talk import ClientSettings
    from fednode.settings import Settings
    from fednode.tasks.base import Partition


def client_settings(
    settings: Settings, tasks: list[str] | None, partition: Partition | None, offline_sample: bool, state_dir: Path | None
) -> ClientSettings:
    """Complete: what the flags, the environment and the note of a central node on this machine say. Raises BadConfig."""
    from fednode.client.policy_file import load_policy
    from fednode.client.talk import ClientSettings
    from fednode.settings import pin_of, read_note, url_by_note

    name = client_name(settings)
    url = _checked_url(settings.central)
    note = read_note(settings.state_dir, url)
    return ClientSettings(
        central=url_by_note(url, note), pin=pin_of(note), name=name, data=settings.data, tasks=tuple(tasks or ()),
        partition=partition, offline_sample=offline_sample, threads=settings.threads, device=settings.device, token=settings.token,
        state_dir=state_dir or settings.state_dir / "clients" / name, ca=settings.ca,
        is_summary_shared=settings.share_summary, policy=load_policy(),
    )


def client_name(settings: Settings) -> str:
    """As it is set, else this machine's. Raises BadConfig."""
    from fednode.core.ids import NAME_PATTERN, is_name

    name = settings.name or socket.gethostname().split(".")[0].lower()
    if not is_name(name):
        raise BadConfig(
            f"{name!r} is no name for a client", fix=f"take lower-case letters, digits, '.', '_', '-' ({NAME_PATTERN})"
        )
    return name


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig(f"{url!r} is no address of a central node", fix="write it as http://host:5000")
    return url.rstrip("/")


def can_be_read(url: str) -> bool:
    """Whether the way to the central node is clear text and leaves this machine."""
    host = urlsplit(url).hostname or ""
    return url.startswith("http://") and host not in ("localhost", "::1") and not host.startswith("127.")


def partition_of(text: str | None, split: str, seed: int) -> Partition | None:
    """The part that `--partition` names; None without it. Raises BadConfig."""
    from fednode.tasks.partition import parse_partition

    if text is None:
        if split != "iid":
            raise BadConfig(f"--split {split} says how, not which part", fix="add --partition K/N, for example 1/3")
        return None
    return parse_partition(text, split, seed)
