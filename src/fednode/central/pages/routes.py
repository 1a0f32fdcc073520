"""Which pages there are."""

from __future__ import annotations

from fednode.central.pages import (
    client,
    clients,
    compare,
    events,
    journal,
    launch,
    live,
    model,
    models,
    overview,
    run,
    run_delete,
    runs,
    settings,
    sign_in,
    try_it,
)

PAGES = tuple(page.router for page in (
    overview, launch, runs, run_delete, run, journal, compare, clients, client, models, model, try_it, events, settings,
    live, sign_in,
))
