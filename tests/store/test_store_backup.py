"""A backup of a store that is being written at full speed, and what a restore makes of good and of spoilt files."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from store_scenes import model_0, play, running

from federation_scene import wait_until
from fednode.clock import HandClock
from fednode.errors import BadConfig, DataError, FednodeError, NotFound, StoreDamaged, StoreLocked, VersionMismatch
from fednode.store.backup import About, write_backup
from fednode.store.engine import MIGRATIONS, migrate
from fednode.store.examination import examine_store
from fednode.store.lock import StateLock
from fednode.store.restore import restore_backup
from fednode.store.sql import SqlStore
from fednode.store.sqlite import SqliteFile, open_engine

ENDLESS_RUN = Path(__file__).parent / "endless_run.py"
NUM_BACKUPS = 12
TOKENS = ("tokens.json",)


@pytest.fixture
def sql(sqlite: SqlStore) -> SqlStore:
    """A backup is of a file; what there is for PostgreSQL is in `test_postgres.py`."""
    return sqlite


async def rounds_in(state_dir: Path) -> int:
    """Committed rounds of the one run of a store, whose last state and whose open round's updates can be read."""
    store = await SqlStore.open(state_dir, HandClock())
    try:
        (run,) = await store.runs()
        position = await store.position(run.id)
        if position.checkpoint is not None:
            assert set(position.checkpoint.state.memory) == {"velocity"}
        if position.open_round is not None:
            for outcome in await store.outcomes(position.open_round):
                assert outcome.update is not None
                assert outcome.update.params["w"].size
        return position.next_round
    finally:
        await store.close()


def test_every_backup_of_a_store_that_is_written_at_full_speed_is_whole(tmp_path: Path) -> None:
    busy, said = tmp_path / "busy", tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen([sys.executable, str(ENDLESS_RUN), str(busy)], stdout=out, cwd=ENDLESS_RUN.parent)
    files = [tmp_path / f"{number}.fednode" for number in range(NUM_BACKUPS)]
    try:
        wait_until(lambda: "committed 3\n" in said.read_text(), "the first rounds")
        for file in files:
            write_backup(busy, file, (), 0.0)
    finally:
        process.kill()
        process.wait()
    reached = []
    for file in files:
        restore_backup(file, tmp_path / file.stem, ())
        reached.append(asyncio.run(rounds_in(tmp_path / file.stem)))
    assert reached == sorted(reached)
    assert 4 <= reached[0] < reached[-1], "rounds were to go on between the backups"


@pytest.fixture
async def saved(sql: SqlStore, tmp_path: Path) -> tuple[Path, About]:
    """A backup of a run with two models; the store of `tmp_path` stays open."""
    run = await running(sql)
    await model_0(sql, run)
    await play(sql, run, 1, {"a": 5})
    (tmp_path / "tokens.json").write_text("{}")
    file = tmp_path / "saved.fednode"
    return file, write_backup(tmp_path, file, TOKENS, 12.0)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"lock"}


def test_what_the_rows_name_comes_back_and_nothing_else(saved: tuple[Path, About], tmp_path: Path) -> None:
    file, about = saved
    assert (about.num_runs, about.num_models, about.made_s) == (1, 2, 12.0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (tmp_path / "params" / "incoming" / "half").write_bytes(b"half")
    target = tmp_path / "back"
    assert restore_backup(file, target, TOKENS) == about
    models = {path.name for path in (tmp_path / "params" / "models").iterdir()}
    assert len(models) == 2
    assert names_in(target) == {"store.sqlite", "tokens.json", *(f"params/models/{name}" for name in models)}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in target.rglob("*") if path.is_file())
    assert not (tmp_path / "backup" / "files").exists()


def test_a_backup_takes_an_older_ones_place_and_no_other_files(saved: tuple[Path, About], tmp_path: Path) -> None:
    file, _ = saved
    assert write_backup(tmp_path, file, TOKENS, 13.0).made_s == 13.0
    thesis = tmp_path / "thesis.tar"
    with tarfile.open(thesis, "w") as tar:
        put(tar, "thesis.txt", b"ten years of work")
    before = thesis.read_bytes()
    for wrong, kind in ((thesis, BadConfig), (tmp_path / "params", BadConfig)):
        with pytest.raises(kind):
            write_backup(tmp_path, wrong, TOKENS, 14.0)
    with pytest.raises(NotFound):
        write_backup(tmp_path / "nowhere", tmp_path / "c", TOKENS, 14.0)
    assert thesis.read_bytes() == before
    assert not (tmp_path / "c").exists()


def test_a_backup_of_what_is_damaged_is_none(saved: tuple[Path, About], tmp_path: Path) -> None:
    next((tmp_path / "params" / "models").iterdir()).unlink()
    with pytest.raises(StoreDamaged, match="is gone"):
        write_backup(tmp_path, tmp_path / "second", TOKENS, 13.0)
    assert not (tmp_path / "second").exists()


