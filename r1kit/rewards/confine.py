"""Shuts the current process in, for good, before it touches what a model wrote.

Three walls, none of which needs root: resource limits, Landlock (which files may be read and changed), seccomp (no new
process, no socket, no signal to others). Where the kernel has no Landlock, a Python audit hook stands in for it: it
hinders, but Python promises no more, so `r1 doctor` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import os
import platform
import resource
import signal
import struct
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
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
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "setrlimit": (160, 164), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "mknod": (133, None), "mknodat": (259, 33), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "open_by_handle_at": (304, 265),
}  # fmt: skip
_CLONE, _CLONE3, _PRLIMIT64, _CAPSET = (56, 220), (435, 435), (302, 261), (126, 91)
_CLONE_THREAD = 0x00010000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_2 = 0, 4, 16, 32

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR, _CHANGE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 0b111111111 << 4
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE | _READ_FILE | _TRUNCATE | _IOCTL
_CAPABILITY_VERSION_3 = 0x20080522

PACKAGES = ("numpy",)
"""What an answer may import beyond the standard library."""
MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class Reading:
    """Which files a confined process may read."""

    places: tuple[str, ...] | None
    """Files and folders, with all that lies in them; None for everything."""
    descriptor: int | None
    """The same as the kernel holds it, made once and entered by many processes; None where it restricts nothing."""


@dataclass(frozen=True)
class Limits:
    """What one process may use up."""

    memory_bytes: int
    """Address space on top of what is in use as it is confined."""
    cpu_seconds: float
    """Processor time, after which the kernel ends the process."""


@cache
def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 for none."""
    return max(0, ctypes.CDLL(None).syscall(_LANDLOCK_CREATE, None, 0, 1))


def missing_walls() -> list[str]:
    """What of the kernel's walls this machine lacks; empty where answers are held below Python too."""
    landlock = [] if landlock_version() else ["Landlock"]
    return landlock if platform.machine() in _ARCHITECTURES else [*landlock, f"seccomp on {platform.machine()}"]


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_only(descriptors: Iterable[int]) -> None:
    """Close every open descriptor but the standard ones and these."""
    for descriptor in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, *descriptors}:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(descriptor)


def library_files() -> tuple[str, ...]:
    """What a program needs to read to run: the standard library, a few packages, the system's shared libraries.

    Not the folders of installed packages, where benchmarks with their answers may lie, and nothing of this project.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    places = [entry for entry in stdlib.iterdir() if entry.name not in ("site-packages", "dist-packages")]
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    places += map(Path, (f"/lib/{multiarch}", f"/usr/lib/{multiarch}", "/lib64", "/usr/lib64", "/etc/ld.so.cache"))
    places += map(Path, ("/usr/share/zoneinfo", "/etc/localtime", os.devnull, "/dev/urandom"))
    for name in PACKAGES:
        if (found := importlib.util.find_spec(name)) and found.origin:
            folder = Path(found.origin).parent
            places += [folder, folder.with_name(f"{name}.libs")]
    return tuple(dict.fromkeys(str(place.resolve()) for place in places if place.exists()))


def reading(places: tuple[str, ...] | None) -> Reading:
    """Prepare the wall around what may be read; costs some milliseconds."""
    if places is None or not landlock_version():
        return Reading(places, None)
    rights = _READ_FILE | _READ_DIR
    return Reading(places, _ruleset(rights, [(place, rights) for place in places]))


def confine(allowed: Reading, folder: str, limits: Limits, descriptors: Iterable[int]) -> None:
    """Raise the walls around this process, a fork of its own group. There is no way back.

    Args:
        folder: the one folder whose files may be changed, and it lies in what may be read; empty for none.
        descriptors: what it keeps open, besides the standard streams.
    """
    os.setsid()
    end_with_parent()
    kept = [] if allowed.descriptor is None else [allowed.descriptor]
    keep_only([*descriptors, *kept])
    _limit(limits)
    libc = ctypes.CDLL(None, use_errno=True)
    _drop_capabilities(libc)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    walled = landlock_version() > 0 and all(_enter(libc, ruleset) for ruleset in [*kept, _changes(folder)])
    if not _seccomp(libc):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        walled = False
    if not walled:
        from r1kit.rewards.audit_hook import install

        install(folder, allowed.places)


def _changes(folder: str) -> int:
    """A ruleset by which files may be changed in that folder alone, and nothing be executed."""
    version = landlock_version()
    rights = _EXECUTE | _WRITE | _CHANGE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    rights |= _IOCTL if version >= 5 else 0
    places = [(folder, rights & ~_EXECUTE)] if folder else []
    return _ruleset(rights, [*places, (os.devnull, _WRITE)])


def _ruleset(handled: int, rules: Iterable[tuple[str, int]]) -> int:
    """A Landlock ruleset: what it handles is forbidden but for the rules.

    Args:
        rules: file or folder, and the rights to it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("Q", handled)
    descriptor = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    for path, rights in rules if descriptor >= 0 else ():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= ~0 if os.path.isdir(path) else _ON_FILES
        libc.syscall(_LANDLOCK_ADD, descriptor, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    return descriptor


def _enter(libc: Any, ruleset: int) -> bool:
    done = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    if done:
        os.close(ruleset)
    return done


def _limit(limits: Limits) -> None:
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    seconds = int(limits.cpu_seconds) + 1
    for kind, value in (
        (resource.RLIMIT_AS, in_use + limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _drop_capabilities(libc: Any) -> None:
    """Root without its privileges is a user like any other. For any other user nothing changes."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if platform.machine() in _ARCHITECTURES:
        libc.syscall(_CAPSET[_ARCHITECTURES[platform.machine()][0]], header, bytes(24))


def _seccomp(libc: Any) -> bool:
    """Install the filter of system calls; False where the kernel or the processor is not supported."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    program = _filter(*_ARCHITECTURES[platform.machine()])
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0) == 0


@cache
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
