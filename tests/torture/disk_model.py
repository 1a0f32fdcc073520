"""What a loss of power may leave of a recorded run: the system calls of a process, played on a model of a disk.

`record` runs a program under strace; `Disk.play` follows its calls. Of each file the model knows what is on the disk
for certain (an fsync of it returned), what lies in the page cache only, and what is lost although the cache still
shows it (an fsync failed: a later one succeeds and writes nothing of it). Of each folder it knows the same of its
names. `Disk.lay_down` then writes one of the many states that power could leave: unsynced bytes arrive by sectors, in
any order, or not at all; unsynced names too, but a rename never loses the file.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STRACE = shutil.which("strace")
CALLS = (
    "openat,close,lseek,write,pwrite64,writev,ftruncate,fsync,fdatasync,"
    "rename,unlink,rmdir,mkdir,link,renameat,renameat2,unlinkat,mkdirat,dup,sendfile,copy_file_range,fallocate"
)
UNKNOWN = ("link", "renameat", "renameat2", "unlinkat", "mkdirat", "sendfile", "copy_file_range", "fallocate")
SECTOR_BYTES = (512, 4096)
DIED = -1_000                   # what a call returned that did not return; a sync then counts as failed

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*?)(?:, )? *<unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def require_strace() -> None:
    """Skip the test where this machine's strace may not trace."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([STRACE, "-f", "-e", "trace=none", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()[:200]}")


def traced(program: Sequence[str], *, inject: str = "", out: Path = Path("/dev/null"), calls: str = "") -> list[str]:
    """The command that runs `program` under strace, with a fault: `fsync:error=EIO:when=3`."""
    assert STRACE is not None
    named = calls or inject.split(":")[0]
    fault = ["-e", f"inject={inject}"] if inject else []
    told = ["-qq", "-xx", "-s", "9999999", "-o", str(out), "-e", f"trace={named}", *fault]
    fast = [] if "signal" in inject else ["--seccomp-bpf"]      # with it, strace sends no signals
    return [STRACE, "-f", *fast, *told, *program]


@dataclass(frozen=True)
class Call:
    """One system call. `began`, `ended`: places in the recording."""

    name: str
    args: str
    returned: int
    began: int
    ended: int

    @property
    def texts(self) -> list[bytes]:
        return [bytes.fromhex(found.replace("\\x", "")) for found in _TEXT.findall(self.args)]

    @property
    def fd(self) -> int:
        return int(self.args.split(",")[0])


