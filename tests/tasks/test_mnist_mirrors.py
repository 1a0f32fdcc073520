"""Public mirrors and the cache: a real loopback HTTP server serves the official files, whole, wrong or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fednode.errors import DataError
from fednode.tasks.base import Site
from fednode.tasks.mnist_data import PUBLIC, load_whole

DATA = Path(os.environ.get("FEDNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mnist"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no full MNIST in {DATA} (FEDNODE_TEST_DATA)")

NUM_PROCESSES = 4
LOAD = "from fednode.tasks.base import Site; from fednode.tasks.mnist_data import load_whole; "
LOAD += "print(len(load_whole(Site(client='a'), 'train').labels), len(load_whole(Site(client='a'), 'test').labels))"


class Mirror:
    """A folder on a loopback port, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        asked: list[str] = []
        self.asked = asked

        class Quiet(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path.rsplit("/", 1)[-1])
                super().do_GET()

            def log_message(self, format: str, *args: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def mirror_of(folder: Path) -> Iterator[Mirror]:
    mirror = Mirror(folder)
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "fednode" / "mnist"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with mirror_of(DATA) as found:
        monkeypatch.setenv("FEDNODE_MNIST_MIRRORS", found.url)
        yield found


NAMES = sorted(file.name for file in PUBLIC)


def is_official(cache: Path) -> bool:
    """Whether the cache holds the four official files and nothing else."""
    return sorted(path.name for path in cache.iterdir()) == NAMES and all(
        (cache / name).read_bytes() == (DATA / name).read_bytes() for name in NAMES
    )


def test_what_is_missing_is_fetched_once_and_kept(cache: Path, mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (None, tmp_path / "empty"):
        assert len(load_whole(Site(client="a", data=data), "train").labels) == 60_000
        assert load_whole(Site(client="a", data=data), "test").source == "the public MNIST files"
    assert sorted(mirror.asked) == NAMES
    assert is_official(cache)


def test_a_cached_file_that_is_damaged_is_fetched_again(cache: Path, mirror: Mirror) -> None:
    load_whole(Site(client="a"), "train")
    damaged = bytearray((cache / NAMES[1]).read_bytes())
    damaged[-1] ^= 1                            # same size: only the checksum tells
    (cache / NAMES[1]).write_bytes(damaged)
    load_whole(Site(client="a"), "train")
    assert mirror.asked[4:] == [NAMES[1]]
    assert is_official(cache)


def test_the_next_mirror_is_asked_where_one_gives_something_else(
    cache: Path, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong").mkdir()
    for name in NAMES[:2]:
        (tmp_path / "wrong" / name).write_bytes(b"<html>sign in to this network</html>")
    with mirror_of(tmp_path / "wrong") as wrong:        # two files with other bytes, two not there
        monkeypatch.setenv("FEDNODE_MNIST_MIRRORS", f"http://127.0.0.1:9, {wrong.url} ,{mirror.url}")
        assert len(load_whole(Site(client="a"), "test").labels) == 10_000
        assert sorted(wrong.asked) == NAMES == sorted(mirror.asked)
    assert is_official(cache)


def test_where_no_mirror_helps_all_of_them_are_told_with_the_ways_out(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / PUBLIC[0].name).write_bytes(b"<html>")
    with mirror_of(tmp_path / "wrong") as wrong:
        monkeypatch.setenv("FEDNODE_MNIST_MIRRORS", f"http://127.0.0.1:9,{wrong.url}")
        with pytest.raises(DataError, match=r"there is no train-images-idx3-ubyte\.gz") as caught:
            load_whole(Site(client="a"), "train")
    assert "127.0.0.1:9" in caught.value.message and wrong.url in caught.value.message and "md5" in caught.value.message
    assert "--data" in caught.value.fix and "--offline-sample" in caught.value.fix
    assert list(cache.iterdir()) == []          # nothing half is left


def test_processes_that_fetch_at_the_same_time_do_not_harm_one_another(cache: Path, mirror: Mirror) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) for _ in range(NUM_PROCESSES)
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == ["60000 10000\n"] * NUM_PROCESSES
    assert [process.returncode for process in started] == [0] * NUM_PROCESSES
    assert is_official(cache)


def test_the_sample_and_a_sites_own_files_ask_nobody(cache: Path, mirror: Mirror) -> None:
    load_whole(Site(client="a", offline_sample=True), "train")
    load_whole(Site(client="a", data=DATA), "train")
    assert mirror.asked == [] and not cache.exists()