def test_an_older_fednodes_store_is_backed_up_before_its_tables_are_brought_up_to_date(tmp_path: Path) -> None:
    old, first = tmp_path / "old", tmp_path / "first"
    (old / "params" / "models").mkdir(parents=True)
    (old / "params" / "models" / "0.safetensors").write_bytes(b"a model")
    shutil.copytree(MIGRATIONS, first, ignore=shutil.ignore_patterns("v000[2-9]*", "v00[1-9]*"))
    engine = open_engine(old / "store.sqlite", is_writer=True)
    migrate(engine, SqliteFile(old / "store.sqlite"), first)
    engine.dispose()
    assert not examine_store(old).is_newest
    write_backup(old, tmp_path / "old.fednode", TOKENS, 1.0)
    restore_backup(tmp_path / "old.fednode", tmp_path / "new", TOKENS)
    assert names_in(tmp_path / "new") == {"store.sqlite", "params/models/0.safetensors"}
    asyncio.run(open_and_close(tmp_path / "new"))
    assert examine_store(tmp_path / "new").is_newest


async def open_and_close(state_dir: Path) -> None:
    await (await SqlStore.open(state_dir, HandClock())).close()


def test_one_backup_at_a_time(saved: tuple[Path, About], tmp_path: Path) -> None:
    lock = StateLock.take(tmp_path / "backup")
    with pytest.raises(StoreLocked):
        write_backup(tmp_path, tmp_path / "second", TOKENS, 13.0)
    lock.release()
    (tmp_path / "backup" / "files").mkdir()
    (tmp_path / "backup" / "files" / "of a killed one").touch()
    write_backup(tmp_path, tmp_path / "second", TOKENS, 13.0)
    assert not (tmp_path / "backup" / "files").exists()


def test_a_restore_overwrites_nothing(saved: tuple[Path, About], tmp_path: Path) -> None:
    file, _ = saved
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(BadConfig, match="not empty"):
        restore_backup(file, full, TOKENS)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    with pytest.raises(StoreLocked, match="in use by process"):         # the store of `tmp_path` is open
        restore_backup(file, tmp_path, TOKENS)
    with pytest.raises(NotFound):
        restore_backup(tmp_path / "nowhere", tmp_path / "new", TOKENS)


# --- spoilt files -------------------------------------------------------------------------------------

Spoil = Callable[[bytes], bytes]


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    tar.addfile(member)


def flipped(name: str) -> Spoil:
    """One bit of the first member whose name begins so."""

    def flip(content: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            place = next(m.offset_data + m.size // 2 for m in tar if m.name.startswith(name))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flip


def rewritten(change: Callable[[tarfile.TarFile, str, bytes], None]) -> Spoil:
    """The same backup, each member written by `change`."""

    def rewrite(content: bytes) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=made, mode="w") as new:
            for member in old:
                change(new, member.name, old.extractfile(member).read())        # type: ignore[union-attr]
        return made.getvalue()

    return rewrite


def with_more(add: Callable[[tarfile.TarFile], None]) -> Spoil:
    """The same backup, and what `add` adds after its beginning."""

    def change(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        put(tar, name, content)
        if name == "about.json":
            add(tar)

    return rewritten(change)


def told_otherwise(**facts: object) -> Spoil:
    def change(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        put(tar, name, json.dumps(json.loads(content) | facts).encode() if name == "about.json" else content)

    return rewritten(change)


def without(left_out: str) -> Spoil:
    def change(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        if not name.startswith(left_out):
            put(tar, name, content)

    return rewritten(change)


SPOILT: dict[str, tuple[Spoil, type[FednodeError], str]] = {
    "foreign": (lambda content: b"no backup at all", DataError, "no whole backup"),
    "empty": (lambda content: b"", DataError, "no whole backup"),
    "cut in a file": (lambda content: content[: len(content) // 2], DataError, "no whole backup"),
    "cut before its end": (without("sha256.json"), DataError, "its end is missing"),
    "store flipped": (flipped("store.sqlite"), DataError, "'store.sqlite' is damaged"),
    "model flipped": (flipped("params/models"), DataError, "is damaged"),
    "model left out": (without("params/models"), DataError, "missing"),
    "newer tables": (told_otherwise(revision="v9999"), VersionMismatch, "newer fednode"),
    "newer format": (told_otherwise(format=2), VersionMismatch, "newer fednode"),
    "climber": (with_more(lambda tar: put(tar, "params/models/../../../../climbed", b"x")), DataError, "no file of"),
    "absolute": (with_more(lambda tar: put(tar, "/tmp/climbed", b"x")), DataError, "no file of"),
    "stranger": (with_more(lambda tar: put(tar, "authorized_keys", b"x")), DataError, "no file of"),
    "unlisted": (with_more(lambda tar: put(tar, "params/models/0.safetensors", b"x")), DataError, "or missing"),
    "symlink": (
        with_more(lambda tar: link(tar, "params/models/l.safetensors", "/etc", tarfile.SYMTYPE)),
        DataError, "no file of",
    ),
    "hard link": (
        with_more(lambda tar: link(tar, "params/models/l.safetensors", "/etc/passwd", tarfile.LNKTYPE)),
        DataError, "no file of",
    ),
    "device": (
        with_more(lambda tar: link(tar, "params/models/d.safetensors", "", tarfile.CHRTYPE)), DataError, "no file of"
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_whole_backup_is_refused_and_leaves_nothing(
    saved: tuple[Path, About], tmp_path: Path, name: str
) -> None:
    spoil, kind, told = SPOILT[name]
    file, target = tmp_path / "spoilt", tmp_path / "below" / "target"
    file.write_bytes(spoil(saved[0].read_bytes()))
    with pytest.raises(kind, match=told):
        restore_backup(file, target, TOKENS)
    assert {path.name for path in target.rglob("*")} <= {"lock"}
    assert not list(tmp_path.rglob("climbed*"))
