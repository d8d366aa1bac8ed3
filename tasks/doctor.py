"""Is this machine fit to run r1kit? Also, run as a module: are the installed packages exactly the lock's?"""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r1kit.rewards.confine import missing_walls
from tasks.ledger import open_ledger
from tasks.workspace import REPOSITORY, Workspace, check_writable, is_held

LOCK = REPOSITORY / "requirements.lock"
UNLOCKED = re.compile(r"^(pip|r1kit|triton|(nvidia|cuda)-.*)$")
"""What a virtual environment may hold beside the lock: torch brings some where it was built for an accelerator."""
MIN_MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["good", "note", "bad"]
    detail: str
    """What was found, and the way out where it is bad."""


def examine(workspace: Workspace) -> list[Finding]:
    """Look at everything a run needs."""
    return list(_findings(workspace))


def lock_faults(lock: Path = LOCK) -> list[str]:
    """How the installed packages differ from the lock, one sentence each; empty if they are the same."""
    wanted = dict(_read_lock(lock))
    installed = {
        _canonical(d.metadata["Name"]): d.version.partition("+")[0] for d in importlib.metadata.distributions()
    }
    missing = [
        f"{name} {version} is in the lock but not installed"
        for name, version in wanted.items()
        if name not in installed
    ]
    other = [
        f"{name} is {installed[name]}, but {version} in the lock"
        for name, version in wanted.items()
        if name in installed and installed[name] != version
    ]
    extra = sorted(name for name in set(installed) - set(wanted) if not UNLOCKED.match(name))
    return [*missing, *other, *(f"{name} {installed[name]} is installed but not in the lock" for name in extra)]


def _read_lock(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text().splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if version:
            yield _canonical(name), version.split(";")[0].strip()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _findings(workspace: Workspace) -> Iterator[Finding]:
    yield _python()
    yield _packages()
    yield from _programs()
    yield _memory()
    cores = len(os.sched_getaffinity(0))
    yield Finding("cores", "good" if cores > 1 else "note", f"{cores} to use; profile tiny is sized for 2")
    accelerator = Path("/dev/nvidia0").exists()
    yield Finding(
        "accelerator", "good" if accelerator else "note", "found" if accelerator else "none: torch uses the CPU"
    )
    yield _sandbox()
    yield _workspace(workspace)
    yield _ledger(workspace)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "R1_LEDGER"):
        value = os.environ.get(name)
        yield Finding(name, "note", value or "not set: runs use their own, in the workspace")


def _python() -> Finding:
    fit = sys.version_info[:2] == (3, 11)
    return Finding(
        "python", "good" if fit else "bad", platform.python_version() + ("" if fit else "; r1kit needs 3.11")
    )


def _packages() -> Finding:
    faults = lock_faults()
    if not faults:
        return Finding("packages", "good", "exactly those of requirements.lock")
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Finding("packages", "bad", f"{faults[0]}{more}; run `make clean` and `make` again")


def _programs() -> Iterator[Finding]:
    path = shutil.which("git")
    yield Finding("git", "good" if path else "bad", path or "not found; data are pinned with it")


def _memory() -> Finding:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", "good" if size >= MIN_MEMORY_BYTES else "note", f"{size / 2**30:.1f} GiB")


def _sandbox() -> Finding:
    missing = missing_walls()
    if not missing:
        return Finding("sandbox", "good", "Landlock and seccomp hold what models wrote")
    lost = " and ".join(missing)
    return Finding(
        "sandbox", "note", f"no {lost}: what models wrote is hindered, not held; run them in a machine apart"
    )


def _workspace(workspace: Workspace) -> Finding:
    try:
        check_writable(workspace)
    except ValueError as error:
        return Finding("workspace", "bad", str(error))
    free = shutil.disk_usage(workspace.root).free / 2**30
    at_work = "; a run is at work in it" if is_held(workspace) else ""
    return Finding("workspace", "good", f"{workspace.root}, {free:.1f} GiB free{at_work}")


def _ledger(workspace: Workspace) -> Finding:
    try:
        ledger = open_ledger(workspace)
        faults, length = ledger.verify(), ledger.head().sequence
    except ValueError as error:  # its store is not there, or refuses
        return Finding("ledger", "bad", str(error))
    if faults:
        return Finding("ledger", "bad", f"{faults[0]}; restore it from a backup")
    return Finding("ledger", "good", f"{length} entries in {ledger.store.address}, the chain holds")


if __name__ == "__main__":
    found = lock_faults()
    print("\n".join(found) or "the installed packages are exactly those of requirements.lock")
    sys.exit(bool(found))
