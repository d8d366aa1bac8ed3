"""A stage in several processes: rank 0 alone is heard, the rank that fails ends all and is named, nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit.config import load
from tasks.isolated import StageCrashed
from tasks.launch import Launcher, launch, launched
from tasks.stage import StageOutput
from tasks.workspace import REPOSITORY
from tests.tasks.test_isolated import context

GONE_SECONDS = 20.0


def run(tmp_path: Path, what: str, heard: list[Any] | None = None, launcher: Launcher = "torchrun") -> StageOutput:
    given = context(tmp_path, what, heard if heard is not None else [])
    return launch("misbehaving", given, processes=2, launcher=launcher, threads=3)


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_rank_0_alone_is_heard(tmp_path: Path, launcher: Launcher) -> None:
    heard: list[Any] = []
    output = run(tmp_path, "behave", heard, launcher)
    assert heard == [(1, 2, {"loss": 0.5}), "half way", (2, 2, {"loss": 0.25})]
    assert output == StageOutput({"made": ("table", tmp_path / "made")}, {"loss": 0.25})
    assert (tmp_path / "made").read_text() == "3", "as many threads as were asked for"


def test_a_users_mistake_stays_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^zero\.steps is too small$"):
        run(tmp_path, "refuse")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("fail in rank 1", "rank 1 of 2 failed: KeyError: 'no such key' (what they printed is in "),
        ("be killed in rank 1", "rank 1 of 2 died without a word, as when killed or out of memory; run again "),
    ],
)
def test_the_rank_that_fails_ends_all_and_is_the_one_named(tmp_path: Path, what: str, sentence: str) -> None:
    started = time.monotonic()
    with pytest.raises(StageCrashed) as caught:
        run(tmp_path, what)
    assert str(caught.value).splitlines()[-1].startswith(sentence)
    assert time.monotonic() - started < 120, "it does not wait for those that wait for the dead"
    assert (tmp_path / "ranks.log").is_file()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_the_run_ends_all_ranks_end(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches the run alone; after SIGKILL it can do nothing for them any more."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        "from pathlib import Path; from tests.tasks.test_launch import run; "
        "run(Path(sys.argv[1]), 'hang together')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    files = [tmp_path / "pid-0", tmp_path / "pid-1"]
    _until(lambda: all(file.is_file() and file.read_text().endswith("\n") for file in files), 60)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode in (-number, 1)
    assert number == signal.SIGKILL or told.strip().endswith("KeyboardInterrupt")
    pids = {int(pid) for file in files for pid in file.read_text().split()}
    _until(lambda: not any(map(_alive, pids)), GONE_SECONDS)


def test_who_does_not_know_the_word_is_not_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes to the door: nothing of theirs is unpickled, and the ranks come in all the same."""
    listen = socket.create_server

    def with_a_stranger(*given: Any, **more: Any) -> socket.socket:
        door = listen(*given, **more)
        stranger = socket.create_connection(door.getsockname())
        stranger.sendall(b"\0\0\0\x0a" + b"0123456789")
        strangers.append(stranger)
        return door

    strangers: list[socket.socket] = []
    monkeypatch.setattr("tasks.launch.socket.create_server", with_a_stranger)
    assert run(tmp_path, "behave").metrics == {"loss": 0.25}
    assert strangers[0].recv(1) == b""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [((), False), (("runtime.processes=2",), True), (("runtime.zero_stage=1",), True)],
)
def test_what_is_launched(settings: tuple[str, ...], expected: bool) -> None:
    config = load(REPOSITORY / "pipeline.yaml", "tiny", settings)
    assert launched("zero", config) is expected and not launched("data", config)
    assert os.environ.get("RANK") is None
