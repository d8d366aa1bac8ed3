"""MLflow behind one small class: explicit run ids, batched metrics, no global state.

MLflow is imported only when a run is opened: a command that reuses everything never pays for it.
"""

import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

KEY_TAG = "r1kit.key"
MAX_BATCH_METRICS = 900
"""MLflow takes at most 1000 in one request."""
MAX_COST_SHARE = 0.01
"""Share of a run's time that writing metrics may take."""
MIN_SECONDS_BETWEEN_WRITES = 1.0
MAX_PARAM_CHARACTERS = 6000
CLIENTS = ("boto3", "botocore", "mlflow", "requests", "sqlalchemy", "sqlite3", "urllib3")
"""Packages whose errors mean that MLflow's store did not do what it was asked."""


@functools.cache
def connect(uri: str) -> "MlflowClient":
    """A client of the tracking server or database at `uri`, quiet and without telemetry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def client_of(workspace: Workspace) -> "MlflowClient":
    """The workspace's client."""
    return connect(workspace.mlflow_uri)


@contextlib.contextmanager
def answering(workspace: Workspace) -> Iterator[None]:
    """Say in one sentence that MLflow's store does not answer. Raises ValueError for the errors of its client."""
    try:
        yield
    except Exception as error:  # MLflow lets its many clients' errors through, which share no class; others go on
        if (what := client_error(error)) is None:
            raise
        raise ValueError(
            f"MLflow's store at {workspace.mlflow_uri} does not answer as it should ({what}); nothing is left half "
            "done that the next command does not finish or undo: run again when it does"
        ) from error


def client_error(error: Exception) -> str | None:
    """The first line of an error of MLflow or of one of its clients; None for any other error."""
    if type(error).__module__.partition(".")[0] not in CLIENTS:
        return None
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return said[0] if said else type(error).__name__


def experiment_id(workspace: Workspace, name: str) -> str:
    """The experiment called `name`, made at first use with an artifact prefix of its own."""
    client = client_of(workspace)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = workspace.mlflow_uri.startswith("sqlite:///")
    location = (workspace.artifacts_dir / name).as_uri() if local else None
    return client.create_experiment(name, artifact_location=location)


@dataclass
class TrackingRun:
    """One MLflow run, addressed by its id. A context manager: leaving it closes the run."""

    workspace: Workspace
    run_id: str
    artifact_uri: str
    _pending: list[Any] = field(default_factory=list, repr=False)
    _written_at: float = field(default_factory=time.monotonic, repr=False)
    _write_seconds: float = field(default=0.0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def client(self) -> "MlflowClient":
        """The client that the run was opened with."""
        return client_of(self.workspace)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note the metrics of a step. They are written in batches, seldom enough to cost at most 1 %."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._lock:
            self._pending += [Metric(name, float(value), now, step) for name, value in metrics.items()]
            pause = max(MIN_SECONDS_BETWEEN_WRITES, self._write_seconds / MAX_COST_SHARE)
            if time.monotonic() - self._written_at >= pause:
                self._write()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; long values are cut, the ledger has them whole."""
        from mlflow.entities import Param

        cut = [Param(name, str(value)[:MAX_PARAM_CHARACTERS]) for name, value in params.items()]
        for start in range(0, len(cut), 100):
            self.client.log_batch(self.run_id, params=cut[start : start + 100])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or change tags."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def flush(self) -> None:
        """Write the metrics that still wait."""
        with self._lock:
            self._write()

    def close(self, status: RunStatus = "FINISHED") -> None:
        """Write what waits and end the run."""
        self.flush()
        self.client.set_terminated(self.run_id, status=status)

    def _write(self) -> None:
        started = time.monotonic()
        while self._pending:
            batch = self._pending[:MAX_BATCH_METRICS]
            self.client.log_batch(self.run_id, metrics=batch)
            del self._pending[: len(batch)]
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("FINISHED")
        else:
            self.close("FAILED" if isinstance(error, Exception) else "KILLED")


def open_run(
    workspace: Workspace,
    stage: str,
    *,
    experiment: str = "r1kit",
    key: str = "",
    tags: Mapping[str, str] | None = None,
) -> TrackingRun:
    """Open the tracked run of a stage.

    With a stage `key`, the run that a kill left open under the same key is gone on with, so that a resumed
    training has one run and one curve.
    """
    client = client_of(workspace)
    home = experiment_id(workspace, experiment)
    if key:
        found = client.search_runs(
            [home], f"tags.`{KEY_TAG}` = '{key}' and attributes.status = 'RUNNING'", max_results=1
        )
        if found:
            return TrackingRun(workspace, found[0].info.run_id, _artifact_uri(found[0]))
    all_tags = {**(tags or {}), "r1kit.stage": stage, **({KEY_TAG: key} if key else {})}
    run = client.create_run(home, run_name=stage, tags=all_tags)
    return TrackingRun(workspace, run.info.run_id, _artifact_uri(run))


def _artifact_uri(run: Any) -> str:
    uri = run.info.artifact_uri
    assert uri, "MLflow gives every run an artifact location"
    return uri
