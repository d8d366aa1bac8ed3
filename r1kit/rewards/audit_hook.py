"""The wall of paper: a Python audit hook, for kernels that have no Landlock or no seccomp.

It holds against programs that go through Python's own functions, as nearly all do; one that finds a way to the C
library below them is not held. `ctypes` is therefore refused, and with it what is built on it, such as numpy.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

_PROCESSES = frozenset(
    {
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg",
        "subprocess.Popen", "pty.spawn",
    }
)  # fmt: skip
_CHANGES = frozenset(
    {
        "os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod",
        "os.chown", "os.utime", "os.setxattr", "os.removexattr",
    }
)  # fmt: skip
_LISTS = frozenset({"os.listdir", "os.scandir"})
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(PermissionError):
    """What confined code gets instead of what it asked for."""


def install(scratch: str, readable: tuple[str, ...] | None) -> None:
    """Watch this process from now on.

    Args:
        scratch: the folder whose files may be changed; empty for none.
        readable: what may be read besides; None for everything.
    """
    inside_scratch = _below((scratch,) if scratch else ())
    may_change = _below((scratch, os.devnull) if scratch else (os.devnull,))
    may_read = _below((*readable, scratch) if scratch else readable) if readable is not None else _anything
    changes, lists, processes, writing = _CHANGES, _LISTS, _PROCESSES, _WRITE_FLAGS
    refused, whole, is_a, begins = Refused, int, isinstance, str.startswith
    memory = ("ctypes", "_ctypes") if readable is not None else ()

    # Everything the hook uses is its own, so that confined code cannot exchange it.
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in processes or begins(event, ("socket.", "ctypes.")) or (event == "import" and args[0] in memory):
            raise refused(f"{args[0] if event == 'import' else event} is not allowed here")
        if event == "open":
            allowed = may_change if is_a(args[2], whole) and args[2] & writing else may_read
            if not allowed(args[0]):
                raise refused("files outside the scratch folder are out of bounds")
        elif (event in changes and not inside_scratch(args[0])) or (event in lists and not may_read(args[0])):
            raise refused(f"{event} outside the scratch folder is not allowed here")

    sys.addaudithook(hook)


def _below(places: tuple[str, ...]) -> Callable[[Any], bool]:
    """Whether a path is one of the places, or lies in one."""
    real = os.path.realpath
    exact = frozenset(real(place) for place in places)
    folders = tuple(place + os.sep for place in exact)
    text, raw, is_a, begins = str, bytes, isinstance, str.startswith

    def below(path: Any) -> bool:
        if path is None:
            path = "."
        if not is_a(path, (text, raw)):
            return True  # a file descriptor that is open already
        place = real(path if is_a(path, text) else path.decode("utf-8", "replace"))
        return place in exact or begins(place, folders)

    return below


def _anything(_path: Any) -> bool:
    return True
