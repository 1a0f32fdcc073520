"""`python -m fednode` is `fednode`."""

import sys


def main() -> None:
    """The entry point of the `fednode` command. Whoever types Ctrl-C before it is loaded gets no traceback either."""
    try:
        from fednode.cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
