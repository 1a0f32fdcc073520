"""`fednode runs metrics` and `fednode runs tensorboard`: all numbers of a run, for other programs."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fednode.cli import options as o
from fednode.cli import table_file as t
from fednode.cli.output import Voice
from fednode.core.units import count_text

if TYPE_CHECKING:
    from fednode.cli.api import Api
    from fednode.cli.event_files import EventFiles

POLL_S = 25.0


def metrics(
    run: o.RunRef, as_csv: t.AsCsv = False, as_json: t.AsJson = False, out: t.Out = None,
    central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Every number that was measured in a run, one a row: pooled, and of each client."""
    from fednode.cli.api import ask, quoted

    path = f"runs/{quoted(run)}/metrics.{t.format_of(out, as_csv=as_csv, as_json=as_json)}"

    async def fetch(api: Api) -> None:
        with t.opened(out) as write:
            async with aclosing(api.pieces(path)) as pieces:
                async for piece in pieces:
                    write(piece)

    ask(fetch, central, token, ca)


def tensorboard(
    run: o.RunRef,
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the event files go: DIR/run-NUMBER, a folder for the pooled values and one for each client.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the run trains, until it has ended.")] = False,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Write a run's scores as event files for TensorBoard."""
    from fednode.cli.api import ask
    from fednode.cli.event_files import require_tensorboard

    require_tensorboard()
    voice = Voice(as_json)
    files = ask(lambda api: export(api, run, folder, is_followed=follow), central, token, ca)
    if as_json:
        voice.result({"path": str(files.folder.resolve()), "folders": files.num_folders, "scalars": files.num_scalars})
        return
    told = f"{count_text(files.num_scalars, 'scalar')} in {count_text(files.num_folders, 'folder')} below {files.folder}"
    voice.say(f"{told}. See them: tensorboard --logdir {folder}" if files.num_scalars else "Nothing was measured yet.")


async def export(api: Api, ref: str, folder: Path, *, is_followed: bool = False) -> EventFiles:
    """What there is; `is_followed`: each model's scores once the round that measures it is committed, to the end."""
    from fednode.cli.api import FINAL, quoted
    from fednode.cli.event_files import EventFiles
    from fednode.wire.http import with_retries

    run = await api.get(f"runs/{quoted(ref)}", limit="1")
    run_id, files, after = run["run_id"], EventFiles(folder, run), 0
    while is_followed and run["status"] not in FINAL:
        if run["rounds"] > files.next_round:
            await with_retries(_take)(api, run_id, files, end=run["rounds"])
        asked = {"after": str(after), "wait": str(POLL_S), "limit": "1000"}
        answer = await with_retries(api.get)(f"runs/{run_id}/events", **asked)
        run, after = answer["run"], answer["next"]
    await _take(api, run_id, files)
    return files


async def _take(api: Api, run_id: str, files: EventFiles, end: int | None = None) -> None:
    """The rows of whole rounds, from where the files end to the round `end`."""
    rows: list[dict[str, str]] = []
    async with aclosing(api.metric_rows(run_id, from_round=files.next_round)) as found:
        async for row in found:
            if rows and row["model_round"] != rows[-1]["model_round"]:
                files.add_round(int(rows[-1]["model_round"]), rows)
                rows = []
            if end is not None and int(row["model_round"]) >= end:
                break
            rows.append(row)
    if rows:
        files.add_round(int(rows[-1]["model_round"]), rows)
    files.write()
