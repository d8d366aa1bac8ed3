"""The walls hold below Python too: system calls, not only the audit hook."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.r1kit.rewards.problems import REPOSITORY

CONFINED = """
import ctypes, errno, os, sys
from r1kit.rewards.confine import confine
libc = ctypes.CDLL(None, use_errno=True)
libc.open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
confine(sys.argv[1], 256 << 20, 5, hide_frames=False)
result = {call}
print(result, errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()))
"""
CALLS = {
    "fork": ("libc.fork()", "EPERM"),
    "vfork": ("libc.syscall(58)", "EPERM"),
    "clone3": ("libc.syscall(435, None, 0)", "ENOSYS"),
    "socket": ("libc.socket(2, 1, 0)", "EPERM"),
    "kill": ("libc.kill(os.getppid(), 0)", "EPERM"),
    "ptrace": ("libc.ptrace(0, 0, 0, 0)", "EPERM"),
    "setrlimit": ("libc.setrlimit(7, (ctypes.c_ulong * 2)(64, 64))", "EPERM"),
    "chmod": ("libc.chmod(os.fsencode(sys.argv[2]), 0o777)", "EPERM"),
    "open to write": ("libc.open(os.fsencode(sys.argv[2]), os.O_WRONLY, 0)", "EACCES"),
    "create": ("libc.open(os.fsencode(sys.argv[2] + '2'), os.O_WRONLY | os.O_CREAT, 0o600)", "EACCES"),
    "unlink": ("libc.unlink(os.fsencode(sys.argv[2]))", "EACCES"),
    "mkdir": ("libc.mkdir(os.fsencode(sys.argv[2] + '2'), 0o700)", "EACCES"),
    "utimensat": ("libc.utimensat(-100, os.fsencode(sys.argv[2]), None, 0)", "EPERM"),
    "io_uring": ("libc.syscall(425, 1, None)", "EPERM"),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_the_kernel_refuses(tmp_path: Path, call: str) -> None:
    code, expected = CALLS[call]
    if expected == "EACCES" and not landlock():
        pytest.skip("this kernel has no Landlock: files outside the scratch folder are guarded by the audit hook alone")
    victim, scratch = tmp_path / "victim", tmp_path / "scratch"
    victim.write_text("kept")
    scratch.mkdir()
    command = [sys.executable, "-c", CONFINED.format(call=code), str(scratch), str(victim)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert done.stdout.split() == ["-1", expected], done.stderr
    assert victim.read_text() == "kept" and sorted(p.name for p in tmp_path.iterdir()) == ["scratch", "victim"]


def landlock() -> bool:
    """Whether the kernel has it."""
    import ctypes

    return ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1


def test_the_scratch_folder_can_be_used(tmp_path: Path) -> None:
    code = "libc.open(os.fsencode(sys.argv[1] + '/mine'), os.O_WRONLY | os.O_CREAT, 0o600) > 0"
    command = [sys.executable, "-c", CONFINED.format(call=code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert done.stdout.split()[:1] == ["True"], done.stderr
    assert (tmp_path / "mine").is_file()


@pytest.mark.parametrize(
    ("code", "status"),
    [("bytearray(1 << 30)", 1), ("[None for _ in iter(int, 1)]", -9)],
)
def test_memory_and_processor_time_are_limited(tmp_path: Path, code: str, status: int) -> None:
    script = CONFINED.format(call=code).replace("20, 5,", "20, 0.1,")
    done = subprocess.run(
        [sys.executable, "-c",
            script, str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == status or "MemoryError" in done.stderr
