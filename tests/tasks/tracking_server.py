"""A real MLflow server on this machine, whose artifacts lie on S3."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

START_SECONDS = 120
HOST = "127.0.0.1"


@contextlib.contextmanager
def mlflow_server(
    folder: Path, database: Path, store: str, *, through: bool, variables: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A server's address; killed on leaving.

    Args:
        folder: for its log.
        database: SQLite file of its backend.
        store: s3://bucket/prefix of the artifacts.
        variables: of its environment, where they are not those of this process.
        through: clients send artifacts through the server (`mlflow-artifacts:/`); else they speak to S3 themselves.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    way = ["--serve-artifacts", "--artifacts-destination", store]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{database}",
        *(way if through else ["--no-serve-artifacts", "--default-artifact-root", store]),
    ]  # fmt: skip
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {**own, **(variables or {})}
    with (folder / "mlflow-server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        _wait(f"http://{HOST}:{port}/health", process)
        yield f"http://{HOST}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert process.poll() is None, "the MLflow server ended"
            assert time.monotonic() < until, "the MLflow server does not answer"
            time.sleep(0.2)
