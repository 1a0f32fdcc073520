"""Params on disk: where each file lies, how it gets there for good, and what is swept.

    params/models/<sha256>.safetensors                               committed models; they stay
    params/memory/<run>/<round>.safetensors                          the strategy's memory at a run's last checkpoint
    params/updates/<run>/<round>-<attempt>/<client>.safetensors      until their round has ended
    params/incoming/<run>.<round>.<attempt>.<client>.<digest>        bodies that are still coming in

A file is first written in `incoming` and renamed to its place; only when it and its folder are fsynced does a row name
it. What no row names is nobody's, and goes at the next start. Names of tensors in a memory file are
`<name of the memory>/<name of the tensor>`. Which rows there are is `sql.py`'s business.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from fednode.core.params import Params
from fednode.core.records import Round, State
from fednode.errors import BadParamsFile, FednodeError, ParamsError, StoreDamaged
from fednode.failpoints import halves, reach
from fednode.wire.codec import Written, disk_errors, read_params, write_params
from fednode.wire.durable import fsync, make_folder

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Named:
    """What rows name: paths below the params folder, and `<run>.<round>.<attempt>` of rounds that may go on."""

    paths: Collection[str]
    open_rounds: Collection[str]


class ParamsFiles:
    """The params folder of a state dir. Every method blocks: call it in a thread."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "params"
        self.incoming = self.root / "incoming"
        self._naming = Lock()           # nobody drops a folder that another is about to fill
        self._moved_into: set[Path] = set()     # by the one thread that moves: not fsynced yet
        with disk_errors(self.root):
            for name in ("models", "memory", "updates", "incoming"):
                make_folder(self.root / name)
            fsync(self.root)
            fsync(state_dir)

    # --- places ----------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """The file of a row's `path`."""
        return self.root / name

    def model_path(self, sha256: str) -> Path:
        return self.root / model_name(sha256)

    def incoming_path(self, round_: Round, client: str, digest: str) -> Path:
        """Where the body of an announced update comes in: the same after a restart."""
        return self.incoming / f"{round_key(round_)}.{client}.{digest}"

    def new_path(self) -> Path:
        """A name in `incoming` that nobody else has, swept at the next start."""
        return self.incoming / f"new.{secrets.token_hex(16)}"

    # --- writing ---------------------------------------------------------------------------------

    def save_model(self, params: Params) -> Written:
        """The file of a model, durable and named by its hash."""
        path = self.new_path()
        written = write_params(params, path, is_durable=False, is_named=True)
        reach("checkpoint.written")
        name = model_name(written.sha256)
        if (self.root / name).exists():         # it has settled, and rows may name it
            path.unlink()
        else:
            self.place(path, name)
        reach("checkpoint.renamed")
        return written

    def save_memory(self, run_id: str, number: int, memory: Mapping[str, Params]) -> str:
        """The strategy's memory after a round, durable; the name for its row, "" where there is none."""
        if not memory:
            return ""
        name = memory_name(run_id, number)
        path = self.new_path()
        write_params(_joined(memory), path, is_durable=False)
        self.place(path, name)
        reach("memory.renamed")
        return name

    def save_update(self, params: Params) -> tuple[Written, Path]:
        """An update that did not come over the wire: durable in `incoming`, like a received one."""
        path = self.new_path()
        written = write_params(params, path, is_durable=False)      # renamed again: only that folder is fsynced
        with disk_errors(path):
            fsync(path)
        return written, path

    def place(self, path: Path, name: str) -> None:
        """Move a whole file to its place, where no row names one, for good.

        Where the disk refuses it, it is gone: to fsync it once more would succeed, though its bytes are lost.
        """
        target = self.root / name
        with disk_errors(target):
            self._rename(path, target)
            try:
                fsync(target)                   # the disk keeps its bytes and its name at once
                fsync(target.parent)
            except OSError:
                target.unlink(missing_ok=True)
                raise

    def move(self, path: Path, name: str) -> None:
        """As `place`, of a file that is fsynced; only `settle` makes it last, for all that went to one folder at once.

        From one thread.
        """
        target = self.root / name
        with disk_errors(target):
            self._rename(path, target)
        self._moved_into.add(target.parent)

    def settle(self) -> None:
        """Wait until what was moved is on the disk."""
        folders, self._moved_into = self._moved_into, set()
        for folder in folders:
            with disk_errors(folder), suppress(FileNotFoundError):      # its round has ended, and took it along
                fsync(folder)

    def _rename(self, path: Path, target: Path) -> None:
        with self._naming:
            make_folder(target.parent)      # a start may have swept it away, while it was empty
            path.replace(target)

    def make_folder(self, name: str) -> None:
        """The folder of the file `name`, and those above it, for good."""
        folder = (self.root / name).parent
        with disk_errors(folder), self._naming:
            make_folder(folder)

    # --- reading ---------------------------------------------------------------------------------

    def read(self, name: str) -> Params:
        """Memory-mapped. Raises StoreDamaged where a file that a row names is gone or broken."""
        try:
            return read_params(self.root / name)
        except (OSError, BadParamsFile) as error:
            said = error.message if isinstance(error, FednodeError) else str(error)
            raise StoreDamaged(
                f"the store needs {self.root / name}, which cannot be read: {said}",
                fix="restore the state dir from a backup",
            ) from error

    def read_state(self, sha256: str, memory: str) -> State:
        return State(params=self.read(model_name(sha256)), memory=_split(self.read(memory)) if memory else {})

    # --- tidying ---------------------------------------------------------------------------------

    def delete(self, names: Collection[str]) -> None:
        """What went missing before is fine: files are deleted after the commit that says so."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
        for folder in {(self.root / name).parent for name in names if name.startswith("updates/")}:
            with self._naming:
                _drop_if_empty(folder)

    def sweep(self, named: Named) -> list[str]:
        """Delete every file that no row names, then the folders that hold nothing. Returns the deleted files' names."""
        swept = [name for name in self._found() if not _is_wanted(name, named)]
        for names in halves(swept, "sweep.half_done"):
            self.delete(names)
        for folder in sorted((path for path in self.root.glob("*/**") if path.parent != self.root), reverse=True):
            _drop_if_empty(folder)
        return swept

    def _found(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in sorted(self.root.rglob("*")) if not path.is_dir()]


