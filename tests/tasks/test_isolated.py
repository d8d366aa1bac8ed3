"""A stage in a process of its own: what it says arrives, however it ends is told, and nothing outlives the run."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.isolated import Processes, StageCrashed, StageStopped
from tasks.stage import StageContext, StageOutput
from tests.tasks.misbehaving import Orders


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes(preload=())
    yield made
    made.stop()


def context(tmp_path: Path, what: str, heard: list[Any]) -> StageContext:
    return StageContext(
        name="misbehaving", variant="", config=Orders(what),  # pyright: ignore[reportArgumentType]
        seed=0, key="sha256:0", workdir=tmp_path,
        cache_dir=tmp_path, inputs={}, digests={}, log=lambda *step: heard.append(step), say=heard.append,
    )  # fmt: skip


def run(
    processes: Processes, tmp_path: Path, what: str, heard: list[Any] | None = None, threads: int = 1
) -> StageOutput:
    return processes.call("misbehaving", context(tmp_path, what, heard if heard is not None else []), threads)


def test_what_a_stage_says_arrives_in_order(processes: Processes, tmp_path: Path) -> None:
    heard: list[Any] = []
    output = run(processes, tmp_path, "behave", heard, threads=3)
    assert heard == [(1, 2, {"loss": 0.5}), "half way", (2, 2, {"loss": 0.25})]
    assert output == StageOutput({"made": ("table", tmp_path / "made")}, {"loss": 0.25})
    assert (tmp_path / "made").read_text() == "3", "as many threads as were asked for"


def test_a_users_mistake_stays_one(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^zero\.steps is too small$"):
        run(processes, tmp_path, "refuse")


def test_an_error_of_the_disk_keeps_its_number_and_its_file(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        run(processes, tmp_path, "miss a file")
    assert (missing.value.errno, missing.value.filename) == (errno.ENOENT, "/no/such/file")
    with pytest.raises(OSError, match="No space left") as full:
        run(processes, tmp_path, "fill the disk")
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("fail", ("Traceback", "misbehaving.py", "KeyError: 'no such key'")),
        ("return nonsense", ("Traceback", "pickle")),
        ("exit", ("misbehaving died (exit code 3)", "run again")),
        ("vanish", ("misbehaving died (exit code 4)", "run again")),
        ("be killed", ("misbehaving died (signal SIGKILL, perhaps out of memory)", "run again to go on")),
        ("crash", ("misbehaving died (signal SIGSEGV)", "run again")),
    ],
)
def test_however_it_ends_is_told(processes: Processes, tmp_path: Path, what: str, parts: tuple[str, ...]) -> None:
    heard: list[Any] = []
    with pytest.raises(StageCrashed) as caught:
        run(processes, tmp_path, what, heard)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert heard[:2] == [(1, 2, {"loss": 0.5}), "half way"], "what was said before is not lost"


def test_stopping_kills_what_runs_and_starts_nothing_more(processes: Processes, tmp_path: Path) -> None:
    told: list[BaseException] = []

    def call() -> None:
        try:
            run(processes, tmp_path, "hang")
        except StageStopped as error:
            told.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    limit = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    processes.stop()
    thread.join(20)
    assert not thread.is_alive() and "was stopped" in str(told[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(StageStopped, match="was not started"):
        run(processes, tmp_path, "behave")


def test_several_run_beside_each_other(processes: Processes, tmp_path: Path) -> None:
    outputs: dict[int, StageOutput] = {}

    def call(number: int) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        outputs[number] = run(processes, place, "behave", threads=number)

    threads = [threading.Thread(target=call, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {number: (tmp_path / str(number) / "made").read_text() for number in outputs} == {1: "1", 2: "2", 3: "3"}
