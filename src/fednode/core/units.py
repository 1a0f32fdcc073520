"""Numbers as people read them: sizes, durations, scores. One way for the command line and the pages."""

from __future__ import annotations

import re

SECONDS_OF_AN_HOUR, SECONDS_OF_A_DAY = 3_600, 86_400
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": SECONDS_OF_AN_HOUR, "d": SECONDS_OF_A_DAY}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd]?)", re.ASCII)


def number_text(value: object) -> str:
    """A metric: four decimals, or nothing where there is none."""
    return f"{value:.4f}" if isinstance(value, float) else ""


def count_text(number: int, one: str, many: str = "") -> str:
    """`3 clients`, `1 client`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size_text(num_bytes: float) -> str:
    """1536 -> `1.5 kB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def seconds_text(seconds: float) -> str:
    """75.2 -> `1m 15s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def ago_text(seconds: float) -> str:
    """7300 -> `2 h ago`: a glance, not a measurement."""
    for size_s, unit in ((SECONDS_OF_A_DAY, "d"), (SECONDS_OF_AN_HOUR, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit} ago"
    return "just now" if seconds < 5 else f"{int(seconds)} s ago"


def seconds_of(text: str) -> float | None:
    """`600`, `600s`, `10m`, `2h`, `1d` in seconds; None where it is no duration, or none at all."""
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _UNITS_S[found[2]] or None if found else None
