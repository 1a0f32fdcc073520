"""What a central node logs is kept out of the tests' output."""

from __future__ import annotations

import io

import pytest

from fednode.logs import configure_logs


@pytest.fixture(autouse=True)
def quiet_logs() -> io.StringIO:
    """Where the log of this test goes."""
    stream = io.StringIO()
    configure_logs("error", stream)
    return stream
