"""The process's memory, as torch on a CPU uses it."""

import ctypes
import platform
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for what `mallopt` sets (malloc.h)."""
_LARGEST_KEPT = 32 << 20
"""Bytes of the largest block that is kept: the most that glibc allows. Larger ones go back to the kernel as before."""
_NEVER = (1 << 31) - 1


def keep_freed() -> bool:
    """Let the C library keep the memory that tensors free, for the next ones, until the process ends.

    By itself glibc soon gives it back to the kernel; then the next tensor costs a page fault for every 4 KiB, which on
    two cores is a tenth of a decoding step.

    Returns:
        Whether that was done; with another C library than glibc nothing is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library: Any = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))
