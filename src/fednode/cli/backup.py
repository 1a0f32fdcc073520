"""`fednode central backup` and `restore`: what a central node must not lose, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice
from fednode.core.units import size_text

if TYPE_CHECKING:
    from fednode.store.backup import About

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(context: typer.Context, file: BackupFile, state_dir: o.StateDir = None, as_json: o.AsJson = False) -> None:
    """Write runs, models, clients and tokens to FILE, also while the central node trains. Keep it private."""
    from fednode.central.tokens import FILE_NAME
    from fednode.clock import SystemClock
    from fednode.store.backup import write_backup

    about = write_backup(_folder(context, state_dir), file, (FILE_NAME,), SystemClock().wall_s())
    _tell(Voice(as_json), about, file, f"It holds tokens: keep it private. Back again: fednode central restore {file} --state-dir NEW")


def restore(context: typer.Context, file: BackupFile, state_dir: o.StateDir = None, as_json: o.AsJson = False) -> None:
    """Unpack a backup into an empty state dir; the next `fednode central` there goes on from it."""
    from fednode.central.tokens import FILE_NAME
    from fednode.store.restore import restore_backup

    folder = _folder(context, state_dir)
    about = restore_backup(file, folder, (FILE_NAME,))
    _tell(Voice(as_json), about, file, f"Restored. Go on: fednode central --state-dir {folder}")


def _folder(context: typer.Context, state_dir: Path | None) -> Path:
    """Of this command, else of `fednode central --state-dir DIR backup`, else where central nodes keep their state."""
    from fednode.settings import load_settings

    before = context.parent.params.get("state_dir") if context.parent else None
    return state_dir or before or load_settings().state_dir / "central"


def _tell(voice: Voice, about: About, file: Path, more: str) -> None:
    from dataclasses import asdict

    num_bytes = file.stat().st_size
    if voice.is_json:
        voice.result({"file": str(file.resolve()), "num_bytes": num_bytes, **asdict(about)})
        return
    voice.say(f"{file}  {size_text(num_bytes)}: {about.num_runs} runs, {about.num_models} models")
    voice.say(more)
