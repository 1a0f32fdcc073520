"""For all tests: properties are tried on the same examples everywhere, and no busy machine fails one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from federation_scene import Federation
from pages_of_docs import Reader

settings.register_profile("fednode", deadline=None, derandomize=True, database=None)
settings.load_profile("fednode")

# Files that take longest, longest first: whichever worker is free takes the next one, so no long one is last.
SLOW = (
    "crown", "demo", "docs_run", "networks", "client_page", "deterministic_federation", "doctor", "examples",
    "failpoints", "exit_codes", "syscalls", "membership", "bad_tasks", "command_line", "launch", "cards", "tls",
    "postgres_faults", "power_loss", "child", "simulation", "unread", "client_with_central", "run", "try_it", "soak",
    "chest_xray", "backup", "openapi", "postgres", "round_machine", "coming_back", "releases", "hostile_clients",
    "whole_store", "compare_page", "sign_in", "completion", "random_kills",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(SLOW)))


@pytest.fixture(autouse=True)
def logs_as_they_are() -> Iterator[None]:
    """A command that sets its level sets it for the process, and so for every test after it."""
    yield
    structlog.reset_defaults()


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
