"""Which code this site's operator has approved by hand, and what waits: one file each in `approvals/` of the state dir.

A task in a file is known by the sha256 of its source, which is read here and not run; a task of an installed package by
its fingerprint, `mnist@1`: a package is code that somebody installed already. Who asks: `offers`, at a start. Who
decides: `page` and `fednode client approve`, each in a process of its own: a decision is one file, replaced at once.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from fednode.client.identity import OWNER_ONLY_FOLDER, write_private
from fednode.core.records import Offer
from fednode.errors import BadConfig, NotFound
from fednode.own_code import is_file_spec, source_of
from fednode.ports import Clock
from fednode.wire.codec import disk_errors

WATCH_EVERY_S = 1.0             # a decision of another process is seen after this
CONTEXT_LINES = 3
SHORT = 12                      # hex digits in the fingerprint of a source


class Verdict(StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Code:
    """What is to be approved, and what was decided."""

    key: str                    # sha256, hex: of the source, or of an installed task's fingerprint
    task: str                   # its name
    fingerprint: str
    spec: str                   # the file, or the installed name
    source: str = ""            # "" of an installed task
    verdict: Verdict = Verdict.WAITING
    at_s: float = 0.0           # wall time: since when it waits, or when it was decided


def code_of_file(spec: str) -> Code:
    """Of a task in a file, without running a line of it. Raises NotFound where it cannot be read."""
    head, _, class_name = spec.strip().rpartition(".py")
    path = Path(f"{head}.py").expanduser()
    try:
        own, source = path.read_bytes(), source_of(path)         # with the files beside it that it imports
    except OSError as error:
        told = f"the task file {path} cannot be read: {error.strerror}"
        raise NotFound(told, fix=f"check the path; it is looked for from {Path.cwd()}") from None
    key, name = hashlib.sha256(source).hexdigest(), _name_in(own, class_name.lstrip(":")) or path.stem.lower()
    text = source.decode(errors="backslashreplace")
    return Code(key=key, task=name, fingerprint=f"{name}#{key[:SHORT]}", spec=spec, source=text)


def code_of_installed(spec: str, offer: Offer) -> Code:
    key = hashlib.sha256(offer.fingerprint.encode()).hexdigest()
    return Code(key=key, task=offer.task, fingerprint=offer.fingerprint, spec=spec)


def _name_in(source: bytes, class_name: str) -> str:
    """What the task in this source is called; "" where only running it would tell."""
    with suppress(SyntaxError, ValueError):
        kinds = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        meant = [kind for kind in kinds if _may_be_meant(kind, class_name)]
        if len(meant) == 1:
            return next(_names_given(meant[0]), meant[0].name.lower())
    return ""


def _may_be_meant(kind: ast.ClassDef, class_name: str) -> bool:
    return kind.name == class_name if class_name else any(ast.unparse(base).endswith("Task") for base in kind.bases)


def _names_given(kind: ast.ClassDef) -> Iterator[str]:
    """The values of `name = "..."` in the class's body."""
    for node in kind.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        is_name = any(isinstance(target, ast.Name) and target.id == "name" for target in targets)
        if is_name and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


@dataclass(frozen=True, kw_only=True)
class Review:
    """A piece of code as a person looks at it."""

    code: Code
    before: str                         # fingerprint of the last approved source of its task; "": there is none
    difference: tuple[str, ...]         # to that, unified; without one, all of it


class Approvals:
    """The decisions of one state dir. May be read and written by several processes."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._folder = state_dir / "approvals"
        self._clock = clock

    def all(self) -> tuple[Code, ...]:
        """The oldest first. A file that cannot be read says nothing: its code waits again."""
        paths = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        found = [code for path in paths if (code := _read(path)) is not None]
        return tuple(sorted(found, key=lambda code: (code.at_s, code.key)))

    def verdict(self, code: Code) -> Verdict:
        known = _read(self._path(code.key))
        return Verdict.WAITING if known is None else known.verdict

    def ask(self, codes: Sequence[Code]) -> None:
        """Write down what waits, for whoever decides; what waited before and is not offered any more is forgotten."""
        wanted = {code.key for code in codes}
        for known in self.all():
            if known.verdict is Verdict.WAITING and known.key not in wanted:
                self._path(known.key).unlink(missing_ok=True)
        for code in codes:
            if _read(self._path(code.key)) is None:
                self._write(replace(code, verdict=Verdict.WAITING, at_s=self._clock.wall_s()))

    def decide(self, name: str, verdict: Verdict) -> Code:
        """`name`: a fingerprint, or a key. Durable when it returns. Raises NotFound, BadConfig, StoreError."""
        found = [code for code in self.all() if name in (code.key, code.fingerprint)]
        if not found:
            known = ", ".join(code.fingerprint for code in self.all()) or "nothing"
            raise NotFound(f"no task {name!r} has asked for an approval here", fix=f"what has asked: {known}")
        if len(found) > 1:
            keys = ", ".join(code.key for code in found)
            raise BadConfig(f"several sources are called {name!r}", fix=f"name one by its whole sha256: {keys}")
        decided = replace(found[0], verdict=verdict, at_s=self._clock.wall_s())
        self._write(decided)
        return decided

    def review(self, code: Code) -> Review:
        """It, as it stands now."""
        known = self.all()
        now = next((one for one in known if one.key == code.key), code)
        approved = [
            one for one in known
            if one.verdict is Verdict.APPROVED and one.key != now.key and (one.task == now.task or one.spec == now.spec)
        ]
        before = approved[-1] if approved else None
        return Review(
            code=now, before=before.fingerprint if before else "",
            difference=_difference(before, now),
        )

    def require(self, spec: str, offer: Offer) -> None:
        """Raise BadConfig unless what would run now is what was offered, and approved: a file may have been edited."""
        code = code_of_file(spec) if is_file_spec(spec) else code_of_installed(spec, offer)
        if is_file_spec(spec) and not offer.fingerprint.endswith(f"#{code.key[:SHORT]}"):
            raise BadConfig(
                f"the file of task {offer.fingerprint} was edited since this client node started",
                fix="its operator starts it again, and approves the difference or takes it back",
            )
        if self.verdict(code) is not Verdict.APPROVED:
            raise BadConfig(
                f"task {offer.fingerprint} is not approved at this site", fix="its operator looks, and approves it"
            )

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _write(self, code: Code) -> None:
        with disk_errors(self._folder):
            self._folder.mkdir(OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        write_private(self._path(code.key), json.dumps(asdict(code), indent=1).encode())


@lru_cache(maxsize=32)
def _difference(before: Code | None, now: Code) -> tuple[str, ...]:
    """Kept for who looks every second: a long source takes a moment."""
    return tuple(difflib.unified_diff(
        _lines(before.source if before else ""), _lines(now.source), n=CONTEXT_LINES, lineterm="",
        fromfile=before.fingerprint if before else "nothing approved", tofile=now.fingerprint,
    ))


def _lines(source: str) -> list[str]:
    """As a person can trust them: what would not be seen, or would turn the text around, is written as an escape."""
    lines = source.replace("\r\n", "\n").removesuffix("\n").split("\n") if source else []
    return ["".join(map(_visible, line)) for line in lines]


def _visible(character: str) -> str:
    is_plain = character.isprintable() or character == "\t"
    return character if is_plain else character.encode("unicode_escape").decode()


def _read(path: Path) -> Code | None:
    try:
        row = json.loads(path.read_bytes())
        code = Code(**(row | {"verdict": Verdict(row["verdict"]), "at_s": float(row["at_s"])}))
        return code if code.key == path.stem else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
