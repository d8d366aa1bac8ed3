"""A copy of this repository with a profile `micro`, in which `r1` runs as a stranger would run it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.workspace import REPOSITORY

MICRO = Path(__file__).parent / "micro.yaml"
STAGES = (
    "data", "validate", "base", "reward_models-helpful", "reward_models-harmless", "zero", "cold_start", "reason",
    "reject", "refine", "distill-twin", "distill-half", "prefer",
)  # fmt: skip
MODELS = ("base", "zero", "dev1", "dev2", "dev3", "r1", "distill-twin", "distill-half")
EVALUATIONS = tuple(f"evaluate-{model}" for model in MODELS)
RECIPE = {*STAGES, *EVALUATIONS, "register"}
TIMEOUT_SECONDS = 280.0
GONE_SECONDS = 20.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Copy:
    """The copy, a home directory and a directory for temporary files, all of its own."""

    root: Path
    home: Path
    scratch: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables."""

    def with_variables(self, **variables: str) -> "Copy":
        """The same copy, its commands in another environment."""
        return Copy(self.root, self.home, self.scratch, {**self.variables, **variables})

    @property
    def workspace(self) -> Path:
        """`.r1`, or what R1_HOME names."""
        return Path(self.variables.get("R1_HOME", self.root / ".r1"))

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands: nothing of this machine's settings but what finds programs."""
        own = {"HOME": str(self.home), "TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
        own["PYTHONFAULTHANDLER"] = "1"
        return {"PATH": os.environ["PATH"], "R1_SUBMITTER": "submitter@example.org", **own, **self.variables}

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start `r1 …` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *command], cwd=self.root, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def r1(self, *command: str, typed: str = "", timeout: float = TIMEOUT_SECONDS) -> Done:
        """Run `r1 …` to its end."""
        process = self.start(*command)
        try:
            return finish(process, typed, timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, *options: str) -> dict[str, Any]:
        """`r1 run` on profile micro, which must finish; its summary comes back."""
        done = self.r1("run", "--profile", "micro", "--json", *options)
        assert done.code == 0, done.err
        return done.json

    def python(self, code: str) -> str:
        """What a program prints that has the copy's packages."""
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout

    def summary(self, run: str = "latest") -> dict[str, Any]:
        """summary.json of a run as it stands; empty where there is none."""
        path = self.workspace / "runs" / run / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def entries(self) -> list[dict[str, Any]]:
        """All entries of the ledger, oldest first."""
        code = (
            "from tasks.ledger import open_ledger; from tasks.workspace import find_workspace; import json; "
            "print(json.dumps([r.entry.model_dump(mode='json') for r in open_ledger(find_workspace()).entries()]))"
        )
        return json.loads(self.python(code))

    @contextlib.contextmanager
    def changed(self, path: str, change: Callable[[str], str]) -> Iterator[None]:
        """One file of the copy changed for a while."""
        file = self.root / path
        before = file.read_text()
        after = change(before)
        assert after != before, f"{path} has nothing to change"
        file.write_text(after)
        try:
            yield
        finally:
            file.write_text(before)

    def processes(self) -> dict[int, str]:
        """Processes of this copy, by their working directory or their environment: number → command line."""
        marks = (str(self.root).encode(), f"HOME={self.home}".encode())
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                where = os.fsencode((directory / "cwd").readlink()) + b"\0" + (directory / "environ").read_bytes()
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and any(mark in where for mark in marks):
                    found[int(directory.name)] = command
        return found

    def left_processes(self) -> dict[int, str]:
        """Processes that are still there after a while in which they should have ended."""
        deadline = time.monotonic() + GONE_SECONDS
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


def finish(process: "subprocess.Popen[str]", typed: str = "", timeout: float = TIMEOUT_SECONDS) -> Done:
    """Wait for a command. One that does not end shows where its threads are."""
    try:
        out, err = process.communicate(typed, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        _, err = process.communicate()
        raise AssertionError(f"it was still running after {timeout:.0f} seconds:\n{err[-8000:]}") from None
    return Done(process.returncode, out, err)


def make_copy(parent: Path) -> Copy:
    """Copy what git has or would have, add the profile, and commit it: DVC wants a repository."""
    copy = Copy(parent / "copy", parent / "home", parent / "tmp")
    for directory in (copy.root, copy.home, copy.scratch):
        directory.mkdir()
    for name in _listed_files():
        target = copy.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    _add_profile(copy.root)
    with (copy.root / "flows" / "__init__.py").open("a") as stream:
        stream.write("# This code is a copy's: a run of it has another code digest.\n")
    identity = ["-c", "user.email=submitter@example.org", "-c", "user.name=Submitter"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "A copy"]):
        subprocess.run(["git", *command], cwd=copy.root, check=True, env=copy.environment, timeout=60)
    return copy


def _listed_files() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    made_by_runs = {"dvc.lock"}
    names = [name for name in listed.stdout.split("\0") if name and name not in made_by_runs]
    return [name for name in names if (REPOSITORY / name).is_file()]


def _add_profile(root: Path) -> None:
    """`micro` as the last profile of pipeline.yaml, and among those that dvc.yaml pins."""
    indented = "".join(f"    {line}\n" for line in MICRO.read_text().splitlines())
    with (root / "pipeline.yaml").open("a") as stream:
        stream.write(f"\n  micro:\n{indented}")
    dvc = root / "dvc.yaml"
    dvc.write_text(dvc.read_text().replace("      - tiny\n", "      - tiny\n      - micro\n"))


def stages(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Stage name → what the summary says of it."""
    return {stage["name"]: stage for stage in summary.get("stages", ())}


def with_status(summary: Mapping[str, Any], status: str) -> set[str]:
    """Names of the stages with a status."""
    return {name for name, stage in stages(summary).items() if stage["status"] == status}


def digests(summary: Mapping[str, Any]) -> dict[str, str]:
    """Stage/role → digest of everything made that is a function of the inputs: an evaluation has measured times."""
    return {
        f"{name}/{role}": output["digest"]
        for name, stage in stages(summary).items()
        for role, output in stage["outputs"].items()
        if stage["stage"] != "evaluate"
    }


def files_below(root: Path) -> set[str]:
    """Paths of all files, but those that Python compiles."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
    }


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path | None]:
    """A file system in memory, mounted there; None where this user may not."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
