"""What a client node says on its terminal: the original prototype's lines, word for word, and a progress bar.

Off a terminal the same lines come plain, one after the other, so that a log of a client reads like its screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fednode.cli.terminal import Terminal
from fednode.core.units import size_text

if TYPE_CHECKING:
    from fednode.client.approvals import Code
    from fednode.client.talk import TrainingConfig
    from fednode.core.policy import Policy
    from fednode.core.records import Offer
    from fednode.wire.messages import AssignmentBody


def _forget(text: str) -> None: ...


class TerminalTalk:
    """Implements `client.talk.Talk` for a person at a terminal."""

    def __init__(self, keep: Callable[[str], None] = _forget, where: str = "") -> None:
        """`keep` gets each line, too. `where`: the option by which other commands find this client's state."""
        self._keep = keep
        self._where = where
        self._console = Terminal(outlives_reader=True)
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._epochs = 1

    def __enter__(self) -> TerminalTalk:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _say(self, text: str, style: str = "") -> None:
        self._keep(text)
        self._console.print(text, style=style or None)
        self._console.file.flush()

    def warn(self, text: str) -> None:
        self._say(text, "yellow")

    def own_page(self, url: str) -> None:
        self._say(f"Own page: {url}")

    def offered(self, offers: tuple[Offer, ...], refused: Mapping[str, str]) -> None:
        for offer in offers:
            facts = ", ".join(f"{name}: {value}" for name, value in offer.summary.items() if isinstance(value, int | str))
            self._say(f"Offering {offer.fingerprint}" + (f" ({facts})" if facts else ""))
        for spec, reason in refused.items():
            self._say(f"Not offering {spec}: {reason}")

    def policy(self, policy: Policy) -> None:
        if policy.words:
            self._say(f"Policy: {'; '.join(policy.words)}")

    def asks(self, codes: tuple[Code, ...]) -> None:
        for code in (code for code in codes if code.verdict == "waiting"):
            self._say(f"Waits for your approval: {code.fingerprint} ({code.spec})", "yellow")
            self._say(f"  look at it: fednode client approvals {self._where}")
            self._say(f"  approve it: fednode client approve '{code.fingerprint}' {self._where}")

    def registering(self, url: str) -> None:
        self._say(f"Registering in server: {url}")

    def registered(self) -> None:
        self._say("Client registered successfully", "green")

    def waiting(self, reason: str) -> None:
        self._say(f"The central node does not answer ({reason}). Trying again until it does.", "yellow")

    def back(self) -> None:
        self._say("The central node answers again.", "green")

    def assigned(self, body: AssignmentBody) -> None: ...

    def evaluated(self, metrics: Mapping[str, float]) -> None: ...

    def config(self, config: TrainingConfig) -> None:
        self._epochs = config.epochs
        self._say("Federated Learning config:")
        self._say(f"--Learning Rate: {config.learning_rate}")
        self._say(f"--Epochs: {config.epochs}")
        self._say(f"--Batch size: {config.batch_size}")

    def training_started(self, run_number: int, round_number: int, rounds: int) -> None:
        self._say("Training started...")
        if self._progress is not None:
            label = f"run #{run_number}, round {round_number}/{rounds}"
            self._bar = self._progress.add_task(label, total=self._epochs)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if "accuracy" in metrics:
            self._say(f"Accuracy of model trained at epoch {epoch} : {metrics['accuracy']:.4f}")
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=epoch)

    def training_finished(self, num_examples: int) -> None:
        self._end_bar()
        self._say("Training finished...")

    def sending(self, assignment: str, num_bytes: int) -> None: ...

    def sent(self, num_bytes: int) -> None:
        self._say(f"Update sent: {size_text(num_bytes)} of params", "dim")

    def dropped(self, reason: str) -> None:
        self._end_bar()
        self._say(f"Not wanted any more: {reason}", "yellow")

    def failed(self, reason: str) -> None:
        self._end_bar()
        self._say(f"Failed: {reason}", "red")

    def idle(self) -> None: ...

    def paused(self) -> None:
        self._say("Sharing is paused: no new work is taken until it is resumed on the client's own page.", "yellow")

    def resumed(self) -> None:
        self._say("Sharing again.", "green")

    def _end_bar(self) -> None:
        if self._progress is not None and self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
