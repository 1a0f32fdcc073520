"""What an offer says of a site's data, ordered for people: counts by class and split, and the rest as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from fednode.core.records import Offer


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The summary of one offer; empty where the site's owner keeps it, or the task has none."""

    splits: Mapping[str, Mapping[str, int]]     # split -> class -> examples
    facts: Mapping[str, object]

    @staticmethod
    def of(offer: Offer) -> DataSummary:
        splits = {name: value for name, value in offer.summary.items() if _are_counts(value)}
        told = {*splits, *(f"{split}_examples" for split in splits)}        # the latter is the sum, which the table has
        return DataSummary(splits=splits, facts={n: value for n, value in offer.summary.items() if n not in told})

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(label for counts in self.splits.values() for label in counts))


def _are_counts(value: object) -> TypeGuard[Mapping[str, int]]:
    return isinstance(value, Mapping) and bool(value) and all(type(count) is int for count in value.values())
