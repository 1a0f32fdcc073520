"""`fednode config`: what is set on this machine, and by whom."""

from __future__ import annotations

import re

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice, plain

app = typer.Typer(
    help="What is set on this machine.", rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)


@app.callback()
def config() -> None:
    """What is set on this machine."""


@app.command()
@plain
def show(as_json: o.AsJson = False) -> None:
    """Every setting, and each line of the policy: its value, and where that comes from. Flags win over all settings."""
    from fednode.client.policy_file import explain_policy
    from fednode.settings import explain_settings

    settings = [*explain_settings(), *explain_policy()]
    told = {setting.name: _masked(setting.value) if setting.is_secret else setting.value for setting in settings}
    voice = Voice(as_json)
    if as_json:
        voice.result([
            {"name": setting.name, "value": _plain(told[setting.name]), "origin": setting.origin} for setting in settings
        ])
    else:
        voice.table(
            ("setting", "value", "from"), [(s.name, _text(told[s.name]), s.origin) for s in settings]
        )


def _masked(secret: object) -> str:
    """A token's kind alone: `join_...`; an address without its password."""
    text = str(secret)
    if "://" in text and text.count("@") < 2:       # with more of them nobody knows where the password ends
        return re.sub("://([^:@]*):.*@", "://\\1:...@", text, flags=re.DOTALL).partition("?")[0]
    kind, is_known, _ = text.partition("_")
    return f"{kind}_..." if is_known and len(kind) <= 4 else "..." if text else ""


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [str(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _text(value: object) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
