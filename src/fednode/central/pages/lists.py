"""Long lists: which page of one is shown, and addresses that hold all that was chosen: a reload shows the same."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

PAGE_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class Paging:
    """One page of a list, from 1: asked for beyond the end it is the last."""

    asked: int
    num_rows: int
    size: int = PAGE_ROWS

    @property
    def num_pages(self) -> int:
        return max(1, -(-self.num_rows // self.size))

    @property
    def page(self) -> int:
        return min(max(1, self.asked), self.num_pages)

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


def address(path: str, /, **parts: str | int) -> str:
    """`path` with its query; what is empty, 0 or the first page is left out."""
    said = {name: part for name, part in parts.items() if part and (name, part) != ("page", 1)}
    return f"{path}?{urlencode(said)}" if said else path
