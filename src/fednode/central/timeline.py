"""One round as bars, a client a line: waited, trained, uploaded, then waited for the others. The straggler at a glance.

Pure: times come in, bars go out, in thousandths of the round's length. What is not known (an older store, a client that
never reported) is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fednode.core.units import seconds_text
from fednode.store.history import ClientInRound, RoundView

SCALE = 1000
MIN_WIDTH = 3               # what took any time at all can be seen


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One step of one client."""

    step: str               # wait | train | upload | rest
    left: int               # 0 to SCALE
    width: int
    seconds: float

    @property
    def told(self) -> str:
        return f"{_WORDS[self.step]} {seconds_text(self.seconds)}"


_WORDS = {"wait": "waited", "train": "trained", "upload": "uploaded", "rest": "aggregation and others"}


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
    return [Line(part=part, bars=_bars(part, view.opened_s, end_s, view.ended_s)) for part in view.clients]


def slowest(lines: Sequence[Line], limit: int) -> list[Line]:
    """At most `limit` lines, those that took longest, in name order."""
    kept = sorted(lines, key=lambda line: -line.busy_s)[:limit]
    return sorted(kept, key=lambda line: line.part.client.encode())


def _bars(part: ClientInRound, opened_s: float, end_s: float, ended_s: float | None) -> tuple[Bar, ...]:
    if part.leased_s is None:
        steps = [("wait", opened_s, end_s)] if ended_s is None else []
    else:
        trained_s = part.sent_s or part.received_s or end_s
        steps = [("wait", opened_s, part.leased_s), ("train", part.leased_s, trained_s)]
        if part.sent_s is not None:
            steps.append(("upload", part.sent_s, part.received_s or end_s))
        if part.received_s is not None:
            steps.append(("rest", part.received_s, end_s))
    length_s = max(end_s - opened_s, 1e-6)
    return tuple(_bar(step, start - opened_s, stop - opened_s, length_s) for step, start, stop in steps if stop > start)


def _bar(step: str, start_s: float, stop_s: float, length_s: float) -> Bar:
    left = min(SCALE - MIN_WIDTH, max(0, round(SCALE * start_s / length_s)))
    width = max(MIN_WIDTH, min(SCALE - left, round(SCALE * (stop_s - start_s) / length_s)))
    return Bar(step=step, left=left, width=width, seconds=stop_s - start_s)
