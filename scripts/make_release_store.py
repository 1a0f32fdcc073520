"""Make the store that a release leaves behind in mid-round, for tests/store/test_releases.py: once, kept for ever.

    python scripts/make_release_store.py                # of the code that is installed here

Of an older commit, whose source lies in another folder (`git archive COMMIT src | tar x -C FOLDER`):

    PYTHONPATH=FOLDER/src python scripts/make_release_store.py

Writes tests/store/releases/<revision of the tables>.tar.gz: the state dir of a central node that was killed, and
`release.json`, the bits with which this release ends the run. Nothing that is there is written again.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests" / "store"
KILLED = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "state"
        played = subprocess.run([sys.executable, __file__, "play", str(state_dir)], check=False)
        if played.returncode != KILLED:
            sys.exit(f"the run was to be killed in its middle, and ended with {played.returncode}")
        (state_dir / "release.json").write_text(json.dumps(asyncio.run(bits()), indent=2) + "\n")
        target = TESTS / "releases" / f"{newest_revision()}.tar.gz"
        with tarfile.open(target, "x:gz") as tar:
            tar.add(state_dir, "state", filter=kept)
        sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")


def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nobody's, and without the index of the write-ahead log, which is made again."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if member.name.endswith("-shm") else member


async def bits() -> dict[str, object]:
    from release_scene import play_calm

    return {"made_by": fednode_version(), **await play_calm()}


def newest_revision() -> str:
    import fednode

    steps = (Path(str(fednode.__file__)).parent / "store" / "migrations" / "versions").glob("v[0-9]*.py")
    return max(step.name[1:5] for step in steps)


def fednode_version() -> str:
    import fednode

    return str(getattr(fednode, "__version__", ""))


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    os.umask(0o022)
    if sys.argv[1:2] == ["play"]:
        from release_scene import play_half

        asyncio.run(play_half(Path(sys.argv[2])))
    else:
        main()
