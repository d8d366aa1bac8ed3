"""The Prefect server of a run: the one that PREFECT_API_URL names, else one of the run's own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.isolated import end_with_parent
from tasks.workspace import Workspace

STARTUP_TIMEOUT_SECONDS = 120.0
"""The first start makes the database: about 20 seconds, more on a busy machine."""
UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP", "FOREMAN", "LATE_RUNS", "PAUSE_EXPIRATIONS", "REPOSSESSOR", "SCHEDULER", "TRIGGERS",
)  # fmt: skip
"""Of no use to a server that serves one run."""


def prefect_settings(workspace: Workspace) -> dict[str, str]:
    """Prefect's settings for this process: its home in the workspace, quiet, nothing sent to anyone."""
    return {
        "PREFECT_HOME": str(workspace.prefect_dir),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(workspace.prefect_dir / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
    }


def settle(workspace: Workspace) -> None:
    """Have Prefect, not imported yet, take these settings in this process; what the environment says stays."""
    workspace.prefect_dir.mkdir(parents=True, exist_ok=True)  # Prefect warns of a home that it cannot make
    for name, value in prefect_settings(workspace).items():
        os.environ.setdefault(name, value)


class Server:
    """A Prefect server started at once and waited for later, so that it starts while other things load.

    A context manager; it ends with this process, even with SIGKILL.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log = workspace.prefect_dir / "server.log"
        settle(workspace)
        if os.environ.get("PREFECT_API_URL"):
            return
        workspace.prefect_dir.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self._process = self._start(port, prefect_settings(workspace))
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError where it does not come up."""
        url = os.environ["PREFECT_API_URL"]
        deadline = time.monotonic() + STARTUP_TIMEOUT_SECONDS
        while not answers(url):
            if self._process is None:
                raise ValueError(f"no Prefect server answers at {url} (PREFECT_API_URL); start it, or unset that")
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not start; its log is {self._log}")
            time.sleep(0.1)

    def _start(self, port: int, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
        spec = find_spec("prefect")  # found, not imported: that takes a second or two
        assert spec is not None and spec.origin is not None, "the lock has Prefect"
        services = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in UNUSED_SERVICES}
        own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        command = [
            sys.executable, "-m", "uvicorn", "--app-dir", str(Path(spec.origin).parent.parent),
            "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port),
            "--log-level", "error", "--lifespan", "on",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **settings, **services, **own, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which then stops the server itself
                preexec_fn=end_with_parent,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            os.environ.pop("PREFECT_API_URL", None)
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
            self._process.kill()
            self._process.wait()


def answers(url: str) -> bool:
    """Whether a Prefect server is healthy there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:  # noqa: S310 - our own server
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
