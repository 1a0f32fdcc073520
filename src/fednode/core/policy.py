"""What a client node accepts, by its operator's word: values, and the sentences that say what they are against.

Where the word is written: `client/policy_file.py`. Who holds to it: `client/offers.py` and `client/execution.py`. The
central node is told the limits with each offer, so that a launch can be checked by them; it can lower none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from fednode.core.json import JsonObject
from fednode.core.units import count_text, seconds_text


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a site accepts of a run; None: anything."""

    max_epochs: int | None = None               # of one visit
    max_wall_time_s: float | None = None        # of one visit
    min_cohort: int | None = None               # of a round that trains

    @property
    def words(self) -> list[str]:
        """Each that is set, for people."""
        told = []
        if self.max_epochs is not None:
            told.append(f"at most {count_text(self.max_epochs, 'epoch')} a round")
        if self.max_wall_time_s is not None:
            told.append(f"at most {seconds_text(self.max_wall_time_s)} a round")
        if self.min_cohort is not None:
            told.append(f"cohorts of {self.min_cohort} or more")
        return told

    def against(self, epochs: int, cohort_size: int) -> list[str]:
        """What of a training it does not accept, each the rest of a sentence that begins with the client."""
        told = []
        if self.max_epochs is not None and epochs > self.max_epochs:
            most = count_text(self.max_epochs, "epoch")
            told.append(f"accepts at most {most} a round (max_epochs), the run asks for {epochs}")
        if self.min_cohort is not None and cohort_size < self.min_cohort:
            told.append(f"accepts cohorts of {self.min_cohort} or more (min_cohort), this one has {cohort_size}")
        return told

    def to_json(self) -> JsonObject:
        """Without what is not set."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The whole word. The usual one accepts whatever the client node was started with."""

    tasks: tuple[str, ...] | None = None        # names; None: any
    limits: Limits = field(default_factory=Limits)
    is_by_hand: bool = False                    # each new fingerprint waits for a person's approval

    def accepts(self, *names: str) -> bool:
        """Whether a task that is known by one of these names may be offered."""
        return self.tasks is None or not set(self.tasks).isdisjoint(names)

    @property
    def words(self) -> list[str]:
        """What it says, for people; empty where it is the usual one."""
        tasks = [] if self.tasks is None else [f"tasks {', '.join(self.tasks) or 'none'}"]
        return [*tasks, *self.limits.words, *(["each new fingerprint by hand"] if self.is_by_hand else [])]
