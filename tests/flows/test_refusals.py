"""What cannot work is said in one sentence, before anything is begun, and loses nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.copies import Copy, Done, mounted

pytestmark = pytest.mark.timeout(300)

MICRO = ("run", "--profile", "micro")


def sentence(done: Done) -> str:
    """The error at the end of a failed command, whatever progress it told before."""
    assert done.code == 1 and done.out == ""
    lines = done.err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in done.err, done.err
    return lines[-1].removeprefix("error: ")


def only_sentence(done: Done) -> str:
    """The same of a command that began nothing."""
    assert len(done.err.strip().splitlines()) == 1, done.err
    return sentence(done)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "zero.stepz=3"), ("--set", "zero.stepz", "'steps'")),
        (("--set", "zero.steps=many"), ("--set", "zero.steps", "'many'", "whole number")),
        (("--set", "zero.steps=0"), ("--set", "zero.steps", "greater than 0")),
        (("--set", "zero"), ("--set", "zero")),
        (("--profile", "tinny"), ("tinny", "tiny")),
        (("--from", "reasonn"), ("--from", "reasonn", "reason")),
        (("--until", "nowhere"), ("--until", "nowhere")),
        (("--from", "refine", "--until", "zero"), ("--from refine", "--until zero")),
        (("--mirror", "not-there"), ("--mirror", "not-there")),
        (("--config", "not-there.yaml"), ("not-there.yaml",)),
        (("--config", "README.md"), ("README.md",)),
    ],
)
def test_a_request_that_makes_no_sense(untouched: Copy, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    told = only_sentence(untouched.r1(*MICRO, *options))
    assert all(word in told for word in words), told
    assert not list(untouched.workspace.glob("runs/*")) and not (untouched.root / "data").exists()


def test_a_workspace_that_is_a_file(untouched: Copy, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    told = only_sentence(untouched.with_variables(R1_HOME=str(place)).r1(*MICRO))
    assert str(place) in told and "not a directory" in told and place.read_text() == "mine"


def test_a_server_that_does_not_answer(untouched: Copy, tmp_path: Path) -> None:
    nobody = untouched.with_variables(PREFECT_API_URL="http://127.0.0.1:9/api", R1_HOME=str(tmp_path / "r1"))
    assert "http://127.0.0.1:9/api" in only_sentence(nobody.r1(*MICRO))


@contextlib.contextmanager
def disk_at(place: Path, options: str) -> Iterator[Path]:
    """A disk of its own; only root can have one."""
    with mounted(place, options) as disk:
        if disk is None:
            pytest.skip("only root may mount file systems here")
        yield disk


def test_a_workspace_that_cannot_be_written(untouched: Copy, tmp_path: Path) -> None:
    with disk_at(tmp_path / "disk", "ro") as disk:
        for home in (disk, disk / "r1"):
            told = only_sentence(untouched.with_variables(R1_HOME=str(home)).r1(*MICRO))
            assert str(disk) in told and "cannot be written (Read-only file system)" in told and "R1_HOME" in told


def test_a_disk_with_too_little_room(untouched: Copy, tmp_path: Path) -> None:
    with disk_at(tmp_path / "disk", "size=100m") as disk:
        told = only_sentence(untouched.with_variables(R1_HOME=str(disk / "r1")).r1(*MICRO))
        assert str(disk / "r1") in told and "100 MiB left" in told and "R1_HOME" in told
