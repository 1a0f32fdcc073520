"""`fednode predict`: what a model makes of pictures in files, one row a file. The task's code runs in a child process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Self

import typer

from fednode.cli import completion
from fednode.cli import options as o
from fednode.cli import table_file as t
from fednode.cli.asked_model import AskedModel, is_params_file, model_in_file, model_of_central
from fednode.cli.prediction_table import PredictionTable
from fednode.core.units import count_text
from fednode.errors import CannotPredict, DataError, NotFound, ParamsMismatch, VersionMismatch

if TYPE_CHECKING:
    from fednode.child.child import Child
    from fednode.tasks.predictions import TaskCard

BATCH_FILES = 64                # whose pictures are in memory at once
NUM_NAMED = 4                   # files in a message


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="RUN:best, RUN:final, RUN:ROUND, a model's id or sha256 or the first letters of one; or, with --task, a params file.", autocompletion=completion.models)],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures, and folders of pictures, which are searched to the bottom.")],
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="The model's task, where MODEL is a file or the task is not installed here: its name, or file.py:Class.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What the model in a params file was trained with: task.FIELD=VALUE. Repeatable.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", metavar="X", min=0.0, max=1.0, help="Of two classes, the verdict is the second from this probability on. [default: the model's own]")] = None,
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Files that show no picture are told, and are no reason for exit code 6.")] = False,
    as_csv: t.AsCsv = False, as_json: t.AsJson = False, out: t.Out = None,
    device: o.Device = None, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Predict what pictures show, by a model of the central node or by a params file."""
    from fednode.cli.api import ask
    from fednode.settings import load_settings

    kind = t.format_of(out, as_csv=as_csv, as_json=as_json)
    settings = load_settings(central=central, token=token, ca=ca, device=device)
    found = _found(files)
    with TemporaryDirectory(prefix="fednode-predict-") as folder:
        if is_params_file(model):
            asked = model_in_file(model, task, sets)
        else:
            target = Path(folder) / "model.safetensors"
            asked = ask(lambda api: model_of_central(api, model, target, task, sets), central, token, ca)
        with t.opened(out) as write:
            unread = asyncio.run(_predict(asked, found, threshold, settings.device, kind, write))
    if unread and (len(unread) == len(found) or not skip_unreadable):
        raise _unreadable(unread, len(found))


async def _predict(
    asked: AskedModel, files: Sequence[Path], threshold: float | None, device: str, kind: t.Format, write: t.Sink
) -> list[Path]:
    """Write the table, batch by batch. The files that show no picture: they are told on the way."""
    from fednode.child.child import Child
    from fednode.clock import SystemClock
    from fednode.tasks.base import Site

    child = Child(Site(client="predict", device=device), SystemClock())
    unread: list[Path] = []
    try:
        await child.device()                # one that is not there is told before anything is loaded
        card = await _card(child, asked)
        await _found_in(child, asked, [])   # nor are params of another model met behind the first row
        if card.notice:
            typer.echo(card.notice, err=True)
        own = asked.threshold if len(card.classes) == 2 else None
        table = PredictionTable(card.classes, own if threshold is None else threshold, kind, write)
        with _Watch(len(files)) as watch:
            for start in range(0, len(files), BATCH_FILES):
                batch = files[start : start + BATCH_FILES]
                found = await _found_in(child, asked, batch)
                table.add(batch, found)
                unread += watch.tell(batch, found)
        table.end()
    finally:
        await child.stop()
    return unread


async def _card(child: Child, asked: AskedModel) -> TaskCard:
    """Raises NotFound, VersionMismatch, CannotPredict."""
    try:
        card = await child.card(asked.task, asked.config, asked.fingerprint, is_typed=asked.is_typed)
    except NotFound as error:
        fix = error.fix if asked.is_typed else f"{error.fix}; or name its file by --task FILE.py:Class"
        raise NotFound(error.message, fix=fix) from None
    if asked.fingerprint not in ("", card.fingerprint):
        raise VersionMismatch(
            f"the model is of task {asked.fingerprint!r}, this machine has {card.fingerprint!r}",
            fix="install the version that it was trained with",
        )
    picture = card.asked_picture(asked.task)
    if not card.reads_files:
        raise CannotPredict(
            f"the task {asked.task!r} does not say how a file becomes a picture of {picture}",
            fix="define picture_from_file(self, content) in the task's class",
        )
    return card


async def _found_in(child: Child, asked: AskedModel, files: Sequence[Path]) -> list[list[float] | str]:
    try:
        return await child.predict_files(
            asked.task, asked.fingerprint, asked.config, asked.params_file, files, is_typed=asked.is_typed
        )
    except ParamsMismatch as error:
        if asked.fingerprint:
            raise
        fix = "name by --task and --set what the model was trained with, for example --set task.model=cnn"
        raise ParamsMismatch(error.message, fix=fix) from None


# --- the files ---------------------------------------------------------------------------------------------


def _found(asked: Sequence[Path]) -> list[Path]:
    """Files as they were named, and the pictures of folders. Raises DataError where there are none."""
    from fednode.tasks.picture_files import is_folder, pictures_in, text_of

    def tell(error: OSError) -> None:
        typer.echo(f"Skipped the folder {text_of(Path(error.filename))}: {error.strerror}", err=True)

    found = [file for path in asked for file in (pictures_in(path, tell) if is_folder(path) else (path,))]
    if not found:
        raise DataError(
            f"there are no pictures in {', '.join(text_of(path) for path in asked)}", fix="name files, or another folder"
        )
    return list(dict.fromkeys(found))


def _unreadable(unread: Sequence[Path], num_files: int) -> DataError:
    from fednode.tasks.picture_files import text_of

    names = ", ".join(text_of(path) for path in unread[:NUM_NAMED])
    more = f" and {len(unread) - NUM_NAMED:,} more" if len(unread) > NUM_NAMED else ""
    return DataError(
        f"{len(unread):,} of {count_text(num_files, 'file')} could not be read: {names}{more}",
        fix="the reasons are told above, and the rows of all others are there; with --skip-unreadable this is no error",
    )


class _Watch:
    """Whoever waits sees how far it is, on a terminal; and hears of each file that shows no picture, anywhere."""

    def __init__(self, num_files: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from fednode.cli.terminal import Terminal

        console = Terminal(stderr=True)
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_files)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def tell(self, files: Sequence[Path], found: Sequence[list[float] | str]) -> list[Path]:
        """What became of a batch; those of it that show no picture."""
        from fednode.tasks.picture_files import text_of

        unread = {file: reason for file, reason in zip(files, found, strict=True) if isinstance(reason, str)}
        for file, reason in unread.items():
            self._bar.console.print(f"Skipped {text_of(file)}: {reason}")
        self._bar.advance(self._task, len(files))
        return list(unread)
