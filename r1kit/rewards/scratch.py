"""Scratch folders, the only place where a program may write: how full one is, and how it goes away."""

import contextlib
import os
import shutil
import subprocess

MAX_BYTES = 64 << 20
MAX_FILES = 1000


def overflows(folder: str) -> bool:
    """Whether more was written than a program may."""
    size = count = 0
    try:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # gone by now
                    size += os.lstat(os.path.join(place, name)).st_blocks * 512
            count += len(names) + 1
            if size > MAX_BYTES or count > MAX_FILES:
                return True
    except RecursionError:  # folders in folders without end
        return True
    return False


def remove(folder: str) -> None:
    """Remove a folder with all that a program can have left there. One that is gone already is no fault."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):  # unreadable folders, or too many in one another: `rm` knows how
        subprocess.run(["rm", "-rf", "--", folder], check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
