"""`python -m fednode` is `fednode`."""

from fednode.cli.app import main

if __name__ == "__main__":
    main()
