"""Pages of the docs, typed by a person at a terminal: what a page says is run, and what it shows is seen.

Of a page, in order: every ```sh block is typed into one real bash; a ```python block is saved where its first line
is `# NAME.py`, else run; a ```text block must be what was seen, but for numbers, ids and times. A command must end
well, unless what is shown of it begins with `Error:`. Any other block is an error: nothing runnable goes untried.

A command that goes on (`fednode central`, `fednode client`) has a terminal of its own and is awaited by its ready
line; typed again, it is ended first as by Ctrl-C. `MAPPED` is all that is not typed as it stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from federation_scene import free_port, wait_until

ROOT = Path(__file__).parents[1]
PATIENCE_S, SOON_S = 180.0, 20.0
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ACCURACY = re.compile(r"accuracy (\d\.\d+)")
NOT_RUN = {"toml", "ini"}
READY = {"fednode central": "Central node at", "fednode client": "Client registered successfully"}

# What a person does once on a fresh machine is done already where the tests run; each line is checked to be needed.
MAPPED = (
    (r"git clone <this repository> fednode && cd fednode", ":"),
    (r"make demo", "fednode demo --exit --clients 2 --rounds 1 --port $A_FREE_PORT"),      # the recipe's, sooner done
    (r"python3 -m venv \.venv && \. \.venv/bin/activate", ":"),
    (r"pip install (\.|'\.\[torch\]'|safetensors)", "python -c 'import fednode'"),
    (r"--host 0\.0\.0\.0 --insecure", ""),                                   # tests stay on loopback
    (r"http://192\.168\.1\.20:5000", "http://localhost:5000"),
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(f[1], f[2], text.count("\n", 0, f.start()) + 1) for f in FENCE.finditer(text)]


@dataclass
class Reader:
    """Somebody with a fresh home folder who follows a page."""

    home: Path
    seen: str = ""                                          # by what was typed last
    going_on: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.home / "fednode"
        self.folder.mkdir(parents=True)
        self.port, self.page_port = free_port(), free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FEDNODE_", "XDG_"))}
        self.env = kept | {
            "HOME": str(self.home), "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "NO_COLOR": "1",
            "A_FREE_PORT": str(free_port()),
            "FEDNODE_PORT": str(self.port), "FEDNODE_CENTRAL": f"http://localhost:{self.port}",
        }
        self.bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, env=self.env, cwd=self.folder, text=True,
            start_new_session=True,
        )
        self.num_typed = 0

    # --- following a page ---------------------------------------------------------------------------------

    def read(self, page: Path) -> None:
        blocks = blocks_of(page)
        for block, following in zip(blocks, [*blocks[1:], Block("", "", 0)], strict=True):
            try:
                self.follow(block, is_refused=following.language == "text" and following.text.startswith("Error:"))
            except (AssertionError, pytest.fail.Exception) as error:
                raise AssertionError(f"{page.name}, line {block.line}: {error}") from error

    def follow(self, block: Block, *, is_refused: bool = False) -> None:
        if block.language == "sh":
            self.seen = ""
            for command in commands_of(block.text):
                self.type(command, is_refused)
        elif block.language == "python":
            self.run_python(block.text)
        elif block.language == "text":
            self.expect(block.text)
        else:
            assert block.language in NOT_RUN, f"nobody runs a block of {block.language or 'no language'}"

    def type(self, command: str, is_refused: bool) -> None:
        command = self.as_here(command)
        kind = " ".join(command.split()[:2])
        if kind in READY and "--dry-run" not in command and not re.search(r"central (backup|restore)", command):
            self.start(command, READY[kind])
            return
        self.num_typed += 1
        told, status = self.home / f"told-{self.num_typed}", self.home / f"status-{self.num_typed}"
        is_over = f"echo $? >'{status}-'; mv '{status}-' '{status}'"       # mv: it is there whole, or not at all
        assert self.bash.stdin is not None
        self.bash.stdin.write(f"{{ {command}\n}} >'{told}' 2>&1 </dev/null; {is_over}\n")
        self.bash.stdin.flush()
        wait_until(status.exists, f"the end of {command}", PATIENCE_S)
        self.seen += told.read_text()
        assert (status.read_text().strip() != "0") is is_refused, f"{command}\n{self.seen}\n{self.logs()}"

    def run_python(self, text: str) -> None:
        if name := re.match(r"# (\w+\.py)\n", text):
            (self.folder / name[1]).write_text(text)
            return
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, env=self.env, cwd=self.folder,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        self.seen = done.stdout

    def expect(self, text: str) -> None:
        """Every line was seen in what was typed last, or on the terminal of something that goes on."""

        def missing() -> list[str]:
            there = (self.seen + self.logs()).splitlines()
            shown = [line for line in text.splitlines() if line.strip(" .…")]
            return [line for line in shown if not any(is_like(other, line, self.home) for other in there)]

        with contextlib.suppress(pytest.fail.Exception):        # what is missing is told in the next line
            wait_until(lambda: not missing() or not self.going_on, "what the page shows", SOON_S)
        assert not missing(), f"{missing()}\nis shown and was not seen:\n{self.seen}\n{self.logs()}"

    # --- what goes on -------------------------------------------------------------------------------------

    def start(self, command: str, ready: str) -> None:
        name = re.sub(r"\W+", "-", re.sub(r"--token \S+|--host \S+|--insecure", "", command)).strip("-")
        if name in self.going_on:
            self.interrupt(name)
        log = self.home / f"{name}.log"
        with log.open("wb") as output:
            self.going_on[name] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.env, cwd=self.folder, start_new_session=True,
            )

        def is_ready() -> bool:
            assert self.going_on[name].poll() is None, log.read_text()
            return ready in log.read_text()

        wait_until(is_ready, f"{ready!r} of {command}", PATIENCE_S)

    def interrupt(self, name: str) -> None:
        process = self.going_on.pop(name)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130), (self.home / f"{name}.log").read_text()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*.log")))

    def leave(self) -> None:
        """End what goes on, and whatever else was typed."""
        for process in (*self.going_on.values(), self.bash):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # --- names and numbers of this machine ----------------------------------------------------------------

    def as_here(self, command: str) -> str:
        for pattern, replacement in MAPPED:
            command = re.sub(pattern, replacement, command)
        command = command.replace("localhost:5000", f"localhost:{self.port}")
        command = command.replace("--port 5001", f"--port {self.page_port}")
        if "join_…" in command:
            note = json.loads((self.home / f".local/state/fednode/centrals/{self.port}.json").read_text())
            command = command.replace("join_…", note["join_token"])
        if "mdl_…" in command:
            models = subprocess.run(["fednode", "models", "--json"], capture_output=True, env=self.env, check=True)
            command = command.replace("mdl_…", json.loads(models.stdout)[0]["id"])
        return command


def commands_of(text: str) -> list[str]:
    """One a line; a line that ends in a backslash goes on."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def is_like(seen: str, shown: str, home: Path) -> bool:
    """Whether a line is the one that is shown, and about as good: what learns in the docs must learn here."""
    scores = zip(ACCURACY.findall(seen), ACCURACY.findall(shown), strict=False)
    return shape(seen, home) == shape(shown, home) and all(float(got) >= float(told) - 0.2 for got, told in scores)


def shape(line: str, home: Path) -> str:
    """A line without what differs from run to run: numbers, times, ids, hashes, the reader's home."""
    line = line.replace(str(home), "/home/ada")
    line = re.sub(r"\b(run|mdl|cli|join|op)_[0-9A-Za-z_-]+", r"\1_", line)
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "hash", line)
    line = re.sub(r"\b\d[\d.]*( ms| s|m \d+s|h \d+m)(?!\w)", "time", line)
    return " ".join(re.sub(r"\d+(?:[.,:]\d+)*(e-?\d+)?", "0", line).split())
