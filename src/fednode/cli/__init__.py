"""The command line: one file a command group. The only room that prints.

Commands load what they need when they run: `fednode --help` must answer at once. Read `output` next.
"""

from __future__ import annotations


def main() -> None:
    """The entry point of the `fednode` command."""
    from fednode.cli.app import app

    app(prog_name="fednode")