def calls_in(trace: Path) -> list[Call]:
    """In the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    found: list[Call] = []
    for place, line in enumerate(trace.read_text().splitlines()):
        if part := _UNFINISHED.fullmatch(line):
            begun[part[1]] = (place, f"{part[1]} {part[2]}({part[3]}")
            continue
        start = place
        if rest := _RESUMED.fullmatch(line):
            start, head = begun.pop(rest[1])
            line = f"{head}, {rest[3].lstrip(', ')}" if not rest[3].startswith(")") else head + rest[3]
        if whole := _LINE.fullmatch(line):
            returned = DIED if whole[4] == "?" else int(whole[4])
            found.append(Call(name=whole[2], args=whole[3], returned=returned, began=start, ended=place))
    return found


@dataclass(eq=False)
class Change:
    """Something that was done and may not be on the disk: bytes of a file, or a name of a folder."""

    place: int                              # in the recording
    offset: int = 0
    data: bytes | None = None               # None: cut the file at `offset`
    name: str = ""
    node: Node | None = None                # None: the name goes
    only_with: Change | None = None         # a rename takes the old name away only where the new one is there
    is_durable: bool = False


@dataclass(eq=False)
class Node:
    """A file or a folder."""

    is_folder: bool
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    names: dict[str, Node] = field(default_factory=dict)
    durable_names: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def do(self, change: Change) -> Change:
        _apply(change, self.cached, self.names)
        self.pending.append(change)
        return change

    def sync(self, until: int, *, is_well: bool) -> None:
        if self.is_folder and not is_well:
            return              # names stay in the file system's journal: they come later, or it refuses everything
        for change in [change for change in self.pending if change.place < until]:
            if is_well:
                _apply(change, self.durable, self.durable_names)
            change.is_durable = is_well
            self.pending.remove(change)


def _apply(change: Change, data: bytearray, names: dict[str, Node]) -> None:
    if change.name:
        if change.node is None:
            names.pop(change.name, None)
        else:
            names[change.name] = change.node
    elif change.data is None:
        del data[change.offset:]
        data.extend(bytes(change.offset - len(data)))
    else:
        _put(data, change.offset, change.data)


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    data.extend(bytes(max(0, offset + len(piece) - len(data))))
    data[offset:offset + len(piece)] = piece


@dataclass(eq=False)
class _Open:
    node: Node
    position: int
    is_appending: bool


class Disk:
    """A folder on a disk, empty at first, under one process after the other."""

    def __init__(self, root: Path, acks: Path) -> None:
        self._root, self._acks_path = root, acks
        self._top = Node(is_folder=True)
        self._folders = [self._top]
        self._files: dict[int, _Open] = {}
        self._ack_fds: set[int] = set()
        self.acks: list[dict[str, Any]] = []
        self.num_failed_syncs = 0
        self._place = 0

    def play(self, calls: Sequence[Call]) -> Iterator[Call]:
        """Follow a process, yielding each call that changed something once it is done."""
        self._files, self._ack_fds = {}, set()
        base = self._place + 1
        for call in calls:
            self._place = base + call.ended
            if self._follow(call, base + call.began):
                yield call

    def _follow(self, call: Call, began: int) -> bool:
        is_sync = call.name in ("fsync", "fdatasync")
        if call.returned < 0 and not is_sync:
            return False
        assert call.name not in UNKNOWN or not any(str(self._root).encode() in text for text in call.texts), call
        do = getattr(self, f"_{call.name}", None)
        return bool(do and do(call, began))

    # --- calls -------------------------------------------------------------------------------------

    def _openat(self, call: Call, began: int) -> bool:
        path = Path(call.texts[0].decode())
        self._files.pop(call.returned, None)
        self._ack_fds.discard(call.returned)
        if path == self._acks_path:
            self._ack_fds.add(call.returned)
        if not path.is_relative_to(self._root) or path.name.endswith("-shm"):
            return False
        is_new = path != self._root and path.name not in self._find(path.parent).names
        if is_new:
            assert "O_CREAT" in call.args, call
            self._change(self._find(path.parent), name=path.name, node=Node(is_folder=False))
        node = self._find(path)
        if "O_TRUNC" in call.args and node.cached:
            self._change(node, offset=0)
        self._files[call.returned] = _Open(node, 0, "O_APPEND" in call.args)
        return is_new

    def _close(self, call: Call, began: int) -> bool:
        self._files.pop(call.fd, None)
        self._ack_fds.discard(call.fd)
        return False

    def _lseek(self, call: Call, began: int) -> bool:
        if call.fd in self._files:
            self._files[call.fd].position = call.returned
        return False

    def _write(self, call: Call, began: int) -> bool:
        if (file := self._files.get(call.fd)) is None:
            return False
        offset = len(file.node.cached) if file.is_appending else file.position
        self._change(file.node, offset=offset, data=call.texts[0][:call.returned])
        file.position = offset + call.returned
        return True

    def _pwrite64(self, call: Call, began: int) -> bool:
        if (file := self._files.get(call.fd)) is None:
            return False
        offset = int(call.args.rsplit(",", 1)[1])
        self._change(file.node, offset=offset, data=call.texts[0][:call.returned])
        return True

    def _writev(self, call: Call, began: int) -> bool:
        if call.fd in self._ack_fds:
            self.acks.append(json.loads(b"".join(call.texts)))
        return call.fd in self._ack_fds

    def _ftruncate(self, call: Call, began: int) -> bool:
        if (file := self._files.get(call.fd)) is None:
            return False
        self._change(file.node, offset=int(call.args.split(",")[1]))
        return True

    def _fsync(self, call: Call, began: int) -> bool:
        if (file := self._files.get(call.fd)) is None:
            return False
        self.num_failed_syncs += call.returned < 0
        file.node.sync(began, is_well=call.returned == 0)
        return True

    _fdatasync = _fsync

    def _rename(self, call: Call, began: int) -> bool:
        old, new = (Path(text.decode()) for text in call.texts)
        if not new.is_relative_to(self._root):
            return False
        added = self._change(self._find(new.parent), name=new.name, node=self._find(old))
        self._change(self._find(old.parent), name=old.name, only_with=added)
        return True

    def _unlink(self, call: Call, began: int) -> bool:
        path = Path(call.texts[0].decode())
        if not path.is_relative_to(self._root) or path.name.endswith("-shm"):
            return False
        self._change(self._find(path.parent), name=path.name)
        return True

    _rmdir = _unlink

    def _mkdir(self, call: Call, began: int) -> bool:
        path = Path(call.texts[0].decode())
        if not path.is_relative_to(self._root):
            return False
        self._folders.append(Node(is_folder=True))
        self._change(self._find(path.parent), name=path.name, node=self._folders[-1])
        return True

    def _change(self, changed: Node, /, **what: Any) -> Change:
        return changed.do(Change(place=self._place, **what))

    def _find(self, path: Path) -> Node:
        node = self._top
        for name in path.relative_to(self._root).parts:
            node = node.names[name]
        return node

    # --- states ------------------------------------------------------------------------------------

    def lay_down(self, target: Path, chance: random.Random) -> None:
        """Write into `target` what a loss of power now could leave."""
        how = chance.choice(("nothing", "bytes", "names", "any", "any", "any"))
        kept = {change for folder in self._folders for change in _names_that_came_through(folder, chance, how)}
        _lay_down(self._top, target, chance, how, kept)


def _names_that_came_through(folder: Node, chance: random.Random, how: str) -> list[Change]:
    """All, none, the first so many, or some of them."""
    if how in ("nothing", "bytes"):
        return []
    if how == "names":
        return folder.pending
    some = [change for change in folder.pending if chance.random() < 0.5]
    return chance.choice((folder.pending[:chance.randint(0, len(folder.pending))], some))


def _lay_down(folder: Node, target: Path, chance: random.Random, how: str, kept: set[Change]) -> None:
    target.mkdir(exist_ok=True)
    names = dict(folder.durable_names)
    for change in folder.pending:
        other = change.only_with
        if change in kept and (other is None or other.is_durable or other in kept):
            _apply(change, bytearray(), names)
    for name, node in names.items():
        if node.is_folder:
            _lay_down(node, target / name, chance, how, kept)
        else:
            (target / name).write_bytes(_content(node, chance, how))


def _content(node: Node, chance: random.Random, how: str) -> bytes:
    data = bytearray(node.durable)
    if how == "nothing" or (how == "names" and chance.random() < 0.5):
        return bytes(data)
    choice = "all" if how == "bytes" else chance.choice(("all", "none", "first", "some", "sectors", "sectors"))
    until, sector = chance.randint(0, len(node.pending)), chance.choice(SECTOR_BYTES)
    for number, change in enumerate(node.pending):
        is_late, is_unlucky = number >= until, chance.random() < 0.5
        if choice == "none" or (choice == "first" and is_late) or (choice == "some" and is_unlucky):
            continue
        if choice == "sectors" and change.data is not None:
            _put_sectors(data, change, sector, chance)
        else:
            _apply(change, data, {})
    return bytes(data)


def _put_sectors(data: bytearray, change: Change, sector: int, chance: random.Random) -> None:
    """Some of the sectors that a write touches; what lies between them and the old end is zeros."""
    assert change.data is not None
    start, end = change.offset, change.offset + len(change.data)
    for first in range(start - start % sector, end, sector):
        low, high = max(start, first), min(end, first + sector)
        if chance.random() < 0.5:
            _put(data, low, change.data[low - start:high - start])
