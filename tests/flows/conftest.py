"""What tests of the flows share: a copy of the repository, and one whole run in it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.server import answers
from tests.flows.copies import Copy, Done, files_below, make_copy


@dataclass(frozen=True)
class WholeRun:
    """A copy in which the whole recipe has run once."""

    copy: Copy
    """Its commands use a server that stays up; the run itself used one of its own."""
    done: Done
    files_before: frozenset[str]
    files_after: frozenset[str]

    @property
    def run_id(self) -> str:
        """Of the whole run."""
        return sorted(path.name for path in (self.copy.workspace / "runs").glob("2*"))[0]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeRun]:
    """Made once for all tests of group `recipe`, which run one after another."""
    parent = tmp_path_factory.mktemp("whole")
    copy = make_copy(parent)
    before = frozenset(files_below(parent))
    done = copy.r1("run", "--profile", "micro")
    after = frozenset(files_below(parent))
    if done.code:
        pytest.fail(f"the whole run failed:\n{done.out}\n{done.err}")
    with prefect_server(parent) as url:
        yield WholeRun(copy.with_variables(PREFECT_API_URL=url), done, before, after)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy in which nothing has run."""
    return make_copy(tmp_path_factory.mktemp("untouched"))


@contextlib.contextmanager
def prefect_server(parent: Path) -> Iterator[str]:
    """A Prefect server as a person would start it, on a free port; its address."""
    home = parent / "server"
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"HOME": str(home), "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={"PATH": os.environ["PATH"], "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", **own}, cwd=home,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
