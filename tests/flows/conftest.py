"""What tests of the flows share: a copy of the repository, and one whole run in it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.server import answers
from tests.flows.copies import Copy, Done, digests, files_below, make_copy


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
    """Made once: the files that use it run one after another in one worker (tests/conftest.py)."""
    parent = tmp_path_factory.mktemp("whole")
    copy = make_copy(parent)
    before = frozenset(files_below(parent))
    done = copy.r1("run", "--profile", "micro")
    after = frozenset(files_below(parent))
    if done.code:
        pytest.fail(f"the whole run failed:\n{done.out}\n{done.err}")
    _shared(tmp_path_factory).write_text(json.dumps(digests(copy.summary())))
    with prefect_server(parent) as url:
        yield WholeRun(copy.with_variables(PREFECT_API_URL=url), done, before, after)


@pytest.fixture(scope="session")
def second_candidate(whole: WholeRun) -> dict[str, Any]:
    """The summary of a run whose R1 is another, so that another candidate was registered."""
    return whole.copy.run("--from", "refine", "--set", "prefer.learning_rate=0.003")


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy in which nothing has run."""
    return make_copy(tmp_path_factory.mktemp("untouched"))


def digests_of_a_whole_run(tmp_path_factory: pytest.TempPathFactory, copy: Copy) -> dict[str, str]:
    """What an uninterrupted run makes: the one of `whole`, which another worker of pytest has made; else one more."""
    shared = _shared(tmp_path_factory)
    if shared.is_file():
        return json.loads(shared.read_text())
    return digests(copy.with_variables(R1_HOME=str(copy.root.parent / "uninterrupted")).run())


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that all workers of this test session know."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "digests.json"


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
