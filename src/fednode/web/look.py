"""How pages look: the template environment with its filters, and where the static files lie.

`templates/frame.html` is the outermost page; `static/` holds the style sheet, our ES modules and, under `vendor/`,
third-party files as they were published. Everything that a page shows goes through autoescape.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fednode.core.telling import scores_text
from fednode.core.units import ago_text, count_text, number_text, seconds_text, size_text

HERE = Path(__file__).parent
STATIC_DIR = HERE / "static"
SHORT_SHA = 12                  # hex digits that people compare by eye


def environment(*template_dirs: Path) -> Environment:
    """Templates of these folders, over the shared ones. An unknown name is an error, not an empty place."""
    found = Environment(
        loader=FileSystemLoader([*template_dirs, HERE / "templates"]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    found.filters |= {
        "score": _score, "scores": scores_text, "ago": ago_text, "duration": seconds_text, "size": size_text,
        "when": when, "short": _short, "pretty": _pretty, "count": count_text,
    }
    found.globals["static"] = _static
    return found


def when(wall_s: float | None) -> Markup:
    """Wall seconds as a `<time>` that the browser tells in its own zone; without a script it stays UTC."""
    if wall_s is None:
        return Markup("")
    moment = datetime.fromtimestamp(wall_s, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def _score(value: object) -> str:
    return number_text(float(value)) if isinstance(value, float | int) else ""


def _short(sha: str | None) -> str:
    return (sha or "")[:SHORT_SHA]


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _static(name: str) -> str:
    """The address of a static file. Its content is in the address: a browser may keep it for ever."""
    return f"/static/{name}?{_VERSIONS.setdefault(name, sha256((STATIC_DIR / name).read_bytes()).hexdigest()[:8])}"


_VERSIONS: dict[str, str] = {}
