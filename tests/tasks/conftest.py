"""What tests of the tasks share: a workspace of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """An empty workspace with MLflow on SQLite."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("R1_HOME", str(tmp_path / "r1"))
    yield Workspace(tmp_path / "r1")
