"""The disk below a state dir: may we write, is it a local one, is there room, does fsync work."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from fednode.core.units import size_text
from fednode.doctor.findings import Finding, bad, doubtful, good
from fednode.ports import Clock

MIN_FREE_BYTES, SCARCE_BYTES = 200_000_000, 2_000_000_000
SLOW_FSYNC_S = 0.5
REMOTE = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs",
))
ELSEWHERE = "choose a folder on a local disk with --state-dir or FEDNODE_STATE_DIR"


def disk(state_dir: Path, clock: Clock) -> list[Finding]:
    """Nothing is left behind, and no folder is made."""
    folder = _nearest(state_dir)
    told = f"{state_dir}" if folder == state_dir else f"{state_dir} (to be made in {folder})"
    try:
        seconds = _fsync_s(folder, clock)
    except OSError as error:
        why = f"{told} cannot be written: {error.strerror}"
        return [bad("state dir", why, f"mend its permissions, or {ELSEWHERE}")]
    return [good("state dir", f"{told} can be written"), _kind(folder), _room(folder), _fsync(seconds)]


def _kind(folder: Path) -> Finding:
    kind = _file_system(folder)
    if kind in REMOTE:
        return doubtful("disk", f"{folder} lies on {kind}: locks and fsync may not hold there", ELSEWHERE)
    return good("disk", f"local ({kind})" if kind else "local, as far as this system says")


def _room(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    told = f"{size_text(free_bytes)} free"
    if free_bytes < MIN_FREE_BYTES:
        return bad("room", f"only {told} on the disk of {folder}", f"free space there, or {ELSEWHERE}")
    if free_bytes < SCARCE_BYTES:
        return doubtful("room", f"only {told} on the disk of {folder}", "free space: every committed model stays")
    return good("room", told)


def _fsync(seconds: float) -> Finding:
    told = f"{seconds * 1000:.1f} ms"
    if seconds > SLOW_FSYNC_S:
        return doubtful("fsync", f"{told}: every round waits for a few of these", "use a faster disk, or one less busy")
    return good("fsync", told)


def _fsync_s(folder: Path, clock: Clock) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        began_s = clock.now_s()
        os.fsync(file.fileno())
        return clock.now_s() - began_s


def _nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))


def _file_system(folder: Path) -> str:
    """The kind that the mount table names; "" where there is no such table."""
    try:
        rows = [row.split() for row in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    place = folder.resolve()
    above = [(row[1], row[2]) for row in rows if place.is_relative_to(row[1].replace("\\040", " "))]
    return max(above, key=lambda row: len(row[0]), default=("", ""))[1]
