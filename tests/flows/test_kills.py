"""A run may be stopped at any instant, by anyone: the same command finishes it, and ends in the same bits."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.flows.conftest import digests_of_a_whole_run
from tests.flows.copies import RECIPE, Copy, digests, finish, make_copy, mounted, stages, with_status

pytestmark = pytest.mark.timeout(900)

RUN = ("run", "--profile", "micro", "--json")
INSTANT_SECONDS = 150.0


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy whose one workspace goes through all that follows, in order; if root may, on its own disk."""
    parent = tmp_path_factory.mktemp("kills")
    made = make_copy(parent)
    with mounted(parent / "disk", "size=700m") as disk:
        yield made.with_variables(R1_HOME=str(disk / "r1")) if disk else made
        for number in made.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def begun(copy: Copy, when: Callable[[dict[str, Any]], bool]) -> "subprocess.Popen[str]":
    """A run that has come to an instant: the summary as it stands satisfies `when`."""
    known = copy.summary().get("run_id")
    process = copy.start(*RUN)
    deadline = time.monotonic() + INSTANT_SECONDS
    while time.monotonic() < deadline:
        summary = copy.summary()
        if summary.get("run_id") != known and when(summary):
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"the instant did not come: {copy.summary()}")


def running(copy: Copy, name: str, *, checkpoint: bool = False) -> Callable[[dict[str, Any]], bool]:
    """Whether a stage is running now, and has written a checkpoint."""

    def check(summary: dict[str, Any]) -> bool:
        if stages(summary).get(name, {}).get("status") != "running":
            return False
        return not checkpoint or any(copy.workspace.glob("work/*/checkpoints/*"))

    return check


def finished(copy: Copy) -> set[str]:
    """Stages that the latest run has finished or taken again."""
    return with_status(copy.summary(), "ran") | with_status(copy.summary(), "cached")


def test_killed_alone_while_the_base_is_trained(copy: Copy) -> None:
    process = begun(copy, running(copy, "base", checkpoint=True))
    process.kill()
    done = finish(process)
    assert done.code == -signal.SIGKILL and done.out == ""
    assert copy.left_processes() == {}, "the server, the verifiers and the stages end with the run"
    assert finished(copy) == {"data", "validate"}


def test_status_says_that_it_was_killed(copy: Copy) -> None:
    done = copy.r1("status")
    assert done.code == 0 and "killed" in done.out.splitlines()[0] and "r1 run" in done.out.splitlines()[0]


def test_its_whole_group_killed_during_rl(copy: Copy) -> None:
    before = finished(copy)
    process = begun(copy, running(copy, "zero", checkpoint=True))
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL
    assert copy.left_processes() == {}
    assert before <= with_status(copy.summary(), "cached")
    assert "base" in with_status(copy.summary(), "ran")


def test_killed_with_a_stage_beside(copy: Copy) -> None:
    before = finished(copy)
    process = begun(
        copy, lambda summary: any(map(beside(summary), ("evaluate-zero", "evaluate-base", "reward_models-helpful")))
    )
    process.kill()
    finish(process)
    assert copy.left_processes() == {}
    assert before <= with_status(copy.summary(), "cached") | with_status(copy.summary(), "running")


def beside(summary: dict[str, Any]) -> Callable[[str], bool]:
    """Whether a stage is running beside a main one."""
    now = with_status(summary, "running")
    return lambda name: name in now and bool(now & {"zero", "cold_start", "reason"})


def test_ctrl_c_is_one_sentence(copy: Copy) -> None:
    before = finished(copy)
    process = begun(copy, running(copy, "cold_start"))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group
    done = finish(process, timeout=90)
    assert done.code == 130 and done.out == ""
    said = [line for line in done.err.splitlines() if line and line.split()[0] not in RECIPE]
    assert said == ["stopped; the same command goes on from here: finished stages and checkpoints are kept"]
    assert copy.left_processes() == {}
    assert copy.summary()["status"] == "interrupted"
    assert before <= finished(copy)


def test_a_disk_that_fills_up_is_said_and_loses_nothing(copy: Copy) -> None:
    if "R1_HOME" not in copy.variables:
        pytest.skip("only root may mount a disk that can be filled")
    before = finished(copy)
    process = begun(copy, running(copy, "reason"))
    filler = copy.workspace.parent / "filler"
    with filler.open("wb", buffering=0) as stream:
        while process.poll() is None:  # what a finished stage lets go of is taken too
            for piece in (bytes(2**20), bytes(4096)):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(piece)
            time.sleep(0.02)
    done = finish(process)
    filler.unlink()
    assert done.code == 1 and done.out == "" and "Traceback" not in done.err
    error = done.err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "the disk is full" in error and "run the same command again" in error
    assert copy.left_processes() == {}
    assert before <= finished(copy)


def test_two_at_once_and_then_the_end_is_that_of_an_uninterrupted_run(
    copy: Copy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = finished(copy)
    process = begun(copy, lambda summary: bool(with_status(summary, "running")))
    second = copy.r1(*RUN)
    error = second.err.strip()
    assert second.code == 1 and second.out == "" and error.startswith("error: ") and "\n" not in error
    assert f"process {process.pid}," in error and str(copy.workspace) in error
    done = finish(process)
    assert done.code == 0, done.err
    assert with_status(done.json, "cached") >= before
    assert with_status(done.json, "ran") | with_status(done.json, "cached") == RECIPE
    assert digests(done.json) == digests_of_a_whole_run(tmp_path_factory, copy)
    assert not list(copy.workspace.glob("work/*")), "checkpoints of finished stages are let go"
    assert copy.left_processes() == {}
