"""One run at a time in a workspace, and every disk that does not play along is explained in one sentence."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import workspace as module
from tasks.workspace import REPOSITORY, Workspace, check_writable, explain, find_workspace, hold, is_held

HOLDER = """
import sys, time
from pathlib import Path
from tasks.workspace import Workspace, hold
with hold(Workspace(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("named", "address"),
    [("", "{root}/ledger"), ("s3://b/p", "s3://b/p"), ("~/l", "{home}/l"), ("{root}/x/../y", "{root}/y")],
)
def test_the_ledger_lies_where_it_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, address: str
) -> None:
    root = tmp_path.resolve()
    monkeypatch.setenv("R1_LEDGER", named.format(root=root))
    assert Workspace(root).ledger_address == address.format(root=root, home=Path.home().resolve())


def test_what_is_seen_of_one_ledger_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memories = set()
    for named in ("", "s3://b/p", "s3://b/p/", "s3://b/q"):
        monkeypatch.setenv("R1_LEDGER", named)
        memories.add((Workspace(tmp_path).ledger_seen, Workspace(tmp_path).ledger_index))
    assert len(memories) == 3


def refused(workspace: Workspace) -> str:
    with pytest.raises(ValueError) as caught, hold(workspace):
        pass
    message = str(caught.value)
    assert "\n" not in message and "R1_HOME" in message
    return message


def test_a_second_holder_is_refused_and_told_who_holds_it(workspace: Workspace) -> None:
    command = [sys.executable, "-c", HOLDER, str(workspace.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert is_held(workspace)
        message = refused(workspace)
        assert f"process {holder.pid}," in message and str(workspace.root) in message
        assert is_held(workspace), "asking changes nothing"
        holder.kill()
    assert not is_held(workspace)
    with hold(workspace):
        assert is_held(workspace), "a killed run leaves nothing held"
        assert f"process {os.getpid()}," in refused(workspace)
    assert not is_held(workspace)


def test_nobody_holds_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    assert not is_held(Workspace(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_file_in_its_place_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refused(Workspace(root))
        assert str(tmp_path / "file") in message and "not a directory" in message
    assert (tmp_path / "file").read_text() == "x"


READ_ONLY = """
import os, sys
from pathlib import Path
from tasks.workspace import Workspace, check_writable
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    check_writable(Workspace(Path(sys.argv[1])))
except ValueError as error:
    print(error)
"""


def test_a_directory_that_cannot_be_written_is_explained(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("read-only")
    root.chmod(0o555)
    command = [sys.executable, "-c", READ_ONLY, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    root.chmod(0o755)
    assert "cannot be written (Permission denied); make it writable, or set R1_HOME" in done.stdout, done.stderr
    assert str(root) in done.stdout and done.stdout.count("\n") == 1


def test_a_full_disk_is_explained(workspace: Workspace) -> None:
    workspace.root.mkdir(parents=True)
    (workspace.root / f".probe.{os.getpid()}").symlink_to("/dev/full")  # the kernel's own full disk
    with pytest.raises(ValueError, match=r"^the disk is full \(.*\): free some space and run the same command again"):
        check_writable(workspace)


def test_a_disk_that_is_nearly_full_is_explained(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_FREE_BYTES", 1 << 62)
    message = refused(workspace)
    assert "MiB left on its disk" in message and str(workspace.root) in message
    assert not is_held(workspace)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.EPIPE])
def test_other_errors_are_not_explained_away(workspace: Workspace, number: int) -> None:
    assert explain(OSError(number, os.strerror(number)), workspace) is None


def test_the_environment_names_the_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("R1_HOME", str(tmp_path / "x" / ".." / "y"))
    assert find_workspace().root == tmp_path / "y"
    monkeypatch.delenv("R1_HOME")
    assert find_workspace().root == REPOSITORY / ".r1"


def test_everything_lies_in_one_directory(workspace: Workspace) -> None:
    places = [getattr(workspace, name) for name in vars(Workspace) if name.endswith("_dir")] + [workspace.lock]
    assert len(set(places)) == len(places) >= 9
    assert all(place.parent == workspace.root for place in places)
