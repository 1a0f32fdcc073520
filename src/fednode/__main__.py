"""`python -m fednode` is `fednode`."""

from fednode.cli import main

if __name__ == "__main__":
    main()
