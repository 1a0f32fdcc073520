"""Where all chance comes from: (run seed, purpose, round, client name), and nothing else.

Ids, times and the order of arrival never enter a seed. An attempt enters the seed of a selection, never
that of a client's training, so an update outlives the attempt that it was made for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fednode.core.json import Json, sha256_of

SEED_BITS = 63                  # fits a signed 64-bit integer, which is what torch and SQL take


def derive_seed(*parts: Json) -> int:
    """One seed of SEED_BITS bits from JSON parts; every part counts, and so does their order."""
    return int(sha256_of(list(parts))[:16], 16) >> (64 - SEED_BITS)


def init_seed(run_seed: int) -> int:
    """The seed of the initial params."""
    return derive_seed(run_seed, "init")


def visit_seed(run_seed: int, round_number: int, client: str) -> int:
    """The seed of one client's work in one round."""
    return derive_seed(run_seed, "visit", round_number, client)


def client_seed(run_seed: int, client: str) -> int:
    """The seed of what one client draws once a run."""
    return derive_seed(run_seed, "client", client)


def selection_rng(run_seed: int, round_number: int, attempt: int) -> random.Random:
    """The generator that picks a cohort."""
    return random.Random(derive_seed(run_seed, "select", round_number, attempt))


def numpy_rng(seed: int) -> np.random.Generator:
    """A numpy generator, named so that a numpy release with another default changes no result."""
    return np.random.Generator(np.random.PCG64(seed))


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Inside, the global generators of `random` and numpy start from `seed`; after, they go on as if nothing was.

    For code that is not ours and draws from them. Ours takes a generator as an argument.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
