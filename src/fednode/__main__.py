"""`python -m fednode` is `fednode`."""

import sys


def main() -> None:
    """The entry point of the `fednode` command. Whoever types Ctrl-C while it still loads gets no traceback either."""
    try:
        from fednode.cli.app import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
