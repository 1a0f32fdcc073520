"""Numbers as people read them: sizes, durations, scores. One way for the command line and the pages."""

from __future__ import annotations

SECONDS_OF_AN_HOUR, SECONDS_OF_A_DAY = 3_600, 86_400


def number_text(value: object) -> str:
    """A metric: four decimals, or nothing where there is none."""
    return f"{value:.4f}" if isinstance(value, float) else ""


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
