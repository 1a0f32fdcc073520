"""Every error that fednode raises on purpose, as one tree.

Each class has a stable `code` (what programs compare), an HTTP status (what the API answers) and an
exit code (what the CLI ends with). Each instance carries a sentence that names the thing and the facts
that clash, and a `fix`: what the reader can do about it. Nothing else in the house prints or logs errors.

    FednodeError
    ├── UsageError            what was asked for cannot be: a flag, a setting, a config
    │   ├── BadConfig         a field of a run config or of a settings file
    │   ├── NotFound          no task, strategy, run, client or model of that name
    │   └── PortTaken         the address is in use
    ├── DataError             a data folder or a file in it
    ├── CannotConnect         nobody answers there
    ├── TimedOut              somebody answered, too late
    ├── NotAuthorised         no credential, or one that does not open this door
    ├── VersionMismatch       two sides speak different protocols or task versions
    ├── Conflict              the request came too late, or against a decision that stands
    │   ├── IllegalMove       a status cannot become that other status
    │   ├── AlreadyReported   the first update of an assignment counts
    │   ├── RoundClosed       the round's outcomes are frozen
    │   ├── Withdrawn         the assignment was taken back
    │   ├── RunHalted         the run is paused or cancelled: its loop stops here
    │   └── NameTaken         another client has this name
    ├── ParamsError           params that are not what they should be
    │   ├── ParamsMismatch    names, dtypes or shapes differ from the manifest
    │   ├── NotFinite         a NaN or an infinity
    │   └── BadParamsFile     not a safetensors file, or a damaged one
    ├── TooFewUpdates         an aggregate of nothing
    ├── TaskFailed            a task's own code raised or died
    ├── StoreError            what must not be lost is in danger
    │   ├── StoreLocked       another central node, or another daemon, holds the state dir
    │   ├── StoreDamaged      a file or a row is not what its hash says
    │   └── StoreFull         no space left
    ├── TooLarge              a body beyond its limit
    └── RunEnded              a run that did not complete
"""

from __future__ import annotations

from typing import ClassVar


class FednodeError(Exception):
    """The root. `str(error)` is one sentence; `error.fix` says what to do."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.fix)


def _rebuild(kind: type[FednodeError], message: str, fix: str) -> FednodeError:
    return kind(message, fix=fix)


class UsageError(FednodeError):
    code, http_status, exit_code = "usage", 422, 2


class BadConfig(UsageError):
    code = "bad_config"


class NotFound(UsageError):
    code, http_status = "not_found", 404


class PortTaken(UsageError):
    code = "port_taken"


class DataError(FednodeError):
    code, http_status, exit_code = "bad_data", 422, 6


class CannotConnect(FednodeError):
    code, http_status, exit_code = "cannot_connect", 503, 3


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


class StoreError(FednodeError):
    code = "store_error"


class StoreLocked(StoreError):
    code, http_status, exit_code = "store_locked", 409, 2


class StoreDamaged(StoreError):
    code = "store_damaged"


class StoreFull(StoreError):
    code, http_status = "store_full", 507


class TooLarge(FednodeError):
    code, http_status = "too_large", 413


class RunEnded(FednodeError):
    code = "run_ended"
