"""How long threads spin while they wait for one another, by whether other processes want the cores."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

SPINS = "import os, flows; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.fixture
def busy_cores() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for process in busy:
            while not _processor_seconds(process.pid):
                pass
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spins(**own: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | own
    return subprocess.run(
        [sys.executable, "-c", SPINS], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("busy_cores")
def test_threads_spin_briefly_where_other_processes_are_at_work_unless_told_otherwise() -> None:
    assert _spins() == "3000"
    assert _spins(GOMP_SPINCOUNT="77") == "77"
