"""What tests of the tasks share: a workspace of their own."""

import shutil
from pathlib import Path

import pytest

from tasks.tracking import client_of
from tasks.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace; MLflow, where a test uses it, is on SQLite."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
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
