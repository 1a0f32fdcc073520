"""A real PostgreSQL on loopback, Debian's, for tests that keep rows in it, kill it and start it again."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federation_scene import free_port

USER = "fednode"
GUARDED = "guarded"             # a user who needs a password that nobody has
SMALL = ("shared_buffers=16MB", "max_connections=80", "log_min_messages=fatal")


def programs() -> Path:
    """Where they lie; skips the test where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="the package psycopg is not installed: pip install 'fednode[postgres]'")
    return found[-1].parent


class Cluster:
    """One PostgreSQL with a folder of its own. Made and ended by `cluster`."""

    def __init__(self, folder: Path, bin_dir: Path, *, is_durable: bool) -> None:
        self.folder, self.bin_dir, self.port = folder, bin_dir, free_port()
        self.settings = SMALL if is_durable else (*SMALL, "fsync=off", "full_page_writes=off")
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        # In a language's order, as many a database is made: names must not depend on it.
        self._call("initdb", "--no-sync", "-A", "trust", "-U", USER, "--encoding=UTF8", "--locale=C.UTF-8",
                   "--locale-provider=icu", "--icu-locale=en", "-D", str(folder / "data"))
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")

    def start(self) -> None:
        """Returns when it answers. After a kill it waits until the last of the old processes has seen it."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self._process = self._popen()
            while self._process.poll() is None:
                with contextlib.suppress(Exception), self.connect() as connection:
                    connection.execute("SELECT 1")
                    return
                time.sleep(0.05)
            time.sleep(0.1)
        pytest.fail(f"PostgreSQL does not start: {self.log()}")

    def kill(self) -> None:
        """`kill -9` of every process of it."""
        assert self._process is not None
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)       # at once
            self._process.wait(30)

    def connect(self, name: str = "postgres", **more: Any) -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname=name, autocommit=True, connect_timeout=5, **more
        )

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"store{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def copy_of(self, url: str) -> str:
        """The URL of another database with the same rows, as a dump would make it."""
        name = f"store{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {url.rpartition('/')[2]}")
        return self.url(name)

    def empty(self, url: str) -> None:
        """Take every row away: cheaper than another database."""
        with self.connect(url.rpartition("/")[2]) as connection:
            named = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            tables = ", ".join(f'"{name}"' for (name,) in named if name != "alembic_version")
            if tables:
                connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def ask(self, url: str, question: str) -> list[Any]:
        """Rows of the database at `url`."""
        with self.connect(url.rpartition("/")[2]) as connection:
            return list(connection.execute(question).fetchall())

    def cut(self, url: str) -> int:
        """End every session of fednode's there, in the midst of whatever it does; how many there were."""
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity " \
            f"WHERE application_name LIKE 'fednode %' AND datname = '{url.rpartition('/')[2]}'"
        return int(self.ask(url, ended)[0][0])

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _popen(self) -> subprocess.Popen[bytes]:
        settings = [part for setting in self.settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self.bin_dir / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port),
                 "-k", self.folder, *settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self._user, cwd=self.folder,
            )

    def _call(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self.bin_dir / program, *args], capture_output=True, text=True, user=self._user, cwd=self.folder,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def cluster(*, is_durable: bool = True) -> Iterator[Cluster]:
    """A PostgreSQL that answers. `is_durable` costs fsyncs; where none is killed there is no need."""
    bin_dir = programs()
    folder = Path(tempfile.mkdtemp(prefix="fednode-postgres-"))     # its user could not enter pytest's folders
    try:
        made = Cluster(folder, bin_dir, is_durable=is_durable)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str:
    """Somebody else: PostgreSQL refuses to be root's."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _children(pid: int) -> Sequence[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


