"""README, tutorials and the how-tos about one's own code, followed from the first block to the last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages_of_docs import MAPPED, ROOT, Block, Reader, blocks_of, shape

PAGES = (
    ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    ROOT / "docs" / "how-to" / "write-a-task.md", ROOT / "docs" / "how-to" / "keep-state-at-a-client.md",
    ROOT / "docs" / "how-to" / "write-a-strategy.md",
)


@pytest.mark.timeout(900)           # on a busy machine; each wait in it has a limit of its own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("block", [
    Block("bash", "true", 1), Block("", "true", 1), Block("sh", "false", 1), Block("python", "1 / 0", 1),
], ids=["bash", "unnamed", "failing", "raising"])
def test_a_block_that_nobody_runs_or_that_fails_is_an_error(block: Block, reader: Reader) -> None:
    with pytest.raises(AssertionError):
        reader.follow(block)


def test_what_a_page_shows_must_have_been_seen(reader: Reader) -> None:
    reader.follow(Block("sh", "echo round 1/3   accuracy 0.71, run_abc", 1))
    reader.follow(Block("text", "round 2/3 accuracy 0.8, run_x\n...", 1))
    for other in ("round 2/3 loss 0.9100, run_x", "round 2/3 accuracy 0.99, run_x"):
        with pytest.raises(AssertionError, match="was not seen"):
            reader.follow(Block("text", other, 1))


def test_a_command_that_is_refused_must_be_shown_as_refused(reader: Reader) -> None:
    reader.follow(Block("sh", "fednode simulate mnits", 1), is_refused=True)
    reader.follow(Block("text", "Error: no installed task is called 'mnits'", 1))
    with pytest.raises(AssertionError):
        reader.follow(Block("sh", "true", 1), is_refused=True)


def test_every_exception_is_needed() -> None:
    typed = "\n".join(block.text for page in PAGES for block in blocks_of(page) if block.language == "sh")
    assert [pattern for pattern, _ in MAPPED if not re.search(pattern, typed)] == []


def test_numbers_are_not_compared_and_words_are() -> None:
    home = Path("/tmp/x")
    assert shape("Run #1 completed after 3 rounds and 10.5 s: loss 0.1", home) == shape(
        "Run #12 completed after 5 rounds and 1m 05s: loss 1.5e-07", home
    )
    assert shape("state in /tmp/x/a", home) == shape("state in /home/ada/a", home)
    assert shape("completed", home) != shape("failed", home)
