"""SECURITY.md and the page of promises name a test for what they claim, and each of these tests is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


@pytest.mark.parametrize(("page", "least"), [("SECURITY.md", 20), ("docs/explanation/reliability.md", 20)])
def test_every_test_that_a_page_names_exists(page: str, least: int) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    written = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > least
    assert named - written == set()
    files = set(re.findall(r"`(\w+/test_\w+\.py)`", text))
    assert {file for file in files if not (TESTS / file).is_file()} == set()


def test_every_promise_names_the_tests_that_show_it() -> None:
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    promises = re.findall(r"^## R(\d+) .*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert [int(number) for number in promises] == list(range(1, 12))
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:12]:
        assert all(f"**{word}" in part for word in ("Promised.", "How.", "Shown by")), part[:60]
        assert re.search(r"`\w+/test_\w+\.py`", part), part[:60]
