"""For all tests: properties are tried on the same examples everywhere, and no busy machine fails one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from federation_scene import Federation

settings.register_profile("fednode", deadline=None, derandomize=True, database=None)
settings.load_profile("fednode")

# Modules that take long, in about the seconds that they took.
SLOW_S = {
    "test_crown": 130, "test_demo": 130, "test_docs_run": 110, "test_networks": 90, "test_client_page": 60,
    "test_deterministic_federation": 60, "test_doctor": 60, "test_failpoints": 50, "test_exit_codes": 50,
    "test_syscalls": 50, "test_membership": 45, "test_bad_tasks": 45, "test_command_line": 40, "test_launch": 40,
    "test_cards": 40, "test_tls": 40, "test_postgres_faults": 30, "test_power_loss": 30, "test_child": 30,
    "test_simulation": 30, "test_unread": 30, "test_client_with_central": 30, "test_run": 30, "test_try_it": 30,
    "test_soak": 25, "test_chest_xray": 25, "test_backup": 25, "test_openapi": 25, "test_postgres": 25,
    "test_round_machine": 20, "test_coming_back": 20, "test_releases": 20, "test_hostile_clients": 20,
    "test_whole_store": 20, "test_compare_page": 20, "test_sign_in": 15, "test_completion": 15, "test_random_kills": 15,
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several workers are dealt equal numbers of tests in a row: each begins with its share of the slow ones."""
    num_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if num_workers > 1:
        items[:] = dealt(items, num_workers)


def dealt(items: list[pytest.Item], num_workers: int) -> list[pytest.Item]:
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    slow = sorted((path for path in modules if path.stem in SLOW_S), key=lambda path: -SLOW_S[path.stem])
    shares: list[list[pytest.Item]] = [[] for _ in range(num_workers)]
    seconds = [0] * num_workers
    for path in slow:
        lightest = seconds.index(min(seconds))
        shares[lightest] += modules.pop(path)
        seconds[lightest] += SLOW_S[path.stem]
    quick = [item for module in modules.values() for item in module]
    num_left = len(items)
    for rank, share in enumerate(shares):
        size = num_left // (num_workers - rank)
        num_left -= size
        num_quick = max(0, size - len(share))
        share += quick[:num_quick]
        del quick[:num_quick]
    return [item for share in [*shares, quick] for item in share]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Real processes on loopback; whatever still runs at the end of the test is ended."""
    fed = Federation(tmp_path)
    yield fed
    fed.stop_all()
