"""Tables for programs, CSV or JSON: on stdout, or in a file that is there whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from fednode.errors import UsageError

Format: TypeAlias = Literal["csv", "json"]
Sink: TypeAlias = Callable[[bytes], object]

AsCsv = Annotated[bool, typer.Option("--csv", help="CSV: what it is unless --json or the name of --out says otherwise.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON: a list with an object a row.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file, .csv or .json, instead of stdout.")]


def format_of(out: Path | None, *, as_csv: bool, as_json: bool) -> Format:
    """What was asked for: by flag, else by the file's name, else CSV. Raises UsageError where that is unclear."""
    if as_csv and as_json:
        raise UsageError("a table is CSV or JSON, not both", fix="leave out --csv or --json")
    if as_csv or as_json:
        return "json" if as_json else "csv"
    suffix = ".csv" if out is None else out.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise UsageError(f"the name {str(out)!r} does not say what to write", fix="add --csv or --json, or end it so")
    return "json" if suffix == ".json" else "csv"


@contextmanager
def opened(out: Path | None) -> Iterator[Sink]:
    """What takes the bytes. Raises StoreError where the file cannot be written."""
    if out is None:
        yield sys.stdout.buffer.write
        sys.stdout.flush()
        return
    from fednode.wire.codec import replacing

    with replacing(out, is_durable=False) as file:
        yield file.write
