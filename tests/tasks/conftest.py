"""What tests of the tasks share: a workspace of their own."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.seaweed import S3Server, seaweed


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace; MLflow, where a test uses it, is on SQLite."""
    for name in ("MLFLOW_TRACKING_URI", "R1_LEDGER", "OPENLINEAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("R1_HOME", str(tmp_path / "r1"))
    monkeypatch.setenv("R1_SUBMITTER", "submitter@example.org")
    return Workspace(tmp_path / "r1")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as it is after its migrations, which take a second or two."""
    workspace = Workspace(tmp_path_factory.mktemp("mlflow"))
    client_of(workspace).search_experiments()
    return workspace.root / "mlflow.db"


@pytest.fixture
def tracked(workspace: Workspace, empty_database: Path) -> Workspace:
    """A workspace whose MLflow database is ready."""
    workspace.root.mkdir(parents=True)
    shutil.copy(empty_database, workspace.root / "mlflow.db")
    return workspace


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on this machine."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and boto3's environment set to reach it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=name)
    return name
