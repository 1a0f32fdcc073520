"""For all tests: properties are tried on the same examples everywhere, and no busy machine fails one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from federation_scene import Federation
from pages_of_docs import Reader

settings.register_profile("fednode", deadline=None, derandomize=True, database=None)
settings.load_profile("fednode")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Real processes on loopback; whatever still runs at the end of the test is ended."""
    fed = Federation(tmp_path)
    yield fed
    fed.stop_all()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody who types what a page says, in a home of their own."""
    somebody = Reader(tmp_path / "home")
    yield somebody
    somebody.leave()
