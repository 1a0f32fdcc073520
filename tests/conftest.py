"""For all tests: properties are tried on the same examples everywhere, and no busy machine fails one."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fednode", deadline=None, derandomize=True, database=None)
settings.load_profile("fednode")
