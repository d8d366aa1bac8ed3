"""Shuts the current process in, for good, before it touches what a model wrote.

Four walls, each as far as the kernel has it: resource limits; Landlock (no change to files outside the scratch
folder); seccomp (no new process, no socket, no signal to others); a Python audit hook, which also hides the
harness's own frames from code that looks for them. Code in the same interpreter as its tests is hindered, not
contained: Python promises no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38

# Refused system calls, by name: number on x86_64, number on aarch64 (None: not there).
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "ptrace": (101, 117), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "setrlimit": (160, 164), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "mknod": (133, None), "mknodat": (259, 33), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
_CLONE, _CLONE3, _PRLIMIT64 = (56, 220), (435, 435), (302, 261)
_CLONE_THREAD = 0x00010000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_2 = 0, 4, 16, 32

_PROCESSES = frozenset(
    {
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg",
        "subprocess.Popen", "pty.spawn",
    }
)  # fmt: skip
_INTROSPECTION = frozenset(
    {
        "sys._getframe", "sys._current_frames", "sys._current_exceptions", "sys.setprofile", "sys.settrace",
        "sys.addaudithook",
        "gc.get_objects", "gc.get_referrers", "gc.get_referents",
    }
)  # fmt: skip
_FRAME_ATTRIBUTES = frozenset({"tb_frame", "gi_frame", "cr_frame", "ag_frame"})
_CHANGES = frozenset(
    {
        "os.remove",
        "os.rmdir",
        "os.rename",
        "os.mkdir",
        "os.truncate",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.chown",
        "os.utime",
        "os.setxattr",
        "os.removexattr",
    }
)
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(PermissionError, ValueError):
    """What confined code gets instead of what it asked for; a ValueError, as the standard library expects one."""


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def confine(scratch: str, memory_bytes: int, cpu_seconds: float, hide_frames: bool) -> None:
    """Raise the four walls around this process. There is no way back.

    Args:
        scratch: the one folder whose files may be changed; empty for none.
        memory_bytes: address space on top of what is in use now.
        cpu_seconds: processor time, after which the kernel ends the process.
        hide_frames: refuse what leads to the frames of the code that called.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(memory_bytes, cpu_seconds)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc, scratch)
    if not _seccomp(libc):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if hide_frames:
        for name in ("ctypes", "_ctypes"):
            sys.modules.pop(name, None)
    sys.addaudithook(_hook(os.path.realpath(scratch) + os.sep if scratch else "", hide_frames))


def _limit(memory_bytes: int, cpu_seconds: float) -> None:
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    seconds = int(cpu_seconds) + 1
    for kind, value in (
        (resource.RLIMIT_AS, in_use + memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 16 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _landlock(libc: Any, scratch: str) -> bool:
    """Forbid changes to the file system outside the scratch folder; False where the kernel has no Landlock."""
    create, add_rule, restrict = 444, 445, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 1:
        return False
    rights = 1 << 1 | 0b111111111 << 4  # write; remove, make of every kind
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)  # refer; truncate
    attributes = struct.pack("Q", rights)
    ruleset = libc.syscall(create, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    for path, allowed in ((scratch, rights), (os.devnull, 1 << 1)):
        if path:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            libc.syscall(add_rule, ruleset, 1, struct.pack("=Qi", allowed, place), 0)
            os.close(place)
    done = libc.syscall(restrict, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _seccomp(libc: Any) -> bool:
    """Install the filter of system calls; False where the kernel or the processor is not supported."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    program = _filter(*_ARCHITECTURES[platform.machine()])
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0) == 0


def _filter(column: int, architecture: int) -> bytes:
    """The program, in classic BPF: each refused number jumps to the end, the rest is allowed."""
    refused = [pair[column] for pair in _REFUSED.values() if pair[column] is not None]
    deny = _instruction(_RETURN, _ERRNO | errno.EPERM)
    program = [
        _instruction(_LOAD, _ARCH),
        _instruction(_JUMP_EQUAL, architecture, 1, 0),
        deny,
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_GREATER, 0x40000000, 0, 1),  # the x32 twins of the numbers below
        deny,
    ]
    for number in refused:
        program += [_instruction(_JUMP_EQUAL, number or 0, 0, 1), deny]
    program += [
        _instruction(_JUMP_EQUAL, _CLONE3[column], 0, 1),
        _instruction(_RETURN, _ERRNO | errno.ENOSYS),  # the C library then falls back to clone
        _instruction(_JUMP_EQUAL, _CLONE[column], 0, 4),
        _instruction(_LOAD, _ARGUMENT_0),
        _instruction(_JUMP_SET, _CLONE_THREAD, 1, 0),
        deny,
        _instruction(_RETURN, _ALLOW),
        _instruction(_JUMP_EQUAL, _PRLIMIT64[column], 0, 3),
        _instruction(_LOAD, _ARGUMENT_2),
        _instruction(_JUMP_EQUAL, 0, 1, 0),  # reading a limit is harmless
        deny,
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, operand)


def _hook(scratch: str, hide_frames: bool) -> Callable[[str, tuple[Any, ...]], None]:
    """The audit hook. Everything it uses is its own, so that confined code cannot exchange it."""
    outside, reveals = _outside(scratch), _reveals() if hide_frames else _reveals_nothing
    processes, changes, writing = _PROCESSES, _CHANGES, _WRITE_FLAGS
    refused, whole, is_a, begins = Refused, int, isinstance, str.startswith

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in processes or begins(event, "socket."):
            raise refused(f"{event} is not allowed here")
        if event == "open" and is_a(args[2], whole) and args[2] & writing and outside(args[0]):
            raise refused("writing outside the scratch folder is not allowed here")
        if event in changes and outside(args[0]):
            raise refused(f"{event} outside the scratch folder is not allowed here")
        if reveals(event, args):
            raise refused(f"{event} is not allowed here")

    return hook


def _outside(scratch: str) -> Callable[[Any], bool]:
    text, raw, real, is_a, begins, null = str, bytes, os.path.realpath, isinstance, str.startswith, os.devnull

    def outside(path: Any) -> bool:
        if not is_a(path, (text, raw)):
            return False  # a file descriptor that is open already
        place = real(path if is_a(path, text) else path.decode("utf-8", "replace"))
        return place != null and not (scratch and begins(place, scratch))

    return outside


def _reveals() -> Callable[[str, tuple[Any, ...]], bool]:
    """Whether an event leads to the frames, or to the raw memory, of the code that called."""
    introspection, attributes, memory = _INTROSPECTION, _FRAME_ATTRIBUTES, ("ctypes", "_ctypes")
    text, real, is_a, begins = str, os.path.realpath, isinstance, str.startswith

    def reveals(event: str, args: tuple[Any, ...]) -> bool:
        return (
            event in introspection
            or begins(event, "ctypes.")
            or (event == "object.__getattr__" and args[1] in attributes)
            or (event == "import" and args[0] in memory)
            or (event == "open" and is_a(args[0], text) and begins(real(args[0]), "/proc/"))
        )

    return reveals


def _reveals_nothing(_event: str, _args: tuple[Any, ...]) -> bool:
    return False
