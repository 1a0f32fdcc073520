"""Everything that a central node keeps, read whole: the database, its rows, the journals, each file's hash. Read-only.

`store.py` is the short look that every check of a machine takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fednode.core.units import count_text, size_text
from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import FednodeError
from fednode.store.consistency import Fault
from fednode.store.verification import Progress, Verified, verify_store

BAD_DATA = 6
MAX_TOLD = 20                   # of each check


def whole_store(state_dir: Path, told: Progress, database: str = "") -> list[Finding]:
    """One finding where a check finds nothing, else one for each fault. `database`: of rows that are elsewhere."""
    try:
        found = verify_store(state_dir, told, database)
    except FednodeError as error:
        return [of_error("store", error)]
    checked = [finding for check, well in _well(found).items() for finding in _checked(check, found, well)]
    return checked if found.is_newest else [*checked, _older(found)]


def _well(found: Verified) -> dict[str, str]:
    """What to say of each check that finds nothing; "" where it did not come to its end."""
    of_rows = {
        "rows": f"of {count_text(found.num_runs, 'run')} agree with one another",
        "journal": f"{count_text(found.num_decisions, 'decision')}: the hashes are right, and the rows say the same",
        "files": f"{count_text(len(found.files), 'params file')} ({size_text(found.num_bytes)}): the hashes are right",
    }
    return {"database": f"is sound: revision {found.revision}"} | {
        check: told if found.is_whole else "" for check, told in of_rows.items()
    }


def _older(found: Verified) -> Finding:
    told = f"revision {found.revision} is an older fednode's: rows and files were not looked at"
    return doubtful("tables", told, "take a backup and start the central node, which brings them up to date; ask again")


def _checked(check: str, found: Verified, well: str) -> list[Finding]:
    faults = [fault for fault in found.faults if fault.check == check]
    if not faults:
        return [good(check, well)] if well else []
    return [*(bad(check, fault.told, fault.fix, BAD_DATA) for fault in faults[:MAX_TOLD]), *_others(check, faults)]


def _others(check: str, faults: Sequence[Fault]) -> list[Finding]:
    if len(faults) <= MAX_TOLD:
        return []
    return [bad(check, f"and {len(faults) - MAX_TOLD} more of the kind", faults[-1].fix, BAD_DATA)]
