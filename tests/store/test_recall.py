"""What is asked for again and again: read once by all who ask at once, and never older than the last change."""

from __future__ import annotations

import asyncio

import pytest

from fednode.store.recall import Recall


class Source:
    """Answers with how often it was asked, once it may."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.may_answer = asyncio.Event()

    async def __call__(self) -> int:
        self.num_asked += 1
        found = self.num_asked
        await self.may_answer.wait()
        return found


async def test_all_who_ask_at_once_get_one_answer_and_it_is_kept() -> None:
    recall, source = Recall[int](2), Source()
    waiting = [asyncio.ensure_future(recall.of("a", source)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()          # who gives up takes nothing from the others
    source.may_answer.set()
    assert await asyncio.gather(*waiting) == [1] * 4
    assert await recall.of("a", source) == 1


@pytest.mark.parametrize("num_turns", [0, 1, 3])        # before the question is put, as it is, and while it is
async def test_who_asks_after_a_change_gets_no_answer_from_before_it(num_turns: int) -> None:
    recall, source = Recall[int](2), Source()
    before = asyncio.ensure_future(recall.of("a", source))
    await asyncio.sleep(0)
    for _ in range(num_turns):
        await asyncio.sleep(0)
    recall.forget()
    after = asyncio.ensure_future(recall.of("a", source))
    source.may_answer.set()
    found = await after
    assert await before != found
    assert await recall.of("a", source) == found
    assert source.num_asked == 2


async def test_what_was_not_found_or_failed_is_asked_for_anew() -> None:
    recall = Recall[int](2)

    async def nothing() -> int | None:
        return None

    async def failing() -> int | None:
        raise OSError("away")

    assert await recall.of("a", nothing) is None
    with pytest.raises(OSError, match="away"):
        await recall.of("a", failing)
    source = Source()
    source.may_answer.set()
    assert await recall.of("a", source) == 1
