"""`python -m fednode.demo.member PARENT ARGS`: become `fednode ARGS`, but end when the demo's process ends.

The kernel's parent-death signal survives `exec`, so a killed demo leaves no orphan.
"""

from __future__ import annotations

import os
import sys

from fednode.child.parent import die_with_parent


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", "fednode", *sys.argv[2:]])


if __name__ == "__main__":
    main()
