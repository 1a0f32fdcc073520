"""Which pages there are."""

from __future__ import annotations

from fednode.central.pages import launch, live, overview, run, runs, sign_in, try_it

PAGES = tuple(page.router for page in (overview, launch, runs, run, live, sign_in, try_it))