def model_name(sha256: str) -> str:
    return f"models/{sha256}{SUFFIX}"


def memory_name(run_id: str, number: int) -> str:
    return f"memory/{run_id}/{number}{SUFFIX}"


def update_name(round_: Round, client: str) -> str:
    return f"updates/{round_.run_id}/{round_.number}-{round_.attempt}/{client}{SUFFIX}"


def round_key(round_: Round) -> str:
    return f"{round_.run_id}.{round_.number}.{round_.attempt}"


def _is_wanted(name: str, named: Named) -> bool:
    if name in named.paths:
        return True
    folder, _, rest = name.partition("/")
    return folder == "incoming" and ".".join(rest.split(".")[:3]) in named.open_rounds


def _drop_if_empty(folder: Path) -> None:
    with suppress(OSError):         # not empty, or gone
        folder.rmdir()


def _joined(memory: Mapping[str, Params]) -> Params:
    for key in memory:
        if "/" in key:
            raise ParamsError(f"the strategy's memory {key!r} has a slash in its name", fix="name it without one")
    return Params({f"{key}/{name}": array for key, params in memory.items() for name, array in params.items()})


def _split(joined: Params) -> dict[str, Params]:
    keys = dict.fromkeys(name.partition("/")[0] for name in joined)
    return {
        key: Params({name.partition("/")[2]: array for name, array in joined.items() if name.startswith(f"{key}/")})
        for key in keys
    }
