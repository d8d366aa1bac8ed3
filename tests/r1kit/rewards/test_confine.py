"""The walls hold below Python: system calls are refused, for root and for any other user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1kit.rewards.confine import landlock_version
from tests.r1kit.rewards.problems import REPOSITORY

CONFINED = """
import ctypes, errno, os, sys
from r1kit.rewards import confine as walls
libc = ctypes.CDLL(None, use_errno=True)
libc.open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
scratch, victim = sys.argv[1:3]
places = (*walls.library_files(), scratch)
{before}
walls.confine(walls.reading(places), scratch, walls.Limits(256 << 20, {cpu_seconds}), [])
result = {call}
print(result, errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()))
"""
CALLS = {
    "fork": ("libc.fork()", "EPERM"),
    "vfork": ("libc.syscall(58)", "EPERM"),
    "clone3": ("libc.syscall(435, None, 0)", "ENOSYS"),
    "execve": ("libc.execl(b'/bin/true', None)", "EPERM"),
    "socket": ("libc.socket(2, 1, 0)", "EPERM"),
    "kill": ("libc.kill(os.getppid(), 0)", "EPERM"),
    "ptrace": ("libc.ptrace(0, 0, 0, 0)", "EPERM"),
    "setrlimit": ("libc.setrlimit(7, (ctypes.c_ulong * 2)(64, 64))", "EPERM"),
    "setuid": ("libc.setuid(1)", "EPERM"),
    "chroot": ("libc.chroot(b'/')", "EPERM"),
    "memfd": ("libc.memfd_create(b'x', 0)", "EPERM"),
    "chmod": ("libc.chmod(os.fsencode(victim), 0o777)", "EPERM"),
    "open to write": ("libc.open(os.fsencode(victim), os.O_WRONLY, 0)", "EACCES"),
    "open to read": ("libc.open(os.fsencode(victim), os.O_RDONLY, 0)", "EACCES"),
    "open memory": ("libc.open(b'/proc/self/mem', os.O_RDONLY, 0)", "EACCES"),
    "create": ("libc.open(os.fsencode(victim + '2'), os.O_WRONLY | os.O_CREAT, 0o600)", "EACCES"),
    "unlink": ("libc.unlink(os.fsencode(victim))", "EACCES"),
    "mkdir": ("libc.mkdir(os.fsencode(victim + '2'), 0o700)", "EACCES"),
    "utimensat": ("libc.utimensat(-100, os.fsencode(victim), None, 0)", "EPERM"),
    "io_uring": ("libc.syscall(425, 1, None)", "EPERM"),
}
NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534); places = (); scratch = ''"
NO_LANDLOCK = (
    "walls.landlock_version = lambda: 0; sys.modules.pop('ctypes'); sys.modules.pop('_ctypes')\n"
    "class ctypes:\n    get_errno = lambda: 0"
)

needs_landlock = pytest.mark.skipif(
    not landlock_version(), reason="this kernel has no Landlock: the audit hook alone guards the files"
)


def confined(tmp_path: Path, call: str, before: str = "", cpu_seconds: float = 5) -> subprocess.CompletedProcess[str]:
    """Run Python inside the walls, with a scratch folder and a file that is not its own."""
    victim, scratch = tmp_path / "victim", tmp_path / "scratch"
    victim.write_text("kept")
    scratch.mkdir(exist_ok=True)
    script = CONFINED.format(call=call, before=before, cpu_seconds=cpu_seconds)
    command = [sys.executable, "-c", script, str(scratch), str(victim)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert victim.read_text() == "kept" and sorted(p.name for p in tmp_path.iterdir()) == ["scratch", "victim"]
    return done


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("before", ["", pytest.param(NOBODY, id="nobody", marks=pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user"))])  # fmt: skip
@needs_landlock
def test_the_kernel_refuses(tmp_path: Path, call: str, before: str) -> None:
    code, expected = CALLS[call]
    done = confined(tmp_path, code, before)
    assert done.stdout.split() == ["-1", expected], done.stderr


@pytest.mark.parametrize("before", ["", NO_LANDLOCK], ids=["kernel", "hook"])
def test_the_scratch_folder_can_be_used(tmp_path: Path, before: str) -> None:
    done = confined(tmp_path, "open(scratch + '/mine', 'w').write('x'), open(scratch + '/mine').read()", before)
    assert done.stdout.startswith("(1, 'x')"), done.stderr


@pytest.mark.parametrize("call", ["__import__('statistics').mean([1])", "open(os.devnull, 'w').write('x')"])
@pytest.mark.parametrize("before", ["", NO_LANDLOCK], ids=["kernel", "hook"])
def test_the_standard_library_can_be_read(tmp_path: Path, call: str, before: str) -> None:
    done = confined(tmp_path, call, before)
    assert done.stdout.split()[:1] == ["1"], done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "open(victim, 'w')", "open(victim)", "open(victim.encode())", "os.open(victim, os.O_RDWR)", "os.remove(victim)",
        "os.mkdir(victim + '2')", "os.listdir('/')", "os.rename(victim, scratch + '/mine')", "open('/proc/self/mem')",
        "os.system('true')", "os.fork()", "__import__('socket').socket()", "__import__('ctypes')",
    ],
)  # fmt: skip
def test_without_landlock_the_hook_refuses(tmp_path: Path, call: str) -> None:
    done = confined(tmp_path, call, NO_LANDLOCK)
    assert "Refused" in done.stderr or "PermissionError" in done.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [("bytearray(1 << 30)", 1), ("[None for _ in iter(int, 1)]", -9)],
)
def test_memory_and_processor_time_are_limited(tmp_path: Path, code: str, status: int) -> None:
    done = confined(tmp_path, code, cpu_seconds=0.1)
    assert done.returncode == status or "MemoryError" in done.stderr
