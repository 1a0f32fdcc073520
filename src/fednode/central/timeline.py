"""One round as bars, a client a line: waited, trained, uploaded, then waited for the others. The straggler at a glance.

Pure: times come in, bars go out, in thousandths of the round's length. What is not known (an older store, a client that
never reported) is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fednode.core.status import RoundKind
from fednode.core.units import seconds_text
from fednode.store.history import ClientInRound, RoundView

SCALE = 1000
MIN_WIDTH = 3               # what took any time at all can be seen
SHORTEST_S = 1e-6           # a round that took no time has a length all the same


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One step of one client."""

    step: str               # wait | work (a round that only measures) | train | upload | rest
    left: int               # 0 to SCALE
    width: int
    seconds: float

    @property
    def told(self) -> str:
        return f"{_WORDS[self.step]} {seconds_text(self.seconds)}"


_WORDS = {
    "wait": "waited", "work": "evaluated", "train": "evaluated and trained", "upload": "uploaded",
    "rest": "others and aggregation",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One client's part in the round."""

    part: ClientInRound
    bars: tuple[Bar, ...]

    @property
    def told(self) -> str:
        """The bars in words."""
        return ", ".join(bar.told for bar in self.bars) or "nothing yet"

    @property
    def busy_s(self) -> float:
        """From the round's opening until its update was here, as far as known."""
        return sum(bar.seconds for bar in self.bars if bar.step != "rest")


def lines_of(view: RoundView, now_s: float) -> list[Line]:
    """All clients of a round, in name order. `now_s`: wall seconds, the end of what is still going on."""
    end_s = view.ended_s or max(now_s, view.opened_s)
    return [
        Line(part=part, bars=tuple(_bars(_steps(part, view, end_s), view.opened_s, end_s))) for part in view.clients
    ]


def slowest(lines: Sequence[Line], limit: int) -> list[Line]:
    """At most `limit` lines, those that took longest, in name order."""
    kept = sorted(lines, key=lambda line: -line.busy_s)[:limit]
    return sorted(kept, key=lambda line: line.part.client.encode())


def _steps(part: ClientInRound, view: RoundView, end_s: float) -> list[tuple[str, float, float]]:
    """Each step with its wall seconds, from and to."""
    if part.leased_s is None:
        return [("wait", view.opened_s, end_s)] if view.ended_s is None else []
    work = "work" if view.round.kind is RoundKind.EVALUATE else "train"
    worked_s = part.sent_s or part.received_s or end_s
    steps = [("wait", view.opened_s, part.leased_s), (work, part.leased_s, worked_s)]
    if part.sent_s is not None:
        steps.append(("upload", part.sent_s, part.received_s or end_s))
    if part.received_s is not None:
        steps.append(("rest", part.received_s, end_s))
    return steps


def _bars(steps: Sequence[tuple[str, float, float]], opened_s: float, end_s: float) -> Iterator[Bar]:
    length_s = max(end_s - opened_s, SHORTEST_S)
    for step, start_s, stop_s in steps:
        if stop_s > start_s:
            yield _bar(step, start_s - opened_s, stop_s - opened_s, length_s)


def _bar(step: str, start_s: float, stop_s: float, length_s: float) -> Bar:
    left = min(SCALE - MIN_WIDTH, max(0, round(SCALE * start_s / length_s)))
    width = max(MIN_WIDTH, min(SCALE - left, round(SCALE * (stop_s - start_s) / length_s)))
    return Bar(step=step, left=left, width=width, seconds=stop_s - start_s)
