"""Every error that fednode raises on purpose, as one tree.

Each class has a stable `code` (what programs compare), an HTTP status (what the API answers) and an
exit code (what the CLI ends with). Each instance carries a sentence that names the thing and the facts
that clash, and a `fix`: what the reader can do about it. Nothing else in the house prints or logs errors.

    FednodeError
    ├── UsageError            what was asked for cannot be: a flag, a setting, a config
    │   ├── BadConfig         a field of a run config or of a settings file
    │   ├── NotFound          no task, strategy, run, client or model of that name
    │   │   └── Freed             a model whose params are not kept any more
    │   └── PortTaken         the address is in use
    ├── DataError             a data folder or a file in it
    ├── CannotConnect         nobody answers there
    │   └── NotTrusted        who answers there cannot prove who it is
    ├── TimedOut              somebody answered, too late
    ├── NotAuthorised         no credential, or one that does not open this door
    ├── VersionMismatch       two sides speak different protocols or task versions
    ├── Conflict              the request came too late, or against a decision that stands
    │   ├── IllegalMove       a status cannot become that other status
    │   ├── AlreadyReported   the first update of an assignment counts
    │   ├── RoundClosed       the round's outcomes are frozen
    │   ├── Withdrawn         the assignment was taken back
    │   ├── RunHalted         the run is paused or cancelled: its loop stops here
    │   ├── NameTaken         another client has this name
    │   └── CannotPredict     a model's task is not at the central node, or says nothing of a picture
    ├── ParamsError           params that are not what they should be
    │   ├── ParamsMismatch    names, dtypes or shapes differ from the manifest
    │   ├── NotFinite         a NaN or an infinity
    │   └── BadParamsFile     not a safetensors file, or a damaged one
    ├── TooFewUpdates         an aggregate of nothing
    ├── TaskFailed            a task's own code raised or died
    ├── StrategyFailed        a strategy's own code raised, or returned what is no state
    ├── StoreError            what must not be lost is in danger
    │   ├── StoreLocked       another central node, or another daemon, holds the state dir
    │   ├── StoreDamaged      a file or a row is not what its hash says
    │   ├── StoreFull         no space left
    │   └── StoreAway         the database does not answer, or did not say whether it committed
    ├── TooLarge              a body beyond its limit
    └── RunEnded              a run that did not complete
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

T = TypeVar("T")


class FednodeError(Exception):
    """The root. `str(error)` is one sentence; `error.fix` says what to do."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str, field: str = "", parts: Sequence[FednodeError] = ()) -> None:
        message = message.replace("\0", "\\0")      # of a stranger's words; no database takes it
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.field = field                      # of a request, where it is about one: `rounds`, `task.epochs`
        self.parts = tuple(parts)               # one error a field, where several are wrong at once

    @property
    def fields(self) -> dict[str, str]:
        """What is wrong with each field of the request, and what to do about it."""
        return {part.field: f"{part.message}; {part.fix}" for part in self.parts or (self,) if part.field}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.fix, self.field, self.parts)


def _rebuild(
    kind: type[FednodeError], message: str, fix: str, field: str, parts: tuple[FednodeError, ...]
) -> FednodeError:
    return kind(message, fix=fix, field=field, parts=parts)


class UsageError(FednodeError):
    code, http_status, exit_code = "usage", 422, 2


class BadConfig(UsageError):
    code = "bad_config"


class NotFound(UsageError):
    code, http_status = "not_found", 404


class Freed(NotFound):
    code, http_status = "freed", 410


class PortTaken(UsageError):
    code = "port_taken"


class DataError(FednodeError):
    code, http_status, exit_code = "bad_data", 422, 6


class CannotConnect(FednodeError):
    code, http_status, exit_code = "cannot_connect", 503, 3


class NotTrusted(CannotConnect):
    code = "not_trusted"


class TimedOut(FednodeError):
    code, http_status, exit_code = "timed_out", 504, 5


class NotAuthorised(FednodeError):
    code, http_status, exit_code = "not_authorised", 401, 4


class VersionMismatch(FednodeError):
    code, http_status, exit_code = "version_mismatch", 426, 7


class Conflict(FednodeError):
    code, http_status = "conflict", 409


class IllegalMove(Conflict):
    code = "illegal_move"


class AlreadyReported(Conflict):
    code = "already_reported"


class RoundClosed(Conflict):
    code = "round_closed"


class Withdrawn(Conflict):
    code = "withdrawn"


class RunHalted(Conflict):
    code = "run_halted"


class NameTaken(Conflict):
    code, exit_code = "name_taken", 4


class CannotPredict(Conflict):
    code = "cannot_predict"


class ParamsError(FednodeError):
    code, http_status = "bad_params", 422


class ParamsMismatch(ParamsError):
    code = "params_mismatch"


class NotFinite(ParamsError):
    code = "not_finite"


class BadParamsFile(ParamsError):
    code = "bad_params_file"


class TooFewUpdates(FednodeError):
    code = "too_few_updates"


class TaskFailed(FednodeError):
    code = "task_failed"


class StrategyFailed(FednodeError):
    code = "strategy_failed"


class StoreError(FednodeError):
    code = "store_error"


class StoreLocked(StoreError):
    code, http_status, exit_code = "store_locked", 409, 2


class StoreDamaged(StoreError):
    code = "store_damaged"


class StoreFull(StoreError):
    code, http_status = "store_full", 507


class StoreAway(StoreError):
    code, http_status, exit_code = "store_away", 503, 3


class TooLarge(FednodeError):
    code, http_status = "too_large", 413


class RunEnded(FednodeError):
    code = "run_ended"


class FieldErrors:
    """What is wrong with a request, gathered step by step, so that a person mends all of it in one go."""

    def __init__(self) -> None:
        self.errors: list[FednodeError] = []

    def of(self, step: Callable[[], T]) -> T | None:
        """What `step` gives; None where it refuses: that is kept."""
        try:
            return step()
        except UsageError as error:
            self.add(error)
            return None

    def add(self, *errors: FednodeError) -> None:
        """Keep these, one a field: what a field is told first counts."""
        for error in errors:
            for part in error.parts or (error,):
                if not part.field or part.field not in self:
                    self.errors.append(part)

    def __contains__(self, field: str) -> bool:
        return any(kept.field == field for kept in self.errors)

    def raise_any(self) -> None:
        """Raises the one error that was found, or a BadConfig of all of them."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            fixes = dict.fromkeys(error.fix for error in self.errors)
            told = "; ".join(error.message for error in self.errors)
            raise BadConfig(told, fix="; ".join(fixes), parts=self.errors)
