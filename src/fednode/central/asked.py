"""Numbers that an address may ask with: no larger than the store, and every reader of our JSON, can count."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

MOST = 2**53 - 1                # beyond it JavaScript and JSON readers round

Count = Annotated[int, Query(ge=0, le=MOST)]
Seq = Annotated[int, Query(ge=0, le=MOST, description="of an event")]
PageNumber = Annotated[int, Query(ge=-MOST, le=MOST // 1_000, description="from 1; another is taken as the nearest")]
